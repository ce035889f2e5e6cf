"""A trial as arrays: what the report is computed from, whatever it was read from."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def _empty(*shape) -> NDArray:
    return np.zeros((0, *shape))


@dataclass(frozen=True, eq=False)
class CommandSeries:
    """The messages of `command` in order, N of them.

    Attributes:
        stamps_s: (N,) hand-over to the robot, node clock [s].
        sent: (N,) bool, whether knots went to the robot.
        verdicts, reasons: (N,) int, GateStatus constants.
        seams_m, seams_rad: (N,) new minus running reference at entry.
        observation_ages_s: (N,) image stamp to hand-over [s].
        time_slips_s: (N,) lag of the execution behind its due time [s].
        gripper_openings: (N,) wanted opening after hysteresis, 0 closed .. 1 open.
    """

    stamps_s: NDArray = field(default_factory=_empty)
    sent: NDArray = field(default_factory=lambda: np.zeros(0, bool))
    verdicts: NDArray = field(default_factory=lambda: np.zeros(0, int))
    reasons: NDArray = field(default_factory=lambda: np.zeros(0, int))
    seams_m: NDArray = field(default_factory=_empty)
    seams_rad: NDArray = field(default_factory=_empty)
    observation_ages_s: NDArray = field(default_factory=_empty)
    time_slips_s: NDArray = field(default_factory=_empty)
    gripper_openings: NDArray = field(default_factory=_empty)


@dataclass(frozen=True, eq=False)
class StateSeries:
    """The messages of `ee_state` in order, N of them.

    Attributes:
        stamps_s: (N,) robot time mapped to the node clock [s].
        measured, commanded: (N, 7) position [m] and orientation xyzw, base frame.
        gripper_openings: (N,) measured, 0 closed .. 1 open.
    """

    stamps_s: NDArray = field(default_factory=_empty)
    measured: NDArray = field(default_factory=lambda: _empty(7))
    commanded: NDArray = field(default_factory=lambda: _empty(7))
    gripper_openings: NDArray = field(default_factory=_empty)


@dataclass(frozen=True, eq=False)
class GateSeries:
    """The messages of `gate_status` in order, N of them.

    Attributes:
        stamps_s: (N,) time of the verdict, node clock [s].
        verdicts, reasons: (N,) int, GateStatus constants.
        counts: (N, 5) verdicts since the driver's activation, by verdict.
    """

    stamps_s: NDArray = field(default_factory=_empty)
    verdicts: NDArray = field(default_factory=lambda: np.zeros(0, int))
    reasons: NDArray = field(default_factory=lambda: np.zeros(0, int))
    counts: NDArray = field(default_factory=lambda: np.zeros((0, 5), int))


@dataclass(frozen=True, eq=False)
class TrialSeries:
    """All that a report needs of one bag, but the images.

    Attributes:
        folder: the bag.
        start_s, end_s: receive times of its first and last message, node clock [s].
        counts: messages by topic.
        real_time_factors: (K,) simulated over wall time, once a second; empty on a real robot.
        custom_data: the recorder's words in metadata.yaml.
    """

    folder: Path
    start_s: float
    end_s: float
    counts: dict[str, int] = field(default_factory=dict)
    commands: CommandSeries = field(default_factory=CommandSeries)
    states: StateSeries = field(default_factory=StateSeries)
    gate: GateSeries = field(default_factory=GateSeries)
    real_time_factors: NDArray = field(default_factory=_empty)
    custom_data: dict[str, str] = field(default_factory=dict)
