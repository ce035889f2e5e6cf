"""Every stored picture becomes 840x630, and pixels, boxes and cameras go with it."""

import base64
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image

from spear_policy.inference.image_geometry import pixel_in_model, plan_fit
from spear_training.annotation import frame as frame_module
from spear_training.annotation.frame import (
    Turn,
    box_in_picture,
    in_picture,
    intrinsics_in_picture,
    read_frame,
    read_picture,
)
from spear_training.annotation.records import GivenObject, Intrinsics, Item, photograph_items
from spear_training.annotation.stages import StageError

# 64x40, dark grey, with a magenta card 20x16 at (10, 8); of pillow-heif's encoder.
HEIC = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAb5tZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAA"
    "AAAAAAAAADRpbG9jAAAAAERAAAIAAQAAAAAB4gABAAAAAAAAAFAAAgAAAAACMgABAAAAAAAAABgAAAA4aWluZgAAAAAA"
    "AgAAABVpbmZlAgAAAAABAABodmMxAAAAABVpbmZlAgAAAQACAABFeGlmAAAAAA5waXRtAAAAAAABAAAA/WlwcnAAAADd"
    "aXBjbwAAAHZodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQAq"
    "QgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbq5Ka5uAhoMCAAAAMDIAAAAwAhYgABAAZEAcFzwIkAAAATY29scm5jbHgAAQAN"
    "AAaAAAAAFGlzcGUAAAAAAAAAQAAAAEAAAAAoY2xhcAAAAEAAAAABAAAAKAAAAAEAAAAAAAAAAv///+gAAAACAAAAEHBp"
    "eGkAAAAAAwgICAAAABhpcG1hAAAAAAAAAAEAAQWBAgMFhAAAABppcmVmAAAAAAAAAA5jZHNjAAIAAQABAAAAcG1kYXQA"
    "AABMKAGvE4CPsFLTUf7ujEpXuo505JCHNqJypZsXuxV6hJyhqvW1kbUOcNMNSv7HNWwNlLy206vwnzL5XOqh5xQJ4mMA"
    "pKGevualBbV7xwAAAAZFeGlmAABNTQAqAAAACAAAAAAAAA=="
)
SIZES = [(640, 480), (840, 630), (1280, 720), (720, 960), (400, 1000), (3000, 2000), (99, 77)]


def fit_of(width, height, **options):
    """Return the fit of a stored size to the picture's."""
    return plan_fit(width, height, 840, 630, **options)


def stored(path, pixels, **options):
    """Write a picture."""
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_frame_is_840x630_and_knows_its_padding(tmp_path, width, height):
    stored(tmp_path / "a.png", np.full((height, width, 3), 200, np.uint8))
    frame = read_frame(Item("a", "a.png"), tmp_path)
    assert frame.image.shape == (630, 840, 3) and frame.visible.shape == (630, 840)
    assert (frame.image[frame.visible] == 200).all()
    assert not frame.image[~frame.visible].any()
    portrait = height > width
    assert frame.visible.all() != portrait


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_maps_of_the_stored_picture_land_where_its_pixels_land(width, height):
    fit = fit_of(width, height)
    columns = np.broadcast_to(np.arange(width, dtype=float), (height, width))
    found = in_picture(fit, columns, np.nan)
    seen = np.flatnonzero(np.isfinite(found[315]))
    landed = pixel_in_model(fit, found[315, seen], 0.0)[0]
    assert np.abs(landed - seen).max() <= max(0.5, fit.scale[0] / 2) + 1e-9


def test_a_map_of_another_size_is_refused():
    with pytest.raises(ValueError, match="it is 10x20, the picture 640x480"):
        in_picture(fit_of(640, 480), np.zeros((20, 10)), 0)


def test_a_box_is_brought_by_its_edges():
    assert box_in_picture(fit_of(640, 480), (0, 0, 640, 480)) == (0, 0, 840, 630)
    # 16:9 loses 160 columns on either side.
    assert box_in_picture(fit_of(1280, 720), (160, 0, 1120, 720)) == (0, 0, 840, 630)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_point_is_seen_at_the_same_place_by_both_cameras(width, height):
    fit = fit_of(width, height)
    camera = Intrinsics(0.9 * width, 0.95 * width, 0.51 * width, 0.48 * height)
    moved = intrinsics_in_picture(fit, camera)
    x, y, z = 0.05, -0.02, 0.7
    expected = pixel_in_model(fit, camera.fx * x / z + camera.cx, camera.fy * y / z + camera.cy)
    assert (moved.fx * x / z + moved.cx, moved.fy * y / z + moved.cy) == pytest.approx(expected)


def test_a_squashed_picture_gets_its_own_shape_back(tmp_path):
    stored(tmp_path / "a.png", np.zeros((256, 256, 3), np.uint8))
    frame = read_frame(Item("a", "a.png", native_aspect=4 / 3), tmp_path)
    assert frame.visible.all()
    assert frame.fit.scale == pytest.approx((840 / 256, 630 / 256))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_any_kind_of_picture_becomes_rgb(tmp_path, mode):
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    picture = Image.new("RGB", (30, 20), (90, 90, 90))
    picture.convert(mode).save(path)
    assert read_picture(path).shape == (20, 30, 3)
    assert read_picture(path).mean() == pytest.approx(90, abs=2)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_are_white_as_on_a_page(tmp_path, mode):
    pixels = np.full((20, 30, 4), (90, 90, 90, 255), np.uint8)
    pixels[:, :10] = (7, 7, 7, 0)
    Image.fromarray(pixels).convert(mode).save(tmp_path / "a.png")
    found = read_picture(tmp_path / "a.png")
    assert (found[:, :10] == 255).all() and np.abs(found[:, 10:].astype(int) - 90).max() <= 2


# Ubuntu 24.04's Pillow has no AVIF; users are told the version that has.
AVIF = ["a.avif"] if ".avif" in Image.registered_extensions() else []


@pytest.mark.parametrize("name", ["a.heic", "a.jfif", "a.JPE", *AVIF])
def test_pictures_of_telephones_and_browsers_are_read(tmp_path, name):
    if name == "a.heic":
        (tmp_path / name).write_bytes(HEIC)
    else:
        pixels = np.full((40, 64, 3), 59, np.uint8)
        pixels[8:24, 10:30] = (231, 19, 228)
        kind = "AVIF" if name == "a.avif" else "JPEG"
        Image.fromarray(pixels).save(tmp_path / name, kind, quality=95)
    (item,) = photograph_items(tmp_path)
    found = read_picture(tmp_path / item.image).astype(int)
    assert found.shape == (40, 64, 3)
    assert np.abs(found[12:20, 14:26] - (231, 19, 228)).max() < 12
    assert np.abs(found[:4] - 59).max() < 12


def test_what_is_given_for_a_heic_that_its_file_turns_must_be_upright(tmp_path, monkeypatch):
    (tmp_path / "a.heic").write_bytes(HEIC)
    marked = Item("a", "a.heic", (GivenObject("mug", (10.0, 8.0, 30.0, 24.0)),))
    assert read_frame(marked, tmp_path).turn == Turn()  # this one is stored upright
    opened = Image.open

    def turned(*arguments):  # as pi-heif opens one with an orientation
        found = opened(*arguments)
        found.info["original_orientation"] = 6
        return found

    monkeypatch.setattr(Image, "open", turned)
    with pytest.raises(StageError, match="a.heic is turned by its file .*add --upright"):
        read_frame(marked, tmp_path)
    assert read_frame(replace(marked, upright=True), tmp_path).turn == Turn()
    assert read_frame(Item("a", "a.heic"), tmp_path).turn == Turn()


def test_a_picture_that_needs_a_library_names_it(tmp_path, monkeypatch):
    (tmp_path / "a.heic").write_bytes(HEIC)
    monkeypatch.setattr(frame_module, "_register_heif", lambda: None)
    monkeypatch.setattr(Image, "registered_extensions", lambda: {".png": "PNG"})
    monkeypatch.setattr(Image, "ID", ["PNG"])
    with pytest.raises(StageError, match="a.heic needs pi-heif, which reads it"):
        read_picture(tmp_path / "a.heic")


def test_a_depth_map_is_no_photograph(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((20, 30), 5000, np.uint16))
    with pytest.raises(StageError, match="a.png has no colour .*: is it a depth map"):
        read_picture(tmp_path / "a.png")


def cut(path):
    """Cut a file in the middle."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda path: path.unlink(), "cannot be read: No such file"),
        (lambda path: path.write_bytes(b""), "no picture, or it is empty"),
        (lambda path: path.write_text("hello"), "no picture"),
        (cut, "cannot be read: .*truncated"),
        (lambda path: stored(path, np.zeros((4, 4, 3), np.uint8)), "width must be 8"),
        (lambda path: stored(path, np.zeros((10, 400, 3), np.uint8)), "its aspect"),
    ],
)
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_picture_that_cannot_be_used_says_why(tmp_path, spoil, text, suffix):
    path = tmp_path / f"a{suffix}"
    noise = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    stored(path, noise)
    spoil(path)
    with pytest.raises(StageError, match=text) as caught:
        read_frame(Item("a", path.name), tmp_path)
    assert path.name in str(caught.value)
