"""The verdict on a replay, from the messages that the graph says."""

from types import SimpleNamespace

import pytest
from test_following import SPEED_M_S, chunk, executed, recorded_motion

from spear_bringup.nodes.trial_client import FollowingJudge
from spear_bringup.trials.results import ReplayedEpisode
from spear_msgs.msg import ActionChunk, EndEffectorState
from spear_policy.geometry.poses import Pose
from spear_policy.nodes.messages import chunk_to_msg, pose_to_msg, s_to_stamp


class Trial:
    """A judge that hears what a test says."""

    def __init__(self):
        self.say = {}
        node = SimpleNamespace(create_subscription=self._subscribe)
        self.judge = FollowingJudge(node, {4: ReplayedEpisode("wipe the table", recorded_motion())})
        assert self.judge.instruction(4) == "wipe the table"
        self.judge.begin()

    def _subscribe(self, kind, topic, callback, qos):
        self.say[topic] = callback

    def chunks(self, speed_m_s=SPEED_M_S):
        """All chunks of a replay, and the HOLD before them."""
        self.say["action_chunk"](ActionChunk(kind=ActionChunk.KIND_HOLD))
        for step in range(7):
            begun_s = 0.2 * step
            made = chunk(speed_m_s, 100.0 + begun_s, speed_m_s * begun_s)
            self.say["action_chunk"](chunk_to_msg(made, "franka_base", "franka_ee"))

    def states(self, **motion):
        """Every state of the arm."""
        series = executed(**motion)
        for stamp_s, pose in zip(series.stamps_s, series.measured, strict=True):
            message = EndEffectorState(measured=pose_to_msg(Pose(pose[:3], pose[3:])))
            message.header.stamp = s_to_stamp(stamp_s)
            self.say["ee_state"](message)

    def verdict(self):
        return self.judge.verdict("wipe the table")


@pytest.fixture
def trial():
    """A trial that has begun."""
    return Trial()


def test_an_arm_that_repeats_the_recording_succeeds(trial):
    trial.chunks()
    trial.states(lag_s=0.04)
    success, reason = trial.verdict()
    assert success and reason.startswith("repeated the recording: 7 steps")


def test_an_arm_that_follows_its_chunks_but_not_the_recording_fails(trial):
    slow = 0.8 * SPEED_M_S
    trial.chunks(slow)
    trial.states(speed_m_s=slow)
    success, reason = trial.verdict()
    assert not success and reason.startswith("strayed from the recording: ")


def test_a_trial_without_chunks_or_cut_short_fails_and_says_why(trial):
    assert trial.verdict() == (False, "no chunk was published")
    trial.chunks()
    trial.states(until_s=0.51)
    success, reason = trial.verdict()
    assert not success and "ended 0.7 s before the recorded motion" in reason
    trial.judge.begin()
    assert trial.verdict() == (False, "no chunk was published")
