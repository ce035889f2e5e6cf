"""Targets: golden values, and deltas that lead back to what was recorded."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation, Slerp

from spear_policy.geometry import quaternions as quat
from spear_policy.geometry.tracking import TimedPoses
from spear_training.data.oxe.reader import BridgeReader
from spear_training.data.targets import chunk_targets, followed


def still(stamps_s, positions=None, rotations_xyzw=None):
    """Return poses that differ from the origin only where the arguments say so."""
    poses = np.zeros((len(stamps_s), 7))
    poses[:, 6] = 1
    if positions is not None:
        poses[:, :3] = positions
    if rotations_xyzw is not None:
        poses[:, 3:] = rotations_xyzw
    return TimedPoses(stamps_s, poses)


def wander(seed, rate_hz, duration_s):
    """Return a smooth random motion with large turns."""
    rng = np.random.default_rng(seed)
    stamps = np.arange(0, duration_s, 1 / rate_hz)
    positions = np.cumsum(rng.normal(0, 0.02, (len(stamps), 3)), axis=0)
    turns = Rotation.from_rotvec(rng.normal(0, 0.2, (len(stamps), 3)))
    rotation, rotations = Rotation.random(random_state=seed), []
    for turn in turns:
        rotation = rotation * turn
        rotations.append(rotation.as_quat())
    return TimedPoses(stamps, np.hstack([positions, rotations]))


def test_the_rotation_delta_is_the_golden_one():
    # worked out by hand, as wxyz
    now = np.array([0.9, 0.1, -0.2, 0.3])
    then = np.array([0.8, 0.2, -0.1, 0.5])
    both = quat.xyzw_from_wxyz([now / np.linalg.norm(now), then / np.linalg.norm(then)])
    motion = still([0.0, 0.2], rotations_xyzw=both)
    found = chunk_targets(motion, motion, [1, 1], [0.0], steps=1)
    golden = [0.9629764, 0.1798967, 0.0634930, 0.1904789]
    assert quat.wxyz_from_xyzw(found.rotations_xyzw[0, 0]) == pytest.approx(golden, abs=5e-8)


def test_steps_are_read_at_5_hz_from_any_rate():
    for rate_hz in (2, 3, 5, 15, 30):
        stamps = np.arange(0, 3, 1 / rate_hz)
        motion = still(stamps, positions=np.outer(stamps, [0.1, 0.0, -0.2]))
        found = chunk_targets(motion, motion, np.ones(len(stamps)), [0.7])
        expected = np.outer(0.2 * np.arange(1, 6), [0.1, 0.0, -0.2])
        assert found.translations_m[0] == pytest.approx(expected)
        assert found.recorded.all()


def test_between_two_samples_the_hand_turns_evenly():
    turns = Rotation.from_rotvec([[0, 0, 0], [0, 0, np.pi / 2]])
    motion = still([0.0, 1.0], rotations_xyzw=turns.as_quat())
    found = chunk_targets(motion, motion, [1, 1], [0.0])
    expected = Slerp([0, 1], turns)(0.2 * np.arange(1, 6)).as_quat()
    assert found.rotations_xyzw[0] == pytest.approx(quat.half_space(expected))


def test_after_the_end_the_last_pose_is_held_and_said_to_be_so():
    stamps = 0.2 * np.arange(4)
    motion = still(stamps, positions=np.outer(stamps, [1, 0, 0]))
    found = chunk_targets(motion, motion, [1, 1, 0, 0], stamps)
    assert found.translations_m[1, :, 0] == pytest.approx([0.2, 0.4, 0.4, 0.4, 0.4])
    assert found.recorded[1].tolist() == [True, True, False, False, False]
    assert not found.translations_m[3].any() and not found.recorded[3].any()
    assert found.grippers[3].tolist() == [0] * 5


def test_the_gripper_holds_what_it_was_told_last():
    stamps = np.array([0.0, 0.3, 0.5, 1.2])
    motion = still(stamps)
    found = chunk_targets(motion, motion, [1, 0, 1, 0], [0.0])
    assert found.grippers[0].tolist() == [1, 0, 1, 1, 1]


def test_a_gripper_on_its_way_takes_what_it_reaches():
    motion = still(0.2 * np.arange(6))
    found = chunk_targets(motion, motion, [1, 0.8, 0.5, 0.2, 0.0, 0.0], [0.0])
    assert found.grippers[0].tolist() == [0, 0, 0, 0, 0]


def test_deltas_start_from_the_measured_pose_and_lead_to_the_told_one():
    stamps = 0.2 * np.arange(7)
    measured, commanded = still(stamps), still(stamps, positions=np.full((7, 3), 0.05))
    found = chunk_targets(measured, commanded, np.ones(7), [0.0])
    assert found.translations_m == pytest.approx(0.05)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 1000),
    rate_hz=st.sampled_from([2, 3, 5, 10, 15, 20, 30]),
    share=st.floats(0, 1),
    reference=st.sampled_from(["anchor", "previous"]),
)
def test_following_the_deltas_leads_back_to_the_recording(seed, rate_hz, share, reference):
    motion = wander(seed, rate_hz, 4.0)
    moment = share * motion.stamps_s[-1]
    found = chunk_targets(motion, motion, np.ones(len(motion)), [moment], reference=reference)
    assert (found.rotations_xyzw[..., 3] >= 0).all()
    reached = followed(motion.at([moment])[0], found, 0, reference)
    recorded = motion.at(moment + 0.2 * np.arange(1, 6))
    assert reached[:, :3] == pytest.approx(recorded[:, :3], abs=1e-9)
    assert quat.angle(reached[:, 3:], recorded[:, 3:]).max() < 1e-9


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"moments_s": [9.0]}, "within 0..1 s"),
        ({"moments_s": [np.nan]}, None),
        ({"gripper_commands": [1]}, "the same stamps"),
        ({"commanded": still([0.0, 2.0])}, "the same stamps"),
        ({"reference": "next"}, "'next': it may be anchor or previous"),
    ],
)
def test_what_does_not_belong_together_is_refused(changes, text):
    motion = still([0.0, 1.0])
    arguments = {
        "measured": motion,
        "commanded": motion,
        "gripper_commands": [1, 1],
        "moments_s": [0.0],
    }
    with pytest.raises(ValueError, match=text):
        chunk_targets(**(arguments | changes))


def test_real_bridge_episodes_are_followed_step_by_step(bridge_rlds_dir):
    reader = BridgeReader(bridge_rlds_dir)
    for index in range(0, len(reader), 6):
        episode = reader.read(index)
        motion = episode.motion
        found = chunk_targets(motion, motion, episode.gripper_commands, motion.stamps_s)
        for moment in range(len(motion)):
            ahead = np.minimum(np.arange(moment + 1, moment + 6), len(motion) - 1)
            reached = followed(motion.poses[moment], found, moment)
            assert reached[:, :3] == pytest.approx(motion.poses[ahead, :3], abs=1e-9)
