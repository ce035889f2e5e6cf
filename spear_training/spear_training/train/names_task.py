"""An image encoder of a small size, taught what things are called before anything else.

The full model takes PaliGemma's SigLIP, which was trained on pictures and their words. A small one
has no public weights, and a random one knows no mug when it is asked where the mug is. So the
encoder learns, patch by patch, the words of the object that it shows, each word by a sigmoid as in
SigLIP's own loss (arXiv 2303.15343); the layer that reads the words is dropped.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from spear_policy.inference.image_geometry import plan_fit
from spear_policy.model.checkpoint import save_weights
from spear_policy.model.config import ModelConfig
from spear_policy.model.spear import initialise
from spear_policy.model.tokenizer import train_tokenizer
from spear_policy.model.vision import SiglipEncoder
from spear_training.annotation.frame import in_picture
from spear_training.annotation.records import Item, RecordError, decode_mask
from spear_training.data.mixture import MixtureOrder
from spear_training.train.config import TrainConfig, TrainingError
from spear_training.train.depth_task import read_items
from spear_training.train.vlm_task import FittedPictures, starting_model, write_record

LEAST_COVERED = 0.15  # of a patch, by the object that it counts as showing
FEWEST_SEEN = 5  # pictures with a word, or it is not learned
LOUDEST = 4.0  # how much more a word that is there counts than one that is not


@dataclass(frozen=True)
class NamesTaskConfig:
    """Which pictures with masks and names.

    Attributes:
        folder: with items.jsonl whose items have objects with masks, such as `annotate world`
            writes to FOLDER/scenes.
        held_out: the same for validation; "": none.
        held_out_pictures: how many of them.
    """

    kind: ClassVar[str] = "names"
    folder: str
    held_out: str = ""
    held_out_pictures: int = 64

    def empty_model(self, config: TrainConfig) -> "NamesModel":
        """The encoder, and a reader of as many words as the data may have, without values."""
        with torch.device("meta"):
            return NamesModel(config.model, words=64)

    def longest_loss(self, config: TrainConfig, model: "NamesModel") -> Tensor:
        """A number that one picture's gradients begin with, on the meta device."""
        camera = config.model.cameras[0]
        shape = 1, 3, camera.height, camera.width
        return model(torch.empty(shape, dtype=torch.uint8, device="meta")).sum()

    def make(self, config: TrainConfig, device: torch.device) -> "NamesTask":
        """Open the pictures. Raises TrainingError."""
        return NamesTask(config, device)


class NamesModel(nn.Module):
    """The image encoder, and a layer that reads words from each patch's features."""

    def __init__(self, config: ModelConfig, words: int):
        """Make it without values."""
        super().__init__()
        self.siglip = SiglipEncoder(config.siglip, config.patch_size)
        self.reader = nn.Linear(config.siglip.width, words)

    def forward(self, pictures: Tensor) -> Tensor:
        """Scores (B, patches, words) of pictures (B, 3, H, W) uint8."""
        return self.reader(self.siglip([pictures.float() / 255.0]))


def words_of(items: Sequence[Item]) -> tuple[str, ...]:
    """The words of the labels of a data set, sorted, that enough of its pictures have."""
    counts: dict[str, int] = {}
    for item in items:
        for word in {word for each in item.objects for word in each.label.split()}:
            counts[word] = counts.get(word, 0) + 1
    return tuple(sorted(word for word, count in counts.items() if count >= FEWEST_SEEN))


# Samples -----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class NamesBatch:
    """Pictures with what their patches show.

    Attributes:
        pictures: (B, 3, H, W) uint8 RGB.
        shown: (B, patches, words) uint8, 1 for each word of the object that a patch shows.
        names: of the pictures.
    """

    pictures: Tensor
    shown: Tensor
    names: tuple[str, ...]

    def pin_memory(self) -> "NamesBatch":
        """Move it to pinned memory; torch's loader calls this for a GPU."""
        return NamesBatch(self.pictures.pin_memory(), self.shown.pin_memory(), self.names)


class NamesBatches(Dataset):
    """Batch `step` of one process: a pure function of seed and step."""

    def __init__(
        self, folder: Path, items: list[Item], words: tuple[str, ...], config: TrainConfig, **place
    ):
        """Take the pictures of a folder; `place`: rank and ranks of the process."""
        self._folder, self._items, self._words = folder, items, words
        self._order = MixtureOrder([1.0], [len(items)], config.seed)
        self._camera, self._patch = config.model.cameras[0], config.model.patch_size
        self._pictures = FittedPictures(self._camera)
        self._size, self._place = config.batch_size, place
        self._kept: dict[str, NDArray[np.uint8]] = {}  # as many as FittedPictures keeps

    def __getitem__(self, step: int) -> NamesBatch:
        """Read the batch of a step. Raises TrainingError for a picture that is gone or damaged."""
        drawn = self._order.batch(step, self._size, **self._place)
        return self.batch([int(place) for place in drawn.place])

    def batch(self, numbers: Sequence[int]) -> NamesBatch:
        """Read the pictures of these numbers."""
        items = [self._items[number] for number in numbers]
        pictures = [
            self._pictures.read(self._folder / item.image, item.native_aspect) for item in items
        ]
        shown = torch.from_numpy(np.stack([self._shown(item) for item in items]))
        stacked = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
        return NamesBatch(stacked, shown, tuple(item.id for item in items))

    def _shown(self, item: Item) -> NDArray[np.uint8]:
        """(patches, words): the words of the object that covers most of each patch."""
        if item.id in self._kept:
            return self._kept[item.id]
        rows, columns = self._camera.height // self._patch, self._camera.width // self._patch
        covered = np.zeros((len(item.objects), rows * columns))
        for number, each in enumerate(item.objects):
            try:
                mask = decode_mask(each.mask)
            except RecordError as error:
                where = f"{self._folder}, {item.id}, {each.label!r}"
                raise TrainingError(f"{where}: {error}; make the scenes again") from None
            plan = plan_fit(
                mask.shape[1],
                mask.shape[0],
                self._camera.width,
                self._camera.height,
                native_aspect=item.native_aspect,
            )
            small = in_picture(plan, mask, False)
            blocks = small.reshape(rows, self._patch, columns, self._patch)
            covered[number] = blocks.mean(axis=(1, 3)).ravel()
        found = np.zeros((rows * columns, len(self._words)), np.uint8)
        most = covered.argmax(axis=0) if len(covered) else np.zeros(rows * columns, int)
        for patch in np.flatnonzero(covered.max(axis=0, initial=0.0) >= LEAST_COVERED):
            for word in item.objects[most[patch]].label.split():
                if word in self._words:
                    found[patch, self._words.index(word)] = 1
        if len(self._kept) < self._pictures.most:
            self._kept[item.id] = found
        return found


# The task ----------------------------------------------------------------------------------------


class NamesTask:
    """See `config.TrainingTask`."""

    def __init__(self, config: TrainConfig, device: torch.device):
        """Open the pictures; use `NamesTaskConfig.make`."""
        task = config.task
        self._config, self._device = config, device
        self._folder = Path(task.folder)
        self._items = _with_masks(read_items(self._folder, "task.folder"), self._folder)
        self._words = words_of(self._items)
        if not self._words:
            raise TrainingError(f"{self._folder}: no word names objects of {FEWEST_SEEN} pictures")
        self._held_out = None
        if task.held_out:
            folder = Path(task.held_out)
            items = _with_masks(read_items(folder, "task.held_out"), folder)
            items = items[: task.held_out_pictures]
            batches = NamesBatches(folder, items, self._words, config, rank=0, ranks=1)
            self._held_out = batches.batch(range(len(items)))

    def build_model(self) -> NamesModel:
        """The encoder of the whole model that it is for, and a random reader."""
        model = NamesModel(self._config.model, len(self._words))
        initialise(model, torch.Generator().manual_seed(self._config.seed))
        model.siglip.load_state_dict(starting_model(self._config).siglip.state_dict())
        return model

    def source(self, rank: int, ranks: int) -> NamesBatches:
        """Batches of this process."""
        place = {"rank": rank, "ranks": ranks}
        return NamesBatches(self._folder, self._items, self._words, self._config, **place)

    def split(self, batch: NamesBatch, parts: int) -> list[NamesBatch]:
        """Micro-batches on the device."""
        count = len(batch.names) // parts
        rows = [slice(i * count, (i + 1) * count) for i in range(parts)]
        return [
            NamesBatch(
                batch.pictures[row].to(self._device),
                batch.shown[row].to(self._device),
                batch.names[row],
            )
            for row in rows
        ]

    def denominator(self, part: NamesBatch) -> float:
        """Pictures."""
        return float(len(part.names))

    def loss(
        self, model, part: NamesBatch, denominator: float
    ) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
        """Sigmoid losses of all words, summed over words, a mean over patches and pictures."""
        scores, shown = model(part.pictures), part.shown.float()
        weight = torch.full_like(scores[0, 0], LOUDEST)
        losses = F.binary_cross_entropy_with_logits(
            scores, shown, pos_weight=weight, reduction="none"
        )
        right, said = _agreement(scores.detach(), part.shown)
        values = {"words_f1": (right, said)}
        return losses.sum(-1).mean(-1).sum() / denominator, values

    def sample_names(self, part: NamesBatch) -> list[str]:
        """Ids of the pictures."""
        return list(part.names)

    def validate(self, model: NamesModel, step: int) -> dict[str, float]:
        """F1 of the words of all patches of held-out pictures."""
        if self._held_out is None:
            return {}
        (part,) = self.split(self._held_out, 1)
        right, said = _agreement(model(part.pictures), part.shown)
        return {"words_f1_held_out": float(right / said.clamp_min(1))}

    def export(self, model: NamesModel, folder: Path, record: Mapping[str, Any]) -> None:
        """A stage-1 folder whose image encoder is the trained one; all else is as at the start."""
        whole = starting_model(self._config)
        whole.siglip.load_state_dict(model.siglip.state_dict())
        try:
            hashes = save_weights(folder, whole, train_tokenizer(self._config.model.vocabulary))
            write_record(folder, {**record, "words": list(self._words)}, hashes)
        except (OSError, ValueError) as error:
            raise TrainingError(f"{folder} cannot be written: {error}") from None


def _agreement(scores: Tensor, shown: Tensor) -> tuple[Tensor, Tensor]:
    """Twice the words that are said and true; the words said and the true ones: their F1."""
    said, true = scores > 0, shown.bool()
    return 2.0 * (said & true).sum(), (said.sum() + true.sum()).float()


def _with_masks(items: list[Item], folder: Path) -> list[Item]:
    """Those whose objects all have masks. Raises TrainingError where there are none."""
    if found := [i for i in items if i.objects and all(each.mask for each in i.objects)]:
        return found
    raise TrainingError(f"{folder}: no picture has an object with a mask")
