"""Gripper openings and commands, 0 closed .. 1 open, from however a data set writes them."""

import numpy as np
from numpy.typing import NDArray

from spear_policy.geometry.chunks import GRIPPER_CLOSED, GRIPPER_OPEN
from spear_policy.inference.episode import EpisodeError
from spear_training.data.oxe.poses import Steps
from spear_training.data.oxe.row import Row
from spear_training.data.oxe.rules import (
    FROM_COMMAND,
    FROM_MEASURED,
    Columns,
    ConstantGripper,
    GripperEvents,
    LinearGripper,
)


def gripper_keys(row: Row) -> tuple[str, ...]:
    """The features of a step that `read_gripper` needs."""
    both = (row.gripper_opening, row.gripper_command)
    return tuple(rule.key for rule in both if isinstance(rule, Columns))


def read_gripper(row: Row, steps: Steps, count: int) -> tuple[NDArray, NDArray | None]:
    """Measured openings (count,) and commands (count,), or None where no command is recorded.

    Where nothing measures the gripper, it is taken to be where the command tells it to be.

    Raises:
        EpisodeError: a number is not finite, or none that the gripper can have.
    """
    openings = None
    if row.gripper_opening != FROM_COMMAND:
        openings = _read(row.gripper_opening, steps, count)
    commands = None
    if isinstance(row.gripper_command, GripperEvents):
        commands = follow_events(row.gripper_command, steps, openings)
    elif row.gripper_command != FROM_MEASURED:
        commands = _read(row.gripper_command, steps, count)
    return (commands if openings is None else openings), commands


def linear_opening(rule: LinearGripper, values: NDArray, where: str) -> NDArray:
    """(T,) 0 .. 1 from (T,) numbers; `where` names them in messages. Raises EpisodeError."""
    shares = (np.asarray(values, float) - rule.closed_at) / (rule.open_at - rule.closed_at)
    margin = np.inf if rule.saturate else rule.margin
    # The comparison is false for NaN too.
    bad = ~(np.abs(shares - 0.5) <= 0.5 + margin) | ~np.isfinite(shares)
    if bad.any():
        step = int(np.argmax(bad))
        raise EpisodeError(
            f"gripper {where}[{step}] is {values[step]:.3f}; it must be {rule.closed_at:g} "
            f"(closed) to {rule.open_at:g} (open)"
        )
    return np.clip(shares, GRIPPER_CLOSED, GRIPPER_OPEN)


def follow_events(rule: GripperEvents, steps: Steps, openings: NDArray | None) -> NDArray:
    """(T,) commands from events: each holds until the next one.

    What was told before the first event is not recorded. It is what the measured opening is nearer
    to in the first step; without a measurement, the opposite of the first event, for a gripper
    that is told to close was open; without any event, open.

    Raises:
        EpisodeError: a number is not finite.
    """
    values = _column(rule, steps)
    bad = ~np.isfinite(values)
    if bad.any():
        raise EpisodeError(f"{rule.key}[{int(np.argmax(bad))}] has a number that is not finite")
    closes, opens = values > rule.threshold, values < -rule.threshold
    told = np.flatnonzero(closes | opens)
    if openings is not None:
        initial = GRIPPER_OPEN if openings[0] >= 0.5 else GRIPPER_CLOSED
    else:
        initial = GRIPPER_CLOSED if len(told) and opens[told[0]] else GRIPPER_OPEN
    commands = np.where(opens, GRIPPER_OPEN, GRIPPER_CLOSED)
    newest = np.searchsorted(told, np.arange(len(values)), side="right") - 1
    return np.where(newest < 0, initial, commands[told[newest]] if len(told) else initial)


def _read(rule: LinearGripper | ConstantGripper, steps: Steps, count: int) -> NDArray:
    if isinstance(rule, ConstantGripper):
        return np.full(count, rule.opening)
    return linear_opening(rule, _column(rule, steps), rule.key.rsplit("/", 1)[-1])


def _column(rule: Columns, steps: Steps) -> NDArray:
    values = np.asarray(steps[rule.key], float)
    values = values.reshape(len(values), -1)
    if values.shape[1] <= rule.first_column:
        raise EpisodeError(
            f"{rule.key} has {values.shape[1]} numbers, none in column {rule.first_column}; the "
            "data set is not the one that the table describes"
        )
    return values[:, rule.first_column]
