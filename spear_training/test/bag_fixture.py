"""Small bags with our own messages, written by the tests as the recorder writes them."""

from pathlib import Path

import cv2
import numpy as np
from rosbags.convert.converter import convert
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

ROOT = Path(__file__).resolve().parents[2]
OUTCOME = {"outcome": "SUCCESS", "instruction": "put the cube in the bowl", "seed": "3"}


def typestore():
    """Return ROS 2 Jazzy's types and ours, from the .msg files themselves."""
    store = get_typestore(Stores.ROS2_JAZZY)
    types = {}
    for path in sorted((ROOT / "spear_msgs" / "msg").glob("*.msg")):
        types |= get_types_from_msg(path.read_text(), f"spear_msgs/msg/{path.stem}")
    store.register(types)
    return store


class BagBench:
    """Collects messages by topic and writes them as one bag."""

    def __init__(self):
        self.store, self.rows = typestore(), []
        self._types = self.store.types

    def make(self, kind, **fields):
        """Return a message; `kind` is like "std_msgs/msg/String"."""
        return self._types[kind](**fields)

    def time(self, stamp_s):
        """Return a Time."""
        sec = int(stamp_s)
        nanosec = round((stamp_s - sec) * 1e9)
        return self.make("builtin_interfaces/msg/Time", sec=sec, nanosec=nanosec)

    def header(self, stamp_s, frame_id=""):
        """Return a Header."""
        return self.make("std_msgs/msg/Header", stamp=self.time(stamp_s), frame_id=frame_id)

    def pose(self, x, y, z, quaternion_xyzw=(0.0, 0.0, 0.0, 1.0)):
        """Return a Pose."""
        point = self.make("geometry_msgs/msg/Point", x=x, y=y, z=z)
        axes = dict(zip("xyzw", map(float, quaternion_xyzw), strict=True))
        turn = self.make("geometry_msgs/msg/Quaternion", **axes)
        return self.make("geometry_msgs/msg/Pose", position=point, orientation=turn)

    def add(self, topic, stamp_s, message):
        """Receive a message at a time."""
        self.rows.append((topic, stamp_s, message))

    def state(self, stamp_s, x, opening=1.0, ahead_m=0.01, topic="/ee_state"):
        """Receive an EndEffectorState; the commanded pose is `ahead_m` further along x."""
        zero = self.make("geometry_msgs/msg/Vector3", x=0.0, y=0.0, z=0.0)
        message = self.make(
            "spear_msgs/msg/EndEffectorState",
            header=self.header(stamp_s, "fr3_base"),
            ee_frame_id="fr3_ee",
            measured=self.pose(x, 0.1, 0.3),
            commanded=self.pose(x + ahead_m, 0.1, 0.3),
            commanded_twist=self.make("geometry_msgs/msg/Twist", linear=zero, angular=zero),
            gripper_width=0.08 * opening,
            gripper_opening=opening,
            gripper_holding=False,
        )
        self.add(topic, stamp_s + 0.001, message)

    def command(self, stamp_s, opening, sent=True):
        """Receive an EndEffectorCommand that tells the gripper its opening."""
        kind = "spear_msgs/msg/EndEffectorCommand"
        values = {field: self._zero(type_) for field, type_ in self.store.fielddefs[kind][1]}
        values |= {"header": self.header(stamp_s), "gripper_opening": opening}
        values["knots"] = [self.pose(0.0, 0.0, 0.0)] if sent else []
        self.add("/command", stamp_s, self.make(kind, **values))

    def picture(self, camera, stamp_s, value, size=(32, 24), quality=95):
        """Receive a compressed picture of one grey value."""
        pixels = np.full((size[1], size[0], 3), value, np.uint8)
        data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].ravel()
        message = self.make(
            "sensor_msgs/msg/CompressedImage",
            header=self.header(stamp_s),
            format="rgb8; jpeg compressed bgr8",
            data=data,
        )
        self.add(f"/{camera}/image_raw/compressed", stamp_s + 0.002, message)

    def write(self, folder, plugin=StoragePlugin.MCAP, words=OUTCOME):
        """Write everything received so far."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        with Writer(folder, version=9, storage_plugin=plugin) as writer:
            for key, value in (words or {}).items():
                writer.set_custom_data(key, value)
            connections = {}
            for topic, stamp_s, message in sorted(self.rows, key=lambda row: row[1]):
                kind = message.__msgtype__
                if topic not in connections:
                    connections[topic] = writer.add_connection(topic, kind, typestore=self.store)
                raw = self.store.serialize_cdr(message, kind)
                writer.write(connections[topic], round(stamp_s * 1e9), raw)
        return folder

    def _zero(self, type_):
        """Return a value of nothing for a field."""
        kind, detail = type_
        if kind.name == "NAME":
            fields = self.store.fielddefs[detail][1]
            return self.make(detail, **{name: self._zero(part) for name, part in fields})
        if kind.name == "BASE":
            return "" if detail[0] == "string" else detail[0].startswith("float") * 0.0 or 0
        inner, length = detail
        if inner[0].name == "BASE" and inner[1][0] != "string":
            return np.zeros(length, inner[1][0])
        return [self._zero(inner) for _ in range(length)]


def copy_bag(source, target, compression=None, mode="file"):
    """Copy a bag, compressed if wanted, or as one of ROS 1 where the target ends with .bag."""
    target.parent.mkdir(parents=True, exist_ok=True)
    ros1 = get_typestore(Stores.ROS1_NOETIC) if target.suffix == ".bag" else None
    everything = [(), (), (), ()]
    convert([source], target, "mcap", 9, compression, mode, None, ros1, *everything)


def trial(seconds=2.0, state_hz=50, camera_hz=15, start_s=100.0):
    """Return a bench with one trial: x grows by 0.1 m/s, the gripper closes after one second."""
    bench = BagBench()
    for i in range(int(seconds * state_hz) + 1):
        elapsed = i / state_hz
        bench.state(start_s + elapsed, 0.1 * elapsed, opening=1.0 if elapsed < 1.2 else 0.3)
    for i in range(int(seconds * camera_hz)):
        elapsed = (i + 0.5) / camera_hz
        bench.picture("external", start_s + elapsed, i * 4)
        bench.picture("wrist", start_s + elapsed + 0.01, i * 4 + 2)
    for i in range(int(seconds * 5)):
        bench.command(start_s + 0.1 + 0.2 * i, opening=1.0 if 0.2 * i < 0.95 else 0.0)
    bench.command(start_s + 0.15, opening=0.0, sent=False)
    return bench
