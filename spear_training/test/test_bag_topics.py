"""Bags of other recorders: pose, gripper and pictures from the topics that a user names."""

import json

import numpy as np
import pytest
from bag_fixture import BagBench, copy_bag
from scipy.spatial.transform import Rotation

from spear_policy.inference.episode import EpisodeError
from spear_policy.shared.config import read_dataclass
from spear_training.data.bags.motion import BagTopics, load_topics
from spear_training.data.bags.reader import BagReader, BagRules
from spear_training.data.import_episodes import main
from spear_training.data.oxe.poses import end_effector_poses
from spear_training.data.reader import DataFileError
from spear_training.data.store.reader import FrameStore

START_S, SECONDS = 50.0, 2.0
JOINTS = [f"panda_joint{number}" for number in range(1, 8)]
REST_RAD = np.array([0.0, -0.5, 0.0, -2.2, 0.0, 1.8, 0.7])
GRIPPER = {"topic": "/joint_states", "joint": "finger", "closed_at": 0.0, "open_at": 0.04}
TOPICS = {
    "robot": "UR5e",
    "cameras": {"external": "/camera/color/image_raw", "wrist": "/wrist/compressed"},
    "pose": {"encoding": "pose", "topic": "/tcp_pose"},
    "gripper_opening": GRIPPER,
}


class OtherBench(BagBench):
    """Messages of another lab's robot: x grows by 0.1 m/s, the finger closes from 40 mm."""

    def stamped(self, kind, stamp_s, **fields):
        """Return a message with a header."""
        return self.make(kind, header=self.header(stamp_s), **fields)

    def image(self, topic, stamp_s, value):
        """Receive a raw picture of one red value."""
        pixels = np.zeros((24, 32, 3), np.uint8)
        pixels[..., 0] = value
        fields = {"height": 24, "width": 32, "encoding": "rgb8", "is_bigendian": 0, "step": 96}
        message = self.stamped("sensor_msgs/msg/Image", stamp_s, data=pixels.ravel(), **fields)
        self.add(topic, stamp_s + 0.02, message)

    def joints(self, stamp_s, names, positions, topic="/joint_states"):
        """Receive a JointState."""
        empty = np.zeros(0)
        values = {"position": np.array(positions, float), "velocity": empty, "effort": empty}
        message = self.stamped("sensor_msgs/msg/JointState", stamp_s, name=list(names), **values)
        self.add(topic, stamp_s, message)

    def transform(self, stamp_s, parent, child, xyz, xyzw=(0, 0, 0, 1), topic="/tf"):
        """Receive a tf message."""
        vector = self.make(
            "geometry_msgs/msg/Vector3", **dict(zip("xyz", map(float, xyz), strict=True))
        )
        turn = self.make(
            "geometry_msgs/msg/Quaternion", **dict(zip("xyzw", map(float, xyzw), strict=True))
        )
        inner = self.make("geometry_msgs/msg/Transform", translation=vector, rotation=turn)
        one = self.make(
            "geometry_msgs/msg/TransformStamped",
            header=self.header(stamp_s, parent),
            child_frame_id=child,
            transform=inner,
        )
        self.add(topic, stamp_s, self.make("tf2_msgs/msg/TFMessage", transforms=[one]))


def recorded():
    """Return a bench with two seconds."""
    bench = OtherBench()
    for i in range(int(SECONDS * 20)):
        at = i / 20
        bench.image("/camera/color/image_raw", START_S + at, 5 * i)
        pixels_at = START_S + at + 0.01
        bench.picture("wrist", pixels_at, 5 * i)
    bench.rows = [
        ("/wrist/compressed" if topic.startswith("/wrist") else topic, *rest)
        for topic, *rest in bench.rows
    ]
    for i in range(int(SECONDS * 100) + 1):
        at = i / 100
        pose = bench.pose(0.3 + 0.1 * at, 0.0, 0.2, (1.0, 0, 0, 0))
        stamped = bench.stamped("geometry_msgs/msg/PoseStamped", START_S + at, pose=pose)
        bench.add("/tcp_pose", START_S + at, stamped)
        bench.joints(START_S + at, ["finger"], [0.04 * (1 - at / SECONDS)])
        data = {"data": 100.0 if at < 1 else 0.0}
        bench.add("/gripper_command", START_S + at, bench.make("std_msgs/msg/Float64", **data))
    return bench


def read(bench, folder, words=None, instruction="sort the parts", **changes):
    """Return the episode of a bench by the topics."""
    bench.write(folder / "bag", words=words)
    topics = read_dataclass(BagTopics, TOPICS | changes, "topics")
    rules = BagRules(outcomes=None, topics=topics, instruction=instruction)
    return BagReader(folder, rules).read(0)


def test_pose_gripper_and_pictures_are_read_from_the_topics_named(tmp_path):
    command = {"topic": "/gripper_command", "closed_at": 0.0, "open_at": 100.0}
    changes = {"gripper_command": command, "command": TOPICS["pose"]}
    episode = read(recorded(), tmp_path, **changes)
    elapsed = np.arange(40) / 20
    assert episode.stamps_s == pytest.approx(START_S + elapsed)
    assert episode.poses[:, 0] == pytest.approx(0.3 + 0.1 * elapsed)
    assert episode.poses[:, 3:] == pytest.approx(np.tile([1.0, 0, 0, 0], (40, 1)))
    assert episode.command_poses == pytest.approx(episode.poses)
    assert episode.gripper_openings == pytest.approx(1 - elapsed / SECONDS, abs=1e-9)
    assert episode.gripper_commands.tolist() == [1.0] * 20 + [0.0] * 20
    assert episode.images["external"][7][0, 0].tolist() == [35, 0, 0]
    assert episode.images["wrist"][7].mean() == pytest.approx(35, abs=2)
    assert (episode.robot, episode.instruction) == ("UR5e", "sort the parts")


def test_a_bag_of_ros_1_is_read(tmp_path):
    bench = recorded()
    expected = read(bench, tmp_path / "ros2")
    copy_bag(tmp_path / "ros2" / "bag", tmp_path / "ros1" / "monday.bag")
    topics = read_dataclass(BagTopics, TOPICS, "topics")
    rules = BagRules(outcomes=None, topics=topics, instruction="sort the parts")
    episode = BagReader(tmp_path / "ros1", rules).read(0)
    assert np.array_equal(episode.stamps_s, expected.stamps_s)
    assert np.array_equal(episode.poses, expected.poses)
    assert episode.images["wrist"][7].mean() == expected.images["wrist"][7].mean()
    (tmp_path / "ros1" / "monday.bag").write_bytes(b"#ROSBAG V2.0 and no more")
    with pytest.raises(DataFileError, match="ros1: .*; copy the bag again"):
        BagReader(tmp_path / "ros1", rules).read(0)


def test_what_is_not_recorded_is_not_made_up(tmp_path):
    episode = read(recorded(), tmp_path)
    assert episode.command_poses is None
    assert episode.gripper_commands is None


def test_a_pose_is_found_along_the_tree_of_tf(tmp_path):
    bench = recorded()
    turned = Rotation.from_euler("z", 90, degrees=True)
    place = {"topic": "/tf_static"}
    bench.transform(START_S, "world", "base", (5, 0, 0), turned.as_quat(), **place)
    bench.transform(START_S, "flange", "tcp", (0, 0, 0.1), **place)
    for i in range(int(SECONDS * 50) + 1):
        at = i / 50
        bench.transform(START_S + at, "world", "link", (5, 1, 0), turned.as_quat())
        if i % 2 == 0:
            turn = Rotation.from_euler("x", 0.5 * at)
            bench.transform(START_S + at, "link", "flange", (0.2 * at, 0, 0), turn.as_quat())
    pose = {"encoding": "tf", "base": "base", "end_effector": "tcp"}
    poses = read(bench, tmp_path, pose=pose).poses
    at = np.arange(40) / 20
    # The link stands 1 m along the world's y from the base, which is the base's own x.
    assert poses[:, 0] == pytest.approx(1 + 0.2 * at, abs=1e-9)
    assert poses[:, 1] == pytest.approx(-0.1 * np.sin(0.5 * at), abs=1e-4)
    assert poses[:, 2] == pytest.approx(0.1 * np.cos(0.5 * at), abs=1e-4)
    turns = Rotation.from_quat(poses[:, 3:]) * Rotation.from_euler("x", 0.5 * at[:, None]).inv()
    assert turns.magnitude().max() < 1e-4
    with pytest.raises(
        EpisodeError, match="tf does not connect base and hand; it has base, flange"
    ):
        read(bench, tmp_path / "again", pose=pose | {"end_effector": "hand"})


def test_a_frankas_joints_give_its_pose(tmp_path):
    bench = recorded()
    for i in range(int(SECONDS * 100) + 1):
        bench.joints(START_S + i / 100, JOINTS[::-1], (REST_RAD + 0.001 * i)[::-1], "/arm")
    pose = {"encoding": "franka_joints", "topic": "/arm", "joints": JOINTS}
    expected = end_effector_poses([REST_RAD + 0.005 * i for i in range(40)])
    assert read(bench, tmp_path, pose=pose).poses[:, :3] == pytest.approx(expected[:, :3], abs=1e-9)


def test_sentences_of_a_topic_change_the_episode(tmp_path):
    bench = recorded()
    for at, text in ((0.0, "take it"), (1.02, "put it down")):
        bench.add("/task", START_S + at, bench.make("std_msgs/msg/String", data=text))
    topics = read_dataclass(BagTopics, TOPICS | {"instruction": "/task"}, "topics")
    bench.write(tmp_path / "bag", words=None)
    episode = BagReader(tmp_path, BagRules(outcomes=None, topics=topics)).read(0)
    assert episode.instruction == "take it"
    assert episode.later_instructions == ((21, "put it down"),)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"pose": {"encoding": "pose", "topic": "/gone"}},
            "no message on /gone; it has /camera/co",
        ),
        (
            {"pose": {"encoding": "pose", "topic": "/joint_states"}},
            "/joint_states has sensor_msgs/msg/JointState, which has no pose",
        ),
        ({"gripper_opening": GRIPPER | {"joint": "thumb"}}, "message with thumb; it has finger"),
        ({"gripper_opening": GRIPPER | {"joint": ""}}, "which is no single number; name its"),
        ({"cameras": {"external": "/gone"}}, "no picture of the .*; it has pictures on /camera"),
        ({"cameras": {"external": "/tcp_pose"}}, "picture 0"),
        (
            {"pose": {"encoding": "tf", "base": "base", "end_effector": "tcp"}},
            "tf does not connect base and tcp",
        ),
    ],
)
def test_a_topic_that_is_not_what_it_should_be_is_named(tmp_path, changes, text):
    with pytest.raises(EpisodeError, match=text) as caught:
        read(recorded(), tmp_path, **changes)
    assert str(caught.value).count("/bag") == 1


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (TOPICS | {"cameras": {"wrist": "/a"}}, "cameras must name 'external'"),
        (TOPICS | {"pose": {"encoding": "pose"}}, "topics.pose lacks the field 'topic'"),
        (TOPICS | {"gripper_opening": GRIPPER | {"open_at": 0.0}}, "are the same number"),
        (TOPICS | {"colour": 1}, "unknown field 'colour'"),
    ],
)
def test_topics_that_say_nothing_are_refused(tmp_path, values, text):
    path = tmp_path / "topics.yaml"
    path.write_text(json.dumps(values))
    with pytest.raises(DataFileError, match=text) as caught:
        load_topics(path)
    assert str(caught.value).count("topics.yaml") == 1


def test_the_command_imports_bags_of_another_recorder(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        "spear_training.data.import_run.write_report", lambda root: root / "report.html"
    )
    recorded().write(tmp_path / "lab" / "bag", words=None)
    (tmp_path / "topics.yaml").write_text(json.dumps(TOPICS))
    given = ["--to", "store", "--format", "bag", "--workers", "1", "--input", str(tmp_path / "lab")]
    output = ["--output", str(tmp_path / "store")]
    assert main([*given, *output]) == 2
    assert "say with --topics which topics hold what" in capsys.readouterr().err
    topics = ["--topics", str(tmp_path / "topics.yaml"), "--instruction", "sort the parts"]
    assert main([*given, *output, *topics]) == 0
    store = FrameStore(tmp_path / "store")
    assert (store.metadata.action_from, store.metadata.gripper_from) == ("reached", "measured")
    assert (store.metadata.control_hz, store.metadata.robot) == (20, "UR5e")
    assert store.episodes.sentences(0) == ("sort the parts",)
