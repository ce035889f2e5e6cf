"""The detector gemini: what is asked and how patiently, what answers are read as, what is kept."""

import base64
import io
import json
import sys
import threading
from dataclasses import replace

import gemini_service
import pytest
from gemini_service import BOWL, Reply, fails, finds, says
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from stage_frames import frame_of, labels

from spear_training.annotation.gemini import (
    AnswerCache,
    GeminiDetector,
    GeminiOptions,
    answer_key,
    default_prompt,
    parse_answer,
)
from spear_training.annotation.stages import JobError, StageError

pytest.importorskip("google.genai", reason="the detector gemini needs google-genai")

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
        (says("I see a bowl on a table."), "no JSON.*'I see a bowl"),
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


# What it wrote ------------------------------------------------------------------------------------


BOWL_ENTRY = {"box_2d": [100, 200, 300, 400], "label": "bowl"}
MUG_ENTRY = {"box_2d": [0, 0, 1000, 1000], "label": "mug"}


def test_a_list_of_objects_is_read_into_pixels_with_y_first():
    found, lost = parse_answer(json.dumps([BOWL_ENTRY, MUG_ENTRY]))
    assert labels(found) == ["bowl", "mug"]
    assert found[0].box_xyxy_px == pytest.approx((168, 63, 336, 189))
    assert found[1].box_xyxy_px == pytest.approx((0, 0, 840, 630))
    assert lost == []


def test_an_empty_list_is_an_answer():
    assert parse_answer("[]") == ([], [])


@pytest.mark.parametrize(
    "text",
    [
        "```json\n{}\n```",
        "```\n{}\n```",
        "Here they are:\n```JSON\n{}\n```\nAsk me for more!",
        "```json\n{}",
        "\n  {}\n",
    ],
)
def test_fences_are_taken_off(text):
    found, _ = parse_answer(text.replace("{}", json.dumps([BOWL_ENTRY])))
    assert labels(found) == ["bowl"]


@pytest.mark.parametrize("kept", [1, 5, 30, 60, 90, -1])
def test_an_answer_that_was_cut_off_is_refused_whole(kept):
    with pytest.raises(StageError, match="cut off"):
        parse_answer(
            json.dumps([BOWL_ENTRY, MUG_ENTRY, {**MUG_ENTRY, "label": 'a "[" sign'}])[:kept]
        )
    with pytest.raises(StageError, match="cut off"):
        parse_answer("```json\n" + json.dumps([BOWL_ENTRY, MUG_ENTRY])[:kept])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("I see a bowl and a mug.", "no JSON, or was cut off: 'I see a bowl"),
        ("", "no JSON"),
        ("```json\n```", "no JSON"),
        ("[bowl]", "no JSON"),
        ("[1,]]", "no JSON"),
        ('{"box_2d": [1, 2, 3, 4], "label": "bowl"}', "no list"),
        ("null", "no list"),
        ("[" * 100_000, "cut off"),
        ("[" * 100_000 + "]" * 100_000, "no JSON"),
        ("[" + "1" * 5000 + "]", "no JSON"),
    ],
)
def test_what_is_no_list_in_json_is_refused_with_its_beginning(text, said):
    with pytest.raises(StageError, match=said) as refused:
        parse_answer(text)
    assert len(str(refused.value)) < 120


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"label": "fork"}, "its box_2d is 'None'"),
        ({"label": "fork", "box_2d": [1, 2, 3]}, "not four numbers"),
        ({"label": "fork", "box_2d": [1, 2, 3, 4, 5]}, "not four numbers"),
        ({"label": "fork", "box_2d": "1 2 3 4"}, "not four numbers"),
        ({"label": "fork", "box_2d": [1, 2, 3, "4"]}, "not four numbers"),
        ({"label": "fork", "box_2d": [1, 2, 3, True]}, "not four numbers"),
        ({"label": "fork", "box_2d": [1, 2, 3, 1200]}, "has 1200, outside 0..1000"),
        ({"label": "fork", "box_2d": [-1, 2, 3, 4]}, "has -1, outside 0..1000"),
        ({"label": "fork", "box_2d": [1, 2, 3, float("nan")]}, "has nan, outside"),
        ({"box_2d": [1, 2, 3, 4]}, "has no label"),
        ({"box_2d": [1, 2, 3, 4], "label": None}, "has no label"),
        ("fork", "the entry is no object: 'fork'"),
    ],
)
def test_a_bad_entry_is_dropped_with_its_reason_and_the_good_ones_stay(entry, reason):
    found, lost = parse_answer(json.dumps([BOWL_ENTRY, entry, MUG_ENTRY]))
    assert labels(found) == ["bowl", "mug"]
    assert len(lost) == 1 and reason in lost[0].reason
    assert lost[0].label in ("fork", "?")


@given(st.text(max_size=60) | st.text('[]{}",:`\\ 01abel', max_size=60))
def test_any_text_is_an_answer_or_is_refused_with_a_reason(text):
    try:
        found, lost = parse_answer(text)
    except StageError as error:
        assert str(error).startswith("the answer ")
    else:
        assert all(lost.reason for lost in lost) and all(len(f.box_xyxy_px) == 4 for f in found)


@given(st.lists(st.sampled_from([BOWL_ENTRY, MUG_ENTRY, {"label": "x"}, 3])), st.data())
def test_a_list_that_is_cut_anywhere_is_never_read_as_a_shorter_one(entries, data):
    text = json.dumps(entries)
    kept = data.draw(st.integers(0, len(text) - 1))
    with pytest.raises(StageError, match="cut off"):
        parse_answer(text[:kept])


# Answers that are kept ----------------------------------------------------------------------------


ANSWER_KEY = answer_key(b"picture", {"model": "m", "prompt": "p", "temperature": 0.5})


def file_of(cache):
    (path,) = [path for path in cache.folder.rglob("*") if path.is_file()]
    return path


def test_an_answer_is_found_again(tmp_path):
    cache = AnswerCache(tmp_path / "answers")
    assert cache.get(ANSWER_KEY) is None
    cache.put(ANSWER_KEY, "naïve \ud83e\udd63".encode("utf-16", "surrogatepass").decode("utf-16"))
    assert AnswerCache(tmp_path / "answers").get(ANSWER_KEY) == "naïve 🥣"


@pytest.mark.parametrize(
    ("image", "asked"),
    [
        (b"picturf", {"model": "m", "prompt": "p", "temperature": 0.5}),
        (b"picture", {"model": "n", "prompt": "p", "temperature": 0.5}),
        (b"picture", {"model": "m", "prompt": "q", "temperature": 0.5}),
        (b"picture", {"model": "m", "prompt": "p", "temperature": 0.6}),
    ],
)
def test_whatever_changes_the_answer_changes_its_name(image, asked):
    assert answer_key(image, asked) != ANSWER_KEY


def test_the_order_of_what_was_asked_does_not_change_the_name():
    assert answer_key(b"picture", {"temperature": 0.5, "prompt": "p", "model": "m"}) == ANSWER_KEY


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-5],
        lambda data: data.replace(b"bowl", b"bowk"),
        lambda data: b"null",
        lambda data: b"[1]",
        lambda data: b"\xff\xfe\x00",
        lambda data: json.dumps({"sha256": 1, "answer": 2}).encode(),
    ],
)
def test_a_damaged_file_is_a_miss_and_is_mended(tmp_path, damage):
    cache = AnswerCache(tmp_path)
    cache.put(ANSWER_KEY, "a bowl")
    path = file_of(cache)
    path.write_bytes(damage(path.read_bytes()))
    assert cache.get(ANSWER_KEY) is None
    cache.put(ANSWER_KEY, "a bowl")
    assert cache.get(ANSWER_KEY) == "a bowl"


def test_many_writers_of_one_answer_leave_one_whole_file(tmp_path):
    cache = AnswerCache(tmp_path)
    texts = [str(number) * 20_000 for number in range(8)]
    threads = [threading.Thread(target=cache.put, args=(ANSWER_KEY, text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.get(ANSWER_KEY) in texts
    assert file_of(cache).suffix == ".json"


def test_a_folder_that_cannot_be_written_stops_the_job_and_leaves_nothing(tmp_path):
    (tmp_path / "answers").write_text("a file where the folder should be")
    with pytest.raises(JobError, match="answers cannot be kept in .*answers.*make room"):
        AnswerCache(tmp_path / "answers").put(ANSWER_KEY, "a bowl")


def test_a_full_disk_stops_the_job_and_leaves_nothing(tmp_path, monkeypatch):
    cache = AnswerCache(tmp_path)
    # The disk that fills up is played: /dev/full exists for a single file only.
    monkeypatch.setattr("os.replace", _no_space)
    with pytest.raises(JobError, match="No space left"):
        cache.put(ANSWER_KEY, "a bowl")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def _no_space(source, target):
    raise OSError(28, "No space left on device")
