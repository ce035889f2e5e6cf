"""The card of a checkpoint: what its weights expect from the graph, beside them in card.json."""

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from spear_policy.geometry.quaternions import UNIT_TOLERANCE
from spear_policy.inference.image_geometry import FitMode, check_aspect
from spear_policy.inference.statistics import Statistics, statistics_hash
from spear_policy.model.checkpoint import FILES
from spear_policy.model.config import ModelConfig
from spear_policy.shared.config import ConfigError, read_dataclass
from spear_policy.shared.files import write_atomically

CARD_FILE = "card.json"


@dataclass(frozen=True)
class CardCamera:
    """How the pictures of one camera become the model's; its size is in the model's config.

    Attributes:
        name: "external" or "wrist", as in the config.
        fit: see `image_geometry.plan_fit`.
        native_aspect: width over height of the scene where pictures are stored squashed, or None.
    """

    name: str
    fit: FitMode
    native_aspect: float | None


@dataclass(frozen=True)
class ModelCard:
    """What a checkpoint says of itself. The constructor judges it; `check` compares it.

    Attributes:
        checkpoint_id, recipe, git_revision, datasets: where the weights are from.
        dt_s, chunk_length: time between the steps of a chunk [s], and how many there are.
        anchor: which pose the deltas start from.
        cameras: in the order of the model's config.
        reference_orientations_xyzw: robot -> R_ref as 4 numbers; [0, 0, 0, 1]
            is the paper's literal reading.
        statistics: of normalisation.
        statistics_hash: `statistics.statistics_hash` of them, which shows when someone edits them.
        file_hashes: SHA-256 (hex) of each other file of the folder by its name; empty for a model
            that is in no folder, which `read` and `write` refuse.

    Raises:
        ConfigError: a value that no checkpoint can have; the text names the key.
    """

    checkpoint_id: str
    recipe: str
    git_revision: str
    datasets: tuple[str, ...]
    dt_s: float
    chunk_length: int
    anchor: Literal["measured", "commanded"]
    cameras: tuple[CardCamera, ...]
    reference_orientations_xyzw: dict
    statistics: Statistics
    statistics_hash: str
    file_hashes: Mapping[str, str]

    def __post_init__(self):
        orientations = {
            robot: _orientation(q, f"reference_orientations_xyzw.{robot}")
            for robot, q in self.reference_orientations_xyzw.items()
        }
        object.__setattr__(self, "reference_orientations_xyzw", orientations)
        _check(self)

    @classmethod
    def read(cls, path: str | Path) -> "ModelCard":
        """Read a card.json.

        Raises:
            ConfigError: no such file, cut short, or an unknown, missing or impossible key.
        """
        path = Path(path)
        try:
            values = json.loads(
                path.read_text(encoding="utf-8"),
                object_pairs_hook=_without_repetition,
                parse_constant=_no_number,
            )
        except FileNotFoundError:
            raise ConfigError(
                f"{path}: there is no such file; a checkpoint folder has a {CARD_FILE} beside its "
                "weights, so copy the whole folder"
            ) from None
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None
        except (ValueError, RecursionError) as error:
            raise ConfigError(
                f"{path}: cut short or no JSON ({error}); copy the checkpoint again"
            ) from None
        try:
            card = read_dataclass(cls, values, "card")
            card._check_in_file()
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None
        except OverflowError:
            raise ConfigError(
                f"{path}: it has a number too large for any use; correct it"
            ) from None
        return card

    def write(self, path: str | Path) -> None:
        """Write a card.json whole or not at all.

        Raises:
            ConfigError: a file has no hash: write the others first.
            OSError: the folder is missing or the disk is full.
        """
        self._check_in_file()
        text = json.dumps(dataclasses.asdict(self), indent=2, allow_nan=False)
        write_atomically(path, text + "\n")

    def check(self, config: ModelConfig) -> None:
        """Compare the card with the configuration of the model beside it.

        Raises:
            ConfigError: they disagree; the text names both values.
        """
        fix = "config.json and card.json must be of one checkpoint, so copy the whole folder"
        ours, theirs = ([each.name for each in side.cameras] for side in (self, config))
        if ours != theirs:
            raise ConfigError(
                f"cameras are {', '.join(ours)} in the card and {', '.join(theirs)} in the config; "
                f"{fix}"
            )
        if self.chunk_length != config.chunk_length:
            raise ConfigError(
                f"chunk_length is {self.chunk_length} in the card and {config.chunk_length} in the "
                f"config; {fix}"
            )

    def reference_orientation_xyzw(self, robot: str) -> NDArray:
        """R_ref of a robot, (4,) unit.

        Raises:
            ConfigError: the checkpoint has none for it; the text lists those that it has.
        """
        known = self.reference_orientations_xyzw
        if robot not in known:
            raise ConfigError(
                f"reference_orientations_xyzw has no robot {robot!r}, only {', '.join(known)}; set "
                "the robot's name to one of them, or add the orientation that it was trained with"
            )
        return np.array(known[robot])

    def _check_in_file(self) -> None:
        for name in FILES:
            if name not in self.file_hashes:
                raise ConfigError(f"file_hashes lacks {name}; save the checkpoint again")


def _check(card: ModelCard) -> None:
    def need(condition, key, text):
        if not condition:
            raise ConfigError(f"{key} {text}")

    need(card.checkpoint_id.strip(), "checkpoint_id", "is empty; give the checkpoint a name")
    need(
        math.isfinite(card.dt_s) and card.dt_s > 0,
        "dt_s",
        f"is {card.dt_s:g}: it must be the time between steps in seconds, such as 0.2",
    )
    need(card.chunk_length >= 1, "chunk_length", f"is {card.chunk_length}: it must be at least 1")
    need(
        card.anchor in ("measured", "commanded"),
        "anchor",
        f"is {card.anchor!r}: it may be one of measured, commanded",
    )
    names = [camera.name for camera in card.cameras]
    need(names, "cameras", "is empty: it must name the cameras of the config")
    need(len(set(names)) == len(names), "cameras", f"has a name twice: {', '.join(names)}")
    for i, camera in enumerate(card.cameras):
        if camera.native_aspect is not None:
            try:
                check_aspect(camera.native_aspect, "native_aspect")
            except ValueError as error:
                raise ConfigError(f"cameras[{i}].{error}") from None
    need(
        card.reference_orientations_xyzw,
        "reference_orientations_xyzw",
        'is empty: it must name a robot, such as {"franka": [0, 0, 0, 1]}',
    )
    found = statistics_hash(card.statistics)
    need(
        card.statistics_hash == found,
        "statistics_hash",
        f"is {card.statistics_hash[:12]!r}..., but the statistics have {found[:12]!r}...: they "
        "were changed after training; copy the card again, or write it anew with its own hash",
    )
    for name, each in card.file_hashes.items():
        need(name in FILES, "file_hashes", f"has {name!r}; it may have {', '.join(FILES)}")
        need(
            re.fullmatch("[0-9a-f]{64}", each),
            f"file_hashes.{name}",
            f"is {each!r}: it must be a SHA-256, 64 hexadecimal digits",
        )


def _orientation(q_xyzw, key: str) -> tuple[float, ...]:
    numbers = isinstance(q_xyzw, list | tuple | np.ndarray) and all(
        isinstance(number, int | float) and not isinstance(number, bool) for number in q_xyzw
    )
    if not numbers or len(q_xyzw) != 4 or not abs(math.hypot(*q_xyzw) - 1.0) <= UNIT_TOLERANCE:
        raise ConfigError(
            f"{key} is {q_xyzw!r}: it must be a unit quaternion [x, y, z, w]; no turn is "
            "[0, 0, 0, 1]"
        )
    return tuple(map(float, q_xyzw))


def _without_repetition(pairs: list[tuple]) -> dict:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ConfigError(f"the key {twice!r} is there twice; leave one")
    return values


def _no_number(name: str):
    raise ConfigError(f"it has the number {name}; the card must have finite numbers")
