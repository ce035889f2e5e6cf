"""Whatever comes in, nothing that breaks a limit goes out: 10,000 chunks, hostile ones too."""

from dataclasses import replace

import numpy as np
import pytest
from chunk_factory import DOWN, random_chunk, resting_history
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import CubicHermiteSpline
from scipy.spatial.transform import Rotation

from spear_bringup.control.command_core import CommandCore
from spear_bringup.control.limits import Limits, Timing
from spear_policy.geometry.poses import Pose

LIMITS = Limits()
SLACK = 1 + 1e-6
CHUNKS_A_RUN = 10


def assert_within_limits(path, start):
    """An independent check of every segment, by scipy's own Hermite spline."""
    norms = np.linalg.norm(path.orientations_xyzw, axis=1)
    assert np.all(np.abs(norms - 1) < 1e-6)
    assert np.all(path.linear_m_s[-1] == 0) and np.all(path.angular_rad_s[-1] == 0)
    assert np.all(path.durations_s > 0)
    positions = np.vstack([start.pose.position_m, path.positions_m])
    assert np.all(positions[1:] >= np.array(LIMITS.workspace_min_m) - 1e-9)
    assert np.all(positions[1:] <= np.array(LIMITS.workspace_max_m) + 1e-9)
    reach = np.linalg.norm(positions[1:] - np.array(LIMITS.reach_center_m), axis=1)
    assert np.all(reach <= LIMITS.reach_radius_m + 1e-9)
    orientations = Rotation.from_quat([start.pose.orientation_xyzw, *path.orientations_xyzw])
    turns = (orientations[1:] * orientations[:-1].inv()).as_rotvec()
    durations_s = path.durations_s[:, None]
    for ends, start_rate, rates, limits in (
        (np.diff(positions, axis=0), start.linear_m_s, path.linear_m_s, linear_limits()),
        (turns, start.angular_rad_s, path.angular_rad_s, angular_limits()),
    ):
        rates = np.vstack([start_rate, rates])
        # All segments at once, each over its own duration as the unit of time.
        tangents = np.stack([rates[:-1] * durations_s, rates[1:] * durations_s])
        curves = CubicHermiteSpline([0, 1], np.stack([np.zeros_like(ends), ends]), tangents)
        for order, limit in enumerate(limits, start=1):
            values = curves(np.linspace(0, 1, 33), order) / durations_s**order
            # A dense scan may find a speed between the gate's nine points.
            highest = np.linalg.norm(values, axis=2).max()
            assert highest <= limit * (1.01 if order == 1 else SLACK)


def set_to(core, chunk):
    """Let the core expect the dt of a chunk, as a driver is configured."""
    if 0.02 <= chunk.dt_s <= 1.0:
        core.timing = replace(core.timing, step_dt_s=chunk.dt_s)


def linear_limits():
    return (
        LIMITS.max_linear_speed_m_s,
        LIMITS.max_linear_acceleration_m_s2,
        LIMITS.max_linear_jerk_m_s3,
    )


def angular_limits():
    return (
        LIMITS.max_angular_speed_rad_s,
        LIMITS.max_angular_acceleration_rad_s2,
        LIMITS.max_angular_jerk_rad_s3,
    )


@settings(max_examples=250, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_random_chunks_never_make_a_knot_or_segment_break_a_limit(seed):
    play_random_chunks(seed)


@pytest.mark.slow
@settings(max_examples=1000, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_nor_do_ten_thousand(seed):
    play_random_chunks(seed)


def play_random_chunks(seed):
    """Have CHUNKS_A_RUN random chunks judged one after the other, and check what is sent."""
    rng = np.random.default_rng(seed)
    core = CommandCore(LIMITS, Timing(max_path_time_s=3.0))
    history = resting_history()
    now_s, pose = 10.0, DOWN
    for chunk_id in range(1, CHUNKS_A_RUN + 1):
        stamp_s = now_s - float(rng.uniform(0.0, 0.15))
        chunk = random_chunk(rng, pose, stamp_s, chunk_id)
        set_to(core, chunk)
        before = core.reference(now_s, pose)
        decision = core.on_chunk(
            chunk,
            hold=False,
            now_s=now_s,
            received_age_s=0.0,
            measured=pose,
            commanded=pose,
            history=history,
        )
        core.on_sent(decision, now_s)
        if decision.path is not None:
            assert np.sum(decision.path.durations_s) <= core.timing.max_path_time_s
            assert_within_limits(decision.path, before)
        else:
            assert not decision.gate.moves and decision.gate.text
        for _ in range(4):
            now_s += 0.05
            pose = core.reference(now_s, pose).pose
            history.add(now_s, pose, pose)
        opening = core.gripper_opening(now_s)
        assert opening in (None, 0.0, 1.0)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_reference_between_knots_is_continuous_and_unit(seed):
    rng = np.random.default_rng(seed)
    core = CommandCore(LIMITS, Timing(max_path_time_s=3.0))
    chunk = random_chunk(rng, DOWN, 9.95, 1)
    set_to(core, chunk)
    decision = core.on_chunk(
        chunk,
        hold=False,
        now_s=10.0,
        received_age_s=0.0,
        measured=DOWN,
        commanded=DOWN,
        history=resting_history(),
    )
    if decision.path is None:
        return
    core.on_sent(decision, 10.0)
    times = np.arange(10.0, core.player.running.end_s + 0.1, 0.01)
    samples = [core.player.running.at(t) for t in times]
    steps = np.diff([sample.pose.position_m for sample in samples], axis=0)
    assert np.linalg.norm(steps, axis=1).max() <= LIMITS.max_linear_speed_m_s * 0.01 * 1.02 + 1e-9
    assert all(isinstance(sample.pose, Pose) for sample in samples)
