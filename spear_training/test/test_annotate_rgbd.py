"""A real RGB-D picture from a list to a page, by the commands that a person types."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from desk_picture import desk_folder, desk_item
from inspect_runs import Page
from rgbd_list import write_items

from spear_training.annotation.annotate import main
from spear_training.annotation.boxes import edges_of
from spear_training.annotation.inspection.overlays import project
from spear_training.annotation.records import GivenDepth, GivenObject, encode_mask
from spear_training.annotation.run_folder import read_annotations

# Further things in it, by hand: corners (x, y) of the outline in pixels of the stored picture.
OUTLINES_PX = {
    "chair back": [
        *[(5, 270), (12, 265), (40, 270), (60, 277), (100, 282), (114, 288), (125, 297)],
        *[(140, 322), (152, 345), (160, 370), (163, 395), (163, 415), (157, 424), (130, 425)],
        *[(100, 422), (80, 413), (63, 398), (55, 380), (52, 350), (48, 330), (40, 315), (20, 292)],
    ],
    "wooden backrest": [
        *[(441, 240), (452, 236), (500, 236), (527, 233), (530, 235), (527, 255), (520, 268)],
        *[(505, 280), (470, 286), (440, 279), (429, 270), (432, 255)],
    ],
}
# Left, top, right, bottom. Two of a kind, which no question could tell from each other.
BOTTLES_PX = [(160.0, 28.0, 182.0, 100.0), (182.0, 33.0, 210.0, 108.0)]
# At least and at most (m): the longest and the middle edge of the box. The depth of the third is
# what the camera sees of it.
SIZES_M = {
    "globe": ((0.33, 0.50), (0.30, 0.48)),
    "die": ((0.14, 0.21), (0.13, 0.19)),
    "striped cushion": ((0.28, 0.37), (0.20, 0.28)),
    "magazine": ((0.27, 0.33), (0.19, 0.25)),  # A4: 0.297 x 0.21
    "blue mug": ((0.08, 0.13), (0.06, 0.11)),
    "plastic bag": ((0.35, 0.50), (0.25, 0.40)),
    "chair back": ((0.45, 0.70), (0.35, 0.55)),
    "wooden backrest": ((0.30, 0.45), (0.12, 0.28)),
}


def _given(outline):
    mask = np.zeros((480, 640), np.uint8)
    cv2.fillPoly(mask, [np.array(outline)], 1)
    left, top, width, height = cv2.boundingRect(mask)
    box = (float(left), float(top), float(left + width), float(top + height))
    return box, encode_mask(mask.astype(bool))


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Annotate the picture, ask about it and make the page; return the folder."""
    stored, folder = desk_folder(), tmp_path_factory.mktemp("desk")
    for name in ("color", "depth"):
        (folder / f"{name}.png").symlink_to(stored / f"other_formats_TUM_{name}.png")
    item = desk_item()
    found = [GivenObject(label, *_given(outline)) for label, outline in OUTLINES_PX.items()]
    found += [GivenObject("bottle", box) for box in BOTTLES_PX]
    depth = GivenDepth("depth.png", item.depth.units_per_m)
    item = replace(item, image="color.png", depth=depth, objects=(*item.objects, *found))
    write_items(folder / "items.jsonl", [item])
    out = folder / "out"
    words = ["--detector", "given", "--segmenter", "given", "--geometry", "depth"]
    # The depth of this camera lies up to 2 pixels beside the colours.
    words += ["--set", "clouds.erode_px=2"]
    assert main(["--items", str(folder / "items.jsonl"), "--out", str(out), *words]) == 0
    assert main(["questions", str(out), "--count", "128"]) == 0
    assert main(["inspect", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def record(out):
    """Return the record of the picture."""
    (found,) = read_annotations(out)
    return found


@pytest.fixture(scope="module")
def page(out):
    """Return the page."""
    return Page((out / "inspect.html").read_text())


def test_every_thing_has_a_plausible_size(record):
    assert record.status == "ok" and record.metric
    edges_m = {
        found.label: np.sort(np.linalg.norm(edges_of(found.vertices), axis=1))[::-1]
        for found in record.objects
    }
    assert edges_m.keys() == SIZES_M.keys()
    for label, ranges in SIZES_M.items():
        for edge, (least, most) in zip(edges_m[label], ranges, strict=False):
            assert least < edge < most, (label, edges_m[label])
        assert edges_m[label][2] < 0.4


def test_two_of_a_kind_are_dropped_with_the_reason(record, page):
    assert [(lost.label, lost.reason) for lost in record.dropped] == [
        ("bottle", "2 of its kind")
    ] * 2
    assert "bottle (2 of its kind), bottle (2 of its kind)" in page.sections["desk"].replace(
        " ,", ","
    ).replace("  ", " ")


def test_the_boxes_in_space_lie_over_the_boxes_in_the_picture(record):
    for found in record.objects:
        corners = project(found.vertices, record.intrinsics)
        left, top, right, bottom = found.box_xyxy_px
        size = max(right - left, bottom - top)
        assert (corners.min(axis=0) > np.array([left, top]) - 0.5 * size).all()
        assert (corners.max(axis=0) < np.array([right, bottom]) + 0.5 * size).all()
        u, v = project(found.centre_m, record.intrinsics)
        assert left < u < right and top < v < bottom


def test_things_are_where_a_person_sees_them(record):
    centre = {found.label: found.centre_m for found in record.objects}
    assert centre["chair back"][2] < centre["wooden backrest"][2] < centre["plastic bag"][2]
    assert centre["die"][0] < centre["magazine"][0] < centre["blue mug"][0]
    assert centre["globe"][1] < centre["die"][1] < centre["chair back"][1]  # y points down


def test_the_page_shows_picture_sizes_and_questions(record, page, out):
    assert {image.size for image in page.decoded()} == {(840, 630)} and len(page.images) == 2
    words = " ".join(page.sections["desk"].split())
    for found in record.objects:
        edges_cm = 100 * np.linalg.norm(edges_of(found.vertices), axis=1)
        assert " x ".join(f"{edge:.1f}" for edge in edges_cm) in words
    (line,) = (out / "questions.jsonl").read_text().splitlines()
    pairs = json.loads(line)["pairs"]
    assert pairs and all(f"A{number}" in words for number in range(1, len(pairs) + 1))
