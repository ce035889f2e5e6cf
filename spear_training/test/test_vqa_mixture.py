"""A mixture draws exact shares, every picture once a pass, and the same at every index again."""

import pickle
from collections import Counter
from dataclasses import replace

import pytest
from question_fixture import MUG, picture, shelf, write_run

from spear_training.annotation.stages import JobError
from spear_training.data.mixture import MixtureOrder
from spear_training.vqa.dataset import (
    Mixture,
    MixtureSet,
    VqaSet,
    load_mixtures,
    make_example,
    mixture,
)
from spear_training.vqa.pairs import QuestionSettings

SIX = QuestionSettings()


@pytest.fixture
def mixed(tmp_path):
    """Return a mixture of two small datasets, and their folders."""
    folders = {
        "kitchen": write_run(tmp_path / "a", [shelf(n) for n in range(30)], 3),
        "lab": write_run(tmp_path / "b", [shelf(n) for n in range(100, 107)]),
    }
    return Mixture("two", "for tests", {"kitchen": 0.9, "lab": 0.1}, SIX), folders


def test_the_papers_mixture_draws_one_sample_in_ten_from_bridge():
    paper = mixture("paper")
    order = MixtureOrder(list(paper.data_sets.values()), [200_000, 30_000], seed=1)
    names = list(paper.data_sets)
    for first in (0, 10_000, 123_450):
        drawn = order.draw(first, 1000).dataset
        counts = Counter(names[number] for number in drawn)
        assert counts == {"egoexo4d": 900, "bridge": 100}
    assert {name for name, weight in paper.settings.weights.items() if weight} == {
        "keypoints",
        "box",
        "object_distance",
        "box_distance",
        "backprojection",
        "comparison",
    }
    baseline = mixture("random_points")
    assert baseline.data_sets == paper.data_sets
    assert set(baseline.settings.weights) == {"pixel_points"}


def test_a_set_gives_path_aspect_and_the_example_of_the_record(tmp_path):
    pictures = [replace(shelf(number), native_aspect=4 / 3) for number in range(9)]
    pictures[4] = replace(pictures[4], status="failed", objects=(), pixel_points=())
    pictures[6] = picture(name="empty")
    folder = write_run(tmp_path, pictures, 4)
    found = VqaSet(folder)
    assert len(found) == 7
    for index, number in enumerate((0, 1, 2, 3, 5, 7, 8)):
        sample = found.example(index, 11)
        assert sample.image == (tmp_path / "images" / pictures[number].image).resolve()
        assert sample.native_aspect == pytest.approx(4 / 3, abs=1e-5)
        assert sample.example.id == pictures[number].id
        stored = found.records.annotation(number)
        assert sample.example == make_example(stored, 11)
        assert sample.example != found.example(index, 12).example
    with_pixels = QuestionSettings(weights={"pixel_points": 1.0})
    assert len(VqaSet(folder, with_pixels)) == 8


def test_samples_depend_on_seed_and_index_alone(mixed):
    stream = MixtureSet(*mixed, seed=5)
    samples = [stream.sample(index) for index in range(200)]
    again = pickle.loads(pickle.dumps(MixtureSet(*mixed, seed=5)))
    for index in (199, 3, 77, 0):
        assert again.sample(index) == samples[index]
    another = MixtureSet(*mixed, seed=6)
    other = [another.sample(index) for index in range(50)]
    assert [each.example for each in other] != [each.example for each in samples[:50]]


def test_each_pass_has_every_picture_once_and_other_questions(mixed):
    stream = MixtureSet(*mixed)
    samples = [stream.sample(index) for index in range(700)]
    ids = [sample.example.id for sample in samples]
    kitchen = [name for name in ids if int(name.split("/")[1]) < 100]
    lab = [name for name in ids if name not in kitchen]
    assert len(kitchen) == 630 and len(lab) == 70
    for own, count in ((kitchen, 30), (lab, 7)):
        for first in range(0, len(own), count):
            assert len(set(own[first : first + count])) == count
    assert kitchen[:30] != kitchen[30:60]
    of_one = [sample.example for sample in samples if sample.example.id == "shelf/3"]
    assert len(of_one) == 21 and len(set(of_one)) == 21


def test_a_picture_with_nothing_to_ask_gives_way_to_the_next(tmp_path):
    mute = [picture(replace(MUG, label="<coord0001>"), name=f"mute/{n}") for n in range(5)]
    mixed = Mixture("one", "for tests", {"a": 1.0}, SIX)
    both = write_run(tmp_path / "both", [*mute, shelf(1)])
    stream = MixtureSet(mixed, {"a": both})
    assert {stream.sample(index).example.id for index in range(12)} == {"shelf/1"}
    none = write_run(tmp_path / "none", mute)
    with pytest.raises(JobError, match="5 pictures on end have nothing to ask about"):
        MixtureSet(mixed, {"a": none}).sample(0)


def test_folders_must_be_those_of_the_mixture(mixed):
    two, folders = mixed
    with pytest.raises(JobError, match="no folder for lab: give kitchen=FOLDER, lab=FOLDER"):
        MixtureSet(two, {"kitchen": folders["kitchen"]})
    with pytest.raises(JobError, match="has no attic"):
        MixtureSet(two, folders | {"attic": folders["lab"]})
    with pytest.raises(JobError, match="no mixture 'papre': choose from paper, random_points"):
        mixture("papre")


def test_an_unfinished_run_is_refused(tmp_path):
    folder = write_run(tmp_path, [shelf(n) for n in range(9)], 3)
    (folder / "annotations-00001-of-00003.jsonl").unlink()
    with pytest.raises(JobError, match=r"1 of 3 shards are not finished \(the first is 1\)"):
        VqaSet(folder)
    with pytest.raises(JobError, match="run.json is not there"):
        VqaSet(tmp_path)


def test_a_run_without_usable_pictures_is_refused(tmp_path):
    with pytest.raises(JobError, match="none of its 2 pictures can be used"):
        VqaSet(write_run(tmp_path, [picture(name="a"), picture(name="b")]))


def test_a_damaged_shard_is_named(tmp_path):
    folder = write_run(tmp_path, [shelf(n) for n in range(4)])
    shard = folder / "annotations-00001-of-00002.jsonl"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-100])
    with pytest.raises(JobError, match="00001-of-00002.jsonl, line 2 is no annotation, or it is"):
        VqaSet(folder)
    shard.write_bytes(whole.replace(b'"objects"', b'"subjects"'))
    with pytest.raises(JobError, match="byte 0: no annotation"):
        VqaSet(folder).example(2, 0)


def test_a_file_that_is_written_anew_is_noticed(tmp_path):
    folder = write_run(tmp_path, [shelf(n) for n in range(4)], 1)
    found = VqaSet(folder)
    shard = folder / "annotations-00000-of-00001.jsonl"
    shard.write_bytes(b" " * 7 + shard.read_bytes())
    with pytest.raises(JobError, match="was it written anew"):
        found.example(3, 0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: {about: x, data_sets: {b: 0}, weights: {box: 1}}", "mixture a: shares of b"),
        ("a: {about: x, data_sets: {b: 1}, weights: {bax: 1}}", "mixture a: there is no category"),
        ("a: {about: x, weights: {box: 1}}", "mixture a: 'data_sets' is missing"),
        ("a: {about: x, data_sets: {b: 1}, pairs: 3}", "mixture a: .*pairs"),
        ("a: 3", "mixture a: "),
        ("a: [", "holds no mixtures"),
        ("3", "holds no mixtures"),
    ],
)
def test_a_file_of_mixtures_is_checked(tmp_path, text, said):
    path = tmp_path / "mixtures.yaml"
    path.write_text(text)
    with pytest.raises(JobError, match=said):
        load_mixtures(path)
