"""A real RGB-D picture with outlines drawn by hand: from the file to plausible sizes."""

import itertools
import os

import cv2
import numpy as np
import pytest
from desk_picture import OUTLINES_PX, desk_folder, desk_item

from spear_training.annotation.boxes import FitBoxes, edges_of
from spear_training.annotation.clouds import MakeClouds, RemoveOutliers
from spear_training.annotation.depth import DepthGeometry
from spear_training.annotation.detections import KeepUnique
from spear_training.annotation.frame import read_frame
from spear_training.annotation.given import GivenDetector, GivenSegmenter
from spear_training.annotation.pipeline import Pipeline

# Longest, middle and shortest edge (m): at least and at most. The camera sees one side only, so
# the globe and the bag are less deep than they are; its depth is read in steps of 2 cm here.
SIZES_M = {
    "magazine": [(0.27, 0.33), (0.19, 0.25), (0.0, 0.05)],  # A4: 0.297 x 0.21
    "die": [(0.14, 0.20), (0.13, 0.19), (0.07, 0.17)],
    "globe": [(0.35, 0.48), (0.32, 0.48), (0.12, 0.45)],
    "striped cushion": [(0.28, 0.36), (0.20, 0.28), (0.0, 0.08)],
    "blue mug": [(0.08, 0.13), (0.06, 0.11), (0.04, 0.09)],
    "plastic bag": [(0.35, 0.50), (0.25, 0.40), (0.08, 0.30)],
}


@pytest.fixture(scope="module")
def annotation():
    """Annotate the picture; with SPEAR_TEST_OUTPUT, leave it with its boxes in that folder."""
    folder = desk_folder()
    # The depth of this camera lies up to 2 pixels beside the colours.
    stages = [GivenDetector(), KeepUnique(), GivenSegmenter(), DepthGeometry(folder)]
    stages += [MakeClouds(erode_px=2), RemoveOutliers(), FitBoxes()]
    found = Pipeline(folder, stages).annotate(desk_item())
    if output := os.environ.get("SPEAR_TEST_OUTPUT"):
        image = read_frame(desk_item(), folder).image[..., ::-1].copy()
        draw_boxes(image, found)
        cv2.imwrite(os.path.join(output, "rgbd_boxes.jpg"), image)
    return found


def draw_boxes(image, annotation):
    """Draw each box with the length of its edges."""
    camera = annotation.intrinsics
    for number, found in enumerate(annotation.objects):
        x, y, z = found.vertices.T
        corners = np.column_stack([camera.fx * x / z + camera.cx, camera.fy * y / z + camera.cy])
        colour = [int(v) for v in np.random.default_rng(number).integers(60, 255, 3)]
        for one, other in itertools.combinations(range(8), 2):
            if (one ^ other) in (1, 2, 4):
                ends = [tuple(int(v) for v in corners[end].round()) for end in (one, other)]
                cv2.line(image, *ends, colour, 2, cv2.LINE_AA)
        sizes = " x ".join(f"{100 * edge:.0f}" for edge in edge_lengths(found))
        place = (int(corners[:, 0].min()), max(12, int(corners[:, 1].min()) - 4))
        words = f"{found.label} {sizes} cm"
        cv2.putText(image, words, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 3)
        cv2.putText(image, words, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1)


def edge_lengths(found):
    return np.sort(np.linalg.norm(edges_of(found.vertices), axis=1))[::-1]


def test_everything_outlined_has_a_box(annotation):
    assert annotation.status == "ok"
    assert {found.label for found in annotation.objects} == set(OUTLINES_PX)
    assert not annotation.dropped
    assert annotation.metric


@pytest.mark.parametrize("label", SIZES_M)
def test_sizes_are_plausible(annotation, label):
    found = next(one for one in annotation.objects if one.label == label)
    for edge, (least, most) in zip(edge_lengths(found), SIZES_M[label], strict=True):
        assert least <= edge <= most


def test_things_stand_where_they_are_seen(annotation):
    centre = {found.label: found.centre_m for found in annotation.objects}
    assert centre["die"][0] < centre["magazine"][0] < centre["plastic bag"][0]  # left to right
    assert centre["globe"][1] < centre["die"][1]  # higher up
    assert centre["die"][2] < centre["plastic bag"][2]  # nearer
    assert all(1.8 < place[2] < 2.8 for place in centre.values())


def test_drawn_pixels_are_there(annotation):
    assert len(annotation.pixel_points) == 64
