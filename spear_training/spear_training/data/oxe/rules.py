"""The vocabulary of the mixture table: what a row can say about a data set.

A field marked NEEDED may be left unconfirmed in the table; until it is confirmed the row cannot be
used. `key` is always a feature of a step as RLDS names it, such as "observation/state", and
`first_column` where in it the numbers begin.
"""

import dataclasses
import re
from dataclasses import dataclass, field
from typing import Any, Literal

from spear_policy.model.config_reading import ConfigError

REACHED, FROM_COMMAND, FROM_MEASURED = "reached", "from_command", "from_measured"


def needed() -> Any:
    """A field without which the row cannot be used, and which may be unconfirmed."""
    return field(default=None, metadata={"needed": True})


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Where some numbers are: `key`, from `first_column` on."""

    key: str
    first_column: int = 0


@dataclass(frozen=True, kw_only=True)
class LinearGripper(Columns):
    """One number between two that mean closed and open.

    Attributes:
        closed_at, open_at: the two numbers.
        margin: how far beyond them a number may be, as a share of their distance; it is clipped.
        saturate: any number beyond them is clipped.
    """

    closed_at: float | None = needed()
    open_at: float | None = needed()
    margin: float = 0.1
    saturate: bool = False

    def __post_init__(self):
        if self.closed_at is not None and self.closed_at == self.open_at:
            raise ConfigError("closed_at and open_at are the same number")


@dataclass(frozen=True, kw_only=True)
class GripperEvents(Columns):
    """One number: above `threshold` the gripper is told to close, below -threshold to open."""

    threshold: float = 0.1


@dataclass(frozen=True, kw_only=True)
class ConstantGripper:
    """A hand that does not open or close."""

    opening: float


@dataclass(frozen=True, kw_only=True)
class Language:
    """Where the sentences are.

    Attributes:
        keys: the first is the instruction, the others are further sentences.
        encoding: "text", or "code_units": UTF-8 bytes as integers, filled up with zeros.
    """

    keys: tuple[str, ...]
    encoding: Literal["text", "code_units"] = "text"


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What an episode must be to be taken: one of `equals`, `contains` and `matches`.

    Attributes:
        key: a feature of the episode, such as "episode_metadata/file_path".
        equals: for a truth value.
        contains: a part of a text.
        matches: a regular expression to be found in a text.
    """

    key: str
    equals: bool | None = None
    contains: str | None = None
    matches: str | None = None

    def __post_init__(self):
        if [self.equals, self.contains, self.matches].count(None) != 2:
            raise ConfigError(f"the condition on {self.key} needs one of equals, contains, matches")
        check_pattern(self.matches)


@dataclass(frozen=True, kw_only=True)
class Subset:
    """A part of the data set.

    Attributes:
        name: of it; it goes into the reader's name.
        key, matches: see Condition.
        expected_share: of the episodes, where somebody says it.
        doubt: what is not known about it; it is passed on with the store's facts.
    """

    name: str
    key: str
    matches: str | None = needed()
    expected_share: float | None = None
    doubt: str = ""

    def __post_init__(self):
        check_pattern(self.matches)


@dataclass(frozen=True, kw_only=True)
class Camera:
    """One camera.

    Attributes:
        key: of its pictures.
        channels: their order as stored.
        native_aspect: [width, height] of the scene before its pictures were squashed to the stored
            size; None where the stored pixels are square as far as is known.
    """

    key: str
    channels: Literal["rgb", "bgr"] | None = needed()
    native_aspect: tuple[int, ...] | None = None

    def __post_init__(self):
        if self.native_aspect is not None and len(self.native_aspect) != 2:
            raise ConfigError("native_aspect must be [width, height]")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the data set is from.

    Attributes:
        name: what it is called, in the bucket and as a rule in its dataset_info.json.
        versions: that this row describes.
        also_called: what the dataset_info.json of some version says instead.
        place: where to get it; None: Open X-Embodiment's bucket.
        size_gib, episodes: where they are known.
    """

    name: str
    versions: tuple[str, ...]
    also_called: tuple[str, ...] = ()
    place: str | None = None
    size_gib: float | None = None
    episodes: int | None = None


def check_pattern(pattern: str | None) -> None:
    """Raise ConfigError for what is no regular expression."""
    try:
        re.compile(pattern or "")
    except re.error as error:
        raise ConfigError(f"{pattern!r} is no regular expression ({error})") from None


def missing(rule: Any, where: str) -> list[str]:
    """Names of the needed fields of a rule, and of the rules in it, that have no value."""
    found = []
    for each in dataclasses.fields(rule):
        value = getattr(rule, each.name)
        if value is None and each.metadata.get("needed"):
            found.append(f"{where}.{each.name}")
        if dataclasses.is_dataclass(value):
            found += missing(value, f"{where}.{each.name}")
    return found
