"""`annotate inspect`: the page is whole and true, and says in words what it cannot show."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from inspect_runs import (
    Page,
    failed,
    inspect,
    run_with_pictures,
    seen,
    shelf,
    write_questions,
)
from question_fixture import picture

from spear_training.annotation.annotate import main
from spear_training.annotation.records import Dropped

EVIL = "<script>alert('x')</script> &amp; \"> <img src=x>"


@pytest.fixture
def run_folder(tmp_path):
    """Return a run of 9 pictures: 5 good ones, 2 without objects, 2 failed."""
    good = [shelf(f"shelf/{number}") for number in range(5)]
    empty = [picture(name=f"bare/{number}") for number in range(2)]
    lost = [failed(f"lost/{number}", "read: lost.jpg is no picture") for number in range(2)]
    return run_with_pictures(tmp_path, good + empty + lost)


def test_the_page_is_whole_and_needs_nothing_else(run_folder):
    code, page = inspect(run_folder)
    assert code == 0
    assert page.addresses == []
    for outside in ("http:", "https:", "<script", "@import", "url("):
        assert outside not in page.source
    assert 'name="viewport"' in page.source
    assert {image.size for image in page.decoded()} == {(840, 630)}
    assert len(page.images) == 5 * 2 + 2 + 2
    assert len(page.sections) == 9 == page.tags["section"]


def test_the_counts_at_the_top_are_those_of_the_records(run_folder):
    text = inspect(run_folder)[1].text
    for words in (
        "9 pictures",
        "5 ok 55.6%",
        "2 empty 22.2%",
        "2 failed 22.2%",
        "10 objects 1.4 a picture",
        "2 labels",
        "0 dropped",
        "read: lost.jpg is no picture failed 2 lost/0",
        "nothing was detected empty 2",
        "9 in 2 shards",
    ):
        assert words in text, words


def test_a_picture_has_sizes_and_distances(run_folder):
    page = inspect(run_folder, "--id", "shelf/3")[1]
    assert list(page.sections) == ["shelf/3"]
    words = page.sections["shelf/3"]
    assert "20.0 x 10.0 x 40.0" in " ".join(words.split())
    assert "1.24" in words  # of the mug's centre, from (-0.3, 0.1, 1.2)


def test_lengths_that_are_not_metric_are_not_called_metres(tmp_path):
    out = run_with_pictures(tmp_path, [replace(shelf("a"), metric=False)], 1)
    page = inspect(out)[1]
    assert "the depth model's own unit" in page.text
    words = " ".join(page.sections["a"].split())
    assert "[units]" in words and "0.200 x 0.100 x 0.400" in words
    assert "[cm]" not in page.text and "in m)" not in page.text


def test_words_of_others_stay_words(tmp_path):
    bad = replace(shelf("a", EVIL, "mug"), id=f"a {EVIL}", dropped=(Dropped(EVIL, EVIL),))
    lost = replace(failed(f"b {EVIL}", f"gemini: said {EVIL}"), image="b.jpg")
    out = run_with_pictures(tmp_path, [bad, lost], 1)
    write_questions(out, **{bad.id: [(EVIL, EVIL, EVIL, "words")]})
    card = json.loads((out / "run.json").read_text())
    card |= {"settings": [{"stage": EVIL, EVIL: EVIL, "prompt": 40 * EVIL}], "list": EVIL}
    (out / "run.json").write_text(json.dumps(card))
    page = inspect(out)[1]
    assert "script" not in page.tags and "x" not in page.addresses
    assert page.text.count("<script>alert") >= 16 + 40
    assert list(page.sections) == [f"a {EVIL}", f"b {EVIL}"]


def test_failed_pictures_are_shown_with_the_reason_and_if_possible_the_picture(tmp_path):
    out = run_with_pictures(
        tmp_path,
        [shelf("a"), failed("b", "gemini: gave no answer (503)"), failed("c", "read: c is cut")],
    )
    (tmp_path / "images/pictures/c.jpg").write_bytes(b"no picture")
    page = inspect(out, "--only", "failed")[1]
    assert list(page.sections) == ["b", "c"]
    assert "gemini: gave no answer (503)" in page.sections["b"]
    assert "The picture cannot be shown: c.jpg is no picture" in page.sections["c"]
    assert len(page.decoded()) == 1


def test_questions_are_shown_with_what_their_tokens_stand_for(run_folder):
    assert main(["questions", str(run_folder), "--count", "64", "--weights", "box=1"]) == 0
    box = "".join(f"<coord{number:04d}>" for number in range(24))
    write_questions(
        run_folder,
        **{
            "shelf/0": [
                ("box", "Where is the mug?", box, "box"),
                ("backprojection", "Where?", "<loc0512><loc0256>", "pixel"),
                ("keypoints", "Which point?", "<coord0003>", "point"),
            ]
        },
    )
    page = inspect(run_folder, "--id", "shelf/0")[1]
    words = " ".join(page.sections["shelf/0"].split())
    edges = json.loads((run_folder / "bins.json").read_text())["edges_m"]
    middles = [(a + b) / 2 for a, b in zip(edges, edges[1:], strict=False)]
    for vertex in range(8):
        told = ", ".join(f"{middles[3 * vertex + axis]:.3f}" for axis in range(3))
        assert f"{vertex} {told} m" in words
    # Row 512.5 of 1024 is 315.3 from the upper edge, 314.8 from the first pixel's centre.
    assert "u, v 210, 315 px" in words
    assert "point answer: found the end after 1 3D tokens: expected 3" in words
    assert "3 questions" in page.text and "box 1 33.3%" in page.text


def test_without_bins_tokens_stay_tokens_and_bins_can_be_given(run_folder, tmp_path, capsys):
    assert main(["questions", str(run_folder), "--count", "64"]) == 0
    (run_folder / "bins.json").rename(tmp_path / "model.json")
    write_questions(run_folder, **{"shelf/0": [("keypoints", "Q?", "<coord0001>" * 3, "point")]})
    page = inspect(run_folder)[1]
    assert "give the file with --bins" in page.text
    assert "<coord0001><coord0001><coord0001>" in page.sections["shelf/0"]
    assert "x, y, z" not in page.sections["shelf/0"]
    page = inspect(run_folder, "--bins", tmp_path / "model.json")[1]
    assert "x, y, z" in page.sections["shelf/0"]
    (run_folder / "bins.json").write_text("{}")
    assert "holds no bins" in inspect(run_folder)[1].text
    assert inspect(run_folder, "--bins", tmp_path / "none.json")[0] == 2
    assert "none.json cannot be read" in capsys.readouterr().err


def test_pictures_that_moved_are_missed_or_given(run_folder, tmp_path, capsys):
    (tmp_path / "images").rename(tmp_path / "moved")
    page = inspect(run_folder)[1]
    assert page.images == []
    assert "No picture can be shown" in page.text and "--images" in page.text
    assert "20.0 x 10.0 x 40.0" in " ".join(page.text.split())
    page = inspect(run_folder, "--images", tmp_path / "moved")[1]
    assert len(page.decoded()) == 14
    assert inspect(run_folder, "--images", tmp_path / "none")[0] == 2
    assert "none is no folder" in capsys.readouterr().err


def test_a_damaged_mask_and_unknown_intrinsics_are_noted(tmp_path):
    torn = replace(seen("mug"), mask={"size": [630, 840], "counts": "0"})
    small = replace(seen("bowl"), mask={"size": [2, 2], "counts": "04"})
    found = replace(picture(torn, small, name="a"), intrinsics=None)
    page = inspect(run_with_pictures(tmp_path, [found], 1))[1]
    words = page.sections["a"]
    assert "mug: the mask is damaged" in words
    assert "bowl: a mask is 2x2, the picture 840x630" in words
    assert "no intrinsics" in words
    assert len(page.decoded()) == 1


def test_many_pictures_make_several_pages_that_know_each_other(run_folder):
    code, first = inspect(run_folder, "--per-page", "4")
    assert code == 0
    names = ["inspect.html", "inspect-2.html", "inspect-3.html"]
    assert set(first.addresses) == set(names[1:])
    others = [Page((run_folder / name).read_text()) for name in names[1:]]
    assert [len(page.sections) for page in (first, *others)] == [4, 4, 1]
    assert "Labels, most frequent first" in first.text
    assert not any("Labels, most frequent first" in page.text for page in others)


def test_the_same_seed_shows_the_same_pictures(run_folder):
    shown = [
        list(inspect(run_folder, "--count", 3, "--seed", seed)[1].sections) for seed in (0, 0, 1)
    ]
    assert shown[0] == shown[1] != shown[2]
    assert all(len(names) == 3 for names in shown)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--count", "0"], "--count is 0"),
        (["--per-page", "0"], "--per-page is 0"),
        (["--id", "shelf/9"], "no record has the id 'shelf/9'"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(run_folder, capsys, words, said):
    assert inspect(run_folder, *words)[0] == 2
    error = capsys.readouterr().err
    assert error.startswith("annotate inspect: ") and said in error
    assert not (run_folder / "inspect.html").exists()


def test_a_folder_without_a_run_or_records_is_told(tmp_path, run_folder, capsys):
    assert main(["inspect", str(tmp_path / "none")]) == 2
    assert "run.json is not there" in capsys.readouterr().err
    for path in run_folder.glob("annotations-*"):
        path.unlink()
    assert inspect(run_folder)[0] == 2
    assert "has no records yet" in capsys.readouterr().err


def test_a_page_that_cannot_be_made_leaves_the_old_one(run_folder, capsys, monkeypatch):
    assert inspect(run_folder)[0] == 0
    before = (run_folder / "inspect.html").read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert inspect(run_folder)[0] == 2
    assert "inspect.html: No space left on device" in capsys.readouterr().err
    assert (run_folder / "inspect.html").read_bytes() == before
    assert not list(run_folder.glob(".*inspect*"))


def test_the_page_goes_where_it_is_wanted(run_folder, tmp_path):
    assert inspect(run_folder, "--page", tmp_path / "new" / "look.html") == (0, None)
    assert Page((tmp_path / "new" / "look.html").read_text()).sections


def test_help_is_quick():
    command = [sys.executable, "-X", "importtime", "-m", "spear_training.annotation.annotate"]
    done = subprocess.run([*command, "inspect", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "examples:" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not imported & {"numpy", "torch", "rich", "cv2", "jinja2", "matplotlib"}
