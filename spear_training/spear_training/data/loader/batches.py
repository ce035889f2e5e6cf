"""Batches of a mixture: a pure function of seed and step, made by any number of workers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from spear_training.data.loader.moments import Moment, MomentReader
from spear_training.data.sampling.mixture_order import MixtureOrder
from spear_training.data.store.facts import PICTURE_SIZES

# Numbers between 0 and 1 that come with every sample, for augmentation and the choice of words.
CHANCES = 16
_CHANCE_KEY = 3


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples as they are stored; the device makes the model's inputs of them.

    Attributes:
        step: number of the batch.
        images: by camera (B, H, W, 3) uint8 RGB; black where `present` says so.
        present: by camera (B,) bool.
        poses: (B, 7) float64 measured, base frame [m], xyzw.
        gripper_openings: (B,).
        translations_m: (B, N, 3), rotations_xyzw: (B, N, 4), grippers: (B, N).
        state_known: (B,) bool.
        sentences: one a sample, drawn from those of its episode.
        data_set: (B,) number of the data set in the mixture.
        frame: (B,) number of the frame in it.
        chances: (B, CHANCES) float32 in 0..1, the sample's own dice.
    """

    step: int
    images: Mapping[str, Tensor]
    present: Mapping[str, Tensor]
    poses: Tensor
    gripper_openings: Tensor
    translations_m: Tensor
    rotations_xyzw: Tensor
    grippers: Tensor
    state_known: Tensor
    sentences: tuple[str, ...]
    data_set: Tensor
    frame: Tensor
    chances: Tensor

    def __len__(self) -> int:
        return len(self.poses)

    def pin_memory(self) -> "Batch":
        """Move it to pinned memory; torch's loader calls this for a GPU."""
        moved = {}
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                value = value.pin_memory()
            elif isinstance(value, dict):
                value = {key: part.pin_memory() for key, part in value.items()}
            moved[name] = value
        return Batch(**moved)


class BatchSource(Dataset):
    """Batch number `step` of a training, for one of its processes.

    Attributes:
        order: of the samples.
        names: of the data sets, in the order of their numbers.
    """

    def __init__(
        self,
        readers: Mapping[str, MomentReader],
        weights: Sequence[float],
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        ranks: int = 1,
    ):
        """Mix some stores.

        Args:
            readers: by the names that the data sets have in the mixture.
            weights: of the data sets, see MixtureOrder.
            batch_size: of all processes together.
            seed: 0 or more.
            rank, ranks: which process this is, and how many there are.

        Raises:
            ValueError: see MixtureOrder.
        """
        sizes = [len(reader) for reader in readers.values()]
        self.order = MixtureOrder(weights, sizes, seed)
        self.order.batch(0, batch_size, rank, ranks)
        self.names = tuple(readers)
        self._readers, self._seed = tuple(readers.values()), seed
        self._size, self._rank, self._ranks = batch_size, rank, ranks

    def __getitem__(self, step: int) -> Batch:
        """Read the batch of a step.

        Raises:
            DataFileError: a file of a store is damaged.
        """
        drawn = self.order.batch(step, self._size, self._rank, self._ranks)
        moments = [
            self._readers[data_set][place]
            for data_set, place in zip(drawn.data_set, drawn.place, strict=True)
        ]
        part = self._size // self._ranks
        first = step * self._size + self._rank * part
        chances = np.stack([sample_chances(self._seed, first + i) for i in range(part)])
        return _stack(step, moments, drawn.data_set, drawn.place, chances)


def sample_chances(seed: int, sample: int) -> NDArray[np.float32]:
    """The dice (CHANCES,) of sample number `sample` of a training, each 0..1."""
    bits = np.random.Philox([seed, _CHANCE_KEY, sample]).random_raw(CHANCES)
    return ((bits >> np.uint64(40)).astype(np.float64) / (1 << 24)).astype(np.float32)


class _Steps:
    """Numbers of the steps to come, for torch's loader."""

    def __init__(self, first: int, stop: int):
        self._range = range(first, stop)

    def __iter__(self) -> Iterator[int]:
        return iter(self._range)

    def __len__(self) -> int:
        return len(self._range)


def batches(
    source: BatchSource,
    first: int,
    stop: int,
    *,
    workers: int = 2,
    prefetch: int = 4,
    pin: bool = False,
) -> Iterator[Batch]:
    """The batches of steps `first` .. `stop - 1`, in order, made ahead by worker processes.

    What is held is bounded: `workers * prefetch` batches. A resumed training passes the step it
    stopped at as `first`; nothing else has to be remembered.

    Args:
        source: what is read.
        first, stop: steps.
        workers: processes; 0 reads in this one.
        prefetch: batches that each worker makes ahead.
        pin: put them into pinned memory, for a GPU.

    Raises:
        DataFileError: a file of a store is damaged.
    """
    # Forked workers would share locks and file positions with threads of this process.
    options = {"prefetch_factor": prefetch, "multiprocessing_context": "spawn"} if workers else {}
    loader = DataLoader(
        source,
        batch_size=None,
        sampler=_Steps(first, stop),
        num_workers=workers,
        pin_memory=pin,
        collate_fn=None,
        **options,
    )
    yield from loader


def _stack(
    step: int, moments: list[Moment], data_set: NDArray, frame: NDArray, chances: NDArray
) -> Batch:
    images, present = {}, {}
    for camera, (width, height) in PICTURE_SIZES.items():
        black = np.zeros((height, width, 3), np.uint8)
        pictures = np.stack([moment.images.get(camera, black) for moment in moments])
        images[camera] = torch.from_numpy(pictures)
        present[camera] = torch.tensor([camera in moment.images for moment in moments])

    def numbers(name: str) -> Tensor:
        return torch.from_numpy(np.stack([getattr(moment, name) for moment in moments]))

    sentences = tuple(
        moment.sentences[min(int(chance * len(moment.sentences)), len(moment.sentences) - 1)]
        for moment, chance in zip(moments, chances[:, 0], strict=True)
    )
    return Batch(
        step=step,
        images=images,
        present=present,
        poses=numbers("pose"),
        gripper_openings=torch.tensor([moment.gripper_opening for moment in moments]),
        translations_m=numbers("translations_m"),
        rotations_xyzw=numbers("rotations_xyzw"),
        grippers=numbers("grippers"),
        state_known=torch.tensor([moment.state_known for moment in moments]),
        sentences=sentences,
        data_set=torch.from_numpy(data_set),
        frame=torch.from_numpy(frame),
        chances=torch.from_numpy(chances),
    )
