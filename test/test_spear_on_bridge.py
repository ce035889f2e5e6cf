"""Engine `spear` in the policy node follows real BridgeData episodes, played as ROS topics.

The player keeps the clock and goes on only when the node has what it was sent, so what is proved
does not depend on how fast the machine is.
"""

import threading

import numpy as np
import pytest
from policy_fixture import BRIDGE, policy_fixture
from rclpy.node import Node
from ros_fixture import ros, spinning, wait
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image

from spear_msgs.msg import EndEffectorState
from spear_policy.geometry.tracking import TimedPoses
from spear_policy.nodes.messages import (
    SENSOR,
    chunk_from_msg,
    pose_from_array,
    s_to_stamp,
    stamp_to_s,
)
from spear_training.data.oxe.reader import BridgeReader

EPISODES = (4, 7, 12)  # of three tasks
START_S = 1000.0
TICK_S, TICKS = 0.02, 10  # of the robot driver and of the clock; ticks in a recorded step
EXPOSED_S = 0.01  # stamp of a picture after its recorded time: between two states, as in life
ARRIVES = 3  # ticks after its recorded time: the picture was on its way for 50 ms


@pytest.fixture(scope="module", autouse=True)
def _ros(ros_domain):
    with ros():
        yield


class Player(Node):
    """Clock, robot and external camera of a recording; repeats the newest until told more."""

    def __init__(self, episode):
        super().__init__("player")
        self.episode = episode
        self.recording = TimedPoses(episode.stamps_s + START_S, episode.poses)
        self._openings = episode.gripper_openings
        self._time = self.create_publisher(Clock, "/clock", SENSOR)
        self._states = self.create_publisher(EndEffectorState, "ee_state", SENSOR)
        self._images = self.create_publisher(Image, "external/image_raw", SENSOR)
        self._newest, self._lock = [], threading.Lock()
        self.create_timer(0.05, self._repeat)  # sensors are best effort: one may get lost

    def tick(self, now_s, step=None):
        """The robot at `now_s`, and the picture of a recorded step when one is given."""
        message = EndEffectorState(ee_frame_id="widowx_ee")
        message.header.frame_id = "widowx_base"
        message.header.stamp = s_to_stamp(now_s)
        message.measured = message.commanded = pose_from_array(self.recording.at([now_s])[0])
        opening = np.interp(now_s, self.recording.stamps_s, self._openings)
        message.gripper_opening = float(opening)
        newest = [(self._time, Clock(clock=s_to_stamp(now_s))), (self._states, message)]
        if step is not None:
            image = BRIDGE.cv2_to_imgmsg(self.episode.images["external"][max(step, 0)], "rgb8")
            image.header.stamp = s_to_stamp(self.image_stamp_s(step))
            newest.append((self._images, image))
        with self._lock:  # a time that the timer still repeats would follow a newer one
            self._newest = newest
        self._repeat()

    @staticmethod
    def image_stamp_s(step):
        """Of the picture of a recorded step; -1 is one from before it began."""
        return START_S + step * TICK_S * TICKS + EXPOSED_S

    def _repeat(self):
        with self._lock:
            for publisher, message in self._newest:
                publisher.publish(message)


def play(bench, player):
    """Play the episode once; returns the chunks, one for each recorded step."""
    world, node = bench.world, bench.node

    def has(now_s, step=None):
        inputs = node.inputs._synchroniser
        state, frame = inputs._state.stamp_s, inputs._frames["external"].newest
        told = node.now_s() >= now_s - 1e-6 and state >= now_s - 1e-6
        return told and (step is None or frame.stamp_s >= player.image_stamp_s(step) - 1e-6)

    def tick(count, step=None):
        now_s = START_S + count * TICK_S
        player.tick(now_s, step)
        wait(lambda: has(now_s, step))

    for count in range(1 - 2 * TICKS, 0):
        tick(count)
        if count == ARRIVES - TICKS:  # so an inference is due when a picture arrives
            world.instruct(player.episode.instruction)
            world.wait_for_state("RUNNING")
    for step in range(len(player.episode)):
        for count in range(TICKS):
            tick(step * TICKS + count, step if count == ARRIVES else None)
        wait(lambda step=step: len(world.steps()) > step, seen=world._newest_status)
    return world.steps()


@pytest.mark.parametrize("number", EPISODES)
def test_a_real_episode_is_answered_at_5_hz_from_the_recorded_poses(
    checkpoint, bridge_rlds_dir, number
):
    episode = BridgeReader(bridge_rlds_dir).read(number)
    player = Player(episode)
    parameters = {"engine": "spear", "checkpoint": checkpoint, "device": "cpu", "robot": "widowx"}
    parameters |= {"absent_cameras": "wrist", "use_sim_time": True, "clock_stall_s": 60.0}
    # As shipped, not as patient as the bench: on this clock nothing is ever late.
    parameters |= {"inference_period_s": 0.2, "max_image_age_s": 0.5, "max_state_age_s": 0.2}
    with spinning(player), policy_fixture(None, up=False, **parameters) as bench:
        bench.world.cameras, bench.world.publishing_states = set(), False
        bench.world.publishing_objects = False
        player.tick(START_S - 2 * TICKS * TICK_S, step=-2)
        bench.up()
        chunks = play(bench, player)
        alarm, holds = bench.node.cameras.text, bench.world.holds()
        late = bench.node._coordinator.diagnostics()[2]["chunks_late"]
    player.destroy_node()

    assert len(chunks) == len(episode) >= 10
    assert np.ptp(episode.poses[:, :3], axis=0).max() > 0.02, "this recording hardly moves"
    stamps_s = np.array([stamp_to_s(chunk.header.stamp) for chunk in chunks])
    np.testing.assert_allclose(stamps_s, episode.stamps_s + START_S + EXPOSED_S, atol=1e-6)
    np.testing.assert_allclose(np.diff(stamps_s), 0.2, atol=1e-6)
    anchors = np.array([chunk_from_msg(chunk).anchor_measured for chunk in chunks])
    np.testing.assert_allclose(anchors, player.recording.at(stamps_s), atol=1e-4)
    first = chunks[0].chunk_id
    assert [chunk.chunk_id for chunk in chunks] == list(range(first, first + len(chunks)))
    for chunk in chunks:
        assert chunk.instruction == episode.instruction and len(chunk.steps) == 5
        assert chunk.header.frame_id == "widowx_base"
        assert ARRIVES * TICK_S - EXPOSED_S - 1e-6 <= stamp_to_s(chunk.image_age) < 0.2
        assert stamp_to_s(chunk.preprocess_time) > 0 and stamp_to_s(chunk.inference_time) > 0
    answers = np.array([chunk_from_msg(chunk).translations_m for chunk in chunks])
    assert np.isfinite(answers).all() and (np.ptp(answers, axis=0) > 0).all()
    assert (alarm, len(holds), late) == ("", 1, 0)
