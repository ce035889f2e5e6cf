"""What the page of a store says in words and numbers."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spear_policy.inference.image_geometry import Fit
from spear_training.data.store.facts import StoreFacts
from spear_training.data.store.frames import FrameStore
from spear_training.data.store.places import LOOKUP
from spear_training.data.store.records import Reject

MOST_SENTENCES, MOST_REASONS, MOST_EXAMPLES = 25, 20, 5


@dataclass(frozen=True)
class Headline:
    """A number that is seen first: its value, its name, and what to say of it."""

    value: str
    name: str
    remark: str = ""


def durations_s(store: FrameStore) -> NDArray:
    """How long each episode is, from its first to its last stamp (E,) [s]."""
    last = store.episodes.first_frame + store.episodes.length - 1
    return np.array(store.stamps_s[last], float)


def headlines(store: FrameStore) -> list[Headline]:
    """Counts, time, rate and room."""
    facts, lengths = store.facts, store.episodes.length
    # Each frame stands for the time until the next, the last one too.
    motion_s = float(durations_s(store).sum()) + len(store.episodes) / facts.control_hz
    places = (store.root / "data", store.root / LOOKUP)
    size = sum(path.stat().st_size for place in places for path in place.rglob("*"))
    return [
        Headline(f"{facts.episodes:,}", "episodes", f"{int(np.median(lengths))} frames (median)"),
        Headline(f"{facts.frames:,}", "frames", f"at {facts.control_hz:g} a second"),
        Headline(time_words(motion_s), "of motion"),
        Headline(_bytes(size), "on disk", f"{size / max(1, len(store)) / 1e3:.1f} kB a frame"),
        Headline(f"{facts.rejected:,}", "rejected", "cannot be used"),
        Headline(f"{facts.not_selected:,}", "not selected", share_words(facts, doubt=False)),
    ]


def share_words(facts: StoreFacts, doubt: bool = True) -> str:
    """How much of the sound episodes was taken, and how much the table expects."""
    taken = facts.episodes / max(1, facts.episodes + facts.not_selected)
    words = f"{100 * taken:.0f} % were taken"
    subset = facts.source.get("subset") or {}
    if (expected := subset.get("expected_share")) is not None:
        words += f", about {100 * expected:.0f} % are expected"
    if doubt and subset.get("doubt"):
        words += f"; in doubt: {subset['doubt']}"
    return words


def fact_rows(facts: StoreFacts) -> list[tuple[str, str]]:
    """What the store says about itself, but for notes and counts: name and words."""
    told = {
        "commanded": "where the end effector was told to be",
        "reached": "not recorded: the reached pose stands for it",
    }
    grip = {"commanded": "what it was told", "measured": "not recorded: what was measured"}
    rows = [
        ("robot", facts.robot),
        ("actions", told[facts.action_from]),
        ("gripper of actions", grip[facts.gripper_from]),
        (
            "poses",
            "measured, in the robot's base frame"
            if facts.state_known
            else "sums of deltas: only their differences are true",
        ),
        ("read by", facts.reader),
    ]
    if facts.row:
        rows.append(("row of the mixture table", f"{facts.row} (hash {facts.row_hash[:12]})"))
    if facts.black_wrist:
        words = f"{facts.black_wrist} of {facts.episodes} episodes; black pictures stand for it"
        rows.append(("without wrist camera", words))
    for key, value in facts.source.items():
        if key != "notes" and value not in (None, "", [], {}):
            rows.append((key.replace("_", " "), _words(value)))
    return rows


def camera_rows(facts: StoreFacts) -> list[tuple[str, str, str]]:
    """Of each camera its name, its stored size, and how pictures came to it."""
    rows = []
    for camera in facts.cameras:
        fits = [fit_words(fit) for fit in camera.fits] or ["no episode has it"]
        if camera.native_aspect is not None:
            fits.append(
                f"squashed before, from a scene {camera.native_aspect:.3g} times as wide as high"
            )
        rows.append((camera.name, "{}x{}".format(*camera.size), "; ".join(fits)))
    return rows


def fit_words(fit: Fit) -> str:
    """A fit in words."""
    words = f"from {fit.source_width}x{fit.source_height}"
    if (fit.crop_width, fit.crop_height) != (fit.source_width, fit.source_height):
        words += f", of it {fit.crop_width}x{fit.crop_height} from the middle"
    if (fit.resized_width, fit.resized_height) != (fit.width, fit.height):
        words += f", as {fit.resized_width}x{fit.resized_height} with black around it"
    return words


def sentence_counts(store: FrameStore) -> tuple[Counter[str], int]:
    """How many episodes each instruction has, and how many further sentences there are."""
    counts: Counter[str] = Counter()
    further = 0
    for episode in range(len(store.episodes)):
        first, *others = store.episodes.sentences(episode)
        counts[first] += 1
        further += len(others)
    return counts, further


@dataclass(frozen=True)
class RejectGroup:
    """Rejects that differ in names and numbers only.

    Attributes:
        count: how many.
        reason: of the first of them, whole.
        examples: numbers of some of them.
    """

    count: int
    reason: str
    examples: tuple[int, ...]


def reject_groups(rejects: Sequence[Reject]) -> list[RejectGroup]:
    """Rejects by what is wrong with them, the most frequent first."""
    alike: dict[str, list[Reject]] = {}
    for reject in rejects:
        alike.setdefault(_outline(reject.reason), []).append(reject)
    groups = [
        RejectGroup(
            len(group),
            group[0].reason,
            tuple(reject.source_index for reject in group[:MOST_EXAMPLES]),
        )
        for group in alike.values()
    ]
    return sorted(groups, key=lambda group: -group.count)


def _outline(reason: str) -> str:
    """A reason without what differs from one episode to the next."""
    return re.sub(r"\d+(\.\d+)?", "#", re.sub(r"'[^']*'|\S*/\S*", "...", reason))


def _words(value) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def time_words(seconds: float) -> str:
    """A time in the unit that suits it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:,.1f} h"


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"
