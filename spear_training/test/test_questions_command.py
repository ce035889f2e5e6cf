"""`annotate questions` writes bins and questions, counts them, and leaves the records alone."""

import json
from dataclasses import replace

import pytest
from question_fixture import MUG, picture, shelf, write_run

from spear_policy.model.answers import AnswerGrammar
from spear_training.annotation.annotate import main
from spear_training.vqa.bins import FittedBins
from spear_training.vqa.dataset import text_grammar
from spear_training.vqa.pairs import KIND_OF_CATEGORY

PICTURES = [shelf(number) for number in range(40)]
ODD = [
    picture(name="nothing"),
    picture(replace(MUG, label="<coord0001>"), name="nameless"),
    replace(picture(name="lost"), status="failed", reason="read: it is no picture"),
]


@pytest.fixture
def run_folder(tmp_path):
    """Return a folder with 40 pictures and 3 that cannot be asked about."""
    return write_run(tmp_path, PICTURES + ODD)


def lines_of(folder):
    """Return the stored questions."""
    return [json.loads(line) for line in (folder / "questions.jsonl").read_text().splitlines()]


def test_questions_are_written_with_the_bins_and_read_back(run_folder, capsys):
    before = {path.name: path.read_bytes() for path in run_folder.iterdir()}
    assert main(["questions", str(run_folder), "--count", "128"]) == 0
    after = {path.name: path.read_bytes() for path in run_folder.iterdir()}
    assert after.keys() - before.keys() == {"bins.json", "questions.jsonl"}
    assert all(after[name] == content for name, content in before.items())
    grammar: AnswerGrammar = text_grammar(FittedBins.load(run_folder / "bins.json").bins)
    assert grammar.bins.count == 128
    found = lines_of(run_folder)
    assert [line["id"] for line in found] == [each.id for each in PICTURES]
    assert [line["image"] for line in found] == [each.image for each in PICTURES]
    for line in found:
        assert 1 <= len(line["pairs"]) <= 4
        for pair in line["pairs"]:
            assert pair["kind"] == KIND_OF_CATEGORY[pair["category"]]
            grammar.parse_answer(pair["kind"], pair["answer"])
    said = capsys.readouterr().out
    count = sum(len(line["pairs"]) for line in found)
    assert f"{count} questions about 40 of 43 pictures" in said
    assert "1 without: empty: nothing was detected" in said
    assert "1 without: failed: read" in said
    assert "1 without: there is no object that words can name" in said
    assert "128 bins from" in said


def test_the_same_seed_writes_the_same_file_and_another_seed_another(run_folder):
    texts = []
    for seed in ("0", "0", "1"):
        assert main(["questions", str(run_folder), "--seed", seed]) == 0
        texts.append((run_folder / "questions.jsonl").read_bytes())
    assert texts[0] == texts[1] != texts[2]


def test_weights_pairs_and_bins_are_taken(run_folder, tmp_path, capsys):
    assert main(["questions", str(run_folder)]) == 0
    bins = tmp_path / "model_bins.json"
    (run_folder / "bins.json").rename(bins)
    words = ["--weights", "box=1", "--pairs-max", "1", "--bins", str(bins)]
    assert main(["questions", str(run_folder), *words]) == 0
    pairs = [pair for line in lines_of(run_folder) for pair in line["pairs"]]
    assert {pair["category"] for pair in pairs} == {"box"}
    assert len(pairs) == len(lines_of(run_folder))
    assert not (run_folder / "bins.json").exists()


def test_a_named_mixture_fits_one_set_of_bins_by_its_shares(tmp_path):
    folders = {
        "egoexo4d": write_run(tmp_path / "a", PICTURES[:30]),
        "bridge": write_run(tmp_path / "b", PICTURES[30:]),
    }
    named = [f"{name}={folder}" for name, folder in folders.items()]
    out = tmp_path / "both"
    assert main(["questions", *named, "--mixture", "paper", "--out", str(out)]) == 0
    origin = {each.name: each for each in FittedBins.load(out / "bins.json").fitted_on}
    assert {name: each.share for name, each in origin.items()} == {"egoexo4d": 0.9, "bridge": 0.1}
    assert [len(lines_of(folder)) for folder in folders.values()] == [30, 10]


def test_the_baseline_asks_for_pixels_only(run_folder):
    assert main(["questions", str(run_folder), "--mixture", "random_points"]) == 0
    found = lines_of(run_folder)
    assert {pair["category"] for line in found for pair in line["pairs"]} == {"pixel_points"}
    assert "nothing" in {line["id"] for line in found}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{out}", "--weights", "boxes=1"], "there is no category 'boxes'"),
        (["{out}", "--pairs-max", "0"], "pairs_max is 0"),
        (["{out}", "--mixture", "papre"], "there is no mixture 'papre'"),
        (["{out}", "--bins", "none.json"], "none.json cannot be read"),
        (["a={out}", "b={out}"], "several folders need --mixture"),
        (["{out}", "{out}"], "several folders need names"),
        (["a={out}", "a={out}"], "two folders have one name"),
        (["egoexo4d={out}", "--mixture", "paper"], "no folder for bridge"),
        (["egoexo4d={out}", "bridge={out}", "--mixture", "paper"], "2 folders need --out"),
        (["{out}/none"], "run.json is not there"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(run_folder, capsys, words, said):
    assert main(["questions", *(word.format(out=run_folder) for word in words)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("annotate questions: ") and said in error
    assert not (run_folder / "questions.jsonl").exists()


def test_pictures_without_any_question_give_status_1(tmp_path, run_folder):
    assert main(["questions", str(run_folder)]) == 0
    mute = write_run(tmp_path / "mute", [ODD[0]])
    assert main(["questions", str(mute), "--bins", str(run_folder / "bins.json")]) == 1
    assert lines_of(mute) == []
