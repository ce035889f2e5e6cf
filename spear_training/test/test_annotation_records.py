"""Items, records and masks: what is written is what is read, and the rest is refused by name."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rgbd_list import write_items

from spear_training.annotation.records import (
    AnnotatedObject,
    Annotation,
    Dropped,
    GivenDepth,
    GivenObject,
    Intrinsics,
    Item,
    RecordError,
    decode_mask,
    encode_mask,
    read_items,
)

MASK = np.zeros((630, 840), bool)
MASK[100:200, 300:420] = True
CAMERA = Intrinsics(700.0, 701.0, 419.5, 314.5)
CUP = AnnotatedObject(
    label="crème cup",
    box_xyxy_px=(300.0, 100.0, 420.0, 200.0),
    mask=encode_mask(MASK),
    score=0.75,
    cloud_size=812,
    closest_m=(0.1, -0.2, 0.9),
    furthest_m=(0.12, -0.2, 1.1),
    vertices_m=tuple((x, y, z) for x in (0.1, 0.2) for y in (-0.3, -0.2) for z in (0.9, 1.1)),
    sample_m=((0.15, -0.25, 0.95), (0.11, -0.21, 1.0)),
)
RECORD = Annotation(
    id="a/1",
    image="a/1.jpg",
    status="ok",
    intrinsics=CAMERA,
    objects=(CUP, dataclasses.replace(CUP, label="bowl", score=None)),
    pixel_points=((10.0, 20.0, 0.1, 0.2, 0.3),),
    dropped=(Dropped("spoon", "2 of its kind"),),
    seconds={"boxes": 0.01},
)
ITEM = Item(
    "a/1",
    "a/1.jpg",
    (GivenObject("crème cup", (1.0, 2.0, 3.0, 4.0), encode_mask(MASK)), GivenObject("bowl")),
    GivenDepth("a/1.png", 5000.0),
    CAMERA,
    4 / 3,
)


@pytest.mark.parametrize("item", [ITEM, Item("b", "b.jpg"), Item("c", "c.jpg", objects=())])
def test_an_item_comes_back_as_it_was(item):
    assert Item.from_json(item.to_json()) == item


def test_a_list_of_items_comes_back_in_its_order(tmp_path):
    items = [dataclasses.replace(ITEM, id=f"ä{i}") for i in (3, 1, 2)]
    path = tmp_path / "items.jsonl"
    write_items(path, items)
    assert read_items(path) == items
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ([""], "has no items"),
        (["{"], "line 1: no item"),
        (["[]"], "line 1: no item: a line must be one JSON object"),
        (['{"id": "a"}'], "line 1: no item: .*image"),
        (['{"id": "a", "image": "a.jpg", "intrinsics": [9, 9, 4, 4]}'], "must be fx, fy, cx, cy"),
        (['{"id": "a", "image": "a.jpg", "intrinsics": [[9, 0, 4]]}'], r"\[9, 0, 4\]\]; they must"),
        (
            ['{"id": "a", "image": "a.jpg", "intrinsics": {"fx": 9, "k1": 1}}'],
            "without distortion",
        ),
        (
            ['{"id": "a", "image": "a", "objects": [{"label": "b", "bbox": [1, 2, 3]}]}'],
            r"bbox of 'b' is \[1, 2, 3\]; it must be a list of four",
        ),
        (
            ['{"id": "a", "image": "a", "objects": [{"label": "b", "box_xyxy_px": {"x": 1}}]}'],
            "box_xyxy_px of 'b' is .*it must be a list of four",
        ),
        (['{"id": "", "image": "a.jpg"}'], "id must be words"),
        (['{"id": "a", "image": "a.jpg", "colour": 1}'], "colour"),
        (['{"id": "a", "image": "a.jpg", "depth": {"path": "d"}}'], "'units_per_m' is missing"),
        (['{"id": "a", "image": "a.jpg", "intrinsics": {"fx": 1}}'], "fy"),
        (['{"id": "a", "image": "a", "objects": [{"label": "x", "mask": {}}]}'], "size and counts"),
        (['{"id": "a", "image": "a", "objects": [{"label": "x", "box": []}]}'], "has no box"),
        (['{"id": "a", "image": "a"}', "", '{"id": "a", "image": "b"}'], "line 3: the id 'a' is"),
    ],
)
def test_a_list_that_cannot_be_read_names_the_line(tmp_path, lines, text):
    path = tmp_path / "items.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(RecordError, match=text) as caught:
        read_items(path)
    assert str(path) in str(caught.value)


def test_a_record_comes_back_as_it_was_on_one_line():
    line = RECORD.to_json()
    assert "\n" not in line
    assert Annotation.from_json(line) == RECORD


def test_a_record_keeps_hundredths_of_a_millimetre():
    cup = dataclasses.replace(CUP, closest_m=(0.123456789, 0.0, 1.0))
    again = Annotation.from_json(dataclasses.replace(RECORD, objects=(cup,)).to_json())
    assert again.objects[0].closest_m == (0.12346, 0.0, 1.0)


def test_a_record_with_numbers_that_are_not_finite_cannot_be_written():
    cup = dataclasses.replace(CUP, closest_m=(float("nan"), 0.0, 1.0))
    with pytest.raises(ValueError, match="JSON"):
        dataclasses.replace(RECORD, objects=(cup,)).to_json()


@pytest.mark.parametrize(
    "change",
    [
        {"status": "fine"},
        {"objects": None},
        {"colour": 1},
        {"intrinsics": {"fx": 1}},
        {"objects": [{"label": "x"}]},
    ],
)
def test_what_is_no_record_is_refused(change):
    values = json.loads(RECORD.to_json()) | change
    with pytest.raises(RecordError, match="no annotation"):
        Annotation.from_json(json.dumps(values))
    with pytest.raises(RecordError, match="no annotation"):
        Annotation.from_json(RECORD.to_json()[:-20])


@settings(max_examples=50, deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_any_mask_comes_back_as_it_was(mask):
    stored = json.loads(json.dumps(encode_mask(mask)))
    assert np.array_equal(decode_mask(stored), mask)


@pytest.mark.parametrize(
    "change",
    [
        lambda stored: {"counts": stored["counts"][:-2]},
        lambda stored: {"counts": ""},
        lambda stored: {"counts": stored["counts"] + "zzzz"},
        lambda stored: {"counts": "é"},
        lambda stored: {"counts": None},
        lambda stored: {"size": [630]},
        lambda stored: {"size": [-1, 840]},
        lambda stored: {"size": [630, 841]},
        lambda stored: {"size": [10, 10]},
    ],
)
def test_a_damaged_mask_is_refused(change):
    stored = encode_mask(MASK)
    with pytest.raises(RecordError, match="the mask is damaged"):
        decode_mask(stored | change(stored))


def test_a_record_of_an_older_version_with_vectors_between_boxes_is_read():
    values = json.loads(RECORD.to_json()) | {"gaps_m": [[0, 1, [0.0, 0.01, -0.2]]]}
    assert Annotation.from_json(json.dumps(values)) == RECORD
