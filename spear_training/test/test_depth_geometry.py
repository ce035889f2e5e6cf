"""Points from a measured depth picture."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from desk_picture import desk_folder
from hypothesis import given
from hypothesis import strategies as st
from stage_frames import frame_of

from spear_policy.inference.image_geometry import pixel_in_model
from spear_training.annotation.depth import DepthGeometry, backproject, read_depth
from spear_training.annotation.frame import read_frame, read_picture
from spear_training.annotation.records import GivenDepth, Intrinsics, Item
from spear_training.annotation.stages import JobError, StageError
from spear_training.data.reader import LFS_BEGIN

CAMERA = Intrinsics(500.0, 510.0, 319.5, 239.5)
DEPTH = GivenDepth("depth.png", 1000.0)


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a depth picture to the folder of the items."""

    def write(values, name="depth.png"):
        path = tmp_path / name
        path.write_bytes(cv2.imencode(".png", np.asarray(values))[1].tobytes())
        return path

    return write


def run(folder, frame=None, **options):
    """Run the stage."""
    frame = frame or frame_of(depth=DEPTH, intrinsics=CAMERA)
    return DepthGeometry(folder, **options)(frame).points


def test_a_wall_ahead_is_a_plane_as_wide_as_the_camera_sees(tmp_path, write):
    write(np.full((480, 640), 2000, np.uint16))
    points = run(tmp_path)
    assert points.metric and points.points_m.dtype == np.float32
    assert points.points_m.shape == (630, 840, 3)
    assert np.all(points.points_m[..., 2] == 2.0)
    # A pixel of the picture is 640 / 840 of a stored one: the outermost centres lie further out.
    edge = (319.5 + 0.5 - 0.5 * 640 / 840) / 500 * 2
    assert points.points_m[:, 0, 0] == pytest.approx(-edge, abs=1e-5)
    assert points.points_m[:, -1, 0] == pytest.approx(edge, abs=1e-5)
    assert np.all(np.diff(points.points_m[0, :, 0]) > 0)
    assert np.all(np.diff(points.points_m[:, 0, 1]) > 0)


@given(st.integers(0, 47), st.integers(0, 63), st.floats(0.2, 12.0))
def test_a_point_projects_back_to_its_pixel(row, column, depth_m):
    camera = Intrinsics(50.0, 51.0, 31.5, 20.0)
    depths = np.full((48, 64), np.nan)
    depths[row, column] = depth_m
    points = backproject(depths, camera)
    x, y, z = points[row, column].astype(float)
    assert camera.fx * x / z + camera.cx == pytest.approx(column, abs=1e-4)
    assert camera.fy * y / z + camera.cy == pytest.approx(row, abs=1e-4)
    assert np.isnan(points).all(axis=-1).sum() == depths.size - 1


@pytest.mark.parametrize("size", [(1920, 1080), (480, 640), (256, 256), (1408, 1408)])
def test_crop_padding_and_scale_leave_a_point_where_it_is(tmp_path, write, size):
    width, height = size
    camera = Intrinsics(0.9 * width, 0.9 * width, width / 2, height / 2)
    depth = np.zeros((height, width), np.uint16)
    u, v = width // 2 + 20, height // 2 - 30
    depth[v - 3 : v + 4, u - 3 : u + 4] = 1500
    write(depth)
    frame = frame_of(width, height, depth=DEPTH, intrinsics=camera)
    found = run(tmp_path, frame)
    points = found.points_m
    known = np.isfinite(points).all(axis=-1)
    assert np.array_equal(known, np.isfinite(points).any(axis=-1))
    mean = points[known].mean(axis=0)
    expected = [(u - camera.cx) / camera.fx * 1.5, (v - camera.cy) / camera.fy * 1.5, 1.5]
    pixel_m = 1.5 / min(camera.fx, found.intrinsics.fx)
    assert mean == pytest.approx(expected, abs=0.6 * pixel_m)
    rows, columns = np.nonzero(known)
    across, down = pixel_in_model(frame.fit, u, v)
    assert (columns.mean(), rows.mean()) == pytest.approx((across, down), abs=1.0)


def test_what_was_not_measured_or_is_too_far_is_unknown(tmp_path, write):
    depth = np.full((480, 640), 3000, np.uint16)
    depth[:240, :320] = 0
    depth[240:, :320] = 65535
    depth[:240, 320:] = 5001
    write(depth)
    points = run(tmp_path, max_range_m=5.0).points_m
    known = np.isfinite(points).all(axis=-1)
    assert known[316:, 421:].all()
    assert not known[:314].any() and not known[:, :419].any()
    assert np.isfinite(run(tmp_path).points_m[0, 839]).all()


def test_padding_has_no_points(tmp_path, write):
    write(np.full((640, 480), 3000, np.uint16))
    camera = Intrinsics(500.0, 510.0, 239.5, 319.5)
    frame = frame_of(480, 640, depth=DEPTH, intrinsics=camera)
    known = np.isfinite(run(tmp_path, frame).points_m).all(axis=-1)
    assert np.array_equal(known, frame.visible) and not known.all()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.full((480, 640), 90, np.uint8), "holds uint8 numbers .* 16 bits"),
        (np.full((480, 640, 3), 9000, np.uint16), r"shape \(480, 640, 3\)"),
        (np.full((240, 320), 9000, np.uint16), "it is 320x240, the picture 640x480"),
        (np.zeros((480, 640), np.uint16), "no pixel with a measured depth"),
    ],
)
def test_depth_that_is_none_fails_the_picture(tmp_path, write, values, said):
    write(values)
    with pytest.raises(StageError, match=f"depth.png.*{said}"):
        run(tmp_path)


def test_pointers_of_git_lfs_are_called_that(tmp_path):
    path = tmp_path / DEPTH.path
    path.write_bytes(LFS_BEGIN + b"v1")
    for read in (read_depth, read_picture):
        with pytest.raises(StageError, match="depth.png: is a pointer of Git LFS"):
            read(path)


@pytest.mark.parametrize("kept", [0, 100, 1000, -2000])
def test_a_damaged_depth_file_fails_the_picture(tmp_path, write, kept):
    path = write(np.random.default_rng(0).integers(500, 5000, (480, 640), dtype=np.uint16))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(StageError, match="depth.png"):
        run(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"depth": None}, "no depth: add"),
        ({"intrinsics": None}, "no intrinsics: add"),
        ({"depth": GivenDepth("other.png", 1000)}, "other.png: there is no such file"),
        ({"depth": GivenDepth("depth.png", 0)}, "units_per_m is 0"),
        ({"depth": GivenDepth("depth.png", float("nan"))}, "units_per_m is nan"),
        ({"intrinsics": replace(CAMERA, fx=-1.0)}, "fx is -1"),
        ({"intrinsics": replace(CAMERA, cy=float("inf"))}, "cy is inf"),
        ({"depth": GivenDepth("depth.png", 1.0)}, "half of the pixels are 2e[+]03 m away"),
        ({"depth": GivenDepth("depth.png", 1e6)}, "with units_per_m 1e[+]06; it is 1000 where"),
        ({"intrinsics": Intrinsics(0.78, 1.06, 0.5, 0.5)}, "pixels, not shares of the picture"),
        ({"intrinsics": Intrinsics(4.2, 4.2, 319.5, 239.5)}, "no camera has such a lens"),
        ({"intrinsics": Intrinsics(1000.0, 1000.0, 959.5, 539.5)}, "belong to another picture"),
        ({"intrinsics": Intrinsics(1000.0, 1000.0, 639.5, 359.5)}, "belong to another picture"),
        ({"intrinsics": Intrinsics(300.0, 300.0, 159.5, 119.5)}, "belong to another picture"),
        ({"intrinsics": Intrinsics(600.0, 600.0, 239.5, 319.5)}, "640x480: they are exchanged"),
        ({"intrinsics": Intrinsics(1000.0, 500.0, 319.5, 239.5)}, "apart for .* native_aspect"),
        ({"intrinsics": Intrinsics(370.0, 370.0, 240.0, 180.0)}, "middle of a picture of 481x361"),
    ],
)
def test_an_item_without_what_it_takes_fails_and_says_what(tmp_path, write, change, said):
    write(np.full((480, 640), 2000, np.uint16))
    known = {"depth": DEPTH, "intrinsics": CAMERA} | change
    with pytest.raises(StageError, match=said):
        run(tmp_path, frame_of(**known))


def test_a_picture_that_was_cut_out_beside_the_centre_needs_a_wider_limit(tmp_path, write):
    write(np.full((480, 640), 2000, np.uint16))
    frame = frame_of(depth=DEPTH, intrinsics=Intrinsics(500.0, 500.0, 600.0, 239.5))
    with pytest.raises(StageError, match="depth.off_centre may be more than 0.2"):
        run(tmp_path, frame)
    assert run(tmp_path, frame, off_centre=0.5).metric
    crop = frame_of(depth=DEPTH, intrinsics=Intrinsics(500.0, 500.0, 239.5, 319.5))
    assert run(tmp_path, crop, off_centre=0.25).metric


def test_limits_that_cannot_work_are_refused():
    with pytest.raises(JobError, match="max_range_m is 0"):
        DepthGeometry(".", max_range_m=0)
    with pytest.raises(JobError, match="off_centre is 0"):
        DepthGeometry(".", off_centre=0)


def test_a_real_desk_has_the_size_of_a_desk():
    folder = desk_folder()
    item = Item(
        "desk",
        "other_formats_TUM_color.png",
        depth=GivenDepth("other_formats_TUM_depth.png", 5000.0),
        intrinsics=Intrinsics(535.4, 539.2, 320.1, 247.6),
    )
    points = run(folder, read_frame(item, folder), max_range_m=4.0)
    known = np.isfinite(points.points_m).all(axis=-1)
    assert 0.5 < known.mean() < 1.0
    depth_m = points.points_m[known][:, 2]
    assert 0.4 < depth_m.min() < 1.5 < depth_m.max() <= 4.0
    assert points.intrinsics.fx == pytest.approx(535.4 * 840 / 640)
    # Every known pixel is seen where it is.
    rows, columns = np.nonzero(known)
    x, y, z = points.points_m[known].astype(float).T
    camera = points.intrinsics
    assert np.allclose(camera.fx * x / z + camera.cx, columns, atol=1e-2)
    assert np.allclose(camera.fy * y / z + camera.cy, rows, atol=1e-2)
