"""Real BridgeData motion through the replay engine, on a robot that obeys exactly."""

import itertools

import numpy as np
import pytest

from spear_policy.geometry.poses import Pose
from spear_policy.geometry.tracking import TimedPoses, tracking_errors
from spear_policy.inference.engine import Observation
from spear_policy.inference.replay import ReplayEngine
from spear_training.data.oxe.reader import BridgeReader

# Where the simulated Franka's hand starts: pointing down over the table.
FRANKA_HOME = Pose([0.45, 0.0, 0.38], [1.0, 0.0, 0.0, 0.0])


@pytest.fixture(scope="module")
def episodes(bridge_rlds_dir):
    """Return the 25 real episodes."""
    reader = BridgeReader(bridge_rlds_dir)
    return [reader.read(index) for index in range(len(reader))]


def obey(engine, stamps_s):
    """Return the poses of a robot that is always where the newest chunk says, and that chunk."""
    pose, done = FRANKA_HOME, []
    for stamp_s, next_s in itertools.pairwise(stamps_s):
        chunk = engine.infer(Observation(stamp_s, pose, pose, 1.0, engine.instruction))
        start = np.concatenate([pose.position_m, pose.orientation_xyzw])
        goals = np.vstack([start, np.hstack(chunk.targets())])
        path = TimedPoses(np.concatenate([[stamp_s], chunk.due_times_s()]), goals)
        times = np.append(np.arange(stamp_s, next_s - 1e-9, 0.01), next_s)
        reached = path.at(times)
        done += list(zip(times[:-1], reached, strict=False))
        pose = Pose(reached[-1, :3], reached[-1, 3:])
    return TimedPoses([t for t, _ in done], [pose for _, pose in done]), chunk


def test_perfect_tracking_repeats_every_real_motion_exactly(episodes):
    for episode in episodes:
        engine = ReplayEngine(episode)
        executed, last = obey(engine, 100.0 + 0.2 * np.arange(13))
        errors = tracking_errors(engine.targets(), executed)
        assert errors.within(1e-6, 1e-5), f"{episode.name}: {errors}"
        moved = engine.targets().poses[:, :3] - FRANKA_HOME.position_m
        assert np.allclose(moved, episode.poses[:, :3] - episode.poses[0, :3])
        assert last.final


def test_observations_up_to_20_ms_late_still_keep_5_mm_and_2_degrees(episodes):
    rng = np.random.default_rng(4)
    for episode in episodes:
        engine = ReplayEngine(episode)
        late = rng.uniform(0.0, 0.02, 13)
        late[0] = 0.0
        executed, _ = obey(engine, 100.0 + 0.2 * np.arange(13) + late)
        errors = tracking_errors(engine.targets(), executed)
        assert errors.within(5.0, 2.0), f"{episode.name}: {errors}"


def test_real_motions_fit_over_the_table_from_the_franka_s_start(episodes):
    for episode in episodes:
        engine = ReplayEngine(episode)
        engine.infer(Observation(0.0, FRANKA_HOME, FRANKA_HOME, 1.0, episode.instruction))
        positions = engine.targets().poses[:, :3]
        assert positions[:, 2].min() > 0.25
        assert np.abs(positions - FRANKA_HOME.position_m).max() < 0.1


def test_all_recorded_pictures_come_out_unchanged(episodes):
    for episode in episodes[:3]:
        engine = ReplayEngine(episode)
        engine.infer(Observation(5.0, FRANKA_HOME, FRANKA_HOME, 1.0, episode.instruction))
        frames = engine.frames_due(5.0 + 1.8)
        assert [stamp_s for stamp_s, _ in frames] == pytest.approx(5.0 + episode.stamps_s)
        for (_, images), recorded in zip(frames, episode.images["external"], strict=True):
            assert images.keys() == {"external"}
            assert np.array_equal(images["external"], recorded)
