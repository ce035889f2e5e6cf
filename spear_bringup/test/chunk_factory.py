"""Chunks for the control tests: honest ones along a line, and hostile ones from a seed."""

from dataclasses import replace

import numpy as np

from spear_policy.geometry.poses import Chunk, Pose, PoseHistory, as_array, chunk_from_poses
from spear_policy.geometry.quaternions import from_rotation_vector, multiply

DOWN = Pose([0.45, 0.0, 0.38], [1.0, 0.0, 0.0, 0.0])


def resting_history(pose: Pose = DOWN, until_s: float = 10.0) -> PoseHistory:
    """Three seconds at rest."""
    history = PoseHistory()
    for stamp_s in np.arange(until_s - 3.0, until_s + 0.01, 0.02):
        history.add(float(stamp_s), pose, pose)
    return history


def straight_chunk(velocity_m_s, stamp_s=10.0, chunk_id=1, source_id="policy", **kwargs) -> Chunk:
    """Five steps at 0.2 s with constant velocity (3,) from DOWN."""
    move = 0.2 * np.asarray(velocity_m_s, float)
    targets = [Pose(DOWN.position_m + k * move, DOWN.orientation_xyzw) for k in range(1, 6)]
    chunk = chunk_from_poses(stamp_s, 0.2, DOWN, DOWN, targets, np.ones(5))
    return replace(chunk, chunk_id=chunk_id, source_id=source_id, **kwargs)


def random_chunk(rng: np.random.Generator, anchor: Pose, stamp_s: float, chunk_id: int) -> Chunk:
    """From gentle to absurd: random walks of any size, sometimes with poison in one field."""
    count = int(rng.integers(1, 9))
    dt_s = float(rng.choice([0.05, 0.1, 0.2, 0.2, 0.2, 0.5]))
    size = 10.0 ** rng.uniform(-3.5, 0.0)
    steps = rng.normal(size=(count, 3)) * size
    turns = rng.normal(size=(count, 3)) * size * rng.uniform(0, 4)
    chunk = Chunk(
        stamp_s=stamp_s,
        dt_s=dt_s,
        translations_m=np.cumsum(steps, axis=0),
        rotations_xyzw=from_rotation_vector(np.cumsum(turns, axis=0)),
        gripper_openings=rng.uniform(0, 1, count),
        anchor_measured=as_array(anchor),
        anchor_commanded=as_array(anchor),
        chunk_id=chunk_id,
        source_id="policy",
    )
    if rng.random() < 0.3:
        chunk = _poison(chunk, rng)
    return chunk


def _poison(chunk: Chunk, rng: np.random.Generator) -> Chunk:
    bad = float(rng.choice([np.nan, np.inf, -np.inf, 1e300, -1e9, 0.0, 1.0]))
    field = rng.choice(
        [
            "translations_m",
            "rotations_xyzw",
            "gripper_openings",
            "anchor_measured",
            "dt_s",
            "stamp_s",
        ]
    )
    value = getattr(chunk, field)
    if np.ndim(value) == 0:
        return replace(chunk, **{field: bad})
    value = np.array(value)
    value.flat[int(rng.integers(value.size))] = bad
    return replace(chunk, **{field: value})


def turned(pose: Pose, rotation_vector) -> Pose:
    """The pose turned about its own axes by a rotation vector [rad]."""
    return Pose(
        pose.position_m, multiply(pose.orientation_xyzw, from_rotation_vector(rotation_vector))
    )
