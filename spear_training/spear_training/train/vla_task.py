"""Stage 2: chunks of actions by flow matching, on demonstrations in the canonical store.

A sample is a moment of a demonstration: its pictures, the state, a sentence, and the chunk that
followed. Noise and times are drawn by seed and step alone, so a run that goes on from a checkpoint,
or on another number of processes, learns from the same draws.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from spear_policy.geometry import quaternions as quat
from spear_policy.inference.make_checkpoint import REFERENCES_XYZW
from spear_policy.inference.model_card import CARD_FILE, CardCamera, ModelCard
from spear_policy.inference.spatial_model import RECORD_FILE
from spear_policy.inference.spear_engine import Policy, load, save
from spear_policy.inference.statistics import statistics_hash
from spear_policy.model.checkpoint import CheckpointError
from spear_policy.model.flow_matching import SPEED_BINS, FlowLoss, FlowMatching, FlowSample
from spear_policy.model.public_weights import load_stage1
from spear_policy.model.spear import ModelInputs, SpearModel, build
from spear_policy.model.tokenizer import TokenizerError
from spear_policy.shared.config import ConfigError
from spear_policy.shared.seeds import seed_of
from spear_training.data.loader import Batch, BatchSource
from spear_training.data.mixture import MixtureStore, load_mixture
from spear_training.data.preparation import Augmentation, Preparation, TrainingBatch
from spear_training.data.reader import DataFileError
from spear_training.data.statistics.normalisation import Normalisation, read_normalisation
from spear_training.evaluation.open_loop import OpenLoop, readers_of
from spear_training.train.config import TrainConfig, TrainingError
from spear_training.train.lora import add_adapters, merge_adapters
from spear_training.train.vlm_task import (
    check_same_model,
    read_tokenizer,
    starting_model,
    write_record,
)


@dataclass(frozen=True)
class VlaTaskConfig:
    """Which demonstrations, and how they are shown.

    Attributes:
        mixture: "oxe", or a YAML file of stores with their weights (`data.mixture`).
        root: folder of the stores, for "oxe".
        only: parts of the mixture to use, with commas between; "": all.
        statistics: statistics.json of `spear_stats` for the same mixture.
        robots: by dataset, whose reference orientation its states have: a name of the graph, such
            as franka. A dataset that is not there has none (the paper's literal reading).
        robot_dataset: whose statistics the card gets under the scheme dataset_quantile.
        augmentation: of pictures; None: none.
        lora_rank: of corrections that the language model learns in place of its weights (`lora`);
            0: it learns its weights.
        draws: of noise and time for each sample; one reading of the pictures serves all.
        tokenizer: tokenizer.json; "": that of `start`, or for a small vocabulary our own.
        held_out: a mixture of stores that are not trained on; "": no validation.
        held_out_samples: moments of it, evenly spread.
    """

    kind: ClassVar[str] = "vla"
    mixture: str
    root: str = ""
    only: str = ""
    statistics: str = ""
    robots: Mapping[str, str] = field(default_factory=dict)
    robot_dataset: str = ""
    augmentation: Augmentation | None = field(default_factory=Augmentation)
    lora_rank: int = 0
    draws: int = 1
    tokenizer: str = ""
    held_out: str = ""
    held_out_samples: int = 256

    def __post_init__(self):
        """Refuse what no training can use. Raises ConfigError."""
        if self.draws < 1 or self.held_out_samples < 1:
            raise ConfigError("draws and held_out_samples must be at least 1")
        if unknown := sorted(set(self.robots.values()) - set(REFERENCES_XYZW)):
            raise ConfigError(
                f"robots names {unknown[0]!r}; it may be one of {', '.join(REFERENCES_XYZW)}"
            )

    def empty_model(self, config: TrainConfig) -> SpearModel:
        """The model without values."""
        with torch.device("meta"):
            model = SpearModel(config.model)
            self.adapt(model)
        return model

    def adapt(self, model: SpearModel) -> None:
        """Give the language model adapters, where they are asked for. Raises TrainingError."""
        if self.lora_rank:
            add_adapters(model, "language", self.lora_rank)

    def longest_loss(self, config: TrainConfig, model: SpearModel) -> Tensor:
        """The loss of a sample with the longest sentence, on the meta device."""
        made, length = config.model, config.model.chunk_length
        with torch.device("meta"):
            inputs = ModelInputs(
                tuple(
                    torch.empty(1, 3, c.height, c.width, dtype=torch.uint8) for c in made.cameras
                ),
                torch.zeros(1, made.max_text_tokens, dtype=torch.long),
                torch.ones(1, made.max_text_tokens, dtype=torch.bool),
                state=torch.empty(1, 8),
            )
            actions = torch.empty(self.draws, length, made.flow.action_dim)
        return model(inputs, actions, torch.empty(self.draws, device="meta")).square().mean()

    def make(self, config: TrainConfig, device: torch.device) -> "VlaTask":
        """Open stores and statistics. Raises TrainingError."""
        try:
            return VlaTask(config, device)
        except (DataFileError, CheckpointError, TokenizerError, OSError) as error:
            raise TrainingError(str(error)) from None
        except ValueError as error:
            raise TrainingError(f"task: {error}") from None


# Samples -----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class VlaPart:
    """A micro-batch: B samples with K draws each, draw after draw (row k B + i is of sample i).

    Attributes:
        inputs: of the model, B rows.
        sample: the flow's draws, K B rows.
        dataset: (B,) number of each sample's dataset.
        names: of the moments, for messages.
    """

    inputs: ModelInputs
    sample: FlowSample
    dataset: Tensor
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)


def rows_of(inputs: ModelInputs, rows: slice) -> ModelInputs:
    """Some rows of a model's inputs."""
    parts = {each.name: getattr(inputs, each.name) for each in fields(inputs)}
    images = tuple(image[rows] for image in parts.pop("images"))
    cut = {name: None if part is None else part[rows] for name, part in parts.items()}
    return ModelInputs(images, **cut)


class FlowDraws:
    """Noise and times of a step: a function of seed and step, whatever process asks."""

    def __init__(self, flow: FlowMatching, config: TrainConfig, rank: int, ranks: int):
        """Take this process's place among the rows of a whole batch."""
        self._flow, self._seed, self._count = flow, config.seed, config.task.draws
        self._ranks, part = ranks, config.batch_size // ranks
        self._mine = slice(rank * part, (rank + 1) * part)

    def draw(self, batch: TrainingBatch, step: int) -> list[FlowSample]:
        """K draws for the rows of this process."""
        targets = self._flow.encode(batch.translations, batch.rotations_wxyz, batch.grippers)
        # The draw of a row depends on its place in the whole batch, so all rows are drawn. What
        # stands in the rows of others changes nothing in these.
        whole = targets.repeat(self._ranks, 1, 1)
        found = []
        for number in range(self._count):
            generator = torch.Generator().manual_seed(seed_of("flow", self._seed, step, number))
            drawn = self._flow.draw(whole, generator)
            mine = {each.name: getattr(drawn, each.name)[self._mine] for each in fields(drawn)}
            found.append(FlowSample(**mine))
        return found


# The task ----------------------------------------------------------------------------------------


class VlaTask:
    """See `config.TrainingTask`.

    Attributes:
        normalisation: of the mixture.
        preparation: from stored batches to the model's inputs, with augmentation.
    """

    def __init__(self, config: TrainConfig, device: torch.device):
        """Open everything; use `VlaTaskConfig.make`."""
        task = config.task
        if config.model.expert is None:
            raise ValueError(f"{config.model.name} has no action expert: stage 2 trains one")
        self._config, self._device = config, device
        self._flow = FlowMatching(config.model.flow)
        self._parts = self._mixture(task.mixture)
        self._readers = readers_of(self._parts, config.model.chunk_length)
        self._names = tuple(self._readers)
        self.normalisation = self._read_statistics()
        self._tokenizer = read_tokenizer(config)
        if unknown := sorted(set(task.robots) - set(self._names)):
            raise ValueError(f"robots has {unknown[0]!r}, which is not in the mixture")
        self._references = {name: REFERENCES_XYZW[robot] for name, robot in task.robots.items()}
        self.preparation = self._preparation(task.augmentation)
        self._draws: FlowDraws | None = None  # of this process, from `source` on
        self._held_out: OpenLoop | None = None
        if task.held_out and device.type != "meta":
            self._held_out = self._open_loop(task.held_out)

    def _mixture(self, mixture: str) -> tuple[MixtureStore, ...]:
        task = self._config.task
        if not mixture:
            raise DataFileError(
                "no demonstrations: give --set task.mixture=FILE.yaml, a list of stores of "
                "import_episodes (docs/data.md), and --set task.statistics=FILE of spear_stats"
            )
        only = [name.strip() for name in task.only.split(",") if name.strip()]
        return load_mixture(mixture, Path(task.root) if task.root else None, only=only)

    def _read_statistics(self) -> Normalisation:
        if not (path := self._config.task.statistics):
            raise DataFileError(
                "no statistics: run `spear_stats --mixture ... --out out/statistics` and give "
                "--set task.statistics=out/statistics/statistics.json"
            )
        found = read_normalisation(Path(path))
        if lacking := sorted(set(self._names) - set(found.by_dataset)):
            raise DataFileError(
                f"{path} has no statistics of {lacking[0]}: run spear_stats on this mixture"
            )
        return found

    def _preparation(self, augmentation: Augmentation | None) -> Preparation:
        return Preparation(
            self._config.model,
            self._tokenizer,
            self._names,
            self.normalisation,
            device=self._device,
            augmentation=augmentation,
            references_xyzw=self._references,
            mask_missing=self._config.model.mask_missing_camera,
        )

    def _open_loop(self, mixture: str) -> OpenLoop:
        parts = self._mixture(mixture)
        if unknown := sorted({part.name for part in parts} - set(self._names)):
            raise DataFileError(
                f"{mixture} has {unknown[0]}, which is not trained on: name the held-out store of "
                "a dataset as the dataset is named in the mixture (`name:` in the YAML)"
            )
        readers = readers_of(parts, self._config.model.chunk_length)
        statistics = {name: self.normalisation.by_dataset[name] for name in readers}
        places = tuple(self._names.index(name) for name in readers)
        return OpenLoop(
            readers, places, statistics, self._preparation(None), self._config.task.held_out_samples
        )

    def build_model(self) -> SpearModel:
        """Random weights, those of a checkpoint, or those of stage 1 with a random expert."""
        model = self._started()
        self._config.task.adapt(model)
        return model

    def _started(self) -> SpearModel:
        config, start = self._config, Path(self._config.start)
        if config.start == "random":
            return starting_model(config)
        try:
            if (start / CARD_FILE).is_file():
                model = load(start, dtype=torch.float32).model
                check_same_model(config, model.config)
                return model
            model = build(config.model, seed=config.seed)
            if not (start / RECORD_FILE).is_file():
                raise TrainingError(
                    f"start: {start} is neither a checkpoint nor a folder of stage 1: give one of "
                    "make_checkpoint or the folder `final` of a training"
                )
            load_stage1(model, start, progress=False)
        except (CheckpointError, ConfigError) as error:
            raise TrainingError(f"start: {error}") from None
        return model

    def source(self, rank: int, ranks: int) -> BatchSource:
        """Batches of this process."""
        self._draws = FlowDraws(self._flow, self._config, rank, ranks)
        weights = [part.weight for part in self._parts]
        size, seed = self._config.batch_size, self._config.seed
        return BatchSource(
            self._readers, weights, batch_size=size, seed=seed, rank=rank, ranks=ranks
        )

    def split(self, batch: Batch, parts: int) -> list[VlaPart]:
        """Micro-batches on the device."""
        try:
            prepared = self.preparation(batch)
            draws = self._draws.draw(prepared, batch.step)
        except ValueError as error:
            names = ", ".join(self._frame_names(batch)[:8])
            raise TrainingError(f"step {batch.step}: {error}; of {names}") from None
        count, names = len(batch) // parts, self._frame_names(batch)
        rows = [slice(i * count, (i + 1) * count) for i in range(parts)]
        dataset = batch.dataset.to(self._device)
        return [
            VlaPart(rows_of(prepared.inputs, row), _joined(draws, row), dataset[row], names[row])
            for row in rows
        ]

    def _frame_names(self, batch: Batch) -> tuple[str, ...]:
        pairs = zip(batch.dataset.tolist(), batch.frame.tolist(), strict=True)
        return tuple(f"{self._names[dataset]} frame {frame}" for dataset, frame in pairs)

    def denominator(self, part: VlaPart) -> float:
        """Samples."""
        return float(len(part))

    def loss(
        self, model, part: VlaPart, denominator: float
    ) -> tuple[Tensor, dict[str, tuple[Any, Any]]]:
        """The paper's four losses (Eq. 10), and what tells whether rotations are learned."""
        velocity = model(part.inputs, part.sample.noisy, part.sample.tau)
        found = self._flow.loss(velocity, part.sample)
        count = len(part)
        values: dict[str, tuple[Any, Any]] = {
            name: (getattr(found, name).detach() * count, count)
            for name in ("translation", "gripper", "rotation_velocity", "rotation_geometric")
        }
        values["rotation_error_deg"] = (found.rotation_error_degrees * count, count)
        values["rotation_identity_deg"] = (found.rotation_identity_degrees * count, count)
        edges = zip(SPEED_BINS, SPEED_BINS[1:], found.speed_ratio.detach(), strict=False)
        for low, high, ratio in edges:
            known = bool(torch.isfinite(ratio))
            values[f"speed_ratio/{low:g}-{high:g}"] = (ratio if known else 0.0, float(known))
        if len(self._names) > 1:
            values |= self._by_dataset(velocity.detach(), part)
        return found.total * (count / denominator), values

    @torch.no_grad()
    def _by_dataset(self, velocity: Tensor, part: VlaPart) -> dict[str, tuple[Any, Any]]:
        values: dict[str, tuple[Any, Any]] = {}
        draws = len(part.sample.tau) // len(part)
        for number, name in enumerate(self._names):
            mine = part.dataset == number
            count = float(mine.sum())
            if not count:
                values[f"loss/{name}"] = (0.0, 0.0)
                continue
            weight = mine.repeat(draws)[:, None].expand(velocity.shape[:2])
            found: FlowLoss = self._flow.loss(velocity, part.sample, weight)
            values[f"loss/{name}"] = (found.total * count, count)
        return values

    def sample_names(self, part: VlaPart) -> list[str]:
        """Dataset and frame of each moment."""
        return list(part.names)

    def validate(self, model: SpearModel, step: int) -> dict[str, float]:
        """Open-loop errors on held-out moments; see `evaluation.open_loop`."""
        return self._held_out.errors(model).numbers() if self._held_out else {}

    def export(self, model: SpearModel, folder: Path, record: Mapping[str, Any]) -> None:
        """A checkpoint that the policy node loads, and the record of what made it."""
        try:
            merge_adapters(model)
            card = save(folder, Policy(model, self._tokenizer, self._card(record)))
            data = {"data": self._data(), "statistics": self.normalisation.hashes()}
            write_record(folder, {**record, **data}, card.file_hashes)
        except (OSError, ValueError) as error:
            raise TrainingError(f"{folder} cannot be written: {error}") from None

    def _card(self, record: Mapping[str, Any]) -> ModelCard:
        task, model = self._config.task, self._config.model
        statistics = self.normalisation.card_statistics(task.robot_dataset or None)
        robots = {robot: REFERENCES_XYZW[robot] for robot in task.robots.values()}
        literal = dict.fromkeys(REFERENCES_XYZW, tuple(quat.IDENTITY_XYZW))
        return ModelCard(
            checkpoint_id=f"{self._config.name}-{record['step']}",
            recipe=self._config.name,
            git_revision=str(record.get("git_revision", "")),
            datasets=self._names,
            dt_s=self._dt_s,
            chunk_length=model.chunk_length,
            anchor="measured",
            cameras=tuple(CardCamera(camera.name, "auto", None) for camera in model.cameras),
            reference_orientations_xyzw=robots or literal,
            statistics=statistics,
            statistics_hash=statistics_hash(statistics),
            file_hashes={},
        )

    @property
    def _dt_s(self) -> float:
        return next(iter(self._readers.values())).dt_s

    def _data(self) -> list[dict[str, Any]]:
        """What was trained on: stores, weights and how much is in them."""
        return [
            {
                "name": part.name,
                "store": str(part.store),
                "weight": part.weight,
                "episodes": len(reader.store.episodes),
                "moments": len(reader),
            }
            for part, reader in zip(self._parts, self._readers.values(), strict=True)
        ]


def _joined(draws: list[FlowSample], rows: slice) -> FlowSample:
    """The same rows of every draw, draw after draw."""
    names = [each.name for each in fields(FlowSample)]
    return FlowSample(**{n: torch.cat([getattr(d, n)[rows] for d in draws]) for n in names})
