"""The geometry `moge`: the point map of one photograph, by the user's installed MoGe.

MoGe is in no package registry, so SPEAR cannot depend on it; `INSTALL` brings it.

The network sees the whole picture of 840x630, padding included, and the padding's points are
thrown away afterwards. Version 1 has no unit of length: its scale varies with the size of what
it sees, and comparable scenes have comparable numbers only at one size. The
vision-language model gets its pictures padded by the same rule, so what is learnt from an
annotation is what its own MoGe encoder sees.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spear_training.annotation.frame import Frame, PointMap
from spear_training.annotation.networks import (
    OneAtATime,
    load_library,
    loading,
    pick_device,
    settings_of,
)
from spear_training.annotation.records import Intrinsics
from spear_training.annotation.stages import JobError, StageError

INSTALL = "pip install git+https://github.com/microsoft/MoGe.git"
DEFAULT_MODELS = {"v1": "Ruicheng/moge-vitl", "v2": "Ruicheng/moge-2-vitl"}


@dataclass(frozen=True)
class MogeOptions:
    """Settings of the geometry.

    Attributes:
        version: v1, as in the paper, up to an unknown scale; v2, in metres.
        model: a file, or a name on the model hub; None: the largest one of the version.
        device: of torch; auto: the GPU where there is one.
    """

    version: str = "v1"
    model: str | None = None
    device: str = "auto"

    def __post_init__(self):
        if self.version not in DEFAULT_MODELS:
            raise JobError(f"version is {self.version!r}; it may be {', '.join(DEFAULT_MODELS)}")


class MogeGeometry:
    """Gives each pixel that MoGe is sure of its point."""

    name = "moge"
    parallel = 1

    def __init__(self, options: MogeOptions | None = None):
        options = options or MogeOptions()
        self._options = replace(options, model=options.model or DEFAULT_MODELS[options.version])
        self._model = OneAtATime(self._load)

    @property
    def settings(self) -> dict:
        return settings_of(self._options)

    def __call__(self, frame: Frame) -> Frame:
        """Add the points."""
        with self._model.held() as model:
            found = _infer(model, frame.image)
        points, camera = _checked(found, frame.image.shape[:2])
        known = np.isfinite(points).all(axis=-1) & (points[..., 2] > 0) & frame.visible
        if found.get("mask") is not None:
            known &= np.asarray(found["mask"], bool)
        if not known.any():
            raise StageError("no pixel of the picture got a point")
        points[~known] = np.nan
        metric = self._options.version == "v2"
        return replace(frame, points=PointMap(points, camera, metric))

    def _load(self) -> Any:
        version, name = self._options.version, self._options.model
        device = pick_device(self._options.device)
        module = load_library(f"moge.model.{version}", INSTALL, "the geometry moge")
        return loading(name, lambda: module.MoGeModel.from_pretrained(name).to(device).eval())


def _infer(model: Any, image: NDArray[np.uint8]) -> dict[str, NDArray]:
    """MoGe's answer for a picture (H, W, 3), as arrays."""
    import torch

    device = next(model.parameters()).device
    pixels = torch.from_numpy(image).to(device).permute(2, 0, 1).float() / 255.0
    try:
        # Half precision is for GPUs; processors are slower with it.
        found = model.infer(pixels, use_fp16=device.type == "cuda")
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except (RuntimeError, ValueError, IndexError) as error:
        # Its search for the focal length fails where it trusts next to no pixel.
        raise StageError(f"MoGe failed ({type(error).__name__}: {error})") from None
    return {name: value.cpu().numpy() for name, value in found.items()}


def _checked(
    found: dict[str, NDArray], size: tuple[int, ...]
) -> tuple[NDArray[np.float32], Intrinsics]:
    """Points (H, W, 3) and the camera in pixels.

    Raises:
        JobError: MoGe answers in another form than is known.
        StageError: the camera is none.
    """
    shapes = {name: found[name].shape for name in ("points", "intrinsics") if name in found}
    if shapes != {"points": (*size, 3), "intrinsics": (3, 3)}:
        raise JobError(
            f"the installed MoGe answers in a form that is not known ({shapes}): take the version "
            "that docs/annotation.md names"
        )
    height, width = size
    matrix = found["intrinsics"].astype(float)
    # MoGe's unit is the picture's side, counted from its edge; ours the pixel, from its centre.
    camera = Intrinsics(
        fx=float(matrix[0, 0] * width),
        fy=float(matrix[1, 1] * height),
        cx=float(matrix[0, 2] * width - 0.5),
        cy=float(matrix[1, 2] * height - 0.5),
    )
    values = np.array([camera.fx, camera.fy, camera.cx, camera.cy])
    if not (np.isfinite(values).all() and min(camera.fx, camera.fy) > 0):
        raise StageError("MoGe found no camera that could have taken the picture")
    return np.array(found["points"], np.float32), camera
