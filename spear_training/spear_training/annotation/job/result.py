"""What became of one picture: its record as it is stored, and what the job must know of it."""

import logging
import traceback
from dataclasses import dataclass
from typing import Protocol

from spear_training.annotation.frame import JobError
from spear_training.annotation.items import Item
from spear_training.annotation.records import Annotation

LONGEST_REASON = 500  # characters
log = logging.getLogger(__name__)
_logged_places: set[tuple] = set()


class Annotates(Protocol):
    """What makes the record of a picture: `pipeline.Pipeline`."""

    def annotate(self, item: Item) -> Annotation:
        """Make the record of one picture.

        Raises:
            JobError: no picture can be annotated.
        """


@dataclass(frozen=True)
class Result:
    """A record on its way to the disk.

    Attributes:
        id: of the item.
        status: ok, empty or failed.
        reason: in words, unless ok.
        line: the record, UTF-8, without the end of the line.
    """

    id: str
    status: str
    reason: str | None
    line: bytes

    @classmethod
    def of(cls, annotation: Annotation) -> "Result":
        """Make the line of a record.

        Raises:
            ValueError: it has numbers or words that cannot be stored.
        """
        line = annotation.to_json().encode("utf-8")
        return cls(annotation.id, annotation.status, annotation.reason, line)

    @classmethod
    def from_line(cls, line: bytes) -> "Result":
        """Read a stored line.

        Raises:
            RecordError: it is no annotation.
        """
        annotation = Annotation.from_json(line.decode("utf-8", "replace"))
        return cls(annotation.id, annotation.status, annotation.reason, line)


def annotate_one(pipeline: Annotates, item: Item) -> Result:
    """Annotate a picture; whatever goes wrong with it alone becomes a failed record.

    Raises:
        JobError: no picture can be annotated.
    """
    try:
        annotation = pipeline.annotate(item)
        if annotation.id != item.id:
            raise ValueError(f"a stage made it the record of {annotation.id!r}")
        return Result.of(annotation)
    except JobError:
        raise
    except Exception as error:
        _log_once(item, error)
        words = " ".join(f"{type(error).__name__}: {error}".split())[:LONGEST_REASON]
        reason = words.encode("utf-8", "backslashreplace").decode()
        failed = Annotation(
            item.id, item.image, "failed", native_aspect=item.native_aspect, reason=reason
        )
        return Result.of(failed)


def _log_once(item: Item, error: Exception) -> None:
    """Log the traceback of the first error of its kind; of the others the record says enough."""
    place = (type(error), *traceback.extract_tb(error.__traceback__)[-1][:2])
    if place not in _logged_places:
        _logged_places.add(place)
        log.error("%s: an error that no stage expected", item.id, exc_info=error)
