"""The replay engine: the recorded motion, from where this robot stands, in recorded time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from spear_policy.geometry.poses import Pose, distance
from spear_policy.geometry.tracking import replayed_motion
from spear_policy.inference.engine import Observation
from spear_policy.inference.episode import Episode, save_episode
from spear_policy.inference.replay import ReplayEngine

# The Franka's hand at home points down; x forward, y left, z up in the base frame.
HOME = Pose([0.45, 0.0, 0.38], [1.0, 0.0, 0.0, 0.0])


def episode_of(positions, turns_deg, step_s=0.2, **more):
    """Return an episode from positions and turns about base z, its hand pointing forward."""
    forward = Rotation.from_euler("y", 90, degrees=True)
    hands = [(Rotation.from_euler("z", turn, degrees=True) * forward) for turn in turns_deg]
    poses = np.array([[*p, *hand.as_quat()] for p, hand in zip(positions, hands, strict=True)])
    arguments = {
        "stamps_s": 7.0 + step_s * np.arange(len(poses)),
        "poses": poses,
        "gripper_openings": np.ones(len(poses)),
        "instruction": "turn the lever",
    }
    return Episode(**(arguments | more))


def straight(steps=6, **more):
    """Return 2 cm forward, 1 cm down and 10 degrees to the left a step."""
    count = np.arange(steps)
    positions = [0.2, 0.1, 0.15] + np.outer(count, [0.02, 0.0, -0.01])
    return episode_of(positions, 10.0 * count, **more)


def seen(stamp_s, measured=HOME):
    """Return an observation of a robot at a pose."""
    return Observation(stamp_s, measured, measured, 1.0, "turn the lever")


def turned(degrees):
    """Return the orientation of HOME after a turn about the base's z axis."""
    turn = Rotation.from_euler("z", degrees, degrees=True)
    return (turn * Rotation.from_quat(HOME.orientation_xyzw)).as_quat()


def assert_same_orientations(a_xyzw, b_xyzw):
    angles = (Rotation.from_quat(a_xyzw).inv() * Rotation.from_quat(b_xyzw)).magnitude()
    assert np.max(angles) < 1e-7


def test_the_first_chunk_starts_where_the_robot_stands():
    chunk = ReplayEngine(straight()).infer(seen(100.0))
    positions, orientations = chunk.targets()
    steps = np.arange(1, 6)
    assert np.allclose(chunk.due_times_s(), 100.0 + 0.2 * steps)
    assert np.allclose(positions, HOME.position_m + np.outer(steps, [0.02, 0.0, -0.01]))
    assert_same_orientations(orientations, [turned(10.0 * step) for step in steps])
    assert np.all(chunk.rotations_xyzw[:, 3] >= 0)
    assert chunk.anchor_kind == "measured"
    assert not chunk.final


def test_how_the_recorded_hand_names_its_axes_does_not_matter():
    plain = straight()
    renamed = plain.poses.copy()
    axes = Rotation.from_euler("xyz", [30, -50, 110], degrees=True)
    renamed[:, 3:] = (Rotation.from_quat(renamed[:, 3:]) * axes).as_quat()
    other = straight(poses=renamed)
    a, b = (ReplayEngine(episode).infer(seen(3.0)) for episode in (plain, other))
    assert np.allclose(a.translations_m, b.translations_m)
    assert_same_orientations(a.rotations_xyzw, b.rotations_xyzw)


def test_a_robot_that_obeys_exactly_repeats_the_recorded_motion_exactly():
    rng = np.random.default_rng(2)
    count = 30
    positions = np.cumsum(rng.normal(0, 0.01, (count, 3)), axis=0)
    episode = episode_of(positions, np.cumsum(rng.normal(0, 8, count)))
    engine = ReplayEngine(episode)
    pose, done = HOME, [HOME]
    for step in range(count - 1):
        chunk = engine.infer(seen(50.0 + 0.2 * step, pose))
        goals, turns = chunk.targets()
        pose = Pose(goals[0], turns[0])
        done.append(pose)
    moved = np.array([p.position_m for p in done]) - HOME.position_m
    assert np.allclose(moved, episode.poses[:, :3] - episode.poses[0, :3], atol=1e-9)
    first = Rotation.from_quat(episode.poses[0, 3:]).inv()
    recorded = Rotation.from_quat(episode.poses[:, 3:]) * first
    executed = Rotation.from_quat([p.orientation_xyzw for p in done])
    executed = executed * Rotation.from_quat(HOME.orientation_xyzw).inv()
    assert np.max((recorded.inv() * executed).magnitude()) < 1e-7


def test_a_robot_that_lags_is_sent_to_the_same_places():
    engine = ReplayEngine(straight())
    engine.infer(seen(10.0))
    lagging = Pose(HOME.position_m + [0.005, 0.002, 0.0], turned(3.0))
    chunk = engine.infer(seen(10.2, lagging))
    positions, orientations = chunk.targets()
    assert np.allclose(positions[0], HOME.position_m + [0.04, 0.0, -0.02])
    assert_same_orientations(orientations[0], turned(20.0))
    assert np.allclose(chunk.anchor[:3], lagging.position_m)


def test_a_late_inference_continues_at_now():
    engine = ReplayEngine(straight(steps=12))
    engine.infer(seen(10.0))
    positions, orientations = engine.infer(seen(10.7)).targets()
    assert np.allclose(positions[0], HOME.position_m + 4.5 * np.array([0.02, 0.0, -0.01]))
    assert_same_orientations(orientations[0], turned(45.0))


def test_it_ends_at_the_last_pose_and_says_so_when_that_was_due():
    engine = ReplayEngine(straight(steps=4))
    assert not engine.infer(seen(10.0)).final
    chunk = engine.infer(seen(10.4))
    assert not chunk.final
    last = HOME.position_m + [0.06, 0.0, -0.03]
    assert np.allclose(chunk.targets()[0], last)
    assert_same_orientations(chunk.targets()[1], turned(30.0))
    # 0.2 * 3 seconds after 10.0, with the rounding that such sums have.
    for stamp_s in (10.0 + 0.2 + 0.2 + 0.2, 25.0):
        chunk = engine.infer(seen(stamp_s))
        assert chunk.final
        assert np.allclose(chunk.targets()[0], last)


@pytest.mark.parametrize("step_s", [1 / 15, 0.5])
def test_a_recording_of_another_rate_is_resampled_to_the_chunk_s_rate(step_s):
    # The same speed as in `straight`, whatever the rate.
    count = np.arange(40)
    scale = step_s / 0.2
    positions = np.outer(scale * count, [0.02, 0.0, -0.01])
    engine = ReplayEngine(episode_of(positions, scale * 10.0 * count, step_s=step_s))
    positions, orientations = engine.infer(seen(0.0)).targets()
    steps = np.arange(1, 6)
    assert np.allclose(positions, HOME.position_m + np.outer(steps, [0.02, 0.0, -0.01]))
    assert_same_orientations(orientations, [turned(10.0 * step) for step in steps])


def test_the_gripper_is_told_the_newest_command_as_open_or_closed():
    commands = [1.0, 1.0, 1.0, 0.6, 0.0, 0.0, 0.0, 1.0]
    engine = ReplayEngine(straight(steps=8, gripper_commands=commands))
    assert engine.infer(seen(1.0)).gripper_openings.tolist() == [1, 1, 0, 0, 0]
    assert engine.infer(seen(1.9)).gripper_openings.tolist() == [0, 0, 1, 1, 1]


def test_without_commands_the_measured_opening_decides():
    openings = [1.0, 0.9, 0.4, 0.3, 0.6, 0.6]
    engine = ReplayEngine(straight(gripper_openings=openings))
    assert engine.infer(seen(1.0)).gripper_openings.tolist() == [1, 0, 0, 1, 1]


def test_a_new_instruction_starts_over_from_the_pose_then():
    engine = ReplayEngine(straight(steps=4, images=pictures(4)))
    engine.infer(seen(10.0))
    engine.infer(seen(12.0))
    assert len(engine.frames_due(12.0)) == 4
    engine.reset(" Turn the lever")
    assert engine.targets() is None
    assert engine.frames_due(20.0) == []
    elsewhere = Pose([0.5, 0.1, 0.3], turned(45.0))
    chunk = engine.infer(seen(20.0, elsewhere))
    assert not chunk.final
    assert np.allclose(chunk.targets()[0][0], elsewhere.position_m + [0.02, 0.0, -0.01])
    assert [stamp_s for stamp_s, _ in engine.frames_due(20.0)] == [20.0]


def test_another_instruction_is_refused_with_the_one_it_can_follow():
    with pytest.raises(ValueError, match="recording of 'turn the lever'.*'open the drawer'"):
        ReplayEngine(straight()).reset("open the drawer")


def test_a_clock_that_was_set_back_is_said():
    engine = ReplayEngine(straight())
    engine.infer(seen(10.0))
    with pytest.raises(ValueError, match="give the instruction again"):
        engine.infer(seen(3.0))


def pictures(steps):
    """Return recorded videos whose first pixel is the step's number; one camera is unknown."""
    video = np.zeros((steps, 4, 6, 3), np.uint8)
    video[:, 0, 0, 0] = np.arange(steps)
    return {"external": video, "wrist": video[:, :2, :3], "external_1": video}


def test_recorded_images_come_once_each_at_their_recorded_times():
    engine = ReplayEngine(straight(images=pictures(6)))
    assert engine.camera_sizes == {"external": (6, 4), "wrist": (3, 2)}
    assert engine.frames_due(10.0) == []  # its clock starts with the first observation
    engine.infer(seen(10.0))
    first = engine.frames_due(10.05)
    assert [stamp_s for stamp_s, _ in first] == [10.0]
    assert first[0][1].keys() == {"external", "wrist"}
    assert engine.frames_due(10.15) == []
    later = engine.frames_due(10.65)  # the caller was busy: nothing is lost
    assert [stamp_s for stamp_s, _ in later] == pytest.approx([10.2, 10.4, 10.6])
    assert [int(images["external"][0, 0, 0]) for _, images in later] == [1, 2, 3]
    assert len(engine.frames_due(99.0)) == 2
    assert engine.frames_due(99.0) == []


def test_a_recording_without_images_still_moves_and_tells_its_beat():
    engine = ReplayEngine(straight())
    assert len(engine.infer(seen(1.0)).translations_m) == 5
    assert engine.frames_due(1.3) == [(pytest.approx(1.0), {}), (pytest.approx(1.2), {})]


def test_its_card_asks_for_nothing_and_names_the_file(tmp_path):
    save_episode(straight(), tmp_path / "lever-3.npz")
    engine = ReplayEngine.from_file(tmp_path / "lever-3.npz")
    engine.warm_up()
    card = engine.card
    assert (card.engine, card.checkpoint_id) == ("replay", "lever-3")
    assert card.publishes_images
    assert not card.cameras
    assert not card.needs_objects
    assert (card.dt_s, card.chunk_length) == (0.2, 5)
    assert engine.instruction == "turn the lever"


def test_the_targets_tell_where_the_robot_has_to_be_at_each_recorded_step():
    engine = ReplayEngine(straight())
    assert engine.targets() is None
    chunk = engine.infer(seen(40.0))
    targets = engine.targets()
    assert np.allclose(targets.stamps_s, 40.0 + 0.2 * np.arange(6))
    assert np.allclose(targets.poses[0, :3], HOME.position_m)
    assert np.allclose(targets.poses[1:, :3], chunk.targets()[0])


numbers = st.floats(-1.0, 1.0)
quaternions = st.tuples(numbers, numbers, numbers, numbers).filter(
    lambda q: np.linalg.norm(q) > 0.1
)
poses = st.tuples(st.tuples(numbers, numbers, numbers), quaternions).map(
    lambda p: [*p[0], *(np.array(p[1]) / np.linalg.norm(p[1]))]
)


@settings(max_examples=200, deadline=None)
@given(recorded=st.lists(poses, min_size=2, max_size=6), start=poses)
def test_moving_a_motion_there_and_back_gives_it_again(recorded, start):
    episode = straight(steps=len(recorded), poses=np.array(recorded))
    moved = replayed_motion(episode.motion, Pose(start[:3], start[3:]), 5.0)
    there = straight(steps=len(recorded), poses=moved.poses)
    back = replayed_motion(there.motion, Pose(recorded[0][:3], recorded[0][3:]), 0.0)
    for a, b in zip(back.poses, recorded, strict=True):
        shift_m, turn_rad = distance(Pose(a[:3], a[3:]), Pose(b[:3], b[3:]))
        assert shift_m < 1e-9
        assert turn_rad < 1e-7
