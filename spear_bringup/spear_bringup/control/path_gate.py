"""Judge a timed path: inside, and within every speed limit, slowed down where that mends it."""

from dataclasses import replace

import numpy as np

from spear_bringup.control import workspace
from spear_bringup.control.limits import Limits
from spear_bringup.control.path import Path
from spear_bringup.control.segments import Peaks, Start, peaks, turns
from spear_bringup.control.verdicts import Judgement, Reason, Verdict

# Time scale at which a peak meets its limit: speed falls with 1/s, acceleration with 1/s^2, ...
_CHECKS = (
    ("linear_speed_m_s", Reason.LINEAR_SPEED, 1.0, "m/s"),
    ("angular_speed_rad_s", Reason.ANGULAR_SPEED, 1.0, "rad/s"),
    ("linear_acceleration_m_s2", Reason.LINEAR_ACCELERATION, 1 / 2, "m/s^2"),
    ("angular_acceleration_rad_s2", Reason.ANGULAR_ACCELERATION, 1 / 2, "rad/s^2"),
    ("linear_jerk_m_s3", Reason.LINEAR_JERK, 1 / 3, "m/s^3"),
    ("angular_jerk_rad_s3", Reason.ANGULAR_JERK, 1 / 3, "rad/s^3"),
)
_ROUNDS = 40


def judge_path(path: Path, start: Start, limits: Limits, from_m=None) -> tuple[Judgement, Path]:
    """The verdict on a path and the path to send (the same one, or slowed down).

    Args:
        path: knots to judge, at rest at the end.
        start: pose and velocity at its beginning.
        from_m: (3,) measured position from which leaving the workspace is judged; start's by
            default.

    PASS or CLAMPED: no knot and no segment breaks a limit. Time is stretched by one factor over
    the whole path, which never bends it. REJECTED when the path leaves the workspace, or would
    need more than `max_time_scale`.
    """
    away = workspace.leaves(
        path.positions_m, start.pose.position_m if from_m is None else from_m, limits
    )
    if away is not None:
        reason, metres = away
        text = f"the path goes {metres * 1000:.0f} mm outside the {_NAMES[reason]}"
        return Judgement(Verdict.REJECTED, reason, text, asked=metres), path
    if np.any(np.linalg.norm(turns(path, start.pose), axis=-1) > np.pi - 0.1):
        text = "a step turns by half a turn, so its direction is undefined; send smaller rotations"
        return Judgement(Verdict.REJECTED, Reason.JUMP, text, np.pi, np.pi - 0.1), path
    scale, worst = 1.0, None
    for _ in range(_ROUNDS):
        slowed = path.slowed(scale)
        ratio, reason, asked, allowed, unit = _worst(peaks(slowed, start), limits)
        if ratio <= 1.0:
            break
        worst = worst or (reason, asked, allowed, unit)
        scale *= ratio * 1.001
    else:
        scale = np.inf
    if worst is None:
        return Judgement(Verdict.PASS), path
    reason, asked, allowed, unit = worst
    judgement = Judgement(
        Verdict.CLAMPED,
        reason,
        f"asked for {asked:.3g} {unit}, the limit is {allowed:.3g}; time stretched by {scale:.2f}",
        asked,
        allowed,
        float(scale),
    )
    if scale > limits.max_time_scale:
        text = (
            f"asked for {asked:.3g} {unit}, the limit is {allowed:.3g}; slowing down by "
            f"{limits.max_time_scale:g} does not mend it"
        )
        judgement = replace(judgement, verdict=Verdict.REJECTED, text=text, time_scale=1.0)
        return judgement, path
    return judgement, slowed


_NAMES = {Reason.OUTSIDE_WORKSPACE: "workspace box", Reason.OUTSIDE_REACH: "reach sphere"}


def _worst(values: Peaks, limits: Limits) -> tuple[float, Reason, float, float, str]:
    rows = []
    for name, reason, power, unit in _CHECKS:
        asked, allowed = getattr(values, name), getattr(limits, f"max_{name}")
        rows.append(((asked / allowed) ** power, reason, asked, allowed, unit))
    return max(rows, key=lambda row: row[0])
