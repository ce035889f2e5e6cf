"""Batches of a mixture: a pure function of seed and step, made by any number of workers.

First one frame as a sample (pictures, state, targets, sentences), and the batches that workers make
of samples in the order of the mixture.
"""

import pickle
import signal
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from spear_policy.inference.episode import binary_gripper
from spear_policy.shared.workers import ignore_termination_by_others, signals_blocked
from spear_training.data.mixture import MixtureOrder
from spear_training.data.store.format import PICTURE_SIZES, WRIST
from spear_training.data.store.reader import FrameStore, stored_poses
from spear_training.data.targets import DT_S, STEPS, Reference, chunk_targets, moments

# Frame samples ---------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class FrameSample:
    """A training sample before anything is normalised.

    Attributes:
        images: by camera, (H, W, 3) uint8 RGB; a camera that the dataset lacks is not there.
        pose: (7,) measured, base frame [m], xyzw.
        gripper_opening: measured, 0 closed .. 1 open.
        translations_m: (N, 3), rotations_xyzw: (N, 4), grippers: (N,) as in `ChunkTargets`.
        sentences: all that the episode has.
        state_known: False where `pose` is only a sum of deltas.
    """

    images: dict[str, NDArray[np.uint8]]
    pose: NDArray[np.float64]
    gripper_opening: float
    translations_m: NDArray[np.float64]
    rotations_xyzw: NDArray[np.float64]
    grippers: NDArray[np.float64]
    sentences: tuple[str, ...]
    state_known: bool


class FrameSampleReader:
    """The moments of one store by the number of their frame.

    Attributes:
        store: what is read.
        dt_s: between the steps of a chunk.
    """

    def __init__(
        self,
        store: FrameStore,
        steps: int = STEPS,
        dt_s: float = DT_S,
        reference: Reference = "anchor",
    ):
        """Take a store and the shape of a chunk, see `chunk_targets`."""
        self.store, self.dt_s = store, dt_s
        self._steps, self._reference = steps, reference

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, frame: int) -> FrameSample:
        """Read moment `frame`.

        Raises:
            DataFileError: a file of the store is damaged there.
            IndexError: there is no such frame.
        """
        store = self.store
        if not 0 <= frame < len(store):
            raise IndexError(f"{store.metadata.name} has no frame {frame}: 0..{len(store) - 1}")
        episode = int(store.episode_of[frame])
        first = int(store.episodes.first_frame[episode])
        end = first + int(store.episodes.length[episode])
        stamps = np.asarray(store.stamps_s[first:end], float)
        if store.episodes.continues[episode]:
            # Frames whose chunk is not known give their place to earlier ones, in turn.
            known = moments(stamps, True, self._steps * self.dt_s)
            frame = first + (frame - first) % known
        now = stamps[frame - first]
        # One sample more than the chunk reaches, to interpolate its last step.
        beyond = int(np.searchsorted(stamps, now + self._steps * self.dt_s)) + 1
        part = slice(frame, min(first + beyond, end))
        measured = stored_poses(stamps[frame - first : beyond], store.states[part])
        commanded = measured
        if store.metadata.action_from == "commanded":
            commanded = stored_poses(measured.stamps_s, store.actions[part])
        # A gripper on its way takes what it reaches, which may be after the chunk.
        commands = binary_gripper(store.actions[first:end, 7])[frame - first : beyond]
        chunk = chunk_targets(
            measured, commanded, commands, [now], self._steps, self.dt_s, self._reference
        )
        return FrameSample(
            images={name: store.image(frame, name) for name in self._seen(episode)},
            pose=measured.poses[0],
            gripper_opening=float(store.states[frame, 7]),
            translations_m=chunk.translations_m[0],
            rotations_xyzw=chunk.rotations_xyzw[0],
            grippers=chunk.grippers[0],
            sentences=store.episodes.sentences(episode),
            state_known=store.metadata.state_known,
        )

    def _seen(self, episode: int) -> tuple[str, ...]:
        """Cameras of which the episode has more than black pictures."""
        names = self.store.metadata.camera_names
        if self.store.episodes.black_wrist[episode]:
            return tuple(name for name in names if name != WRIST)
        return names


# Batches of a mixture --------------------------------------------------------------------------


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
        dataset: (B,) number of the dataset in the mixture.
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
    dataset: Tensor
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
        names: of the datasets, in the order of their numbers.
    """

    def __init__(
        self,
        readers: Mapping[str, FrameSampleReader],
        weights: Sequence[float],
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        ranks: int = 1,
    ):
        """Mix some stores.

        Args:
            readers: by the names that the datasets have in the mixture.
            weights: of the datasets, see MixtureOrder.
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
        part = self._size // self._ranks
        first = step * self._size + self._rank * part
        return self.read(drawn.dataset, drawn.place, step, first)

    def read(self, dataset: NDArray, frame: NDArray, step: int = 0, first_sample: int = 0) -> Batch:
        """Read these frames of these datasets, as samples `first_sample` and on of a training.

        Raises:
            DataFileError: a file of a store is damaged.
        """
        pairs = zip(dataset, frame, strict=True)
        moments = [self._readers[number][place] for number, place in pairs]
        samples = range(first_sample, first_sample + len(moments))
        chances = np.stack([sample_chances(self._seed, sample) for sample in samples])
        return _stack(step, moments, dataset, frame, chances)


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


class _WithErrors(Dataset):
    """Batches, or the errors in their places.

    torch's loader would raise a worker's error with the traceback in its text.
    """

    def __init__(self, source: Dataset):
        self._source = source

    def __getitem__(self, step: int):
        try:
            return self._source[step]
        except Exception as error:
            error.add_note("".join(traceback.format_exception(error)))
            try:
                pickle.loads(pickle.dumps(error))
            except Exception:
                raise error from None
            return error


def _begin_worker(number: int) -> None:
    ignore_termination_by_others()


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
    stopped at as `first`; nothing else has to be remembered. Signals are for this process alone:
    its workers end with it.

    Args:
        source: what is read.
        first, stop: steps.
        workers: processes; 0 reads in this one.
        prefetch: batches that each worker makes ahead.
        pin: put them into pinned memory, for a GPU.

    Raises:
        DataFileError: a file of a store is damaged; so does whatever `source` raises, in a worker
            as here.
    """
    # Forked workers would share locks and file positions with threads of this process.
    options = {"prefetch_factor": prefetch, "multiprocessing_context": "spawn"} if workers else {}
    if workers:
        options["worker_init_fn"] = _begin_worker
    loader = DataLoader(
        _WithErrors(source) if workers else source,
        batch_size=None,
        sampler=_Steps(first, stop),
        num_workers=workers,
        pin_memory=pin,
        collate_fn=None,
        **options,
    )
    # A batch system and a terminal send them to all processes of a training.
    with signals_blocked(signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        made = iter(loader)
    try:
        for batch in made:
            if isinstance(batch, Exception):
                raise batch
            yield batch
    finally:
        del made  # or an error's traceback would keep the workers


def _stack(
    step: int, moments: list[FrameSample], dataset: NDArray, frame: NDArray, chances: NDArray
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
        dataset=torch.from_numpy(dataset),
        frame=torch.from_numpy(frame),
        chances=torch.from_numpy(chances),
    )
