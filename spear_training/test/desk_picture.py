"""The real RGB-D picture of a desk (TUM fr3) and outlines of some things in it, drawn by hand."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from spear_training.annotation.records import GivenDepth, GivenObject, Intrinsics, Item, encode_mask

ROOT = Path(__file__).resolve().parents[2]
# Corners (x, y) in pixels of the stored picture of 640x480.
OUTLINES_PX = {
    "globe": [
        *[(91, 11), (109, 13), (132, 20), (149, 34), (160, 50), (162, 65), (161, 80), (154, 92)],
        *[(143, 103), (118, 104), (92, 102), (80, 94), (69, 86), (62, 71), (57, 50), (59, 36)],
        *[(71, 19), (82, 13)],
    ],
    "die": [
        *[(127, 205), (132, 198), (149, 196), (164, 198), (169, 208), (172, 228), (170, 240)],
        *[(157, 246), (145, 245), (130, 233), (126, 220)],
    ],
    "striped cushion": [(166, 140), (191, 139), (223, 139), (227, 213), (174, 213)],
    "magazine": [(237, 236), (266, 208), (308, 216), (285, 246)],
    "blue mug": [
        (532, 200),
        (536, 199),
        (553, 206),
        (551, 214),
        (544, 227),
        (540, 228),
        (532, 225),
    ],
    "plastic bag": [
        *[(468, 119), (472, 114), (498, 110), (516, 100), (532, 100), (542, 95), (546, 99)],
        *[(538, 117), (540, 140), (544, 168), (542, 180), (520, 190), (500, 196), (486, 192)],
        *[(485, 180), (474, 150), (470, 132)],
    ],
}


def desk_folder():
    """Return the folder of the picture, or skip."""
    folder = ROOT / os.environ.get("SPEAR_TEST_DATA", "../shared/data") / "rgbd"
    if not (folder / "other_formats_TUM_depth.png").is_file():
        pytest.skip("no real RGB-D picture here: set SPEAR_TEST_DATA to the folder above rgbd")
    return folder.resolve()


def desk_item():
    """Return the picture with its depth, camera and outlined things."""
    return Item(
        id="desk",
        image="other_formats_TUM_color.png",
        objects=tuple(
            GivenObject(label, mask=encode_mask(_filled(outline)))
            for label, outline in OUTLINES_PX.items()
        ),
        depth=GivenDepth("other_formats_TUM_depth.png", 5000),
        intrinsics=Intrinsics(fx=535.4, fy=539.2, cx=320.1, cy=247.6),
    )


def _filled(outline):
    mask = np.zeros((480, 640), np.uint8)
    cv2.fillPoly(mask, [np.array(outline)], 1)
    return mask.astype(bool)
