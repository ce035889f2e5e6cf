"""The detector `gemini` with its real client against a service on this machine."""

import base64
import io
import json
import sys
import threading
from dataclasses import replace

import gemini_service
import pytest
from gemini_service import BOWL, Reply, fails, finds, says
from PIL import Image
from stage_frames import frame_of, labels

pytest.importorskip("google.genai", reason="the detector gemini needs google-genai")

from spear_training.annotation.gemini import GeminiDetector, GeminiOptions, default_prompt
from spear_training.annotation.stages import JobError, StageError

MUG = {"box_2d": [500, 500, 700, 700], "label": "The Red_Mug"}
KEY = "a-secret-key"
FRAME = frame_of()


@pytest.fixture
def service(monkeypatch):
    """Run the service, with a key in the environment."""
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with gemini_service.running() as (service, address):
        service.address = address
        yield service


@pytest.fixture
def make(service, tmp_path):
    """Return a function that makes a detector that asks the service."""

    def make(cache=tmp_path / "answers", **options):
        here = {"base_url": service.address, "timeout_s": 20.0}
        patience = {"attempts": 3, "retry_delay_s": 0.01}
        return GeminiDetector(GeminiOptions(**(here | patience | options)), cache)

    return make


def test_a_picture_is_sent_as_it_is_annotated_and_its_objects_come_back(service, make):
    service.replies = [finds(BOWL, MUG)]
    frame = make()(FRAME)
    assert labels(frame.candidates) == ["bowl", "red mug"]
    assert frame.candidates[0].box_xyxy_px == pytest.approx((168, 63, 336, 189))
    assert frame.candidates[0].score is None and frame.dropped == ()
    ((path, body),) = service.requests
    assert path.endswith("/models/gemini-2.5-flash:generateContent")
    assert service.keys == [KEY]
    image, prompt = body["contents"][0]["parts"]
    assert prompt["text"] == default_prompt(25) and "25" in prompt["text"]
    sent = base64.urlsafe_b64decode(image["inlineData"]["data"])
    assert Image.open(io.BytesIO(sent)).size == (840, 630)
    config = body["generationConfig"]
    assert config["temperature"] == 0.5
    assert list(config["thinkingConfig"].values()) == [0]
    assert config["responseMimeType"] == "application/json"
    entry = config["responseSchema"]["items"]
    assert entry["required"] == ["box_2d", "label"]
    numbers = entry["properties"]["box_2d"]
    assert numbers["type"] == "ARRAY" and 4 in numbers.values()


def test_what_is_asked_can_be_chosen(service, make):
    make(model="gemini-next", prompt="Find {things}.", thinking_budget=None, temperature=1)(FRAME)
    ((path, body),) = service.requests
    assert "gemini-next" in path
    assert body["contents"][0]["parts"][1]["text"] == "Find {things}."
    assert "thinkingConfig" not in body["generationConfig"]
    assert body["generationConfig"]["temperature"] == 1


def test_a_busy_service_is_asked_again(service, make):
    service.replies = [fails(503, "overloaded"), fails(429, "slowly"), finds(BOWL)]
    assert labels(make()(FRAME).candidates) == ["bowl"]
    assert len(service.requests) == 3


def test_a_connection_that_breaks_is_tried_again(service, make):
    service.replies = [Reply(breaks=True), finds(BOWL)]
    assert labels(make()(FRAME).candidates) == ["bowl"]


def test_a_service_that_stays_busy_fails_the_picture_with_its_words(service, make):
    service.replies = [fails(503, "The model is overloaded.")]
    with pytest.raises(StageError, match="^answered 503 The model is overloaded.$"):
        make()(FRAME)
    assert len(service.requests) == 3


def test_a_silent_service_fails_the_picture_in_time(service, make):
    service.replies = [finds(BOWL, delay_s=1.0)]
    with pytest.raises(StageError, match="gave no answer .*[Tt]ime"):
        make(timeout_s=0.2, attempts=2)(FRAME)
    assert len(service.requests) == 2


def test_nobody_at_the_address_fails_the_picture(make, service):
    with pytest.raises(StageError, match="gave no answer .*ConnectError"):
        make(base_url="http://127.0.0.1:9", attempts=1)(FRAME)


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (says("I see a bowl on a table."), "no JSON: 'I see a bowl"),
        (says(json.dumps([BOWL, MUG])[:-20]), "cut off"),
        (says(json.dumps([BOWL])[:-20], finish="MAX_TOKENS"), r"cut off \(MAX_TOKENS\)"),
        (says("", finish="SAFETY"), r"refused to answer \(SAFETY\)"),
        (says("[]", finish="RECITATION"), r"refused to answer \(RECITATION\)"),
        (says(" "), "empty answer"),
        (Reply(body='{"candidates": [{"finishReason": "STOP"}]}'), "empty answer"),
        (Reply(body='{"candidates": []}'), "without any candidate"),
        (
            Reply(body='{"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}'),
            r"refused the picture \(PROHIBITED_CONTENT\)",
        ),
        (Reply(body="<html>Log in to the guest network</html>"), "no JSON"),
        (Reply(400, "<html>Bad request</html>"), "answered 400 <html>Bad request"),
        (fails(400, "Unable to process input image", "INVALID_ARGUMENT"), "answered 400 Unable"),
    ],
)
def test_an_answer_that_is_none_fails_the_picture_and_is_not_kept(service, make, reply, said):
    service.replies = [reply, finds(BOWL)]
    with pytest.raises(StageError, match=said):
        make(attempts=1)(FRAME)
    assert labels(make()(FRAME).candidates) == ["bowl"]
    assert len(service.requests) == 2


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (fails(401, "no credentials"), "answered 401 .*GEMINI_API_KEY"),
        (fails(403, f"{KEY} may not", "PERMISSION_DENIED"), r"403 \*\*\* may not: check GEMINI"),
        (fails(404, "models/x is not found", "NOT_FOUND"), "404 .*instead of 'gemini-2.5-flash'"),
        (fails(400, "This model only works in thinking mode"), "another thinking budget than 0"),
        (fails(400, "Location is not supported", "FAILED_PRECONDITION"), "cannot use the service"),
        (
            Reply(
                400,
                json.dumps(
                    {
                        "error": {
                            "code": 400,
                            "message": "API key not valid.",
                            "status": "INVALID_ARGUMENT",
                            "details": [{"reason": "API_KEY_INVALID"}],
                        }
                    }
                ),
            ),
            "API key not valid.: check GEMINI_API_KEY",
        ),
    ],
)
def test_what_no_picture_can_pass_stops_the_job_at_once(service, make, reply, said):
    service.replies = [reply]
    with pytest.raises(JobError, match=said) as stopped:
        make()(FRAME)
    assert len(service.requests) == 1
    assert KEY not in str(stopped.value)


def test_without_a_key_the_job_stops_before_anything_is_sent(service, make, monkeypatch):
    monkeypatch.setenv("GEMINI_API_KEY", " ")
    with pytest.raises(JobError, match="GEMINI_API_KEY"):
        make()(FRAME)
    assert service.requests == []


def test_without_the_library_the_job_stops_and_says_how_to_get_it(make, monkeypatch):
    monkeypatch.setitem(sys.modules, "google.genai", None)
    with pytest.raises(JobError, match="gemini needs google.genai: pip install google-genai"):
        make()(FRAME)


def test_failures_in_a_row_stop_the_job_and_one_answer_ends_the_row(service, make):
    detector = make(attempts=1, most_failures_in_a_row=3, cache=None)
    bad = fails(503, "overloaded")
    service.replies = [bad, bad, finds(BOWL), bad, bad, bad]
    for _ in range(2):
        with pytest.raises(StageError):
            detector(FRAME)
    detector(FRAME)
    for _ in range(2):
        with pytest.raises(StageError):
            detector(FRAME)
    with pytest.raises(JobError, match="3 pictures in a row, at last it answered 503"):
        detector(FRAME)


def test_a_picture_is_asked_about_once(service, make):
    first = make()(FRAME)
    again = make()(FRAME)
    assert again.candidates == first.candidates
    assert len(service.requests) == 1
    make()(frame_of(seed=1))
    make(model="gemini-next")(FRAME)
    make(prompt="Another question")(FRAME)
    assert len(service.requests) == 4
    make(cache=None)(FRAME)
    assert len(service.requests) == 5


def test_a_kept_answer_needs_no_key(service, make, monkeypatch):
    make()(FRAME)
    monkeypatch.delenv("GEMINI_API_KEY")
    assert labels(make()(FRAME).candidates) == ["bowl"]


def test_neither_settings_nor_kept_answers_hold_the_key(service, make, tmp_path):
    detector = make()
    detector(FRAME)
    assert KEY not in json.dumps(detector.settings)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files and not any(KEY in path.read_text() for path in files)


def test_patience_does_not_change_what_was_asked(make):
    patient = make(timeout_s=99.0, attempts=9, requests_at_once=2)
    assert patient.settings == make().settings
    assert patient.parallel == 2
    assert make(max_objects=5).settings != make().settings


def test_a_bad_entry_is_dropped_and_the_others_stay(service, make):
    service.replies = [finds(BOWL, {"label": "Fork", "box_2d": [0, 0, 9, 2000]}, MUG)]
    frame = make()(FRAME)
    assert labels(frame.candidates) == ["bowl", "red mug"]
    assert labels(frame.dropped) == ["fork"]


def test_boxes_end_where_the_padding_begins(service, make):
    service.replies = [finds({"box_2d": [0, 0, 1000, 1000], "label": "shelf"})]
    upright = frame_of(480, 640)
    (shelf,) = make()(upright).candidates
    assert shelf.box_xyxy_px[0] == upright.fit.pad_left > 0


def test_several_threads_ask_at_once_and_each_gets_its_own_answer(service, make):
    service.replies = [
        finds({"box_2d": [0, 0, 100 * (i + 1), 500], "label": "bowl"}, delay_s=0.3)
        for i in range(4)
    ]
    detector = make()
    found = {}

    def ask(seed):
        found[seed] = detector(frame_of(seed=seed))

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert service.at_once >= 2
    bottoms = sorted(frame.candidates[0].box_xyxy_px[3] for frame in found.values())
    assert bottoms == pytest.approx([63, 126, 189, 252])
    # What is kept belongs to the right picture.
    for seed, frame in found.items():
        assert make()(frame_of(seed=seed)).candidates == frame.candidates
    assert len(service.requests) == 4


@pytest.mark.parametrize(
    "wrong",
    [
        {"attempts": 0},
        {"timeout_s": -1.0},
        {"requests_at_once": 0},
        {"jpeg_quality": 0},
        {"base_url": "localhost:80"},
    ],
)
def test_a_setting_that_cannot_work_is_named(wrong):
    with pytest.raises(JobError, match=next(iter(wrong))):
        replace(GeminiOptions(), **wrong)
