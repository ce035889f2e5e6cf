"""The phrases of `templates.yaml`: read, checked, and filled in."""

import string
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from spear_policy.model.text.answer_types import AnswerError, check_words
from spear_policy.model.text.prompts import clean
from spear_training.vqa.draws import Draws

FILE = Path(__file__).with_name("templates.yaml")
FEWEST = 6

# What a phrase must speak of: category, then what is asked.
SPEAKS_OF = {
    "keypoints": {"closest": {"object"}, "furthest": {"object"}, "centre": {"object"}},
    "box": {"vertices": {"object"}},
    "object_distance": {"centres": {"start", "end"}},
    "box_distance": {"boxes": {"start", "end"}},
    "backprojection": {"point": {"point"}},
    "pixel_points": {"pixel": {"pixel"}},
}
_PLACE, _SIZE = ({"object", "point", "length"}, {"object", "length"})
_WAY, _SPOT = ({"object", "reference", "distance"}, {"object", "point"})
THOUGHT_OF_RELATION = {
    "closer": _PLACE,
    "further": _PLACE,
    "larger": _SIZE,
    "smaller": _SIZE,
    "nearer": _WAY,
    "left": _SPOT,
    "right": _SPOT,
    "higher": _SPOT,
    "lower": _SPOT,
}


class TemplateError(ValueError):
    """The file of phrases cannot be used; names the place and the mend."""


@dataclass(frozen=True)
class Template:
    """A phrase with gaps.

    Attributes:
        text: as it is written in the file.
        pieces: words, then the name of the gap behind them (None at the end).
    """

    text: str
    pieces: tuple[tuple[str, str | None], ...]

    @classmethod
    def parse(cls, text: str) -> "Template":
        """Read a phrase.

        Raises:
            ValueError: its braces do not match or hold more than a name.
        """
        pieces = []
        for words, name, form, conversion in string.Formatter().parse(text):
            if form or conversion or (name is not None and not name.isidentifier()):
                raise ValueError(f"{{{name}}} must be a name alone")
            pieces.append((words, name))
        return cls(text, tuple(pieces))

    @property
    def names(self) -> list[str]:
        """Names of the gaps, in order."""
        return [name for _, name in self.pieces if name is not None]

    def fill(self, **values) -> tuple:
        """Put values into the gaps: words become one with the phrase, other things stay parts."""
        parts, words = [], ""
        for before, name in self.pieces:
            words += before
            if name is None:
                continue
            value = values[name]
            if isinstance(value, str):
                words += value
            else:
                parts += [words, value] if words else [value]
                words = ""
        return tuple([*parts, words] if words else parts)


@dataclass(frozen=True)
class ComparisonPhrases:
    """How one relation is asked for, thought about and concluded.

    Attributes:
        degrees: words for two choices and for more.
    """

    degrees: tuple[str, str]
    questions: tuple[Template, ...]
    thoughts: tuple[Template, ...]
    conclusions: tuple[Template, ...]


@dataclass(frozen=True)
class Phrases:
    """All phrases: `questions[category][what]` and `comparisons[relation]`."""

    questions: dict[str, dict[str, tuple[Template, ...]]]
    comparisons: dict[str, ComparisonPhrases]


@cache
def load_phrases(path: Path = FILE) -> Phrases:
    """Read and check a file of phrases.

    Raises:
        TemplateError: the first thing that is wrong with it.
        OSError: it cannot be read.
    """
    try:
        stored = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise TemplateError(f"{path.name} is no YAML: {error}") from None
    _same_names(stored, [*SPEAKS_OF, "comparison"], path.name)
    questions = {}
    for category, asked in SPEAKS_OF.items():
        _same_names(stored[category], asked, category)
        questions[category] = {
            what: _templates(stored[category][what], names, FEWEST, f"{category}, {what}")
            for what, names in asked.items()
        }
    _same_names(stored["comparison"], THOUGHT_OF_RELATION, "comparison")
    comparisons = {
        relation: _comparison(stored["comparison"][relation], relation)
        for relation in THOUGHT_OF_RELATION
    }
    return Phrases(questions, comparisons)


def phrase(draws: Draws, category: str, what: str) -> Template:
    """Draw a question of a category, see `SPEAKS_OF`."""
    return draws.pick(load_phrases().questions[category][what])


def _comparison(stored, relation) -> ComparisonPhrases:
    place = f"comparison, {relation}"
    _same_names(stored, ("degrees", "questions", "thoughts", "conclusions"), place)
    degrees = stored["degrees"]
    if not (isinstance(degrees, list) and len(degrees) == 2):
        raise TemplateError(f"{place}: degrees must be two phrases: for two choices, for more")
    asked = {"degree", "choices"} | ({"reference"} if relation == "nearer" else set())
    winner = {"winner"}
    return ComparisonPhrases(
        tuple(_words(degree, place) for degree in degrees),
        _templates(stored["questions"], asked, FEWEST, place),
        _templates(stored["thoughts"], THOUGHT_OF_RELATION[relation], 2, f"{place}, thoughts"),
        _templates(stored["conclusions"], winner, 2, f"{place}, conclusions", optional={"degree"}),
    )


def _templates(texts, names, fewest, place, optional=frozenset()) -> tuple[Template, ...]:
    if not isinstance(texts, list) or len(texts) < fewest:
        raise TemplateError(f"{place}: there must be a list of at least {fewest} phrases")
    if len(set(map(str, texts))) < len(texts):
        raise TemplateError(f"{place}: a phrase is there twice")
    found = []
    for text in texts:
        try:
            template = Template.parse(_words(text, place))
        except ValueError as error:
            raise TemplateError(f"{place}: {text!r}: {error}") from None
        gaps = template.names
        unknown = set(gaps) - names - optional
        missing = names - set(gaps)
        if unknown or missing or len(set(gaps)) < len(gaps):
            raise TemplateError(
                f"{place}: {text!r} must have each of {_listed(names)} once and no other gap"
            )
        found.append(template)
    return tuple(found)


def _words(text, place) -> str:
    try:
        check_words(text, "the phrase")
        if clean(text) != text:
            raise AnswerError(f"the phrase {text!r} has underscores, which become blanks")
    except (AnswerError, AttributeError) as error:
        raise TemplateError(f"{place}: {error}") from None
    return text


def _same_names(stored, names, place) -> None:
    if not isinstance(stored, dict) or set(stored) != set(names):
        raise TemplateError(f"{place}: there must be exactly {', '.join(names)}")


def _listed(names) -> str:
    return ", ".join(f"{{{name}}}" for name in sorted(names))
