"""Objects that the list of items names: their boxes, their masks, and which belongs to which."""

import numpy as np
import pytest
from stage_frames import frame_of, labels, reasons

from spear_training.annotation.detections import OUTSIDE, KeepUnique
from spear_training.annotation.frame import Candidate
from spear_training.annotation.given import GivenDetector, GivenSegmenter
from spear_training.annotation.records import GivenObject, encode_mask, given_object
from spear_training.annotation.stages import StageError


def mask_of(left, top, right, bottom, width=640, height=480):
    """Return the stored mask of a rectangle."""
    mask = np.zeros((height, width), bool)
    mask[top:bottom, left:right] = True
    return encode_mask(mask)


def found_in(*objects, **size):
    """Run the given stages on a frame with these objects, as the pipeline does."""
    frame = frame_of(objects=objects, **size)
    return GivenSegmenter()(KeepUnique()(GivenDetector()(frame)))


def test_a_given_box_is_brought_into_the_picture():
    frame = GivenDetector()(frame_of(objects=(GivenObject("The Bowl", (64, 48, 320, 240)),)))
    (bowl,) = frame.candidates
    assert bowl.label == "bowl"
    assert bowl.box_xyxy_px == pytest.approx((84, 63, 420, 315))
    assert bowl.mask is None and bowl.score is None


def test_an_object_without_a_box_has_its_masks():
    frame = GivenDetector()(
        frame_of(objects=(GivenObject("bowl", None, mask_of(64, 48, 320, 240)),))
    )
    assert frame.candidates[0].box_xyxy_px == pytest.approx((84, 63, 420, 315), abs=1.0)


def test_a_given_mask_is_brought_into_the_picture():
    frame = found_in(GivenObject("bowl", None, mask_of(64, 48, 320, 240)))
    (bowl,) = frame.candidates
    assert bowl.mask.shape == (630, 840)
    rows, columns = np.nonzero(bowl.mask)
    assert (columns.min(), rows.min()) == (84, 63)
    assert (columns.max() + 1, rows.max() + 1) == (420, 315)
    assert bowl.mask.sum() == 336 * 252


def test_masks_stay_with_their_objects_when_others_are_dropped_between():
    objects = [
        GivenObject("fork", (10, 10, 11, 11), mask_of(10, 10, 11, 11)),  # too small
        GivenObject("cup", (50, 50, 90, 90), mask_of(50, 50, 90, 90)),
        GivenObject("bowl", None, mask_of(100, 100, 200, 200)),
        GivenObject("cup", (150, 50, 190, 90), mask_of(150, 50, 190, 90)),
        GivenObject("plate", (300, 300, 400, 400), mask_of(310, 310, 390, 390)),
    ]
    frame = found_in(*objects)
    assert labels(frame.candidates) == ["bowl", "plate"]
    for candidate, centre in zip(frame.candidates, (150, 350), strict=True):
        rows, columns = np.nonzero(candidate.mask)
        assert columns.mean() == pytest.approx(centre * 840 / 640, abs=1.0)
        assert rows.mean() == pytest.approx(centre * 630 / 480, abs=1.0)
    assert sorted(labels(frame.dropped)) == ["cup", "cup", "fork"]


def test_a_second_one_outside_the_picture_does_not_take_the_first_ones_mask():
    # 1920x1080 loses its left and right.
    size = {"width": 1920, "height": 1080}
    frame = found_in(
        GivenObject("bowl", None, mask_of(0, 500, 100, 600, **size)),
        GivenObject("bowl", None, mask_of(900, 500, 1000, 600, **size)),
        **size,
    )
    assert reasons(frame) == {"bowl": OUTSIDE}
    (bowl,) = frame.candidates
    assert np.nonzero(bowl.mask)[1].mean() == pytest.approx(419, abs=15)


def test_masks_are_cut_off_with_the_picture_and_none_is_in_padding():
    size = {"width": 480, "height": 640}
    frame = found_in(GivenObject("wall", None, mask_of(0, 0, 480, 640, **size)), **size)
    assert np.array_equal(frame.candidates[0].mask, frame.visible)
    assert not frame.visible.all()


@pytest.mark.parametrize(
    ("bowl", "reason"),
    [
        (GivenObject("bowl"), "neither its box nor its mask"),
        (GivenObject("bowl", (float("nan"), 0, 9, 9)), "not finite"),
        (GivenObject("bowl", (700, 0, 900, 90)), OUTSIDE),
        (GivenObject("bowl", None, mask_of(0, 0, 0, 0)), OUTSIDE),
        (
            GivenObject("bowl", None, mask_of(0, 0, 9, 9, 320, 240)),
            "320x240, the picture 640x480",
        ),
        (GivenObject("bowl", None, {"size": [480, 640], "counts": "zz~"}), "mask is damaged"),
        (
            GivenObject("bowl", (5, 5, 50, 50), {"size": [480, 640], "counts": ""}),
            "mask is damaged",
        ),
        (GivenObject("bowl", (5, 5, 50, 50), mask_of(0, 0, 0, 0)), "its mask is empty"),
        (GivenObject("bowl", (5, 5, 50, 50), mask_of(0, 0, 9, 9, 320, 240)), "the picture 640x480"),
        (GivenObject("bowl", (5, 5, 50, 50)), "no mask for it"),
        (GivenObject("<eos>", None, {"size": [480, 640], "counts": "zz~"}), "mask is damaged"),
    ],
)
def test_what_cannot_be_used_is_dropped_with_its_reason_and_the_rest_stays(bowl, reason):
    frame = found_in(bowl, GivenObject("mug", None, mask_of(100, 100, 200, 200)))
    assert labels(frame.candidates) == ["mug"]
    assert len(frame.dropped) == 1 and reason in frame.dropped[0].reason


def test_a_second_bowl_with_a_damaged_mask_is_still_a_second_bowl():
    frame = found_in(
        GivenObject("bowl", None, mask_of(100, 100, 200, 200)),
        GivenObject("Bowl", None, {"size": [480, 640], "counts": "zz~"}),
    )
    assert frame.candidates == () and labels(frame.dropped) == ["bowl", "bowl"]


def test_the_segmenter_refuses_an_object_that_the_item_does_not_have():
    other = Candidate("bowl", (10.0, 10.0, 50.0, 50.0))
    objects = (GivenObject("bowl", None, mask_of(100, 100, 200, 200)),)
    frame = GivenSegmenter()(frame_of(objects=objects, candidates=[other]))
    assert reasons(frame) == {"bowl": "the item has no mask for it"}


def test_an_object_that_the_item_has_twice_is_refused():
    bowl = GivenObject("bowl", None, mask_of(100, 100, 200, 200))
    frame = GivenSegmenter()(GivenDetector()(frame_of(objects=(bowl, bowl))))
    assert frame.candidates == () and reasons(frame) == {"bowl": "the item has it twice"}


def test_an_item_that_nobody_has_looked_at_fails():
    with pytest.raises(StageError, match="the item has no objects: add them"):
        GivenDetector()(frame_of())


def test_an_item_without_anything_in_it_does_not_fail():
    assert found_in().candidates == ()


BOWL_XYXY_PX = (160, 120, 420, 220)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"bbox": (160, 120, 260, 100)}, None),
        ({"box_xyxy_px": (180, 130, 400, 225)}, None),  # detectors are not exact
        ({"bbox": BOWL_XYXY_PX}, "is it left, top, right, bottom: name it box_xyxy_px"),
        ({"box_xyxy_px": (120, 160, 220, 420)}, "is it top, left, bottom, right"),
        ({"box_xyxy_px": (290, 170, 300, 175)}, "they share 0 % of their area"),
        ({"box_xyxy_px": (300, 300, 500, 400)}, "they share 0 % of their area"),
        ({"box_xyxy_px": (0.25, 0.25, 0.66, 0.46)}, "in pixels, not in shares of the picture"),
    ],
)
def test_a_box_that_does_not_lie_on_its_mask_is_refused(values, said):
    frame = found_in(given_object({"label": "bowl", "mask": mask_of(*BOWL_XYXY_PX), **values}))
    assert labels(frame.candidates) == ([] if said else ["bowl"])
    assert said is None or said in frame.dropped[0].reason


def test_left_top_width_height_in_place_of_corners_is_named_near_the_corner_too():
    mask = mask_of(30, 20, 230, 220)
    frame = found_in(
        given_object({"label": "bowl", "mask": mask, "box_xyxy_px": (30, 20, 200, 200)})
    )
    assert "is it left, top, width, height: name it bbox?" in frame.dropped[0].reason


def test_a_box_of_a_larger_picture_is_refused():
    frame = found_in(GivenObject("bowl", (300, 200, 900, 700)), GivenObject("cup", (-9, 5, 90, 50)))
    said = "its box is (300, 200, 900, 700), far beyond the picture of 640x480"
    assert reasons(frame) == {"bowl": said, "cup": "the item has no mask for it"}


def test_every_form_of_a_coco_mask_is_the_same_mask():
    left, top, right, bottom = BOWL_XYXY_PX
    runs = [left * 480 + top]
    for _ in range(left, right):
        runs += [bottom - top, 480 - bottom + top]
    forms = [
        mask_of(*BOWL_XYXY_PX),
        {"size": [480, 640], "counts": [*runs[:-1], 640 * 480 - sum(runs[:-1])]},
        [[left, top, right, top, right, bottom, left, bottom]],
    ]
    masks = [
        found_in(given_object({"label": "bowl", "segmentation": form})).candidates[0].mask
        for form in forms
    ]
    assert masks[0].any() and all(np.array_equal(masks[0], mask) for mask in masks[1:])


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"size": [480, 640], "counts": [5, 7]}, "do not fill 640x480"),
        ({"size": [480, 640], "counts": [-5, 7 + 640 * 480, -2]}, "do not fill 640x480"),
        ([[1, 1, 5, 5]], "not x, y of 3 corners"),
        ([[1, 1, 5, 5, 9]], "not x, y of 3 corners"),
        ([[1, 1, 5000, 5, 9, 9]], "reaches 5000, 9 in a picture of 640x480"),
        ([[1, 1, float("nan"), 5, 9, 9]], "reaches nan"),
        ([["a", 1, 5, 5, 9, 9]], "mask is damaged"),
    ],
)
def test_a_coco_mask_that_is_none_is_dropped_with_its_reason(form, said):
    frame = found_in(given_object({"label": "bowl", "segmentation": form}))
    assert said in frame.dropped[0].reason


def test_a_crowd_is_more_than_one_of_its_kind():
    crowd = {"label": "cup", "segmentation": mask_of(300, 300, 500, 400), "iscrowd": 1}
    frame = found_in(given_object(crowd), GivenObject("cup", None, mask_of(9, 9, 90, 90)))
    assert labels(frame.dropped) == ["cup", "cup"]
    assert frame.dropped[0].reason == "a crowd, not one object"
