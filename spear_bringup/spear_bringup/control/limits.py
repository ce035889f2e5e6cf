"""The limits and times that the gate holds a robot to; the constructors refuse impossible ones."""

from dataclasses import dataclass, fields

import numpy as np


@dataclass(frozen=True)
class Limits:
    """Limits on the commanded end effector, base frame.

    A path that is too fast is slowed down by up to `max_time_scale`; a step longer than
    `max_step_*` is no fast motion but a mistake, and is refused.

    Raises:
        ValueError: a limit is not finite or not positive, or the box is empty.
    """

    workspace_min_m: tuple[float, float, float] = (0.20, -0.45, 0.005)
    workspace_max_m: tuple[float, float, float] = (0.75, 0.45, 0.70)
    reach_center_m: tuple[float, float, float] = (0.0, 0.0, 0.333)
    reach_radius_m: float = 0.75
    max_linear_speed_m_s: float = 0.30
    max_angular_speed_rad_s: float = 1.0
    max_linear_acceleration_m_s2: float = 6.5
    max_angular_acceleration_rad_s2: float = 14.0
    max_linear_jerk_m_s3: float = 300.0
    max_angular_jerk_rad_s3: float = 1200.0
    max_step_translation_m: float = 0.10
    max_step_rotation_rad: float = 0.5
    max_time_scale: float = 5.0
    monitor_factor: float = 1.5
    oscillation_swing_m: float = 0.01
    oscillation_swing_rad: float = 0.06
    oscillation_reversals: int = 6

    def __post_init__(self):
        for field in fields(self):
            value = np.asarray(getattr(self, field.name), float)
            if not np.all(np.isfinite(value)):
                raise ValueError(f"limit {field.name} is {value.tolist()}; it must be finite")
            if value.ndim == 0 and value <= 0:
                raise ValueError(f"limit {field.name} is {float(value)}; it must be positive")
            if value.ndim and value.shape != (3,):
                raise ValueError(f"limit {field.name} has {value.size} numbers; it needs 3")
        if not np.all(np.asarray(self.workspace_min_m) < np.asarray(self.workspace_max_m)):
            raise ValueError("workspace_min_m must be below workspace_max_m in x, y and z")
        for name in ("max_time_scale", "monitor_factor"):
            if getattr(self, name) < 1.0:
                raise ValueError(f"limit {name} is {getattr(self, name)}; it must be at least 1")


@dataclass(frozen=True)
class Timing:
    """When a chunk counts and for how long [s].

    Attributes:
        blend_s: fade from the running reference to a new chunk.
        min_lead_s: a step due sooner than this is skipped: no robot turns a corner in no time.
        max_chunk_age_s: observation stamp to verdict, node clock.
        max_receive_age_s: receipt to verdict, steady clock.
        max_future_s: how far a stamp may lie ahead of the node clock.
        chunk_timeout_s: from the last accepted chunk's receipt, once its steps are due, to a stop.
        source_release_s: silence after which another publisher may take over.
        anchor_tolerance_m, anchor_tolerance_rad: chunk anchor against the driver's own history.
        max_path_time_s: from the verdict on a chunk to rest, stretched time included.
        step_dt_s: time between the steps of a chunk; another one is a mistake.
        max_chunk_steps: the most steps of a chunk.
    """

    blend_s: float = 0.2
    min_lead_s: float = 0.08
    max_chunk_age_s: float = 0.8
    max_receive_age_s: float = 0.2
    max_future_s: float = 0.05
    chunk_timeout_s: float = 0.3
    source_release_s: float = 1.0
    anchor_tolerance_m: float = 0.02
    anchor_tolerance_rad: float = 0.1
    max_path_time_s: float = 2.0
    step_dt_s: float = 0.2
    max_chunk_steps: int = 10

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if not (np.isfinite(value) and value > 0):
                raise ValueError(f"timing {field.name} is {value}; it must be positive and finite")
