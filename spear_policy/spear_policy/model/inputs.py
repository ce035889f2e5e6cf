"""What goes into the model, and the checks that name what is wrong with it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from spear_policy.model import s3
from spear_policy.model.config import STATE_DIM, ModelConfig


@dataclass(frozen=True)
class ModelInputs:
    """A batch of observations.

    Attributes:
        images: one (B, 3, H, W) a camera, in the order of `config.cameras`; RGB, uint8 or float
            in [0, 1]. A missing camera is a black image.
        text_ids: (B, T) from `prompts`.
        text_valid: (B, T) false for padding; None when there is none.
        state: (B, 8): normalised position (3), rotation as a unit quaternion wxyz (4), gripper
            in [-1, 1]. None for a model without actions.
        present: (B, cameras) false for a missing camera; None when all are there.
        points: one (B, N, 3) a camera, a point a patch in the camera's frame (m); for fusion
            point_map only.
    """

    images: tuple[Tensor, ...]
    text_ids: Tensor
    text_valid: Tensor | None = None
    state: Tensor | None = None
    present: Tensor | None = None
    points: tuple[Tensor, ...] | None = None

    def check_shapes(self, config: ModelConfig) -> None:
        """Compare shapes and dtypes with the configuration; costs nothing on any device.

        Raises:
            ValueError: names the input, what it is and what it should be.
        """
        batch = self.text_ids.shape[0]
        _expect("text_ids", self.text_ids, (batch, self.text_ids.shape[-1]))
        if self.text_ids.is_floating_point():
            raise ValueError("text_ids are not integers: tokenise the prompt first")
        if len(self.images) != len(config.cameras):
            names = [camera.name for camera in config.cameras]
            raise ValueError(f"{len(self.images)} images, but the model has the cameras {names}")
        for camera, image in zip(config.cameras, self.images, strict=True):
            shape = (batch, 3, camera.height, camera.width)
            _expect(f"the {camera.name} image", image, shape)
        optional = [
            ("text_valid", self.text_valid, tuple(self.text_ids.shape)),
            ("present", self.present, (batch, len(config.cameras))),
            ("state", self.state, (batch, STATE_DIM)),
        ]
        for name, tensor, shape in optional:
            if tensor is not None:
                _expect(name, tensor, shape)
        if config.expert and self.state is None:
            raise ValueError("state is missing: this model acts on the end-effector's state")
        self._check_points(config, batch)

    def check_values(self, config: ModelConfig) -> None:
        """Look at the numbers themselves; waits for the device.

        Raises:
            ValueError: NaN, an id outside the vocabulary, an image outside [0, 1], or a state
                whose quaternion is not a unit one; names the input and the mend.
        """
        for camera, image in zip(config.cameras, self.images, strict=True):
            if not image.is_floating_point():
                continue
            # written so that NaN fails it
            if not bool(((image >= 0.0) & (image <= 1.0)).all()):
                low, high = float(image.min()), float(image.max())
                raise ValueError(
                    f"the {camera.name} image has values from {low:g} to {high:g}: give uint8, "
                    "or float between 0 and 1"
                )
        ids, words = self.text_ids, config.vocabulary
        known = (ids >= 0) & (ids < words.end) & (ids != words.image_id)
        if not bool(known.all()):
            wrong = int(ids[~known][0])
            raise ValueError(f"text_ids has {wrong}, which is no word or 3D token of this model")
        if self.state is not None:
            if not bool(torch.isfinite(self.state).all()):
                raise ValueError("state is not finite: look at the robot's state at its source")
            s3.check_unit(self.state[:, 3:7], "the rotation in state")

    def _check_points(self, config, batch):
        if config.fusion != "point_map":
            if self.points is not None:
                raise ValueError("points are given, but this model's fusion is not point_map")
            return
        if self.points is None or len(self.points) != len(config.cameras):
            raise ValueError("fusion point_map needs points, one tensor a camera")
        for camera, points, count in zip(
            config.cameras, self.points, config.image_tokens, strict=True
        ):
            _expect(f"points of {camera.name}", points, (batch, count, 3))


def _expect(name, tensor, shape):
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} has the shape {tuple(tensor.shape)}, not {shape}")
