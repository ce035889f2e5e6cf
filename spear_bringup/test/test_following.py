"""A replay is judged by what was recorded, at the time it was recorded."""

import json

import numpy as np
import pytest

from spear_bringup.trials.bag_reader import StateSeries
from spear_bringup.trials.results import ReplayedEpisode, following_errors
from spear_policy.geometry.poses import Chunk
from spear_policy.geometry.tracking import TimedPoses

DOWN = np.array([1.0, 0.0, 0.0, 0.0])
SPEED_M_S, LENGTH_S = 0.1, 1.2
FIRST_S = 100.0


def recorded_motion() -> TimedPoses:
    """Straight ahead in another robot's base, for 1.2 s."""
    stamps = np.arange(0.0, LENGTH_S + 1e-9, 0.2)
    places = np.column_stack([SPEED_M_S * stamps, 0.3 + 0 * stamps, 0.1 + 0 * stamps])
    return TimedPoses(stamps, np.hstack([places, np.tile([0.0, 0.0, 0.0, 1.0], (len(stamps), 1))]))


def chunk(
    speed_m_s: float = SPEED_M_S, stamp_s: float = FIRST_S, travelled_m: float = 0.0
) -> Chunk:
    """A chunk straight ahead."""
    anchor = np.concatenate([[0.4 + travelled_m, 0.0, 0.3], DOWN])
    forward = speed_m_s * 0.2 * np.arange(1, 6)
    return Chunk(
        stamp_s=stamp_s,
        dt_s=0.2,
        translations_m=np.column_stack([forward, np.zeros(5), np.zeros(5)]),
        rotations_xyzw=np.tile([0.0, 0.0, 0.0, 1.0], (5, 1)),
        gripper_openings=np.ones(5),
        anchor_measured=anchor,
        anchor_commanded=anchor + [0.003, 0, 0, 0, 0, 0, 0],
    )


def executed(
    lag_s: float = 0.0, aside_m: float = 0.0, speed_m_s: float = SPEED_M_S, until_s: float = 3.0
) -> StateSeries:
    """An arm that moves straight ahead from the first chunk on."""
    stamps = np.arange(-0.5, until_s, 0.02)
    moved = np.clip(speed_m_s * (stamps - lag_s), 0.0, SPEED_M_S * LENGTH_S)
    places = np.column_stack([0.4 + moved, aside_m * (moved > 0), np.full(len(stamps), 0.3)])
    poses = np.hstack([places, np.tile(DOWN, (len(stamps), 1))])
    return StateSeries(FIRST_S + stamps, measured=poses)


def test_the_delay_of_following_is_no_error_but_a_wrong_path_is():
    assert following_errors(recorded_motion(), chunk(), executed(0.04)).worst_position_mm < 1.0
    aside = following_errors(recorded_motion(), chunk(), executed(0.04, aside_m=0.006))
    assert aside.worst_position_mm > 5.0


def test_every_recorded_step_is_judged():
    assert len(following_errors(recorded_motion(), chunk(), executed()).stamps_s) == 7


def test_an_arm_that_comes_far_too_late_has_not_followed():
    assert following_errors(recorded_motion(), chunk(), executed(0.3)).worst_position_mm > 10.0


def test_an_arm_that_follows_slow_chunks_exactly_has_not_repeated_the_recording():
    slow = 0.8 * SPEED_M_S
    errors = following_errors(recorded_motion(), chunk(slow), executed(speed_m_s=slow))
    assert not errors.within(5.0, 2.0)
    assert errors.worst_position_mm > 10.0


def test_nothing_to_judge_is_said():
    with pytest.raises(ValueError, match="no ee_state was recorded"):
        following_errors(recorded_motion(), chunk(), StateSeries())
    with pytest.raises(ValueError, match="ended 0.7 s before the recorded motion"):
        following_errors(recorded_motion(), chunk(), executed(until_s=0.51))


def test_a_recording_is_read_from_an_episode_file_and_another_file_is_refused(tmp_path):
    path, motion = tmp_path / "episode.npz", recorded_motion()
    words = json.dumps({"instruction": "wipe the table"})
    np.savez(path, words=words, stamps_s=motion.stamps_s, poses=motion.poses)
    recording = ReplayedEpisode.from_file(path)
    assert recording.instruction == "wipe the table"
    assert np.allclose(recording.motion.poses, motion.poses)
    np.savez(path, words=words)
    with pytest.raises(ValueError, match="episode.npz is no episode file .*import_episodes"):
        ReplayedEpisode.from_file(path)
