"""A file of questions and answers as text, one line a picture, for people and other trainers."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from spear_policy.model.presets import small
from spear_policy.model.text.answers import AnswerGrammar
from spear_policy.model.text.coordinate_bins import CoordinateBins
from spear_policy.model.text.tokenizer_training import train_tokenizer
from spear_training.annotation.records import Annotation
from spear_training.vqa.examples import make_example, rendered
from spear_training.vqa.settings import QuestionSettings

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
    """Write the questions of one pass; pictures that have none have no line.

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
