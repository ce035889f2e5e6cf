"""Pictures fit the model without distortion, and pixels can be followed there and back."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from spear_policy.inference.image_geometry import (
    Fit,
    fit,
    pixel_in_model,
    pixel_in_source,
    plan_fit,
)

quickly = settings(max_examples=100, deadline=None)
sides = st.integers(60, 2000)
targets = st.sampled_from([(280, 210), (112, 112), (56, 42), (224, 224)])
modes = st.sampled_from(["auto", "crop", "pad"])


def noise(width, height, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def triangle_filter(image, width, height):
    """The exact bilinear resize with antialiasing and half-pixel centres, fp64."""

    def weights(before, after):
        scale = before / after
        centres = (np.arange(after) + 0.5) * scale
        distance = np.abs(np.arange(before) + 0.5 - centres[:, None])
        rows = np.maximum(0, 1 - distance / max(scale, 1.0))
        return rows / rows.sum(1, keepdims=True)

    rows, columns = weights(image.shape[0], height), weights(image.shape[1], width)
    return np.einsum("ij,jkc,lk->ilc", rows, image.astype(float), columns, optimize=True)


def crop_of(plan: Fit):
    return plan.crop_left, plan.crop_top, plan.crop_width, plan.crop_height


def padded(plan: Fit):
    return plan.pad_left, plan.pad_top, plan.resized_width, plan.resized_height


@pytest.mark.parametrize(
    ("source", "target", "aspect", "mode", "crop", "inner"),
    [
        ((640, 480), (280, 210), None, "crop", (0, 0, 640, 480), (0, 0, 280, 210)),
        ((640, 480), (112, 112), None, "crop", (80, 0, 480, 480), (0, 0, 112, 112)),
        ((1280, 720), (280, 210), None, "crop", (160, 0, 960, 720), (0, 0, 280, 210)),
        ((1280, 720), (112, 112), None, "pad", (0, 0, 1280, 720), (0, 24, 112, 63)),
        ((256, 256), (280, 210), 4 / 3, "crop", (0, 0, 256, 256), (0, 0, 280, 210)),
        ((256, 256), (280, 210), 1.3333, "crop", (0, 0, 256, 256), (0, 0, 280, 210)),
        ((256, 256), (112, 112), 4 / 3, "crop", (32, 0, 192, 256), (0, 0, 112, 112)),
        ((112, 112), (112, 112), None, "crop", (0, 0, 112, 112), (0, 0, 112, 112)),
        ((112, 112), (280, 210), None, "crop", (0, 14, 112, 84), (0, 0, 280, 210)),
        ((150, 101), (112, 112), None, "pad", (0, 0, 150, 101), (0, 18, 112, 75)),
        ((101, 101), (280, 210), None, "crop", (0, 12, 101, 76), (0, 0, 280, 210)),
        ((480, 640), (280, 210), None, "pad", (0, 0, 480, 640), (61, 0, 157, 210)),
    ],
)
def test_auto_crops_what_keeps_three_quarters_and_pads_the_rest(
    source, target, aspect, mode, crop, inner
):
    plan = plan_fit(*source, *target, native_aspect=aspect)
    assert (plan.mode, crop_of(plan), padded(plan)) == (mode, crop, inner)


def test_padding_takes_the_same_pictures_as_openpis_rule():
    assert padded(plan_fit(1280, 720, 280, 210, "pad")) == (0, 26, 280, 157)
    assert padded(plan_fit(256, 256, 112, 112, "pad", 4 / 3)) == (0, 14, 112, 84)


@quickly
@given(sides, sides, targets, modes, st.none() | st.floats(0.4, 2.5))
def test_a_circle_stays_a_circle_within_a_pixel(width, height, target, mode, aspect):
    seen = aspect or width / height
    assume(0.1 <= seen <= 10)
    plan = plan_fit(width, height, *target, mode, aspect)
    across, down = plan.scale
    # In the scene a stored pixel is seen / (width / height) times as wide as it is high.
    stretch = seen / (width / height)
    radius = min(target) / 2  # in model pixels: the largest circle that the picture can hold
    assert abs(radius * down * stretch / across - radius) < 1.0 + radius / min(
        plan.crop_width, plan.crop_height, plan.resized_width, plan.resized_height
    )


@quickly
@given(sides, sides, targets)
def test_a_crop_keeps_the_centre_and_touches_two_opposite_edges(width, height, target):
    assume(0.1 <= width / height <= 10)
    plan = plan_fit(width, height, *target, "crop")
    u, v = pixel_in_model(plan, (width - 1) / 2, (height - 1) / 2)
    across, down = plan.scale
    assert abs(u - (target[0] - 1) / 2) <= 0.5 * across + 1e-9
    assert abs(v - (target[1] - 1) / 2) <= 0.5 * down + 1e-9
    assert plan.crop_width == width or plan.crop_height == height


@quickly
@given(st.integers(20, 200), st.integers(20, 200), targets)
def test_padding_is_black_and_symmetric_to_a_pixel(width, height, target):
    plan = plan_fit(width, height, *target, "pad")
    image = plan.apply(np.full((height, width, 3), 255, np.uint8))
    assert image.shape == (target[1], target[0], 3)
    lit = image.all(axis=2)
    assert set(np.unique(image)) <= {0, 255}
    assert lit.sum() == plan.resized_width * plan.resized_height
    for edges, total in ((lit.any(0), plan.resized_width), (lit.any(1), plan.resized_height)):
        before, after = int(np.argmax(edges)), int(np.argmax(edges[::-1]))
        assert before + total + after == len(edges) and after - before in (0, 1)
    assert plan.resized_width == target[0] or plan.resized_height == target[1]


@quickly
@given(sides, sides, targets, modes, st.floats(-50, 2000), st.floats(-50, 2000))
def test_a_pixel_goes_to_the_model_and_back(width, height, target, mode, u, v):
    assume(0.1 <= width / height <= 10)
    plan = plan_fit(width, height, *target, mode)
    assert np.allclose(pixel_in_source(plan, *pixel_in_model(plan, u, v)), (u, v), atol=1e-9)


@pytest.mark.parametrize("source", [(640, 480), (1280, 720), (480, 640)])
@pytest.mark.parametrize("target", [(280, 210), (112, 112)])
@pytest.mark.parametrize("mode", ["crop", "pad"])
def test_what_is_seen_lies_where_the_plan_says(source, target, mode):
    plan = plan_fit(*source, *target, mode)
    centre = np.array([source[0] * 0.55, source[1] * 0.45])
    v, u = np.mgrid[: source[1], : source[0]]
    blob = np.exp(-((u - centre[0]) ** 2 + (v - centre[1]) ** 2) / (2 * 15.0**2))
    image = np.repeat(np.rint(255 * blob).astype(np.uint8)[..., None], 3, axis=2)
    seen = plan.apply(image)[..., 0].astype(float)
    v, u = np.mgrid[: target[1], : target[0]]
    found = np.array([(u * seen).sum(), (v * seen).sum()]) / seen.sum()
    assert np.allclose(found, pixel_in_model(plan, *centre), atol=0.1)


@pytest.mark.parametrize("source", [(640, 480), (1280, 720), (250, 190), (90, 70), (560, 420)])
@pytest.mark.parametrize("mode", ["crop", "pad"])
def test_the_resize_is_the_exact_triangle_filter_within_a_grey_level(source, mode):
    image = noise(*source)
    plan = plan_fit(*source, 280, 210, mode)
    left, top, width, height = crop_of(plan)
    exact = triangle_filter(
        image[top : top + height, left : left + width], plan.resized_width, plan.resized_height
    )
    left, top, width, height = padded(plan)
    found = plan.apply(image)[top : top + height, left : left + width]
    assert np.abs(found - exact).max() < 1.5  # rounding of both passes


def test_a_crop_does_not_look_beyond_its_edge():
    image = noise(1280, 720)
    cropped = np.ascontiguousarray(image[:, 160:1120])
    assert np.array_equal(fit(image, 280, 210), fit(cropped, 280, 210))


def test_an_unsquashed_picture_looks_like_the_one_it_was_squashed_from():
    v, u = np.mgrid[:480, :640]
    original = np.stack([128 + 100 * np.sin(u / 40), 128 + 100 * np.cos(v / 30), u / 4], axis=-1)
    original = original.astype(np.uint8)
    squashed = fit(original, 256, 256, "crop", native_aspect=1.0)
    unsquashed = fit(squashed, 280, 210, native_aspect=4 / 3).astype(float)
    assert np.abs(unsquashed - fit(original, 280, 210)).mean() < 1.5
    wrong = fit(squashed, 280, 210).astype(float)
    assert np.abs(wrong - fit(original, 280, 210)).mean() > 10


def test_a_picture_of_the_right_size_stays_and_is_a_copy():
    image = noise(280, 210)
    same = fit(image, 280, 210)
    assert np.array_equal(same, image) and not np.shares_memory(same, image)


@pytest.mark.parametrize("view", ["flipped", "read only", "transposed"])
def test_any_memory_layout_gives_the_same_picture(view):
    image = noise(640, 480)
    if view == "flipped":
        same = image[:, :, ::-1].copy()[:, :, ::-1]
    elif view == "transposed":
        same = np.ascontiguousarray(image.transpose(1, 0, 2)).transpose(1, 0, 2)
    else:
        same = image.copy()
        same.flags.writeable = False
    assert np.array_equal(fit(same, 280, 210), fit(image, 280, 210))


def test_a_plan_is_made_once_for_each_size():
    assert plan_fit(640, 480, 280, 210) is plan_fit(640, 480, 280, 210)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((480, 640, 3), np.float32), "float32"),
        (np.full((480, 640, 3), np.nan), "float64"),
        (np.zeros((480, 640), np.uint8), "(480, 640)"),
        (np.zeros((480, 640, 4), np.uint8), "(480, 640, 4)"),
        (np.zeros((3, 480, 640), np.uint8), "(3, 480, 640)"),
        (np.zeros((1, 480, 640, 3), np.uint8), "(1, 480, 640, 3)"),
        (np.zeros((0, 640, 3), np.uint8), "empty"),
        (np.zeros((4, 640, 3), np.uint8), "640x4"),
        (np.zeros((10, 640, 3), np.uint8), "aspect is 64"),
        ([[0]], "list"),
        (None, "NoneType"),
    ],
)
def test_what_is_no_picture_is_named(image, words):
    with pytest.raises(ValueError) as caught:
        fit(image, 280, 210)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((20000, 480, 280, 210), "20000x480"),
        ((640, 480, 0, 210), "0x210"),
        ((640, 480, 280, 210, "stretch"), "auto, crop, pad"),
        ((640, 480, 280, 210, "auto", 0.0), "native_aspect is 0"),
        ((640, 480, 280, 210, "auto", float("nan")), "native_aspect is nan"),
        ((640, 480, 280, 210, "auto", float("inf")), "native_aspect is inf"),
    ],
)
def test_an_impossible_fit_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        plan_fit(*arguments)


def test_a_plan_refuses_a_picture_of_another_size():
    with pytest.raises(ValueError, match="320x240.*640x480"):
        plan_fit(640, 480, 280, 210).apply(noise(320, 240))
