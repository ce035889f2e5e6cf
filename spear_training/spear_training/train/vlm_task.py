"""Stage 1: questions about annotated pictures, answered in words and 3D tokens.

A sample is a picture with one to four questions in a row of ids; the answers are learned (paper,
A.1.1, and model.md of the documentation). The model has one camera, whose picture is made by the
same fit as on a robot.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from spear_policy.inference.image_geometry import fit
from spear_policy.inference.spatial_model import RECORD_FILE
from spear_policy.model.answers import AnswerGrammar
from spear_policy.model.checkpoint import CheckpointError, load_weights, save_weights
from spear_policy.model.config import CameraConfig, ModelConfig
from spear_policy.model.coordinate_bins import BINS_FILE
from spear_policy.model.gemma import answer_loss, columns_from_ids
from spear_policy.model.prompts import QuestionBatch, QuestionIds, pad_questions
from spear_policy.model.spear import ModelInputs, SpearModel, build
from spear_policy.model.tokenizer import TextTokenizer, TokenizerError, train_tokenizer
from spear_policy.shared.files import MismatchError, write_atomically
from spear_training.annotation.frame import read_picture
from spear_training.annotation.stages import JobError, StageError
from spear_training.evaluation.vlm_accuracy import Baselines, VlmAccuracy, vlm_accuracy
from spear_training.train.config import TrainConfig, TrainingError
from spear_training.vqa.bins import FittedBins
from spear_training.vqa.dataset import MixtureSet, VqaSet, example_ids, mixture

LARGEST_OWN_VOCABULARY = 100_000  # more words are PaliGemma's, whose tokenizer must be given
PAD_TO = 16  # rows of few lengths: fewer shapes to compile
KEPT_BYTES = 1 << 28  # of fitted pictures that a process keeps


@dataclass(frozen=True)
class VlmTaskConfig:
    """Which pictures, which questions, and what of them counts.

    Attributes:
        mixture: a name of `vqa/mixtures.yaml`: the datasets, their shares, the categories.
        folders: where `annotate run` has written each dataset of the mixture.
        bins: bins.json of the 3D tokens; "": the one in the folder of the first dataset.
        coordinate_weight: of a 3D token in the loss; the paper's lambda.
        tokenizer: tokenizer.json; "": that of `start`, or for a small vocabulary our own.
        held_out: folder of pictures that validation asks about; "": no validation.
        held_out_pictures: how many of them.
    """

    kind: ClassVar[str] = "vlm"
    mixture: str
    folders: Mapping[str, str]
    bins: str = ""
    coordinate_weight: float = 1.0
    tokenizer: str = ""
    held_out: str = ""
    held_out_pictures: int = 64

    def empty_model(self, config: TrainConfig) -> SpearModel:
        """The model without values."""
        with torch.device("meta"):
            return SpearModel(config.model)

    def longest_loss(self, config: TrainConfig, model: SpearModel) -> Tensor:
        """The loss of a picture with as many tokens as the mixture allows, on the meta device."""
        camera, longest = config.model.cameras[0], mixture(self.mixture).settings.max_tokens
        with torch.device("meta"):
            picture = torch.empty(1, 3, camera.height, camera.width, dtype=torch.uint8)
            ids = torch.zeros(1, longest, dtype=torch.long)
            answer = torch.ones(1, longest, dtype=torch.bool)
        logits = model(ModelInputs((picture,), ids), bidirectional=~answer)
        return answer_loss(logits, ids, answer, config.model.vocabulary, count=1.0)

    def make(self, config: TrainConfig, device: torch.device) -> "VlmTask":
        """Open the pictures and the bins. Raises TrainingError."""
        try:
            return VlmTask(config, device)
        except (JobError, MismatchError, CheckpointError, TokenizerError, OSError) as error:
            raise TrainingError(str(error)) from None
        except ValueError as error:
            raise TrainingError(f"task: {error}") from None


# Samples -----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class VlmBatch:
    """Pictures with rows of questions.

    Attributes:
        pictures: (B, 3, H, W) uint8 RGB.
        ids, valid, prefix, answer: (B, T), see `prompts.QuestionBatch`.
        names: of the pictures.
    """

    pictures: Tensor
    ids: Tensor
    valid: Tensor
    prefix: Tensor
    answer: Tensor
    names: tuple[str, ...]

    def pin_memory(self) -> "VlmBatch":
        """Move it to pinned memory; torch's loader calls this for a GPU."""
        moved = {k: v.pin_memory() for k, v in vars(self).items() if isinstance(v, Tensor)}
        return VlmBatch(**moved, names=self.names)

    def rows(self, rows: Sequence[int], device: torch.device) -> "VlmBatch":
        """Some of the rows, as long as the longest of them, on a device."""
        longest = int(self.valid[rows].sum(dim=1).max())
        kept = min(-(-longest // PAD_TO) * PAD_TO, self.ids.shape[1])

        def part(values: Tensor) -> Tensor:
            return values[rows, :kept].to(device, non_blocking=True)

        return VlmBatch(
            self.pictures[rows].to(device, non_blocking=True),
            *map(part, (self.ids, self.valid, self.prefix, self.answer)),
            tuple(self.names[row] for row in rows),
        )

    @property
    def inputs(self) -> ModelInputs:
        """What the model reads."""
        return ModelInputs((self.pictures,), self.ids, self.valid)


class FittedPictures:
    """Pictures as the model's camera gives them; the first ones are kept.

    Attributes:
        camera: of the model.
        most: how many are kept.
    """

    def __init__(self, camera: CameraConfig):
        self.camera = camera
        self._kept: dict[Path, NDArray[np.uint8]] = {}
        self.most = KEPT_BYTES // (3 * camera.width * camera.height)

    def __reduce__(self):
        """For worker processes: what is kept stays here."""
        return FittedPictures, (self.camera,)

    def read(self, path: Path, native_aspect: float | None) -> NDArray[np.uint8]:
        """A picture (H, W, 3) uint8 RGB.

        Raises:
            TrainingError: it is gone or damaged since it was annotated; names it.
        """
        if (found := self._kept.get(path)) is not None:
            return found
        try:
            picture = read_picture(path)
        except (StageError, OSError) as error:
            raise TrainingError(f"{path}: {error}; annotate its folder again") from None
        size = self.camera.width, self.camera.height
        found = fit(picture, *size, native_aspect=native_aspect)
        if len(self._kept) < self.most:
            self._kept[path] = found
        return found


class VlmBatches(Dataset):
    """Batch `step` of one process: a pure function of seed and step."""

    def __init__(
        self,
        samples: MixtureSet,
        grammar: AnswerGrammar,
        config: TrainConfig,
        rank: int,
        ranks: int,
    ):
        """Take the samples of a mixture and the words that they are written in."""
        self._samples, self._grammar = samples, grammar
        self._max_tokens = mixture(config.task.mixture).settings.max_tokens
        self._pictures = FittedPictures(config.model.cameras[0])
        self._size, self._part = config.batch_size, config.batch_size // ranks
        self._first, self._pad_id = rank * self._part, config.model.vocabulary.pad_id

    def __getitem__(self, step: int) -> VlmBatch:
        """Read the batch of a step.

        Raises:
            TrainingError: a picture or a record is gone or damaged.
        """
        first = step * self._size + self._first
        found = [self._sample(first + i) for i in range(self._part)]
        pictures, rows, names = zip(*found, strict=True)
        longest = max(len(row.ids) for row in rows)
        batch = pad_questions(rows, -(-longest // PAD_TO) * PAD_TO, self._pad_id)
        return _batch(np.stack(pictures), batch, names)

    def _sample(self, index: int) -> tuple[NDArray[np.uint8], QuestionIds, str]:
        try:
            sample = self._samples.sample(index)
        except (JobError, OSError) as error:
            raise TrainingError(str(error)) from None
        laid = example_ids(sample.example, self._grammar, self._max_tokens)
        if laid is None:
            raise TrainingError(
                f"{sample.image}: its first question has more than {self._max_tokens} tokens: give "
                "the mixture a larger max_tokens"
            )
        return self._pictures.read(sample.image, sample.native_aspect), laid[0], str(sample.image)


def _batch(pictures: NDArray[np.uint8], batch: QuestionBatch, names) -> VlmBatch:
    return VlmBatch(
        torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous(),
        *(torch.from_numpy(part) for part in (batch.ids, batch.valid, batch.prefix, batch.answer)),
        tuple(names),
    )


# The task ----------------------------------------------------------------------------------------


class VlmTask:
    """See `config.TrainingTask`."""

    def __init__(self, config: TrainConfig, device: torch.device):
        """Open everything; use `VlmTaskConfig.make`."""
        task = config.task
        _check_model(config.model)
        self._config, self._device = config, device
        mixed = mixture(task.mixture)
        folders = {name: Path(folder) for name, folder in task.folders.items()}
        if unset := [name for name, folder in task.folders.items() if not folder]:
            raise JobError(
                f"no folder of the dataset {unset[0]}: give --set task.folders.{unset[0]}=FOLDER, "
                "where `annotate run` has written it"
            )
        self._fitted = FittedBins.load(
            Path(task.bins) if task.bins else next(iter(folders.values())) / BINS_FILE
        )
        words = config.model.vocabulary
        if self._fitted.bins.count != words.coordinate_tokens:
            raise JobError(
                f"{self._fitted.bins.count} bins do not fit the model's {words.coordinate_tokens} "
                f"3D tokens: fit others by `annotate questions --count {words.coordinate_tokens}`"
            )
        self._tokenizer = read_tokenizer(config)
        self.grammar = AnswerGrammar(self._tokenizer, self._fitted.bins)
        self._samples = MixtureSet(mixed, folders, config.seed, self._fitted.bins)
        self._held_out = self._baselines = None
        if task.held_out and device.type != "meta":
            self._held_out = VqaSet(Path(task.held_out), mixed.settings, self._fitted.bins)

    def build_model(self) -> SpearModel:
        """Random weights, or those of `start`, a folder of this suite without an action expert."""
        return starting_model(self._config)

    def source(self, rank: int, ranks: int) -> VlmBatches:
        """Batches of this process."""
        return VlmBatches(self._samples, self.grammar, self._config, rank, ranks)

    def split(self, batch: VlmBatch, parts: int) -> list[VlmBatch]:
        """Micro-batches on the device: rows of like length together, for less padding."""
        count = len(batch.names) // parts
        order = batch.valid.sum(dim=1).argsort(stable=True).tolist()
        return [batch.rows(order[i : i + count], self._device) for i in range(0, len(order), count)]

    def denominator(self, part: VlmBatch) -> float:
        """Answer tokens."""
        return float(part.answer.sum()) if part.answer.device.type != "meta" else 1.0

    def loss(
        self, model, part: VlmBatch, denominator: float
    ) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
        """Cross entropy of the answers, 3D tokens `coordinate_weight` times."""
        words = self._config.model.vocabulary
        logits = model(part.inputs, bidirectional=part.prefix)
        loss = answer_loss(
            logits,
            part.ids,
            part.answer,
            words,
            coordinate_weight=self._config.task.coordinate_weight,
            count=denominator,
        )
        with torch.no_grad():
            wanted = part.answer[:, 1:]
            right = logits[:, :-1].argmax(-1) == columns_from_ids(part.ids[:, 1:], words)
            in_3d = wanted & (part.ids[:, 1:] >= words.coordinate_begin)
            values = {
                "token_accuracy": ((right & wanted).sum(), wanted.sum()),
                "coordinate_accuracy": ((right & in_3d).sum(), in_3d.sum()),
            }
        return loss, values

    def sample_names(self, part: VlmBatch) -> list[str]:
        """Paths of the pictures."""
        return list(part.names)

    def validate(self, model: SpearModel, step: int) -> dict[str, float]:
        """Answers on held-out pictures; see `evaluation.vlm_accuracy`."""
        if self._held_out is None:
            return {}
        return self.accuracy(model).numbers()

    def accuracy(self, model: SpearModel) -> VlmAccuracy:
        """How right a model's answers about the held-out pictures are."""
        if self._baselines is None:
            self._baselines = Baselines.fit(self._samples)
        return vlm_accuracy(
            model,
            self.grammar,
            self._held_out,
            self._baselines,
            most=self._config.task.held_out_pictures,
        )

    def export(self, model: SpearModel, folder: Path, record: Mapping[str, Any]) -> None:
        """A stage-1 folder: weights, configuration, tokenizer, bins and what made them."""
        try:
            hashes = save_weights(folder, model, self._tokenizer)
            self._fitted.save(folder / BINS_FILE)
            write_record(folder, record, hashes)
        except (OSError, ValueError, JobError) as error:
            raise TrainingError(f"{folder} cannot be written: {error}") from None


_SAME = ("siglip", "depth", "language", "vocabulary", "cameras", "patch_size", "expert", "flow")


def check_same_model(config: TrainConfig, there: ModelConfig) -> None:
    """Raise TrainingError where the weights of `start` are of another model than the recipe's."""
    for part in _SAME:
        if getattr(there, part) != getattr(config.model, part):
            raise TrainingError(
                f"start: {config.start} has another {part} than the recipe's model: give weights "
                "of the same model"
            )


def starting_model(config: TrainConfig) -> SpearModel:
    """Random weights, or those of the folder `start`. Raises TrainingError."""
    if config.start == "random":
        return build(config.model, seed=config.seed)
    try:
        model, _ = load_weights(config.start, dtype=torch.float32, progress=False)
    except CheckpointError as error:
        raise TrainingError(f"start: {error}") from None
    check_same_model(config, model.config)
    return model


def read_tokenizer(config: TrainConfig) -> TextTokenizer:
    """The tokenizer that the task names, that of `start`, or our own for a small vocabulary.

    Raises:
        TokenizerError: it does not fit the vocabulary, or cannot be read.
        TrainingError: there is none.
    """
    words, start = config.model.vocabulary, config.start
    if config.task.tokenizer:
        return TextTokenizer.from_file(config.task.tokenizer, words)
    if start != "random":
        return TextTokenizer.load(start, words)
    if words.size > LARGEST_OWN_VOCABULARY:
        raise TrainingError(
            f"{config.model.name} has PaliGemma's words: give --set start=FOLDER, made by "
            "make_checkpoint --paligemma, or --set task.tokenizer=tokenizer.json"
        )
    return train_tokenizer(words)


def write_record(folder: Path, record: Mapping[str, Any], hashes: Mapping[str, str]) -> None:
    """Write what made the weights in a folder, and their hashes. Raises OSError."""
    text = json.dumps({**record, "file_hashes": dict(hashes)}, indent=1)
    write_atomically(folder / RECORD_FILE, text + "\n")


def _check_model(model: ModelConfig) -> None:
    if len(model.cameras) != 1 or model.expert is not None:
        raise ValueError(
            f"{model.name} has {len(model.cameras)} cameras and "
            f"{'an' if model.expert else 'no'} action expert: stage 1 trains a model with one "
            "camera and without expert"
        )
