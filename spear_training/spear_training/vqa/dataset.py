"""Annotated pictures with questions, by number: what the training loader reads.

An example depends on the annotation, the seed and the settings alone, and nothing is fitted here:
boxes and points are numbers of the record. Each pass over the pictures takes another seed, and so
gets other questions. In order: one example; the records of a finished run; its pictures with
questions; examples as rows of ids; a file of questions as text; mixtures of several datasets.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np
import yaml

from spear_policy.model.answers import AnswerGrammar
from spear_policy.model.config import small
from spear_policy.model.coordinate_bins import CoordinateBins
from spear_policy.model.prompts import QuestionIds, question_ids
from spear_policy.model.tokenizer import train_tokenizer
from spear_policy.shared.seeds import seed_of
from spear_training.annotation.records import STATUSES, Annotation, RecordError
from spear_training.annotation.run_folder import Shard, images_root, read_run
from spear_training.annotation.stages import JobError
from spear_training.data.mixture import MixtureOrder
from spear_training.vqa.asking import (
    ask_backprojection,
    ask_box,
    ask_box_distance,
    ask_comparison,
    ask_keypoint,
    ask_object_distance,
    ask_pixel_point,
)
from spear_training.vqa.pairs import (
    CATEGORIES,
    Draws,
    Example,
    NotAskedError,
    Pair,
    QuestionScene,
    QuestionSettings,
    check_held,
    scene_of,
)

# From one stored annotation to an example ------------------------------------------------------


TRIES = 8
ASKED_ALREADY = "it is asked already"
_ASK = {
    "keypoints": ask_keypoint,
    "box": ask_box,
    "object_distance": ask_object_distance,
    "box_distance": ask_box_distance,
    "backprojection": ask_backprojection,
    "pixel_points": ask_pixel_point,
}


def make_example(
    annotation: Annotation,
    seed: int,
    settings: QuestionSettings | None = None,
    bins: CoordinateBins | None = None,
    tally: Counter | None = None,
) -> Example | None:
    """Draw the questions of one picture.

    A category that gives no question in `TRIES` draws is left out of the example, and the others
    share its weight.

    Args:
        annotation: of the picture.
        seed: of this pass; the annotation's id is the other part of the seed.
        settings: None: the defaults.
        bins: of the model; pairs that they cannot say are not asked. None: all are asked.
        tally: counts (category, "asked" or the reason why a draw was not asked).

    Returns:
        None where nothing can be asked.
    """
    settings = settings or QuestionSettings()
    scene, draws = scene_of(annotation), Draws(annotation.id, seed)
    wanted = 1 + draws.below(settings.pairs_max)
    left = {name: settings.weights.get(name, 0) for name in CATEGORIES}
    left = {name: weight for name, weight in left.items() if weight}
    pairs: dict[tuple, Pair] = {}
    while left and len(pairs) < wanted:
        category = draws.weighted(left)
        for _ in range(TRIES):
            try:
                pair = _draw(category, scene, draws, settings, bins)
                if (category, pair.subject) in pairs:
                    raise NotAskedError(ASKED_ALREADY)
            except NotAskedError as reason:
                if tally is not None:
                    tally[category, str(reason)] += 1
            else:
                pairs[category, pair.subject] = pair
                if tally is not None:
                    tally[category, "asked"] += 1
                break
        else:
            del left[category]
    return Example(annotation.id, tuple(pairs.values())) if pairs else None


def _draw(
    category: str,
    scene: QuestionScene,
    draws: Draws,
    settings: QuestionSettings,
    bins: CoordinateBins | None,
) -> Pair:
    if category == "comparison":
        pair = ask_comparison(scene, draws, settings, bins)
    else:
        pair = _ASK[category](scene, draws)
    if bins is not None:
        check_held(pair, bins)
    return pair


def rendered(example: Example, grammar: AnswerGrammar) -> list[tuple[str, str]]:
    """Write an example as text: question and answer of each pair, numbers as tokens.

    Raises:
        ValueError: the grammar's bins cannot say a number: draw the example with these bins.
    """
    return [rendered_pair(pair, grammar) for pair in example.pairs]


def rendered_pair(pair: Pair, grammar: AnswerGrammar) -> tuple[str, str]:
    """Write one pair as text, see `rendered`.

    Raises:
        ValueError: the grammar's bins cannot say a number: draw the example with these bins.
    """
    try:
        check_held(pair, grammar.bins)
    except NotAskedError as reason:
        raise ValueError(
            f"{pair.category} question about {pair.subject}: {reason}; give `make_example` the "
            "bins that it is written with"
        ) from None
    question = "".join(
        part if isinstance(part, str) else grammar.format_answer(part) for part in pair.question
    )
    return question, grammar.format_answer(pair.answer)


# The stored annotations of a finished run by number --------------------------------------------


# A quote inside a label is escaped, so no label can look like this.
_STATUS = re.compile(rb'"status": "(%s)"' % "|".join(STATUSES).encode())


class RecordFiles:
    """All records of one folder, in the order of its list.

    Opening notes where each line begins and its status; a record is read and parsed when it is
    asked for. Only the places are held, so a copy for a worker process is small.

    Attributes:
        folder: as given.
        images: folder that the records' pictures are relative to.
        statuses: (pictures,) of each record, as a number of `records.STATUSES`.
    """

    def __init__(self, folder: Path):
        """Look through a folder that `annotate run` has finished.

        Raises:
            JobError: it is no such folder, a shard is not finished, or the pictures are gone.
            OSError: a file cannot be read.
        """
        self.folder = Path(folder)
        run = read_run(self.folder)
        self.images = images_root(self.folder, run)
        shards = [Shard(index, run["num_shards"]) for index in range(run["num_shards"])]
        missing = [shard.index for shard in shards if not shard.file(self.folder).is_file()]
        if missing:
            raise JobError(
                f"{self.folder}: {len(missing)} of {len(shards)} shards are not finished (the "
                f"first is {missing[0]}): run `annotate run` with --shard {missing[0]}"
            )
        self._paths = [shard.file(self.folder) for shard in shards]
        found = [_line_starts(path) for path in self._paths]
        pictures = range(run["items"]["count"])
        for shard, path, (begins, _) in zip(shards, self._paths, found, strict=True):
            if len(begins) != len(shard.part_of(pictures)):
                raise JobError(
                    f"{path} has {len(begins)} records of {len(shard.part_of(pictures))} pictures: "
                    "it was emptied or cut; remove it and run its shard again"
                )
        self._shard = np.repeat(np.arange(len(found), dtype=np.int32), [len(s) for _, s in found])
        self._begin = np.concatenate([begins for begins, _ in found])
        self.statuses = np.concatenate([statuses for _, statuses in found])

    def __len__(self) -> int:
        """How many pictures."""
        return len(self._begin)

    def annotation(self, number: int) -> Annotation:
        """Read one record.

        Raises:
            JobError: the file has changed, or was damaged, since it was opened.
            OSError: it cannot be read.
        """
        path, begin = self._paths[self._shard[number]], int(self._begin[number])
        with path.open("rb", buffering=1 << 14) as file:
            file.seek(begin)
            line = file.readline()
        return _parsed(line, path, begin)

    def __iter__(self) -> Iterator[Annotation]:
        """Read all records in order.

        Raises:
            JobError: a file has changed, or was damaged, since it was opened.
            OSError: it cannot be read.
        """
        for path in self._paths:
            with path.open("rb") as file:
                begin = 0
                for line in file:
                    yield _parsed(line, path, begin)
                    begin += len(line)

    def image_path(self, annotation: Annotation) -> Path:
        """Absolute path of a record's picture."""
        return Path(os.path.abspath(self.images / annotation.image))


def _line_starts(path: Path):
    begins, statuses, begin = [], [], 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            found = _STATUS.search(line)
            if not found or not line.endswith(b"\n"):
                raise JobError(f"{path}, line {number} is no annotation, or it is cut")
            begins.append(begin)
            statuses.append(STATUSES.index(found[1].decode()))
            begin += len(line)
    return np.array(begins, np.int64), np.array(statuses, np.int8)


def _parsed(line: bytes, path: Path, begin: int) -> Annotation:
    try:
        return Annotation.from_json(line.decode("utf-8", "replace"))
    except RecordError as error:
        raise JobError(
            f"{path}, byte {begin}: {error}; was it written anew? Open the folder again"
        ) from None


# Annotated pictures with questions -------------------------------------------------------------


@dataclass(frozen=True)
class QuestionSample:
    """A picture and what is asked about it.

    Attributes:
        image: absolute path; `annotation.frame.read_picture` reads it.
        native_aspect: for `image_geometry.plan_fit`; None: square pixels.
        example: the questions; None where nothing can be asked.
    """

    image: Path
    native_aspect: float | None
    example: Example | None


class VqaSet:
    """The pictures of one finished run. May be copied to worker processes.

    Failed pictures do not count, nor do empty ones, except where random pixels are asked about.
    """

    def __init__(
        self,
        folder: Path,
        settings: QuestionSettings | None = None,
        bins: CoordinateBins | None = None,
    ):
        """Open a folder that `annotate run` has finished.

        Args:
            bins: of the model; what they cannot say is not asked. None: all is asked.

        Raises:
            JobError: it is no such folder, a shard is not finished, or no picture can be used.
            OSError: a file cannot be read.
        """
        self.records = RecordFiles(folder)
        self.settings, self.bins = settings or QuestionSettings(), bins
        baseline = bool(self.settings.weights.get("pixel_points"))
        wanted = [STATUSES.index(status) for status in ("ok", "empty")[: 1 + baseline]]
        self._numbers = np.flatnonzero(np.isin(self.records.statuses, wanted))
        if not len(self._numbers):
            raise JobError(f"{folder}: none of its {len(self.records)} pictures can be used")

    def __len__(self) -> int:
        """How many pictures can be used."""
        return len(self._numbers)

    def annotation(self, index: int) -> Annotation:
        """The record of one picture (0 .. len - 1). Raises JobError and OSError."""
        return self.records.annotation(self._numbers[index])

    def example(self, index: int, seed: int) -> QuestionSample:
        """Draw the questions of one picture.

        Args:
            index: 0 .. len - 1.
            seed: of this pass; another one gives other questions.

        Raises:
            JobError: a file has changed since it was opened.
            OSError: it cannot be read.
        """
        annotation = self.annotation(index)
        example = make_example(annotation, seed, self.settings, self.bins)
        return QuestionSample(
            self.records.image_path(annotation), annotation.native_aspect, example
        )


# Examples as rows of ids, no longer than the model reads ---------------------------------------


_ANY_LENGTH = 1 << 30


def example_ids(
    example: Example, grammar: AnswerGrammar, max_tokens: int
) -> tuple[QuestionIds, int] | None:
    """Lay an example out for training; what is too long loses its last pairs.

    Args:
        max_tokens: longest row. It is no size of the model: rotary positions have no end.

    Returns:
        The row and how many pairs it has; None where not even the first pair fits.

    Raises:
        ValueError: the grammar's bins cannot say a number, see `rendered`.
    """
    pairs = rendered(example, grammar)
    while pairs:
        row = question_ids(pairs, grammar.tokenizer, grammar.tokenizer.config, _ANY_LENGTH)
        if len(row.ids) <= max_tokens:
            return row, len(pairs)
        pairs.pop()
    return None


# A file of questions and answers as text -------------------------------------------------------


NAME = "questions.jsonl"


@dataclass
class QuestionCounts:
    """What became of the pictures.

    Attributes:
        pictures: all of them.
        pairs: written, by category.
        without: pictures without a question, by reason.
        draws: (category, "asked" or why not), see `make_example`.
    """

    pictures: int = 0
    pairs: Counter[str] = field(default_factory=Counter)
    without: Counter[str] = field(default_factory=Counter)
    draws: Counter[tuple[str, str]] = field(default_factory=Counter)


def question_lines(
    annotations: Iterable[Annotation],
    seed: int,
    settings: QuestionSettings,
    bins: CoordinateBins,
    counts: QuestionCounts,
) -> Iterator[bytes]:
    """Write the questions of one pass, for people and other trainers; a line a picture.

    Pictures that have no question have no line.

    Args:
        counts: is filled on the way.

    Yields:
        JSON with id, image and pairs (category, question, answer, kind).
    """
    grammar = text_grammar(bins)
    for annotation in annotations:
        counts.pictures += 1
        draws: Counter[tuple[str, str]] = Counter()
        example = make_example(annotation, seed, settings, bins, draws)
        counts.draws += draws
        if example is None:
            counts.without[_why(annotation, draws)] += 1
            continue
        texts = rendered(example, grammar)
        pairs = [
            {"category": pair.category, "question": asked, "answer": reply, "kind": pair.kind}
            for pair, (asked, reply) in zip(example.pairs, texts, strict=True)
        ]
        counts.pairs.update(pair["category"] for pair in pairs)
        line = {"id": annotation.id, "image": annotation.image, "pairs": pairs}
        yield json.dumps(line, ensure_ascii=False).encode()


def text_grammar(bins: CoordinateBins) -> AnswerGrammar:
    """A grammar for text alone. All tokenizers share it, so it takes the quickest one to make."""
    words = replace(small().vocabulary, coordinate_tokens=bins.count)
    return AnswerGrammar(train_tokenizer(words), bins)


def _why(annotation: Annotation, draws: Counter) -> str:
    if annotation.status != "ok":
        stage = (annotation.reason or "").partition(":")[0]
        return f"{annotation.status}: {stage}"
    reasons = Counter()
    for (_, reason), count in draws.items():
        reasons[reason] += count
    return reasons.most_common(1)[0][0]


# Several datasets as one endless stream of samples --------------------------------------------


FILE = Path(__file__).with_name("mixtures.yaml")
_MOST_SKIPPED = 1000


@dataclass(frozen=True)
class Mixture:
    """A named mixture.

    Attributes:
        about: what it is, for people.
        data_sets: name -> share of all samples.
        settings: what is asked.
    """

    name: str
    about: str
    data_sets: Mapping[str, float]
    settings: QuestionSettings


@cache
def load_mixtures(path: Path = FILE) -> dict[str, Mixture]:
    """Read a file of mixtures.

    Raises:
        JobError: one of them is not complete; names it.
        OSError: the file cannot be read.
    """
    try:
        stored = yaml.safe_load(path.read_text(encoding="utf-8"))
        return {name: _mixture(name, values) for name, values in stored.items()}
    except (yaml.YAMLError, AttributeError) as error:
        raise JobError(f"{path.name} holds no mixtures: {error}") from None


def mixture(name: str) -> Mixture:
    """Return the mixture of that name.

    Raises:
        JobError: there is none; the message lists those that there are.
    """
    known = load_mixtures()
    if name not in known:
        raise JobError(f"there is no mixture {name!r}: choose from {', '.join(known)}")
    return known[name]


class MixtureSet:
    """Samples of a mixture by index: a pure function of the seed and the index.

    Each dataset gives each of its pictures once a pass, in an order that changes from pass to
    pass; every draw has its own questions. May be copied to worker processes.
    """

    def __init__(
        self,
        mixed: Mixture,
        folders: Mapping[str, Path],
        seed: int = 0,
        bins: CoordinateBins | None = None,
    ):
        """Open the datasets.

        Args:
            folders: where `annotate run` has written each dataset.
            bins: of the model; what they cannot say is not asked.

        Raises:
            JobError: a folder is missing, unknown or not finished, or a share is no share.
            OSError: a file cannot be read.
        """
        check_folders(mixed, folders)
        self.seed = seed
        self.sets = {name: VqaSet(folders[name], mixed.settings, bins) for name in mixed.data_sets}
        self._names = tuple(self.sets)
        sizes = [len(pictures) for pictures in self.sets.values()]
        try:
            self._order = MixtureOrder(list(mixed.data_sets.values()), sizes, seed)
        except ValueError as error:
            raise JobError(f"mixture {mixed.name}: {error}") from None

    def sample(self, index: int) -> QuestionSample:
        """The sample of an index (0, 1, ...; there is no end); its example is never None.

        A picture of which nothing can be asked is replaced by the next one in its folder.

        Raises:
            JobError: a file has changed, or there is nothing to ask about many pictures.
            OSError: a file cannot be read.
        """
        drawn = self._order.draw(index, 1)
        name = self._names[drawn.dataset[0]]
        first, pictures = int(drawn.place[0]), self.sets[name]
        count = len(pictures)
        seed = seed_of(self.seed, name, int(drawn.turn[0]))
        for step in range(min(count, _MOST_SKIPPED)):
            sample = pictures.example((first + step) % count, seed)
            if sample.example is not None:
                return sample
        raise JobError(
            f"{pictures.records.folder}: {step + 1} pictures on end have nothing to ask about: "
            "look at them with `annotate inspect`, or give the categories other weights"
        )


def check_folders(mixed: Mixture, folders: Mapping[str, Path]) -> None:
    """Refuse folders that are not those of a mixture.

    Raises:
        JobError: says which is missing or unknown.
    """
    missing = [name for name in mixed.data_sets if name not in folders]
    unknown = [name for name in folders if name not in mixed.data_sets]
    if missing or unknown:
        wants = ", ".join(f"{name}=FOLDER" for name in mixed.data_sets)
        wrong = f"no folder for {', '.join(missing)}" if missing else f"no {', '.join(unknown)}"
        raise JobError(f"the mixture {mixed.name} has {wrong}: give {wants}")


def _mixture(name: str, values: dict) -> Mixture:
    try:
        about, shares = values["about"], values["data_sets"]
        rest = {key: values[key] for key in values.keys() - {"about", "data_sets"}}
        settings = QuestionSettings(**rest)
        bad = [key for key, share in shares.items() if not 0 < share < float("inf")]
        if bad or not shares:
            raise ValueError(f"shares of {', '.join(bad) or 'no datasets'} must be above 0")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        said = f"{error} is missing" if isinstance(error, KeyError) else error
        raise JobError(f"mixture {name}: {said}") from None
    return Mixture(name, about, shares, settings)
