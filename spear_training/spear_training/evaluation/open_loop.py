"""Predicted against recorded chunks on demonstrations that were not trained on.

Errors by step of the chunk, in millimetres and degrees, beside those of three baselines that need
no network: hold still, the mean action, and the last motion once more. A policy that is not better
than they are has learned nothing yet, whatever its loss is. The probes take one input away and show
what the policy reads: the sentence, either camera, the state.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spear_policy.geometry import quaternions as quat
from spear_policy.inference.spear_engine import Policy
from spear_policy.inference.statistics import Statistics, denormalise
from spear_policy.model.sampling import Sampler
from spear_policy.model.spear import SpearModel
from spear_training.data.loader import Batch, BatchSource, FrameSampleReader
from spear_training.data.mixture import MixtureStore, open_stores
from spear_training.data.preparation import Preparation
from spear_training.data.statistics.normalisation import Normalisation

BASELINES = ("hold_still", "mean_action", "repeat_last")
PROBES = ("sentence", "external", "wrist", "state")
NEUTRAL_SENTENCE = "do something"
BATCH = 32


@dataclass(frozen=True, eq=False)
class Chunks:
    """Chunks at S moments, N steps each, in the robot's terms.

    Attributes:
        translations_m: (S, N, 3) from the anchor, base frame.
        rotations_xyzw: (S, N, 4), end-effector frame of the anchor.
        grippers: (S, N), 0 closed or 1 open.
    """

    translations_m: NDArray
    rotations_xyzw: NDArray
    grippers: NDArray


@dataclass(frozen=True, eq=False)
class ChunkErrors:
    """How far some chunks are from the recorded ones.

    Attributes:
        translation_mm, rotation_deg: (S, N).
        gripper_f1: of "closed" over all steps; NaN where nothing is closed, recorded or said.
    """

    translation_mm: NDArray
    rotation_deg: NDArray
    gripper_f1: float

    @classmethod
    def between(cls, found: Chunks, true: Chunks) -> "ChunkErrors":
        """Compare chunks of the same moments."""
        off = np.linalg.norm(found.translations_m - true.translations_m, axis=-1)
        turned = quat.angle(found.rotations_xyzw, true.rotations_xyzw)
        closed, truly = found.grippers < 0.5, true.grippers < 0.5
        both, either = (closed & truly).sum(), closed.sum() + truly.sum()
        f1 = float(2 * both / either) if either else float("nan")
        return cls(1e3 * off, np.rad2deg(turned), f1)

    def rows(self, mine: NDArray[np.bool_]) -> "ChunkErrors":
        """Those of some moments; the F1 stays that of all."""
        return replace(
            self,
            translation_mm=self.translation_mm[mine],
            rotation_deg=self.rotation_deg[mine],
        )


@dataclass(frozen=True, eq=False)
class OpenLoopErrors:
    """Errors of a model, of the baselines, and of the model without one of its inputs.

    Attributes:
        model: its own.
        others: by name of `BASELINES` and, with "no_" before it, of `PROBES`.
        dataset: (S,) name of each moment's dataset.
        predicted, recorded: the chunks themselves.
    """

    model: ChunkErrors
    others: Mapping[str, ChunkErrors]
    dataset: NDArray
    predicted: Chunks
    recorded: Chunks

    def numbers(self) -> dict[str, float]:
        """Flat numbers for metrics: means over all steps, shares of hold still, by dataset."""
        kinds, still, found = ("translation_mm", "rotation_deg"), self.others["hold_still"], {}
        for kind in kinds:
            own, its = getattr(self.model, kind).mean(), getattr(still, kind).mean()
            found[kind], found[f"hold_still/{kind}"] = float(own), float(its)
            found[f"{kind.rsplit('_', 1)[0]}_share_of_hold_still"] = float(own / max(its, 1e-9))
        found["gripper_f1"] = self.model.gripper_f1
        for name, errors in self.others.items():
            found |= {f"{name}/{kind}": float(getattr(errors, kind).mean()) for kind in kinds}
            found[f"{name}/gripper_f1"] = errors.gripper_f1
        for kind in kinds:
            by_step = getattr(self.model, kind).mean(axis=0)
            found |= {f"step_{k}/{kind}": float(v) for k, v in enumerate(by_step, 1)}
        for name in sorted(set(self.dataset)) if len(set(self.dataset)) > 1 else ():
            part = self.model.rows(self.dataset == name)
            found[f"{name}/translation_mm"] = float(part.translation_mm.mean())
            found[f"{name}/rotation_deg"] = float(part.rotation_deg.mean())
        return found


def readers_of(parts: Sequence[MixtureStore], steps: int) -> dict[str, FrameSampleReader]:
    """The moments of each store of a mixture, by its name there. Raises DataFileError."""
    pairs = zip(parts, open_stores(parts), strict=True)
    return {part.name: FrameSampleReader(store, steps) for part, store in pairs}


def open_loop_of(
    policy: Policy,
    parts: Sequence[MixtureStore],
    samples: int,
    *,
    robots: Mapping[str, str] | None = None,
    normalisation: Normalisation | None = None,
    device: str = "cpu",
) -> "OpenLoop":
    """Demonstrations to judge a checkpoint on.

    Args:
        policy: on `device`.
        parts: of a mixture.
        samples: how many moments.
        robots: by dataset, the robot whose reference orientation of the card its states have.
        normalisation: of the training; None: the card's statistics for every dataset.

    Raises:
        DataFileError: a store is damaged.
        ValueError: the card has no such robot, or a dataset has no statistics.
    """
    card, config = policy.card, policy.model.config
    readers = readers_of(parts, config.chunk_length)
    if normalisation is None:
        each = dict.fromkeys(readers, card.statistics)
        normalisation = Normalisation("global_quantile", card.statistics, each)
    references = {
        name: card.reference_orientation_xyzw(robot)
        for name, robot in (robots or {}).items()
        if name in readers
    }
    preparation = Preparation(
        config,
        policy.tokenizer,
        tuple(readers),
        normalisation,
        device=device,
        references_xyzw=references,
        mask_missing=config.mask_missing_camera,
    )
    statistics = {name: normalisation.by_dataset[name] for name in readers}
    return OpenLoop(readers, tuple(range(len(readers))), statistics, preparation, samples)


class OpenLoop:
    """Moments of held-out demonstrations, read once, on which models are judged.

    Attributes:
        names: of the datasets.
    """

    def __init__(
        self,
        readers: Mapping[str, FrameSampleReader],
        places: tuple[int, ...],
        statistics: Mapping[str, Statistics],
        preparation: Preparation,
        samples: int,
    ):
        """Choose moments, evenly spread over all frames of all stores.

        Args:
            readers: held-out demonstrations by dataset.
            places: number of each of these datasets in the preparation.
            statistics: of each dataset.
            preparation: of the model, without augmentation.
            samples: how many moments.
        """
        self.names = tuple(readers)
        self._readers, self._places = tuple(readers.values()), np.array(places)
        self._statistics, self._preparation = statistics, preparation
        sizes = [len(reader) for reader in self._readers]
        every = np.linspace(0, sum(sizes) - 1, min(samples, sum(sizes))).astype(int)
        ends = np.cumsum(sizes)
        self._dataset = np.searchsorted(ends, every, side="right")
        self._frame = every - (ends - sizes)[self._dataset]
        self._batches: list[Batch] = []

    def batches(self) -> Iterator[Batch]:
        """The moments; read once and kept, a whole validation is a few megabytes."""
        if not self._batches:
            # A source of one batch each: its order is not used, its reading is.
            source = BatchSource(
                dict(zip(self.names, self._readers, strict=True)),
                [1.0] * len(self.names),
                batch_size=1,
                seed=0,
            )
            for begin in range(0, len(self._frame), BATCH):
                part = slice(begin, begin + BATCH)
                self._batches.append(source.read(self._dataset[part], self._frame[part]))
        for batch in self._batches:
            yield replace(batch, dataset=torch.from_numpy(self._places)[batch.dataset])

    def errors(
        self, model: SpearModel, *, steps: int | None = None, probes: bool = False, seed: int = 0
    ) -> OpenLoopErrors:
        """Judge a model.

        Args:
            model: in evaluation mode.
            steps: of denoising; None: as the model's configuration says.
            probes: also without each of its inputs.
            seed: of the noise; the same for all probes, so that they are compared in pairs.
        """
        recorded = _joined([_recorded(batch) for batch in self.batches()])
        predicted = self._predicted(model, steps, seed, None)
        others = {name: self._baseline(name, recorded) for name in BASELINES}
        if probes:
            used = {"sentence", "state", *(camera.name for camera in model.config.cameras)}
            for probe in PROBES:
                if probe in used:
                    others[f"no_{probe}"] = self._predicted(model, steps, seed, probe)
        found = {name: ChunkErrors.between(chunks, recorded) for name, chunks in others.items()}
        names = np.array(self.names)[self._dataset]
        own = ChunkErrors.between(predicted, recorded)
        return OpenLoopErrors(own, found, names, predicted, recorded)

    def _predicted(self, model, steps, seed, probe: str | None) -> Chunks:
        sampler = Sampler(model, steps)
        generator = torch.Generator().manual_seed(seed)
        found = []
        for batch in self.batches():
            inputs = self._preparation(_without(batch, probe)).inputs
            if probe == "state":
                inputs = replace(inputs, state=_middle_state(inputs.state))
            shape = len(batch), model.config.chunk_length
            noise = sampler.flow.noise(*shape, generator).to(inputs.text_ids.device)
            actions = sampler.denoise(sampler.read(inputs), noise)
            found.append(self._in_metres(batch, *sampler.flow.decode(actions.cpu())))
        return _joined(found)

    def _in_metres(self, batch: Batch, translation: Tensor, rotation: Tensor, gripper: Tensor):
        translations_m = np.empty(translation.shape)
        for place, name in zip(self._places.tolist(), self.names, strict=True):
            mine = (batch.dataset == place).numpy()
            bounds, scheme = self._statistics[name].translation, self._statistics[name].scheme
            translations_m[mine] = denormalise(translation.numpy()[mine], bounds, scheme)
        xyzw = quat.xyzw_from_wxyz(rotation.numpy().astype(float))
        return Chunks(translations_m, xyzw, (gripper.numpy()[..., 0] > 0).astype(float))

    # Baselines ----------------------------------------------------------------------------

    def _baseline(self, name: str, recorded: Chunks) -> Chunks:
        count, steps = recorded.grippers.shape
        still = np.zeros((count, steps, 3))
        unturned = np.broadcast_to(quat.IDENTITY_XYZW, (count, steps, 4))
        opening = np.concatenate([batch.gripper_openings.numpy() for batch in self.batches()])
        gripper = np.repeat((opening > 0.5).astype(float)[:, None], steps, axis=1)
        if name == "hold_still":
            return Chunks(still, unturned, gripper)
        if name == "mean_action":
            means = [self._statistics[self.names[each]].translation.mean for each in self._dataset]
            # The statistics' mean is that of all steps; step k of N goes 2 k / (N + 1) as far.
            ramp = 2 * np.arange(1, steps + 1) / (steps + 1)
            return Chunks(np.array(means)[:, None] * ramp[None, :, None], unturned, gripper)
        moved, turned = zip(
            *(
                _last_motion(self._readers[dataset], int(frame))
                for dataset, frame in zip(self._dataset, self._frame, strict=True)
            ),
            strict=True,
        )
        times = np.arange(1, steps + 1)
        rotations = quat.from_rotation_vector(np.array(turned)[:, None] * times[None, :, None])
        return Chunks(np.array(moved)[:, None] * times[None, :, None], rotations, gripper)


def _last_motion(reader: FrameSampleReader, frame: int) -> tuple[NDArray, NDArray]:
    """How the hand moved [m] and turned (rotation vector) in the step before a moment."""
    store = reader.store
    first = int(store.episodes.first_frame[int(store.episode_of[frame])])
    stamps = np.asarray(store.stamps_s[first : frame + 1], float)
    before = first + int(np.searchsorted(stamps, stamps[-1] - reader.dt_s - 1e-6))
    if before >= frame:
        return np.zeros(3), np.zeros(3)
    then, now = np.asarray(store.states[[before, frame], :7], float)
    scale = reader.dt_s / (stamps[-1] - stamps[before - first])
    turn = quat.multiply(quat.inverse(quat.unit(then[3:], 1e-3)), quat.unit(now[3:], 1e-3))
    return scale * (now[:3] - then[:3]), scale * quat.rotation_vector(quat.half_space(turn))


# Probes ------------------------------------------------------------------------------------------


def _without(batch: Batch, probe: str | None) -> Batch:
    if probe == "sentence":
        return replace(batch, sentences=(NEUTRAL_SENTENCE,) * len(batch))
    if probe in batch.images:
        black = torch.zeros_like(batch.images[probe])
        absent = torch.zeros_like(batch.present[probe])
        return replace(
            batch,
            images={**batch.images, probe: black},
            present={**batch.present, probe: absent},
        )
    return batch


def _middle_state(state: Tensor) -> Tensor:
    """The middle of the range, no rotation, a half-open gripper."""
    middle = torch.zeros_like(state)
    middle[:, 3] = 1.0
    return middle


def _recorded(batch: Batch) -> Chunks:
    return Chunks(
        batch.translations_m.numpy(), batch.rotations_xyzw.numpy(), batch.grippers.numpy()
    )


def _joined(parts: list[Chunks]) -> Chunks:
    names = ("translations_m", "rotations_xyzw", "grippers")
    return Chunks(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
