"""From a batch as it is stored to what the model reads and what it is to answer.

Pictures travel as bytes and become numbers, varied, on the device; poses are few and are
normalised before they travel, by the functions that the policy node uses.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional

from spear_policy.geometry import quaternions as quat
from spear_policy.inference.statistics import encode_states, normalise
from spear_policy.model.config import CameraConfig, ModelConfig
from spear_policy.model.prompts import pad, prompt_ids
from spear_policy.model.spear import ModelInputs
from spear_policy.model.tokenizer import TextTokenizer
from spear_training.data.loader import Batch
from spear_training.data.statistics.normalisation import Normalisation
from spear_training.data.store.format import PICTURE_SIZES

# Image augmentation on the device --------------------------------------------------------------


LUMA = (0.299, 0.587, 0.114)  # of grey, ITU-R BT.601
# Which of a sample's chances is used for what; 0 is for the choice of words.
_SHIFT_X, _SHIFT_Y, _TURN = 1, 2, 3
_COLOURS = {"external": (4, 5, 6), "wrist": (7, 8, 9)}


@dataclass(frozen=True)
class Augmentation:
    """How much pictures vary.

    External camera: a crop, a turn, brightness, contrast and saturation. Wrist camera: colours
    only. A turn breaks the cues of gravity and of the camera's intrinsics, so `rotate_deg` 0 is a
    choice worth trying.

    Attributes:
        crop: share of either side that is kept of an external picture, 0..1.
        rotate_deg: largest turn of an external picture, either way.
        brightness, contrast, saturation: largest change of the factor 1, either way.
    """

    crop: float = 0.95
    rotate_deg: float = 5.0
    brightness: float = 0.3
    contrast: float = 0.4
    saturation: float = 0.5

    def __post_init__(self):
        """Refuse what is no variation of a picture.

        Raises:
            ValueError: names the value and its bounds.
        """
        bounds = {"crop": (0.1, 1.0), "rotate_deg": (0.0, 180.0)}
        for name in ("brightness", "contrast", "saturation"):
            bounds[name] = (0.0, 1.0)
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"augmentation.{name} is {value}: it must be {low}..{high}")


def augment(images: Tensor, chances: Tensor, camera: str, how: Augmentation) -> Tensor:
    """Vary a batch of one camera's pictures; black ones stay black.

    Args:
        images: (B, 3, H, W) float in [0, 1].
        chances: (B, CHANCES) of the samples, on the same device.
        camera: "external" or "wrist".
        how: how much.

    Returns:
        (B, 3, H, W) in [0, 1].
    """
    if camera == "external" and (how.crop < 1 or how.rotate_deg):
        images = _moved(images, chances, how)
    return _coloured(images, chances[:, list(_COLOURS[camera])], how)


def _moved(images: Tensor, chances: Tensor, how: Augmentation) -> Tensor:
    """Crop and turn in one sampling, so that nothing is blurred twice; corners are mirrored."""
    height, width = images.shape[-2:]
    angle = torch.deg2rad((2 * chances[:, _TURN] - 1) * how.rotate_deg)
    cos, sin = torch.cos(angle) * how.crop, torch.sin(angle) * how.crop
    room = 1 - how.crop
    shift_x = (2 * chances[:, _SHIFT_X] - 1) * room
    shift_y = (2 * chances[:, _SHIFT_Y] - 1) * room
    # Coordinates run from -1 to 1 along either side, so a turn has to know their lengths.
    rows = [
        torch.stack([cos, -sin * height / width, shift_x], dim=-1),
        torch.stack([sin * width / height, cos, shift_y], dim=-1),
    ]
    theta = torch.stack(rows, dim=1).to(images.dtype)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    return functional.grid_sample(
        images, grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )


def _coloured(images: Tensor, chances: Tensor, how: Augmentation) -> Tensor:
    changes = chances.new_tensor([how.brightness, how.contrast, how.saturation])
    factors = (1 + (2 * chances - 1) * changes).to(images.dtype)
    brightness, contrast, saturation = factors.T[..., None, None, None]
    luma = images.new_tensor(LUMA)[:, None, None]
    images = (images * brightness).clamp(0, 1)
    mean = (images * luma).sum(dim=1, keepdim=True).mean(dim=(2, 3), keepdim=True)
    images = (mean + (images - mean) * contrast).clamp(0, 1)
    grey = (images * luma).sum(dim=1, keepdim=True)
    return (grey + (images - grey) * saturation).clamp(0, 1)


# The training batch: model inputs and normalised targets ---------------------------------------


@dataclass(frozen=True)
class TrainingBatch:
    """What one step of training needs, on the device.

    Attributes:
        inputs: of the model.
        translations: (B, N, 3) normalised.
        rotations_wxyz: (B, N, 4), w >= 0.
        grippers: (B, N, 1), -1 closed or +1 open.
    """

    inputs: ModelInputs
    translations: Tensor
    rotations_wxyz: Tensor
    grippers: Tensor


class Preparation:
    """Makes training batches for one model; made once, used at every step."""

    def __init__(
        self,
        config: ModelConfig,
        tokenizer: TextTokenizer,
        names: Sequence[str],
        normalisation: Normalisation,
        *,
        device: torch.device | str = "cpu",
        augmentation: Augmentation | None = None,
        references_xyzw: Mapping[str, ArrayLike] | None = None,
        mask_missing: bool = False,
    ):
        """Bind a model to a mixture.

        Args:
            config, tokenizer: of the model.
            names: of the datasets, by their numbers in batches.
            normalisation: of the mixture.
            device: of the model.
            augmentation: of pictures; None: none.
            references_xyzw: R_ref of a dataset's robot; the identity where it
                has none.
            mask_missing: hide a missing camera from the model; the paper shows it a black one.

        Raises:
            ValueError: a dataset has no statistics, there is a reference for an unknown one, or
                a camera of the model has another aspect than its stored pictures.
        """
        lacking = sorted(set(names) - set(normalisation.by_dataset))
        unknown = sorted(set(references_xyzw or {}) - set(names))
        if lacking or unknown:
            text = "has no statistics" if lacking else "is not in the mixture, but has a reference"
            raise ValueError(f"{(lacking or unknown)[0]} {text}")
        _check_cameras(config)
        self._config, self._tokenizer, self._device = config, tokenizer, torch.device(device)
        self._statistics = [normalisation.by_dataset[name] for name in names]
        identity = quat.IDENTITY_XYZW
        self._references = [(references_xyzw or {}).get(name, identity) for name in names]
        self._augmentation, self._mask_missing = augmentation, mask_missing

    def __call__(self, batch: Batch) -> TrainingBatch:
        """Prepare a batch. Raises ValueError for numbers that no sample can have."""
        state, translations = self._normalised(batch)
        rows = [self._ids(sentence) for sentence in batch.sentences]
        ids, valid = pad(rows, max(map(len, rows)), self._config.vocabulary.pad_id)
        present = torch.stack([batch.present[c.name] for c in self._config.cameras], dim=1)
        inputs = ModelInputs(
            images=tuple(self._pictures(batch, camera) for camera in self._config.cameras),
            text_ids=self._move(ids),
            text_valid=self._move(valid),
            state=self._move(state),
            present=self._move(present) if self._mask_missing else None,
        )
        rotations = quat.wxyz_from_xyzw(batch.rotations_xyzw.numpy()).astype(np.float32)
        grippers = 2 * batch.grippers.float()[..., None] - 1
        return TrainingBatch(
            inputs, self._move(translations), self._move(rotations), self._move(grippers)
        )

    def _normalised(self, batch: Batch) -> tuple[NDArray, NDArray]:
        """State (B, 8) and translations (B, N, 3), float32."""
        state = np.zeros((len(batch), 8), np.float32)
        translations = np.zeros(batch.translations_m.shape, np.float32)
        for dataset in batch.dataset.unique().tolist():
            mine = (batch.dataset == dataset).numpy()
            statistics = self._statistics[dataset]
            state[mine] = encode_states(
                batch.poses.numpy()[mine],
                batch.gripper_openings.numpy()[mine],
                statistics,
                self._references[dataset],
            )
            translations[mine] = normalise(
                batch.translations_m.numpy()[mine], statistics.translation, statistics.scheme
            )
        # Where the robot stood is not known: the middle of the range, and no rotation.
        unknown = ~batch.state_known.numpy()
        state[unknown, :3] = 0
        state[unknown, 3:7] = quat.wxyz_from_xyzw(quat.IDENTITY_XYZW)
        return state, translations

    def _pictures(self, batch: Batch, camera: CameraConfig) -> Tensor:
        pictures = batch.images[camera.name].to(self._device, non_blocking=True)
        pictures = pictures.permute(0, 3, 1, 2).contiguous()
        if self._augmentation is not None:
            chances = batch.chances.to(self._device, non_blocking=True)
            pictures = augment(pictures.float() / 255, chances, camera.name, self._augmentation)
        size = (camera.height, camera.width)
        if pictures.shape[-2:] == size:
            return pictures
        return functional.interpolate(
            pictures, size, mode="bilinear", antialias=True, align_corners=False
        )

    def _ids(self, sentence: str) -> list[int]:
        vocabulary, longest = self._config.vocabulary, self._config.max_text_tokens
        return prompt_ids(sentence, self._tokenizer, vocabulary, longest)

    def _move(self, values: NDArray | Tensor) -> Tensor:
        return torch.as_tensor(values).to(self._device, non_blocking=True)


def _check_cameras(config: ModelConfig) -> None:
    for camera in config.cameras:
        width, height = PICTURE_SIZES.get(camera.name, (0, 0))
        # Within a pixel of the stored aspect.
        if abs(camera.width * height - camera.height * width) > max(width, height):
            raise ValueError(
                f"{camera.name} pictures are stored as {width}x{height}, which does not fit the "
                f"model's {camera.width}x{camera.height}: import the data for this model, or "
                "correct its cameras"
            )
