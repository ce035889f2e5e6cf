"""The detector `grounding_dino` with a real, tiny network of random weights.

What random weights cannot show, how sureness becomes labels, is shown with numbers put in the
place of the network's; its tokenizer stays.
"""

import numpy as np
import pytest
from stage_frames import frame_of, labels, reasons
from tiny_networks import save_grounding_dino

from spear_training.annotation.grounding_dino import (
    GroundingDinoDetector,
    GroundingDinoOptions,
    PhraseText,
    box_iou_2d,
    run_network,
)
from spear_training.annotation.stages import JobError

pytest.importorskip("transformers", reason="the detector grounding_dino needs transformers")

WORDS = ("red", "bowl", "mug", "cut", "##ting", "board")
PHRASES = ("Red bowl", "the mug", "cutting_board")
# In the text "red bowl. mug. cutting board." the tokens are
# [CLS] red bowl . mug . cut ##ting board . [SEP]
RED, BOWL, MUG, CUT, TING, BOARD = 1, 2, 4, 6, 7, 8
LEFT, RIGHT = (10.0, 20.0, 200.0, 220.0), (400.0, 100.0, 700.0, 500.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Write the tiny Grounding DINO."""
    folder = tmp_path_factory.mktemp("dino")
    save_grounding_dino(folder, WORDS)
    return folder


@pytest.fixture
def make(folder):
    """Return a function that makes a detector of it."""

    def make(phrases=PHRASES, **options):
        options = {"model": str(folder), "device": "cpu"} | options
        return GroundingDinoDetector(GroundingDinoOptions(phrases, **options))

    return make


@pytest.fixture(scope="module")
def tokenizer(folder):
    """Return its tokenizer."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture
def detect(make, tokenizer, monkeypatch):
    """Return a function that detects in a picture where the network sees given things.

    It takes, for each box, the box and how sure of which tokens the network is.
    """

    def detect(*seen, phrases=PHRASES, **options):
        boxes = np.array([box for box, _ in seen], float)
        sureness = np.zeros((len(seen), 32))
        for row, (_, sure) in zip(sureness, seen, strict=True):
            for token, value in sure.items():
                row[token] = value
        monkeypatch.setattr(
            "spear_training.annotation.grounding_dino.run_network",
            lambda *inputs: (boxes, sureness),
        )
        detector = make(phrases, **options)
        text = PhraseText(detector.settings["phrases"], tokenizer, 32)
        monkeypatch.setattr(detector._parts, "_load", lambda: (None, None, text))
        return detector(frame_of())

    return detect


def test_the_network_runs_and_only_the_users_phrases_come_out(make):
    detector = make(box_threshold=0.05, text_threshold=0.0)
    frame = detector(frame_of())
    assert frame.candidates, "random weights found nothing at all"
    assert set(labels(frame.candidates)) <= {"red bowl", "mug", "cutting board"}
    for found in frame.candidates:
        assert 0.05 < found.score <= 1
        left, top, right, bottom = found.box_xyxy_px
        assert 0 <= left < right <= 840 and 0 <= top < bottom <= 630
    assert detector(frame_of()).candidates == frame.candidates


def test_boxes_are_in_the_pixels_of_the_picture(make):
    with make()._parts.held() as (model, pictures, text):
        image = frame_of().image
        boxes, sureness = run_network(model, pictures, text, image)
        prepared = pictures(images=image, return_tensors="pt")
        answer = model(**prepared, **text.inputs)
    assert boxes.shape == (20, 4) and sureness.shape == (20, 32)
    x, y, width, height = answer.pred_boxes[0, 0].tolist()
    edges = (x - width / 2) * 840, (y - height / 2) * 630, (x + width / 2) * 840
    assert boxes[0, :3] == pytest.approx(edges, abs=0.01)
    assert sureness[0] == pytest.approx(answer.logits[0, 0].sigmoid().detach().numpy(), abs=1e-5)


def test_bfloat16_works(make):
    found = make(dtype="bfloat16", box_threshold=0.05, text_threshold=0.0)(frame_of())
    assert found.candidates


def test_tokens_are_brought_back_to_whole_phrases(detect):
    frame = detect((LEFT, {RED: 0.4, BOWL: 0.6}), (RIGHT, {CUT: 0.3, TING: 0.3, BOARD: 0.5}))
    assert labels(frame.candidates) == ["red bowl", "cutting board"]
    assert [found.score for found in frame.candidates] == [0.6, 0.5]
    assert frame.candidates[0].box_xyxy_px == LEFT
    assert frame.dropped == ()


def test_a_part_of_a_phrase_is_another_thing(detect):
    frame = detect((LEFT, {RED: 0.1, BOWL: 0.6}), (RIGHT, {MUG: 0.5}))
    assert labels(frame.candidates) == ["mug"]
    assert reasons(frame) == {"red bowl": "only a part of the phrase fits"}
    frame = detect((LEFT, {RED: 0.1, BOWL: 0.6}), text_threshold=0.05)
    assert labels(frame.candidates) == ["red bowl"]


def test_a_whole_phrase_comes_before_a_part_of_another(detect):
    # Tokens: [CLS] red bowl . bowl .
    frame = detect((LEFT, {1: 0.1, 2: 0.7, 4: 0.6}), phrases=("red bowl", "bowl"))
    assert labels(frame.candidates) == ["bowl"] and frame.dropped == ()


def test_a_box_that_is_not_sure_enough_is_none(detect):
    frame = detect((LEFT, {MUG: 0.34}), (RIGHT, {0: 0.9, 3: 0.9}))
    assert frame.candidates == () and frame.dropped == ()


def test_one_object_found_twice_is_one_whatever_it_is_called(detect):
    nearly = (12.0, 22.0, 198.0, 218.0)
    frame = detect((LEFT, {MUG: 0.5}), (nearly, {MUG: 0.7}), (nearly, {RED: 0.6, BOWL: 0.6}))
    assert labels(frame.candidates) == ["mug"]
    assert frame.candidates[0].box_xyxy_px == nearly
    frame = detect((LEFT, {MUG: 0.5}), (RIGHT, {MUG: 0.7}))
    assert labels(frame.candidates) == ["mug", "mug"]


def test_boxes_at_the_edge_are_cut_there_and_those_outside_dropped(detect):
    frame = detect(((-9.0, 600.0, 80.0, 700.0), {MUG: 0.5}), ((0, 0, 1, 1), {MUG: 0.4}))
    assert frame.candidates[0].box_xyxy_px == (0, 600, 80, 630)
    assert reasons(frame) == {"mug": "under 2 px a side in the picture"}


def test_more_phrases_than_the_network_reads_stop_the_job(make):
    detector = make(tuple(f"{word} {other}" for word in WORDS[:3] for other in WORDS[:4]))
    with pytest.raises(JobError, match="12 phrases are .* tokens, and the network reads 32"):
        detector(frame_of())


@pytest.mark.parametrize(
    ("phrases", "options", "said"),
    [
        ((), {}, "needs phrases"),
        (("",), {}, "a phrase cannot be used: it has no name"),
        (("no. 5 cap",), {}, "'no. 5 cap' has a full stop"),
        ("mug", {}, "'mug'; it must be a list"),
        (("mug",), {"text_threshold": 0.5}, "text_threshold 0.5 and box_threshold 0.35"),
        (("mug",), {"same_object_iou": 0}, "same_object_iou is 0"),
        (("mug",), {"dtype": "float8"}, "dtype is 'float8'"),
    ],
)
def test_a_setting_that_cannot_work_is_named(phrases, options, said):
    with pytest.raises(JobError, match=said):
        GroundingDinoOptions(phrases, **options)


def test_phrases_are_labels_each_once():
    options = GroundingDinoOptions(("The Mug", "mug", "Red_Bowl"))
    assert options.phrases == ("mug", "red bowl")
    assert list(GroundingDinoDetector(options).settings["phrases"]) == ["mug", "red bowl"]
    assert "device" not in GroundingDinoDetector(options).settings


def test_a_missing_model_stops_the_job(make):
    with pytest.raises(JobError, match="the model /no/such/folder cannot be loaded"):
        make(model="/no/such/folder")(frame_of())


def test_a_model_without_its_tokenizer_stops_the_job(make, tmp_path):
    save_grounding_dino(tmp_path, WORDS)
    for path in [*tmp_path.glob("tokenizer*"), *tmp_path.glob("vocab*")]:
        path.unlink()
    with pytest.raises(JobError, match="does not know all words of 'red bowl'.*tokenizer files"):
        make(model=str(tmp_path))(frame_of())


def test_a_phrase_that_the_network_cannot_read_stops_the_job(make):
    with pytest.raises(JobError, match="does not know all words of 'red wok'"):
        make(("mug", "red wok"))(frame_of())


def test_shared_area_of_two_boxes():
    a = np.array([0.0, 0, 10, 10])
    assert box_iou_2d(a, a) == 1
    assert box_iou_2d(a, a + 5) == pytest.approx(25 / 175)
    assert box_iou_2d(a, a + 10) == 0
    assert box_iou_2d(a[[0, 1, 0, 1]], a[[0, 1, 0, 1]]) == 0
