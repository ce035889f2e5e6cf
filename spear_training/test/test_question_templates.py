"""The file of phrases is checked when it is read."""

import pytest
import yaml

from spear_policy.inference.spatial_model import BY_LABEL
from spear_policy.model.answers import Point
from spear_training.vqa.asking import FILE, Template, TemplateError, load_phrases

POINT = Point((1.0, 2.0, 3.0))


@pytest.fixture
def changed(tmp_path):
    """Return a function that reads the phrases after a change to the stored values."""

    def read(change):
        values = yaml.safe_load(FILE.read_text())
        change(values)
        path = tmp_path / "templates.yaml"
        path.write_text(yaml.safe_dump(values))
        return load_phrases(path)

    return read


def test_every_category_has_at_least_six_phrases():
    phrases = load_phrases()
    for whats in phrases.questions.values():
        assert all(len(templates) >= 6 for templates in whats.values())
    assert all(len(each.questions) >= 6 for each in phrases.comparisons.values())


def test_what_the_node_asks_by_label_is_trained_on():
    phrases = yaml.safe_load(FILE.read_text())
    assert BY_LABEL["box"].format(label="{object}") in phrases["box"]["vertices"]
    assert BY_LABEL["point"].format(label="{object}") in phrases["keypoints"]["centre"]


def test_phrases_are_questions_and_requests():
    phrases = load_phrases()
    for whats in phrases.questions.values():
        for templates in whats.values():
            ends = {template.text[-1] for template in templates}
            assert ends == {"?", "."}
    for relation in phrases.comparisons.values():
        assert {template.text[-1] for template in relation.questions} == {"?", "."}


def test_words_become_part_of_the_phrase_and_points_stay_apart():
    template = Template.parse("From the {start} to {point} , then the {end}.")
    parts = template.fill(start="mug", end="bowl", point=POINT)
    assert parts == ("From the mug to ", POINT, " , then the bowl.")
    assert Template.parse("{point} alone").fill(point=POINT) == (POINT, " alone")
    assert Template.parse("It is {point}").fill(point=POINT) == ("It is ", POINT)


def test_a_label_with_braces_is_only_a_label():
    assert Template.parse("The {object}?").fill(object="{mug}") == ("The {mug}?",)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: v["box"]["vertices"].append("A {thing}?"), r"box, vertices: 'A \{thing\}\?'"),
        (lambda v: v["box"]["vertices"].append("A box?"), "must have each of {object} once"),
        (lambda v: v["box"]["vertices"].append("{object} {object}?"), "once and no other gap"),
        (lambda v: v["box"]["vertices"].append("{object:>9}?"), "must be a name alone"),
        (lambda v: v["box"]["vertices"].append("{object?"), "box, vertices: '{object\\?'"),
        (lambda v: v["box"]["vertices"].append(" {object}?"), "single blanks"),
        (lambda v: v["box"]["vertices"].append("a_{object}?"), "underscores"),
        (lambda v: v["box"]["vertices"].append("<loc0001> {object}?"), "spells out the token"),
        (lambda v: v["box"]["vertices"].append(3), "box, vertices: "),
        (lambda v: v["box"].update(vertices=["The {object}?"]), "at least 6 phrases"),
        (lambda v: v["box"]["vertices"].append(v["box"]["vertices"][0]), "there twice"),
        (lambda v: v["box"].update(corners=[]), "box: there must be exactly vertices"),
        (lambda v: v.pop("box"), "there must be exactly keypoints, box"),
        (lambda v: v["comparison"].pop("left"), "comparison: there must be exactly closer"),
        (lambda v: v["comparison"]["left"].pop("thoughts"), "comparison, left: there must be"),
        (lambda v: v["comparison"]["left"].update(degrees=["left"]), "degrees must be two"),
        (
            lambda v: v["comparison"]["left"]["thoughts"].append("the {object} at {length}"),
            r"left, thoughts: .* must have each of \{object\}, \{point\} once",
        ),
        (
            lambda v: v["comparison"]["nearer"]["questions"].append("{choices}, {degree}?"),
            r"must have each of \{choices\}, \{degree\}, \{reference\}",
        ),
    ],
)
def test_a_phrase_that_cannot_be_filled_is_refused_at_start(changed, change, said):
    with pytest.raises(TemplateError, match=said):
        changed(change)


def test_a_file_that_is_no_yaml_is_refused(tmp_path):
    path = tmp_path / "templates.yaml"
    path.write_text("box: [")
    with pytest.raises(TemplateError, match=r"templates.yaml is no YAML"):
        load_phrases(path)
