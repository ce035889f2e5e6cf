"""What an import to a store came to, in a few lines."""

from collections.abc import Iterator
from pathlib import Path

from spear_training.data.report.store_numbers import share_words, time_words
from spear_training.data.store.facts import StoreFacts
from spear_training.data.store.places import REJECTS_PATH


def summary_lines(root: Path, facts: StoreFacts, page: Path) -> Iterator[str]:
    """The lines for a terminal."""
    words = time_words(facts.frames / facts.control_hz)
    yield f"{root}: {facts.episodes} episodes, {facts.frames} frames, {words}"
    if facts.rejected:
        yield f"rejected: {facts.rejected}, see {root / REJECTS_PATH}"
    if facts.not_selected:
        yield f"not selected: {facts.not_selected} sound episodes; {share_words(facts)}"
    if facts.black_wrist:
        yield f"without wrist camera: {facts.black_wrist} episodes; their pictures of it are black"
    yield f"{page}"
