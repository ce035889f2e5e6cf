"""Answers of a stage-1 model about pictures that it was not trained on, against the truth.

Each question is asked alone and answered greedily. An answer that is not of its kind counts as
ungrammatical and has no error. Where an answer names a place, its error in the unit of the
annotation stands beside those of two baselines that know no picture: the mean of the training
answers, and the true 2D box seen at the mean training depth.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import binomtest

from spear_policy.inference.image_geometry import fit
from spear_policy.model.answers import Answer, AnswerError, AnswerGrammar, Box, Point
from spear_policy.model.prompts import pad, prompt_ids
from spear_policy.model.sampling import answer
from spear_policy.model.spear import ModelInputs, SpearModel
from spear_training.annotation.frame import read_picture
from spear_training.annotation.records import Annotation
from spear_training.vqa.dataset import MixtureSet, VqaSet, rendered_pair
from spear_training.vqa.pairs import Pair, scene_of

LONGEST_QUESTION = 512
BATCH = 16
BASELINE_SAMPLES = 400
SPARE_TOKENS = 8  # an answer may be this much longer than the true one, and then ends


def place_of(said: Answer) -> NDArray[np.float64] | None:
    """The point that an answer is about (3,): itself, or the centre of a box; else None."""
    if isinstance(said, Point):
        return np.array(said.xyz_m)
    if isinstance(said, Box):
        return np.mean(said.vertices_m, axis=0)
    return None


# Baselines ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Baselines:
    """What can be said without looking.

    Attributes:
        means_m: the mean place (3,) of the training answers, by category.
    """

    means_m: dict[str, NDArray[np.float64]]

    @classmethod
    def fit(cls, samples: MixtureSet, count: int = BASELINE_SAMPLES) -> "Baselines":
        """From the first samples of a training. Raises JobError and OSError as they do."""
        places: dict[str, list[NDArray]] = defaultdict(list)
        for index in range(count):
            for pair in samples.sample(index).example.pairs:
                place = place_of(pair.answer)
                if place is not None:
                    places[pair.category].append(place)
        return cls({name: np.mean(found, axis=0) for name, found in places.items()})

    def errors_m(self, pair: Pair, annotation: Annotation) -> tuple[float, float]:
        """Errors of the mean place and of the 2D box at the mean depth; NaN where there is none."""
        true, mean = place_of(pair.answer), self.means_m.get(pair.category)
        if true is None or mean is None:
            return float("nan"), float("nan")
        named = {each.name: each.stored for each in scene_of(annotation).objects}
        seen, camera = named.get(pair.subject[-1]), annotation.intrinsics
        flat = float("nan")
        if seen is not None and camera is not None:
            left, top, right, bottom = seen.box_xyxy_px
            depth_m = mean[2]
            x = ((left + right) / 2 - camera.cx) / camera.fx * depth_m
            y = ((top + bottom) / 2 - camera.cy) / camera.fy * depth_m
            flat = float(np.linalg.norm(np.array([x, y, depth_m]) - true))
        return float(np.linalg.norm(mean - true)), flat


# Answers -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AnsweredQuestion:
    """A question, its true answer and the model's.

    Attributes:
        picture: path.
        picture_number: of the picture in its set.
        pair: what was asked, with the true answer.
        question: as the model read it.
        said: the model's answer; None: not of its kind.
        problem: why not; empty when it is.
        error_m: distance from the true place; NaN where the answer names none.
        baselines_m: of the mean place and of the 2D box.
        tokens_right, tokens: of the true answer, at the same positions.
    """

    picture: Path
    picture_number: int
    pair: Pair
    question: str
    said: Answer | None
    problem: str
    error_m: float
    baselines_m: tuple[float, float]
    tokens_right: int
    tokens: int


@dataclass(frozen=True)
class Share:
    """A share of some questions with the 95 % Wilson interval."""

    count: int
    total: int

    @property
    def value(self) -> float:
        """The share; NaN of none."""
        return self.count / self.total if self.total else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end."""
        if not self.total:
            return 0.0, 1.0
        found = binomtest(self.count, self.total).proportion_ci(0.95, method="wilson")
        return float(found.low), float(found.high)


@dataclass(frozen=True)
class VlmAccuracy:
    """All answers of one validation."""

    answered: tuple[AnsweredQuestion, ...]

    @property
    def categories(self) -> tuple[str, ...]:
        """Those that were asked, in their order of appearance."""
        return tuple(dict.fromkeys(each.pair.category for each in self.answered))

    def of(self, category: str) -> "VlmAccuracy":
        """The answers of one category."""
        return VlmAccuracy(tuple(a for a in self.answered if a.pair.category == category))

    @property
    def grammatical(self) -> Share:
        """Answers that are of their kind."""
        return Share(sum(a.said is not None for a in self.answered), len(self.answered))

    @property
    def token_accuracy(self) -> float:
        """Share of the true answers' tokens that stand in their places."""
        return sum(a.tokens_right for a in self.answered) / sum(a.tokens for a in self.answered)

    def errors_m(self) -> NDArray[np.float64]:
        """Errors of the grammatical answers that name a place, (N, 3): own, mean place, 2D box.

        The baselines' are those of the same questions.
        """
        rows = [(a.error_m, *a.baselines_m) for a in self.answered if np.isfinite(a.error_m)]
        return np.array(rows, float).reshape(-1, 3)

    def numbers(self) -> dict[str, float]:
        """Flat numbers for metrics: by category, errors as means and medians."""
        found = {"token_accuracy_held_out": self.token_accuracy}
        for name in self.categories:
            part = self.of(name)
            found[f"{name}/grammatical"] = part.grammatical.value
            errors = part.errors_m()
            if len(errors):
                found[f"{name}/error_m"] = float(errors[:, 0].mean())
                found[f"{name}/error_median_m"] = float(np.median(errors[:, 0]))
                found[f"{name}/mean_place_error_m"] = float(errors[:, 1].mean())
                found[f"{name}/flat_box_error_m"] = float(np.nanmean(errors[:, 2]))
        return found


@torch.no_grad()
def vlm_accuracy(
    model: SpearModel,
    grammar: AnswerGrammar,
    pictures: VqaSet,
    baselines: Baselines,
    *,
    most: int | None = None,
    seed: int = 0,
    on_progress: Callable[[int], None] = lambda count: None,
) -> VlmAccuracy:
    """Ask a model about pictures.

    Args:
        model: in evaluation mode, with one camera.
        grammar: its tokenizer and bins.
        pictures: held out from its training.
        baselines: fitted on its training data.
        most: how many pictures, from the first; None: all.
        seed: of the questions.
        on_progress: takes the number of pictures whose questions are all answered, now and then.

    Raises:
        JobError: a file has changed since it was opened.
        StageError, OSError: a picture cannot be read.
    """
    asked: list[tuple[int, Pair, str, list[int]]] = []
    for number in range(min(len(pictures), most or len(pictures))):
        example = pictures.example(number, seed).example
        for pair in example.pairs if example else ():
            question, true = rendered_pair(pair, grammar)
            ids = [*grammar.tokenizer.encode(true), model.config.vocabulary.eos_id]
            asked.append((number, pair, question, ids))
    # Answers of like length together: a batch takes as long as its longest one.
    left = Counter(number for number, *_ in asked)
    asked.sort(key=lambda each: (len(each[3]), each[0]))
    found = []
    for begin in range(0, len(asked), BATCH):
        part = asked[begin : begin + BATCH]
        found += _answered(model, grammar, pictures, baselines, part)
        left.subtract(number for number, *_ in part)
        on_progress(sum(left[number] == 0 for number in {number for number, *_ in part}))
    return VlmAccuracy(tuple(sorted(found, key=lambda each: each.picture_number)))


def _answered(model, grammar, pictures, baselines, part) -> list[AnsweredQuestion]:
    words, camera = model.config.vocabulary, model.config.cameras[0]
    device = next(model.parameters()).device
    size = camera.width, camera.height
    paths, shown, annotations = [], [], []
    for number, *_ in part:
        annotation = pictures.annotation(number)
        path = pictures.records.image_path(annotation)
        picture = fit(read_picture(path), *size, native_aspect=annotation.native_aspect)
        paths.append(path), shown.append(picture), annotations.append(annotation)
    prompts = [
        prompt_ids(question, grammar.tokenizer, words, LONGEST_QUESTION)
        for _, _, question, _ in part
    ]
    ids, valid = pad(prompts, max(map(len, prompts)), words.pad_id)
    inputs = ModelInputs(
        (torch.from_numpy(np.stack(shown)).permute(0, 3, 1, 2).contiguous().to(device),),
        torch.from_numpy(ids).to(device),
        torch.from_numpy(valid).to(device),
    )
    longest = max(len(true) for *_, true in part) + SPARE_TOKENS
    replies = answer(model, inputs, longest)
    return [
        _judged(grammar, baselines, path, annotation, asked, reply)
        for path, annotation, asked, reply in zip(paths, annotations, part, replies, strict=True)
    ]


def _judged(grammar, baselines, path, annotation, asked, reply: Sequence[int]) -> AnsweredQuestion:
    number, pair, question, true_ids = asked
    said, problem = None, ""
    try:
        said = grammar.parse_answer(pair.kind, reply, pair.choices or None)
    except AnswerError as error:
        problem = str(error)
    error_m, true = float("nan"), place_of(pair.answer)
    if said is not None and true is not None:
        error_m = float(np.linalg.norm(place_of(said) - true))
    right = sum(a == b for a, b in zip(reply, true_ids, strict=False))
    return AnsweredQuestion(
        path,
        number,
        pair,
        question,
        said,
        problem,
        error_m,
        baselines.errors_m(pair, annotation),
        right,
        len(true_ids),
    )
