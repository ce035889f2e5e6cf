"""One row of the mixture table: a data set, its weight, and the rules to read it by."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spear_training.data.oxe import rules
from spear_training.data.oxe.pose_rules import PoseRule
from spear_training.data.reader import DataFileError

# What says nothing about what an episode becomes.
_NOT_HASHED = ("weight", "source", "notes", "unconfirmed", "subsets")


@dataclass(frozen=True)
class Unconfirmed:
    """A fact that nobody has confirmed: the dotted key, and what to check and how."""

    key: str
    check: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the table; see rules.py for its parts.

    Attributes:
        name, weight: in the mixture; the weights of all rows sum to 100.
        source: the data set's name, versions and place.
        robot: which robot moved.
        control_hz: steps a second. RLDS holds no stamps: they are counted.
        cameras: by our name: "external", "wrist", and further ones with a number.
        pose: measured pose of the end effector; None while that is unconfirmed.
        command: where it was told to be, or REACHED: not recorded, targets are reached poses.
        gripper_opening: measured, or FROM_COMMAND where nothing measures it.
        gripper_command: or FROM_MEASURED where none is recorded.
        language: the sentences.
        conditions: all must hold, or the episode is left out.
        subset: the part of the data set that this row is, where it is only a part.
        subsets: further parts that can be asked for by name.
        notes: where each fact is from, and what was decided.
        unconfirmed: facts that must be confirmed before the row can be used.
    """

    name: str
    weight: float
    source: rules.Source
    robot: str
    control_hz: float
    cameras: Mapping[str, rules.Camera]
    pose: PoseRule | None
    command: PoseRule | str | None
    gripper_opening: rules.LinearGripper | rules.ConstantGripper | str | None
    gripper_command: rules.LinearGripper | rules.ConstantGripper | rules.GripperEvents | str | None
    language: rules.Language
    conditions: tuple[rules.Condition, ...] = ()
    subset: rules.Subset | None = None
    subsets: tuple[rules.Subset, ...] = ()
    notes: tuple[str, ...] = ()
    unconfirmed: tuple[Unconfirmed, ...] = ()

    @property
    def hash(self) -> str:
        """SHA-256 of all that decides what an episode becomes; notes and weights do not."""
        values = {k: v for k, v in plain(self).items() if k not in _NOT_HASHED}
        text = json.dumps(values, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def require_confirmed(self) -> None:
        """Refuse the row while a fact is unconfirmed.

        Raises:
            DataFileError: the text names the row, each key, what to check, and what to write.
        """
        if not self.unconfirmed:
            return
        checks = "; ".join(f"{each.key} ({each.check})" for each in self.unconfirmed)
        first = self.unconfirmed[0].key.split(".")
        example = ": {".join([self.name, *first]) + ": VALUE" + "}" * len(first)
        raise DataFileError(
            f"row {self.name} cannot be read until these facts are confirmed: {checks}; look with "
            f"`python3 -m spear_training.data.oxe.look {self.name} FOLDER`, then write what is "
            f"true into a table of your own, like `{example}`, and give it with --table"
        )

    def require_subset(self, name: str) -> rules.Subset:
        """The subset of this name. Raises DataFileError when there is none."""
        for each in self.subsets:
            if each.name == name:
                return each
        known = ", ".join(each.name for each in self.subsets) or "none"
        raise DataFileError(f"row {self.name} has no subset {name!r}; it has {known}")


def plain(value: Any) -> Any:
    """A rule, or anything that holds rules, as values that JSON knows; rules name their kind."""
    if dataclasses.is_dataclass(value):
        fields = {e.name: plain(getattr(value, e.name)) for e in dataclasses.fields(value)}
        return {"kind": type(value).__name__} | fields
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [plain(each) for each in value]
    return value
