"""The geometry `moge`. MoGe itself is a substitute here.

MoGe is in no package registry, so nobody can install it for these tests. In its place stands a
package `moge` with MoGe's interface (model.v1 and model.v2, MoGeModel.from_pretrained, infer) that
looks along a tilted plane. What is tested is what SPEAR does with MoGe's answers, not MoGe.
"""

import sys

import numpy as np
import pytest
import torch
from stage_frames import frame_of

from spear_training.annotation.moge import MogeGeometry, MogeOptions
from spear_training.annotation.stages import JobError, StageError

SUBSTITUTE = '''
import torch


class MoGeModel(torch.nn.Module):
    """Sees a plane; the upper left corner is sky. `change` is what a test wants otherwise."""

    change = None

    def __init__(self, name):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.name = name

    @classmethod
    def from_pretrained(cls, name):
        if "missing" in str(name):
            raise FileNotFoundError(f"no file {name}")
        return cls(name)

    def infer(self, image, use_fp16=True, apply_mask=True, force_projection=True):
        assert image.dim() == 3 and image.shape[0] == 3 and image.dtype == torch.float32
        assert 0 <= image.min() and image.max() <= 1
        assert not (use_fp16 and image.device.type == "cpu")
        height, width = image.shape[1:]
        fx, fy, cx, cy = 0.8, 1.1, 0.5, 0.5
        u = (torch.arange(width) + 0.5) / width
        v = (torch.arange(height) + 0.5) / height
        depth = 1.0 + v[:, None].expand(height, width) + image.mean()
        x, y = (u[None, :] - cx) / fx * depth, (v[:, None] - cy) / fy * depth
        mask = torch.ones(height, width, dtype=torch.bool)
        mask[:100, :200] = False
        points = torch.stack([x, y, depth], -1)
        points[~mask] = torch.inf
        intrinsics = torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])
        answer = {"points": points, "depth": depth, "mask": mask, "intrinsics": intrinsics}
        return answer if self.change is None else type(self).change(answer)
'''


@pytest.fixture
def substitute(tmp_path, monkeypatch):
    """Install the substitute; returns a function that changes its answers."""
    for module in [name for name in sys.modules if name.split(".")[0] == "moge"]:
        monkeypatch.delitem(sys.modules, module)
    package = tmp_path / "site" / "moge" / "model"
    package.mkdir(parents=True)
    for file in (package.parent / "__init__.py", package / "__init__.py"):
        file.write_text("")
    for version in ("v1", "v2"):
        (package / f"{version}.py").write_text(SUBSTITUTE)
    monkeypatch.syspath_prepend(tmp_path / "site")

    def change(answers):
        import moge.model.v1

        monkeypatch.setattr(moge.model.v1.MoGeModel, "change", staticmethod(answers))

    yield change
    for module in [name for name in sys.modules if name.split(".")[0] == "moge"]:
        del sys.modules[module]


def run(frame=None, **options):
    """Run the stage on the CPU."""
    return MogeGeometry(MogeOptions(device="cpu", **options))(frame or frame_of()).points


def test_points_come_in_our_frame_with_the_sky_unknown(substitute):
    found = run()
    assert found.points_m.shape == (630, 840, 3) and found.points_m.dtype == np.float32
    known = np.isfinite(found.points_m).all(axis=-1)
    assert not known[:100, :200].any() and known.sum() == 630 * 840 - 100 * 200
    assert np.isnan(found.points_m[~known]).all()
    assert (found.points_m[known][:, 2] > 1).all()


def test_the_camera_is_in_pixels_counted_from_the_first_ones_centre(substitute):
    found = run()
    camera = found.intrinsics
    assert (camera.fx, camera.fy) == pytest.approx((0.8 * 840, 1.1 * 630))
    assert (camera.cx, camera.cy) == pytest.approx((419.5, 314.5))
    # The camera and the points tell the same story.
    for row, column in ((629, 0), (300, 839), (400, 420)):
        x, y, z = found.points_m[row, column].astype(float)
        assert camera.fx * x / z + camera.cx == pytest.approx(column, abs=0.01)
        assert camera.fy * y / z + camera.cy == pytest.approx(row, abs=0.01)


def test_only_version_2_is_in_metres(substitute):
    assert run(version="v1").metric is False
    assert run(version="v2").metric is True


def test_the_padding_is_seen_but_has_no_points(substitute):
    seen = []
    substitute(lambda answer: seen.append(answer["points"].shape) or answer)
    upright = frame_of(480, 640)
    known = np.isfinite(run(upright).points_m).all(axis=-1)
    assert seen == [(630, 840, 3)]
    assert not (known & ~upright.visible).any()
    assert np.array_equal(known[100:], upright.visible[100:])


def put(name, value):
    """Return a change that puts a value into the answer."""
    return lambda answer: answer | {name: value}


def with_points(change):
    """Return a change of the answer's points."""

    def changed(answer):
        points = answer["points"].clone()
        change(points)
        return answer | {"points": points}

    return changed


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_point_with_one_bad_number_is_unknown(substitute, value):
    def spoil(points):
        points[300, 400, 1] = value

    substitute(with_points(spoil))
    points = run().points_m
    assert np.isnan(points[300, 400]).all() and np.isfinite(points[300, 401]).all()
    assert not np.isinf(points).any()


def test_a_point_behind_the_camera_is_unknown(substitute):
    def turn(points):
        points[300, 400, 2] = -1.0

    substitute(with_points(turn))
    assert np.isnan(run().points_m[300, 400]).all()


def test_the_mask_counts_even_where_points_are_finite(substitute):
    mask = torch.zeros(630, 840, dtype=torch.bool)
    mask[600:, :] = True
    substitute(put("mask", mask))
    assert np.array_equal(np.isfinite(run().points_m).all(axis=-1), mask.numpy())


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (put("points", torch.full((630, 840, 3), torch.inf)), "no pixel of the picture"),
        (put("mask", torch.zeros(630, 840, dtype=torch.bool)), "no pixel of the picture"),
        (put("intrinsics", torch.full((3, 3), torch.nan)), "found no camera"),
        (put("intrinsics", torch.zeros(3, 3)), "found no camera"),
    ],
)
def test_an_answer_without_anything_in_it_fails_the_picture(substitute, answers, said):
    substitute(answers)
    with pytest.raises(StageError, match=said):
        run()


@pytest.mark.parametrize("error", [RuntimeError, ValueError, IndexError])
def test_an_error_inside_moge_fails_the_picture(substitute, error):
    def fail(answer):
        raise error("the focal length cannot be found")

    substitute(fail)
    with pytest.raises(StageError, match=f"MoGe failed .{error.__name__}: the focal length"):
        run()


def test_a_full_gpu_stops_the_job(substitute):
    def fail(answer):
        raise torch.OutOfMemoryError("CUDA out of memory")  # a full GPU is played

    substitute(fail)
    with pytest.raises(JobError, match="no memory left"):
        run()


@pytest.mark.parametrize(
    "answers",
    [
        put("points", torch.zeros(1, 630, 840, 3)),
        put("intrinsics", torch.eye(4)),
        lambda answer: {"depth": answer["depth"]},
    ],
)
def test_a_moge_that_answers_in_another_form_stops_the_job(substitute, answers):
    substitute(answers)
    with pytest.raises(JobError, match="in a form that is not known"):
        run()


def test_without_moge_the_job_stops_and_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "moge", None)
    with pytest.raises(
        JobError, match="moge needs moge.*: pip install git.https://github.com/micr"
    ):
        run()


def test_a_moge_that_lacks_what_it_needs_itself_says_what(substitute, tmp_path):
    (tmp_path / "site" / "moge" / "model" / "v1.py").write_text("import no_such_utils3d")
    with pytest.raises(JobError, match="needs no_such_utils3d, which moge needs: pip install git"):
        run()


def test_missing_weights_stop_the_job(substitute):
    with pytest.raises(JobError, match="the model missing.pt cannot be loaded"):
        run(model="missing.pt")


def test_an_unknown_version_is_refused():
    with pytest.raises(JobError, match="version is 'v3'; it may be v1, v2"):
        MogeOptions(version="v3")


def test_settings_name_the_weights(substitute):
    assert MogeGeometry().settings == {"version": "v1", "model": "Ruicheng/moge-vitl"}
    assert MogeGeometry(MogeOptions("v2")).settings["model"] == "Ruicheng/moge-2-vitl"
    assert MogeGeometry(MogeOptions(model="my.pt")).settings["model"] == "my.pt"
