"""Our image converter: every encoding, padding, byte order, and what it says to broken messages."""

import struct
import sys
import zlib
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from spear_policy.inference.image_codec import (
    CvBridge,
    CvBridgeError,
    convert,
    encoding_of,
    header_size,
    read_compressed,
)
from spear_policy.inference.observation import InputError, rgb_of_message

BRIDGE = CvBridge(SimpleNamespace, SimpleNamespace)
SHAPES = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1, "mono16": 1}
SHAPES |= {"16UC1": 1, "32FC1": 1, "8UC1": 1, "8UC3": 3, "16SC2": 2, "64FC4": 4}


def sample(encoding, height=5, width=7):
    """A picture of random numbers."""
    kind = encoding_of(encoding)
    draws = np.random.default_rng(1)
    shape = (height, width) if kind.channels == 1 else (height, width, kind.channels)
    if kind.dtype.kind == "f":
        return draws.normal(size=shape).astype(kind.dtype)
    low, high = np.iinfo(kind.dtype).min, np.iinfo(kind.dtype).max
    return draws.integers(low, high, shape, dtype=kind.dtype, endpoint=True)


def decoded(message, wanted="passthrough"):
    """The pixels of a CompressedImage in an encoding."""
    pixels, encoding = read_compressed(message)
    return convert(pixels, encoding, wanted)


def padded(message, extra):
    """The same image with `extra` bytes of rubbish after each row."""
    rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
    rubbish = np.full((message.height, extra), 77, np.uint8)
    message.data = np.hstack([rows, rubbish]).tobytes()
    message.step += extra
    return message


@pytest.mark.parametrize("encoding", SHAPES)
def test_an_image_comes_back_as_it_was_written(encoding):
    picture = sample(encoding)
    message = BRIDGE.cv2_to_imgmsg(picture, encoding)
    assert (message.height, message.width, message.encoding) == (5, 7, encoding)
    assert message.step * message.height == len(message.data)
    back = BRIDGE.imgmsg_to_cv2(message)
    assert back.dtype == picture.dtype
    np.testing.assert_array_equal(back, picture)


@pytest.mark.parametrize("encoding", SHAPES)
@pytest.mark.parametrize("extra", [1, 3, 64])
def test_padded_rows_are_cut_off_even_when_the_step_is_odd(encoding, extra):
    picture = sample(encoding)
    message = padded(BRIDGE.cv2_to_imgmsg(picture, encoding), extra)
    np.testing.assert_array_equal(BRIDGE.imgmsg_to_cv2(message), picture)


@pytest.mark.parametrize("encoding", ["mono16", "16UC1", "32FC1", "16SC2", "64FC4"])
def test_big_endian_images_are_read_in_native_order(encoding):
    picture = sample(encoding)
    swapped = picture.astype(picture.dtype.newbyteorder(">"))
    message = padded(BRIDGE.cv2_to_imgmsg(swapped, encoding), 5)
    assert message.is_bigendian
    back = BRIDGE.imgmsg_to_cv2(message)
    assert back.dtype.isnative and sys.byteorder == "little"
    np.testing.assert_array_equal(back, picture)


def test_byte_order_means_nothing_to_single_bytes():
    message = BRIDGE.cv2_to_imgmsg(sample("rgb8"), "rgb8")
    message.is_bigendian = 1
    np.testing.assert_array_equal(BRIDGE.imgmsg_to_cv2(message), sample("rgb8"))


def test_colours_change_places():
    rgb = sample("rgb8")
    message = BRIDGE.cv2_to_imgmsg(rgb, "rgb8")
    np.testing.assert_array_equal(BRIDGE.imgmsg_to_cv2(message, "bgr8"), rgb[..., ::-1])
    rgba = BRIDGE.imgmsg_to_cv2(message, "rgba8")
    np.testing.assert_array_equal(rgba[..., :3], rgb)
    assert (rgba[..., 3] == 255).all()
    bgra = BRIDGE.cv2_to_imgmsg(sample("bgra8"), "bgra8")
    np.testing.assert_array_equal(BRIDGE.imgmsg_to_cv2(bgra, "rgb8"), sample("bgra8")[..., 2::-1])


@pytest.mark.parametrize("source", ["rgb8", "bgr8", "rgba8", "bgra8", "mono8", "mono16"])
@pytest.mark.parametrize("wanted", ["rgb8", "bgr8", "rgba8", "bgra8", "mono8", "mono16"])
def test_every_colour_becomes_every_other_colour(source, wanted):
    converted = convert(sample(source), source, wanted)
    kind = encoding_of(wanted)
    assert converted.dtype == kind.dtype
    assert converted.shape == ((5, 7) if kind.channels == 1 else (5, 7, kind.channels))


def test_grey_weighs_the_colours_as_opencv_does():
    rgb = sample("rgb8")
    grey = convert(rgb, "rgb8", "mono8")
    np.testing.assert_array_equal(grey, cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY))
    expected = rgb @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(grey, expected, atol=1.0)


def test_grey_of_16_bits_is_scaled_to_8_bits_and_back():
    steps = np.array([[0, 257, 65535, 32896]], np.uint16)
    np.testing.assert_array_equal(convert(steps, "mono16", "mono8"), [[0, 1, 255, 128]])
    np.testing.assert_array_equal(
        convert(np.array([[0, 1, 255]], np.uint8), "mono8", "mono16"), [[0, 257, 65535]]
    )
    np.testing.assert_array_equal(convert(steps, "mono16", "rgb8")[..., 1], [[0, 1, 255, 128]])


def test_depth_changes_its_type_by_rounding_and_saturation():
    metres = np.array([[0.4, 1.6, 70000.0, -3.0, np.nan]], np.float32)
    np.testing.assert_array_equal(convert(metres, "32FC1", "16UC1"), [[0, 2, 65535, 0, 0]])
    millimetres = np.array([[0, 40000]], np.uint16)
    floats = convert(millimetres, "16UC1", "32FC1")
    assert floats.dtype == np.float32
    np.testing.assert_array_equal(floats, [[0.0, 40000.0]])


@pytest.mark.parametrize(
    ("source", "wanted", "words"),
    [
        ("16UC1", "mono8", "does not say what its numbers mean"),
        ("8UC3", "rgb8", "has to name the colours"),
        ("rgb8", "32FC1", "rgb8 has 3 channels and 32FC1 has 1"),
        ("16SC2", "32FC1", "16SC2 has 2 channels"),
        ("rgb8", "yuv422", "'yuv422' is unknown; use one of rgb8"),
    ],
)
def test_an_impossible_conversion_is_refused(source, wanted, words):
    with pytest.raises(CvBridgeError, match=words):
        convert(sample(source), source, wanted)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data": b"123"}, "has 3 bytes; 7x5 rgb8 with step 21 has 105"),
        ({"step": 20}, "step is 20 bytes; a row of 7x5 rgb8 has 21"),
        ({"height": 0}, "empty: 7x0"),
        ({"encoding": "bayer_rggb8"}, "'bayer_rggb8' is unknown"),
    ],
)
def test_a_message_that_contradicts_itself_is_refused(change, words):
    message = BRIDGE.cv2_to_imgmsg(sample("rgb8"), "rgb8")
    vars(message).update(change)
    with pytest.raises(CvBridgeError, match=words):
        BRIDGE.imgmsg_to_cv2(message)


@pytest.mark.parametrize(
    ("picture", "encoding", "words"),
    [
        ([[1, 2]], "mono8", "got list"),
        (np.zeros((2, 2, 5), np.uint8), "passthrough", r"got shape \(2, 2, 5\)"),
        (np.zeros((0, 2), np.uint8), "passthrough", "got shape"),
        (np.zeros((2, 2), complex), "passthrough", "no image encoding holds"),
        (np.zeros((2, 2, 3), np.uint8), "mono8", "type 8UC3 cannot be sent as mono8"),
        (np.zeros((2, 2), np.uint16), "mono8", "type 16UC1 cannot be sent as mono8"),
    ],
)
def test_what_is_no_image_of_that_kind_is_not_written(picture, encoding, words):
    with pytest.raises(CvBridgeError, match=words):
        BRIDGE.cv2_to_imgmsg(picture, encoding)


def test_passthrough_writes_the_type_of_the_array():
    assert BRIDGE.cv2_to_imgmsg(sample("rgb8")).encoding == "8UC3"
    assert BRIDGE.cv2_to_imgmsg(sample("32FC1")).encoding == "32FC1"


def test_the_header_is_taken_over_and_a_cropped_view_is_written_whole():
    picture = sample("rgb8", 20, 20)[3:8, 2:9]
    message = BRIDGE.cv2_to_imgmsg(picture, "rgb8", header="the header")
    assert message.header == "the header"
    np.testing.assert_array_equal(BRIDGE.imgmsg_to_cv2(message), picture)


def test_reading_does_not_copy_what_needs_no_change():
    message = BRIDGE.cv2_to_imgmsg(sample("rgb8"), "rgb8")
    data = np.frombuffer(message.data, np.uint8)
    assert np.shares_memory(BRIDGE.imgmsg_to_cv2(message, "rgb8"), data)


def test_data_may_be_a_list_as_some_bridges_give_it():
    message = BRIDGE.cv2_to_imgmsg(sample("mono8"), "mono8")
    message.data = list(message.data)
    np.testing.assert_array_equal(BRIDGE.imgmsg_to_cv2(message), sample("mono8"))


def test_a_png_keeps_every_pixel_and_decodes_to_bgr():
    bgr = sample("bgr8")
    message = BRIDGE.cv2_to_compressed_imgmsg(bgr, "png")
    assert message.format == "png"
    np.testing.assert_array_equal(decoded(message), bgr)
    np.testing.assert_array_equal(decoded(message, "rgb8"), bgr[..., ::-1])


@pytest.mark.parametrize("encoding", ["mono8", "mono16", "bgra8"])
def test_other_pictures_survive_png_too(encoding):
    message = BRIDGE.cv2_to_compressed_imgmsg(sample(encoding), "png")
    np.testing.assert_array_equal(decoded(message), sample(encoding))


def test_a_jpeg_is_nearly_the_picture():
    smooth = np.linspace(0, 255, 64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8)
    message = BRIDGE.cv2_to_compressed_imgmsg(smooth)
    assert message.format == "jpg" and len(message.data) < smooth.size / 3
    back = decoded(message, "bgr8").astype(int)
    assert np.abs(back - smooth).mean() < 2.0


@pytest.mark.parametrize(
    ("data", "format_", "words"),
    [
        (b"", "jpeg", "0 bytes of format 'jpeg' are no JPEG or PNG"),
        (b"no picture at all", "png", "17 bytes of format 'png' are no JPEG or PNG"),
        (b"\x00" * 20, "16UC1; compressedDepth png", "compressedDepth is no plain picture"),
    ],
)
def test_broken_compressed_data_is_refused(data, format_, words):
    with pytest.raises(CvBridgeError, match=words):
        decoded(SimpleNamespace(data=data, format=format_))


@pytest.mark.parametrize("options", [[], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]])
def test_the_header_tells_the_size(options):
    picture = sample("bgr8", 300, 517)
    for format_ in (".png", ".jpg"):
        data = cv2.imencode(format_, picture, options if format_ == ".jpg" else [])[1].tobytes()
        assert header_size(data) == (517, 300)
        assert header_size(data[:10]) == (0, 0)


def test_a_small_file_that_claims_a_huge_size_is_refused_before_it_is_decoded(monkeypatch):
    rows = zlib.compress(bytes(100_000))
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n"
    for name, content in ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")):
        crc32 = struct.pack(">I", zlib.crc32(name + content))
        data += struct.pack(">I", len(content)) + name + content + crc32
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    message = SimpleNamespace(data=data, format="rgb8; png compressed bgr8")
    with pytest.raises(CvBridgeError, match="says that it is 30000x30000; at most 8K"):
        decoded(message)
    with pytest.raises(InputError, match="/external/image_raw/compressed: the compressed image"):
        rgb_of_message(message, "/external/image_raw/compressed", None)


def test_a_format_that_opencv_cannot_write_is_refused():
    with pytest.raises(CvBridgeError, match="'nonsense'"):
        BRIDGE.cv2_to_compressed_imgmsg(sample("bgr8"), "nonsense")


def test_errors_are_type_errors_as_in_cv_bridge():
    assert issubclass(CvBridgeError, TypeError)
