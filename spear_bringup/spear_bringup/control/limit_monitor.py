"""Watch what the robot itself says it commands: the last check, behind gate and planner."""

from collections import deque

import numpy as np

from spear_bringup.control import workspace
from spear_bringup.control.limits import Limits
from spear_policy.geometry.poses import Pose, distance

WINDOW_S = 0.1
MARGIN_M = 0.02


class LimitMonitor:
    """Judges the robot's own commanded poses against the limits, over windows of 0.1 s.

    The robot's planner may pass a knot a little faster than the knot says, so speeds count as
    broken above `monitor_factor` times the limit, and the box above a margin of 2 cm.
    """

    def __init__(self, limits: Limits):
        self.limits = limits
        self._poses: deque[tuple[float, Pose]] = deque()

    def reset(self) -> None:
        """Forget the past: after a recovery, or a new connection."""
        self._poses.clear()

    def observe(self, robot_time_s: float, commanded: Pose) -> tuple[str, float, float] | None:
        """(sentence, seen, allowed) when a limit is broken, else None."""
        if self._poses and robot_time_s <= self._poses[-1][0]:
            if robot_time_s < self._poses[-1][0]:
                self._poses.clear()
            else:
                return None
        self._poses.append((robot_time_s, commanded))
        while len(self._poses) > 2 and self._poses[1][0] <= robot_time_s - WINDOW_S:
            self._poses.popleft()
        first_s, first = self._poses[0]
        span_s = robot_time_s - first_s
        if span_s < WINDOW_S * 0.9:
            return None
        translation, rotation = distance(first, commanded)
        factor = self.limits.monitor_factor
        for seen, allowed, unit in (
            (translation / span_s, factor * self.limits.max_linear_speed_m_s, "m/s"),
            (rotation / span_s, factor * self.limits.max_angular_speed_rad_s, "rad/s"),
        ):
            if seen > allowed:
                text = f"the robot commands itself {seen:.3g} {unit}; {allowed:.3g} is the most"
                return text, seen, allowed
        return self._leaving(first, commanded)

    def _leaving(self, first: Pose, commanded: Pose) -> tuple[str, float, float] | None:
        way = np.vstack([first.position_m, commanded.position_m])
        for violation in (
            workspace.box_violation_m(way, self.limits),
            workspace.reach_violation_m(way, self.limits),
        ):
            if violation[1] > MARGIN_M and violation[1] > violation[0] + 1e-4:
                text = (
                    f"the robot commands itself {violation[1] * 1000:.0f} mm out of the workspace"
                )
                return text, float(violation[1]), MARGIN_M
        return None
