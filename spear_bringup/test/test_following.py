"""A replay is judged by the targets that counted, at the time they were due."""

import numpy as np
import pytest

from spear_bringup.trials.following import asked_motion, following_errors
from spear_bringup.trials.series import StateSeries
from spear_policy.geometry.chunks import Chunk

DOWN = np.array([1.0, 0.0, 0.0, 0.0])
SPEED_M_S = 0.1


def _chunk(stamp_s: float) -> Chunk:
    anchor = np.concatenate([[0.4 + SPEED_M_S * stamp_s, 0.0, 0.3], DOWN])
    forward = SPEED_M_S * 0.2 * np.arange(1, 6)
    return Chunk(
        stamp_s=stamp_s,
        dt_s=0.2,
        translations_m=np.column_stack([forward, np.zeros(5), np.zeros(5)]),
        rotations_xyzw=np.tile([0.0, 0.0, 0.0, 1.0], (5, 1)),
        gripper_openings=np.ones(5),
        anchor_measured=anchor,
        anchor_commanded=anchor,
    )


def _states(lag_s: float, aside_m: float = 0.0) -> StateSeries:
    stamps = np.arange(-0.5, 3.0, 0.02)
    moved = np.clip(SPEED_M_S * (stamps - lag_s), 0.0, None)
    places = np.column_stack(
        [0.4 + moved, np.full(len(stamps), aside_m), np.full(len(stamps), 0.3)]
    )
    return StateSeries(stamps, measured=np.hstack([places, np.tile(DOWN, (len(stamps), 1))]))


def test_only_steps_before_the_next_observation_count():
    motion = asked_motion([_chunk(0.0), _chunk(0.2), _chunk(0.4)])
    assert np.allclose(motion.stamps_s, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4])
    assert np.allclose(motion.poses[:, 0], 0.4 + SPEED_M_S * motion.stamps_s)


def test_the_delay_of_following_is_no_error_but_a_wrong_path_is():
    chunks = [_chunk(0.0), _chunk(0.2), _chunk(0.4)]
    assert following_errors(chunks, _states(0.04)).worst_position_mm < 1.0
    assert following_errors(chunks, _states(0.04, 0.006)).worst_position_mm > 5.0


def test_an_arm_that_comes_far_too_late_has_not_followed():
    chunks = [_chunk(0.0), _chunk(0.2), _chunk(0.4)]
    assert following_errors(chunks, _states(0.3)).worst_position_mm > 10.0


def test_nothing_to_judge_is_said():
    with pytest.raises(ValueError, match="no chunk was published"):
        following_errors([], _states(0.0))
    with pytest.raises(ValueError, match="no ee_state was recorded"):
        following_errors([_chunk(0.0)], StateSeries())
