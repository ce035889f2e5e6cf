"""A depth encoder of a small size, taught depth before anything else.

The full model takes MoGe's encoder, which was trained on depth. A small one has no public weights,
and a random one would make every comparison with and without it meaningless. So the encoder learns
rendered depth through a small decoder, with the affine-invariant loss of MoGe (arXiv 2410.19115,
section 3.2) on inverse depth; the decoder is dropped.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from spear_policy.inference.image_geometry import plan_fit
from spear_policy.model.checkpoint import save_weights
from spear_policy.model.config import ModelConfig
from spear_policy.model.spear import build, initialise
from spear_policy.model.tokenizer import train_tokenizer
from spear_policy.model.vision import DepthEncoder
from spear_training.annotation.frame import in_picture
from spear_training.annotation.records import Item, RecordError
from spear_training.data.mixture import MixtureOrder
from spear_training.train.config import TrainConfig, TrainingError
from spear_training.train.vlm_task import FittedPictures, write_record

ITEMS = "items.jsonl"
LEAST_SCALE = 1e-3  # of a picture's inverse depths [1/m]: a wall that fills it has no affine form


@dataclass(frozen=True)
class DepthTaskConfig:
    """Which pictures with depth.

    Attributes:
        folder: with items.jsonl whose items have depth maps, such as `annotate world` writes to
            FOLDER/scenes.
        held_out: the same for validation; "": none.
        held_out_pictures: how many of them.
    """

    kind: ClassVar[str] = "depth"
    folder: str
    held_out: str = ""
    held_out_pictures: int = 64

    def empty_model(self, config: TrainConfig) -> "DepthModel":
        """The encoder with its decoder, without values."""
        with torch.device("meta"):
            return DepthModel(config.model)

    def longest_loss(self, config: TrainConfig, model: "DepthModel") -> Tensor:
        """A number that one picture's gradients begin with, on the meta device."""
        camera = config.model.cameras[0]
        shape = 1, 3, camera.height, camera.width
        return model(torch.empty(shape, dtype=torch.uint8, device="meta")).sum()

    def make(self, config: TrainConfig, device: torch.device) -> "DepthTask":
        """Open the pictures. Raises TrainingError."""
        return DepthTask(config, device)


class DepthModel(nn.Module):
    """The depth encoder, and a decoder from each patch's features to its pixels."""

    def __init__(self, config: ModelConfig):
        """Make it without values."""
        super().__init__()
        if config.depth is None:
            raise TrainingError(f"{config.name} has no depth encoder: there is nothing to teach")
        self.patch = config.patch_size
        self.depth = DepthEncoder(config.depth, config.patch_size)
        width = config.depth.output_width
        self.decoder = nn.Sequential(
            nn.Linear(width, width // 2), nn.GELU(), nn.Linear(width // 2, self.patch**2)
        )
        self.depth.mask_token.requires_grad_(False)  # no forward pass uses it

    def forward(self, pictures: Tensor) -> Tensor:
        """Inverse depth up to scale and shift (B, H, W) of pictures (B, 3, H, W) uint8."""
        height, width = pictures.shape[-2:]
        found = self.decoder(self.depth([pictures.float() / 255.0]))
        rows, columns = height // self.patch, width // self.patch
        blocks = found.view(-1, rows, columns, self.patch, self.patch)
        return blocks.permute(0, 1, 3, 2, 4).reshape(-1, height, width)


def affine_aligned(found: Tensor, true: Tensor, valid: Tensor) -> Tensor:
    """Scale and shift each picture's prediction (B, H, W) to the truth, by least squares.

    Args:
        valid: (B, H, W) bool; the other pixels do not count.
    """
    weight = valid.float().flatten(1)
    count = weight.sum(-1, keepdim=True).clamp_min(1.0)
    flat, goal = found.float().flatten(1), true.float().flatten(1)
    mean = (weight * flat).sum(-1, keepdim=True) / count
    goal_mean = (weight * goal).sum(-1, keepdim=True) / count
    centred = weight * (flat - mean)
    scale = (centred * (goal - goal_mean)).sum(-1, keepdim=True)
    scale = scale / (centred.square().sum(-1, keepdim=True) + 1e-6)
    return (scale * (flat - mean) + goal_mean).view_as(found)


# Samples -----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class DepthBatch:
    """Pictures with their depth.

    Attributes:
        pictures: (B, 3, H, W) uint8 RGB.
        depth_m: (B, H, W); 0 where there is none.
        names: of the pictures.
    """

    pictures: Tensor
    depth_m: Tensor
    names: tuple[str, ...]

    def pin_memory(self) -> "DepthBatch":
        """Move it to pinned memory; torch's loader calls this for a GPU."""
        return DepthBatch(self.pictures.pin_memory(), self.depth_m.pin_memory(), self.names)


class DepthBatches(Dataset):
    """Batch `step` of one process: a pure function of seed and step."""

    def __init__(self, folder: Path, items: list[Item], config: TrainConfig, rank: int, ranks: int):
        """Take the pictures of a folder."""
        self._folder, self._items = folder, items
        self._order = MixtureOrder([1.0], [len(items)], config.seed)
        self._pictures = FittedPictures(config.model.cameras[0])
        self._size, self._rank, self._ranks = config.batch_size, rank, ranks
        self._kept: dict[str, NDArray[np.float32]] = {}  # as many as FittedPictures keeps

    def __getitem__(self, step: int) -> DepthBatch:
        """Read the batch of a step. Raises TrainingError for a picture that is gone or damaged."""
        drawn = self._order.batch(step, self._size, self._rank, self._ranks)
        return self.batch([int(place) for place in drawn.place])

    def batch(self, numbers: list[int]) -> DepthBatch:
        """Read the pictures of these numbers."""
        items = [self._items[number] for number in numbers]
        pictures = [
            self._pictures.read(self._folder / item.image, item.native_aspect) for item in items
        ]
        depth = np.stack([self._depth_m(item) for item in items])
        stacked = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
        return DepthBatch(stacked, torch.from_numpy(depth), tuple(item.id for item in items))

    def _depth_m(self, item: Item) -> NDArray[np.float32]:
        """Depth (H, W) seen by the nearest pixel; 0 where there is none."""
        if item.id in self._kept:
            return self._kept[item.id]
        path = self._folder / item.depth.path
        stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if stored is None or stored.ndim != 2:
            raise TrainingError(f"{path} is no depth map, or is gone: make the scenes again")
        camera, (height, width) = self._pictures.camera, stored.shape
        with Image.open(self._folder / item.image) as picture:
            shown = picture.size
        if shown != (width, height):
            raise TrainingError(
                f"{path} is {width}x{height} and its picture {shown[0]}x{shown[1]}: they do not "
                "belong together; make the scenes again"
            )
        plan = plan_fit(
            width, height, camera.width, camera.height, native_aspect=item.native_aspect
        )
        small = in_picture(plan, stored, 0)
        found = small.astype(np.float32) / np.float32(item.depth.units_per_m)
        if len(self._kept) < self._pictures.most:
            self._kept[item.id] = found
        return found


def read_items(folder: Path, setting: str) -> list[Item]:
    """The pictures with depth of a folder.

    Args:
        setting: that named the folder, for messages.

    Raises:
        TrainingError: there is no list, it is damaged, or no picture has depth.
    """
    path = folder / ITEMS
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        items = [Item.from_json(line) for line in lines if line.strip()]
    except OSError as error:
        raise TrainingError(
            f"{path} cannot be read ({error.strerror}): give --set {setting}=FOLDER/scenes of "
            "`annotate world`"
        ) from None
    except UnicodeDecodeError as error:
        raise TrainingError(
            f"{path} is damaged ({error}): copy it again, or make the scenes anew"
        ) from None
    except RecordError as error:
        raise TrainingError(f"{path}: {error}") from None
    if with_depth := [item for item in items if item.depth is not None]:
        return with_depth
    raise TrainingError(f"{path}: none of its {len(items)} pictures has depth")


# The task ----------------------------------------------------------------------------------------


class DepthTask:
    """See `config.TrainingTask`."""

    def __init__(self, config: TrainConfig, device: torch.device):
        """Open the pictures; use `DepthTaskConfig.make`."""
        task = config.task
        self._config, self._device = config, device
        self._folder = Path(task.folder)
        self._items = read_items(self._folder, "task.folder")
        self._held_out = None
        if task.held_out:
            folder = Path(task.held_out)
            items = read_items(folder, "task.held_out")[: task.held_out_pictures]
            self._held_out = DepthBatches(folder, items, config, 0, 1).batch(range(len(items)))

    def build_model(self) -> DepthModel:
        """Random weights; the encoder's are those of the whole model of this seed."""
        model = DepthModel(self._config.model)
        initialise(model, torch.Generator().manual_seed(self._config.seed))
        whole = build(self._config.model, seed=self._config.seed)
        model.depth.load_state_dict(whole.depth.state_dict())
        return model

    def source(self, rank: int, ranks: int) -> DepthBatches:
        """Batches of this process."""
        return DepthBatches(self._folder, self._items, self._config, rank, ranks)

    def split(self, batch: DepthBatch, parts: int) -> list[DepthBatch]:
        """Micro-batches on the device."""
        count = len(batch.names) // parts
        rows = [slice(i * count, (i + 1) * count) for i in range(parts)]
        return [
            DepthBatch(
                batch.pictures[row].to(self._device),
                batch.depth_m[row].to(self._device),
                batch.names[row],
            )
            for row in rows
        ]

    def denominator(self, part: DepthBatch) -> float:
        """Pictures."""
        return float(len(part.names))

    def loss(
        self, model, part: DepthBatch, denominator: float
    ) -> tuple[Tensor, dict[str, tuple[Tensor, int]]]:
        """Mean absolute error of the aligned inverse depth, in units of the picture's spread."""
        errors = self._errors(model, part)
        return errors.sum() / denominator, {"depth_error": (errors.detach().sum(), len(errors))}

    @staticmethod
    def _errors(model, part: DepthBatch) -> Tensor:
        """(B,) of each picture: 1 is as good as its mean."""
        valid = part.depth_m > 0
        true = torch.where(valid, 1.0 / part.depth_m.clamp_min(1e-6), 0.0)
        aligned = affine_aligned(model(part.pictures), true, valid)
        count = valid.flatten(1).sum(-1).clamp_min(1)
        mean = true.flatten(1).sum(-1) / count
        spread = (true - mean[:, None, None]).abs().where(valid, 0.0).flatten(1).sum(-1) / count
        error = (aligned - true).abs().where(valid, 0.0).flatten(1).sum(-1) / count
        return error / spread.clamp_min(LEAST_SCALE)

    def sample_names(self, part: DepthBatch) -> list[str]:
        """Ids of the pictures."""
        return list(part.names)

    def validate(self, model: DepthModel, step: int) -> dict[str, float]:
        """The mean error on held-out pictures, in the loss's unit."""
        if self._held_out is None:
            return {}
        parts = self.split(self._held_out, 1)
        return {"depth_error_held_out": float(self._errors(model, parts[0]).mean())}

    def export(self, model: DepthModel, folder: Path, record: Mapping[str, Any]) -> None:
        """A stage-1 folder whose depth encoder is the trained one; all else is random."""
        whole = build(self._config.model, seed=self._config.seed)
        whole.depth.load_state_dict(model.depth.state_dict())
        try:
            hashes = save_weights(folder, whole, train_tokenizer(self._config.model.vocabulary))
            write_record(folder, json.loads(json.dumps(record)), hashes)
        except (OSError, ValueError) as error:
            raise TrainingError(f"{folder} cannot be written: {error}") from None
