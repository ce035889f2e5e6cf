"""Where is the mug: a small model that knows two pictures by heart, asked through the real node."""

import json
import threading
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from geometry_msgs.msg import Pose as PoseMsg
from hypothesis import given
from hypothesis import strategies as st
from rclpy.node import Node
from ros_fixture import ros, spinning, wait
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CompressedImage, Image
from toy_models import MICRO
from visualization_msgs.msg import Marker, MarkerArray

from spear_msgs.srv import SpatialQuery
from spear_policy.geometry.poses import Pose
from spear_policy.inference.image_codec import CvBridge
from spear_policy.inference.spatial_model import (
    BY_LABEL,
    SpatialModel,
    place_of_box,
    question_of,
)
from spear_policy.model.answers import AnswerError, AnswerGrammar, Box, Length, Point
from spear_policy.model.checkpoint import save_weights
from spear_policy.model.coordinate_bins import CoordinateBins
from spear_policy.model.gemma import answer_loss
from spear_policy.model.prompts import pad_questions, question_ids
from spear_policy.model.spear import ModelInputs, build
from spear_policy.model.tokenizer import train_tokenizer
from spear_policy.nodes.messages import EVENT, SENSOR, pose_array
from spear_policy.nodes.spatial_query import SpatialQueryNode

CONFIG = replace(MICRO, cameras=MICRO.cameras[:1], expert=None)
BINS = CoordinateBins.normal(0.5, 1.0, -2.0, 4.0, 64)
SIDES = np.array([(i, j, k) for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)]) / 2
TURN = Rotation.from_euler("y", 20, degrees=True)
SIZE_M = np.array([0.4, 0.3, 0.6])
CENTRES_M = {"dark": np.array([0.2, -0.1, 1.0]), "bright": np.array([-0.5, 0.3, 2.0])}
PICTURES = {
    name: np.full((42, 56, 3), value, np.uint8) for name, value in (("dark", 40), ("bright", 220))
}
BRIDGE = CvBridge(Image, CompressedImage)


def corners_m(centre_m, turn=TURN, size_m=SIZE_M):
    """The corners of a box in the order of answers."""
    return centre_m + turn.apply(SIDES * size_m)


def learnt_by_heart():
    """A model that answers three questions about each of two pictures, and its grammar."""
    grammar = AnswerGrammar(train_tokenizer(CONFIG.vocabulary), BINS)
    shown, rows = [], []
    for name, centre_m in CENTRES_M.items():
        answers = {
            BY_LABEL["box"].format(label="mug"): Box(corners_m(centre_m)),
            BY_LABEL["point"].format(label="mug"): Point(centre_m),
            "How far is the mug?": Length(float(centre_m[2])),
        }
        for question, reply in answers.items():
            pair = (question, grammar.format_answer(reply))
            rows.append(question_ids([pair], grammar.tokenizer, CONFIG.vocabulary, 128))
            shown.append(PICTURES[name])
    batch = pad_questions(rows, max(len(row.ids) for row in rows), CONFIG.vocabulary.pad_id)
    ids, valid, prefix, said = map(
        torch.from_numpy, (batch.ids, batch.valid, batch.prefix, batch.answer)
    )
    pictures = torch.from_numpy(np.stack(shown)).permute(0, 3, 1, 2).contiguous()
    model = build(CONFIG).train()
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(300):
        logits = model(ModelInputs((pictures,), ids, valid), bidirectional=prefix)
        loss = answer_loss(logits, ids, said, CONFIG.vocabulary)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if loss < 0.01:
            return model, grammar
    raise AssertionError(f"not learnt: the loss is {loss:.3f}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A stage-1 folder as training leaves it."""
    folder = tmp_path_factory.mktemp("stage1") / "final"
    model, grammar = learnt_by_heart()
    hashes = save_weights(folder, model.eval(), grammar.tokenizer)
    bins = {**BINS.to_dict(), "fitted_on": [{"name": "world", "metric": True}]}
    (folder / "bins.json").write_text(json.dumps(bins))
    (folder / "training.json").write_text(json.dumps({"file_hashes": hashes}))
    return folder


# Boxes and questions -----------------------------------------------------------------------------


@given(
    st.tuples(*[st.floats(-180, 180)] * 3),
    st.tuples(*[st.floats(0.02, 2.0)] * 3),
    st.tuples(*[st.floats(-3, 3)] * 3),
)
def test_corners_become_the_box_that_they_are_of(angles, size_m, centre_m):
    turn = Rotation.from_euler("xyz", angles, degrees=True)
    place = place_of_box(corners_m(np.array(centre_m), turn, np.array(size_m)))
    assert place.pose.position_m == pytest.approx(centre_m, abs=1e-9)
    assert place.size_m == pytest.approx(size_m, rel=1e-6)
    found = Rotation.from_quat(place.pose.orientation_xyzw)
    assert (found * turn.inv()).magnitude() < 1e-5


def test_corners_that_are_each_off_a_little_become_the_box_between_them():
    noise_m = np.random.default_rng(0).uniform(-0.02, 0.02, (8, 3))
    place = place_of_box(corners_m(CENTRES_M["dark"]) + noise_m)
    assert place.pose.position_m == pytest.approx(CENTRES_M["dark"], abs=0.02)
    assert place.size_m == pytest.approx(SIZE_M, abs=0.03)
    off = Rotation.from_quat(place.pose.orientation_xyzw) * TURN.inv()
    assert np.rad2deg(off.magnitude()) < 6


def test_corners_on_a_line_are_no_box_and_mirrored_ones_have_true_axes():
    with pytest.raises(AnswerError, match="on a line"):
        place_of_box(np.linspace(0, 1, 8)[:, None] * np.ones(3))
    mirrored = place_of_box(corners_m(np.zeros(3)) * [-1, 1, 1])
    assert mirrored.size_m == pytest.approx(SIZE_M)


def test_a_place_is_seen_from_the_base_where_the_camera_stands():
    looking_down = Pose([0.5, 0.0, 1.0], Rotation.from_euler("x", 180, degrees=True).as_quat())
    place = place_of_box(corners_m(np.array([0.1, 0.2, 0.7]))).seen_from(looking_down)
    assert place.pose.position_m == pytest.approx([0.6, -0.2, 0.3])
    assert place.size_m == pytest.approx(SIZE_M)
    turned = Rotation.from_quat(looking_down.orientation_xyzw) * TURN
    assert (Rotation.from_quat(place.pose.orientation_xyzw) * turned.inv()).magnitude() < 1e-6


def test_a_label_or_a_question_is_asked_and_never_both_or_neither():
    assert question_of(" red mug ", "", "") == ("Give the oriented 3D box of the red mug.", "box")
    assert question_of("mug", "", "point") == ("Where is the centre of the mug?", "point")
    assert question_of("", "How far is the mug?", "length") == ("How far is the mug?", "length")
    for words, text in (
        (("mug", "Where?", ""), "both are set"),
        (("", " ", ""), "both are empty"),
        (("mug", "", "cube"), "kind is 'cube'; it must be one of box"),
        (("mug", "", "length"), "kind length needs a whole question"),
    ):
        with pytest.raises(ValueError, match=text):
            question_of(*words)


# The model ---------------------------------------------------------------------------------------


def test_a_folder_of_stage_1_answers_what_it_learnt(folder):
    model = SpatialModel.load(folder)
    model.warm_up()
    assert model.metric
    for name, centre_m in CENTRES_M.items():
        box = model.ask(PICTURES[name], *question_of("mug", "", "box"))
        assert box.place.pose.position_m == pytest.approx(centre_m, abs=0.1)
        assert box.place.size_m == pytest.approx(SIZE_M, abs=0.15)
        assert len(box.numbers_m) == 24 and box.text.startswith("<coord")
        point = model.ask(PICTURES[name], *question_of("mug", "", "point"))
        assert point.numbers_m == pytest.approx(tuple(centre_m), abs=0.1)
        length = model.ask(PICTURES[name], "How far is the mug?", "length")
        assert length.place is None and length.numbers_m == pytest.approx((centre_m[2],), abs=0.1)
    with pytest.raises(AnswerError, match="is no box"):
        model.ask(PICTURES["dark"], "How far is the mug?", "box")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("bins.json", None, "bins.json cannot be read"),
        ("bins.json", "{", "bins.json is damaged"),
        ("bins.json", "[]", "must hold an object"),
        ("bins.json", '{"scheme": "normal"}', "holds no bins"),
        ("training.json", '{"file_hashes": {"config.json": "0"}}', "config.json"),
        ("model.safetensors", None, "model.safetensors"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused_in_a_sentence(
    folder, tmp_path, name, content, words
):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=words):
        SpatialModel.load(tmp_path)


def test_bins_of_another_model_and_a_policy_of_two_cameras_are_refused(folder, tmp_path):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    others = {**CoordinateBins.normal(0, 1, -2, 2, 8).to_dict(), "fitted_on": []}
    (tmp_path / "bins.json").write_text(json.dumps(others))
    with pytest.raises(ValueError, match="8 bins do not fit 64 3D tokens"):
        SpatialModel.load(tmp_path)
    hashes = save_weights(tmp_path, build(MICRO), train_tokenizer(MICRO.vocabulary))
    (tmp_path / "training.json").write_text(json.dumps({"file_hashes": hashes}))
    with pytest.raises(ValueError, match="2 cameras: give the folder that stage 1 has left"):
        SpatialModel.load(tmp_path)


# The node ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ros_running(ros_domain):
    with ros():
        yield


class Lab(Node):
    """A camera, and a person who asks and looks at markers."""

    def __init__(self):
        super().__init__("lab")
        self.picture, self.age_s, self.encoding = "dark", 0.0, "rgb8"
        self.markers = []
        self._raw = self.create_publisher(Image, "external/image_raw", SENSOR)
        self._small = self.create_publisher(
            CompressedImage, "external/image_raw/compressed", SENSOR
        )
        self.create_subscription(MarkerArray, "spatial_query/markers", self.markers.append, EVENT)
        self.client = self.create_client(SpatialQuery, "spatial_query")
        self.create_timer(0.05, self._publish)

    def _publish(self):
        if not self.picture:
            return
        pixels = PICTURES[self.picture]
        if self.encoding == "mono16":
            message = BRIDGE.cv2_to_imgmsg(pixels[..., 0].astype(np.uint16), "mono16")
        else:
            message = BRIDGE.cv2_to_imgmsg(pixels, "rgb8")
        small = BRIDGE.cv2_to_compressed_imgmsg(pixels[..., ::-1], "png")
        stamp_s = self.get_clock().now().nanoseconds * 1e-9 - self.age_s
        for publisher, each in ((self._raw, message), (self._small, small)):
            each.header.stamp.sec = int(stamp_s)
            each.header.stamp.nanosec = int(stamp_s % 1 * 1e9)
            each.header.frame_id = "camera_external_optical_frame"
            publisher.publish(each)

    def ask(self, **request):
        assert self.client.wait_for_service(40.0)
        future = self.client.call_async(SpatialQuery.Request(**request))
        wait(future.done)
        return future.result()

    def ask_until(self, condition, **request):
        """Ask again until an answer is as wanted: pictures of before may still be on their way."""
        return wait(lambda: answer if condition(answer := self.ask(**request)) else None)


@contextmanager
def asked_node(folder, **parameters):
    """The node, up, and the lab around it."""
    parameters = {"checkpoint": folder, "max_image_age_s": 10.0} | parameters
    arguments = ["--ros-args", "--log-level", "fatal"]
    for name, value in parameters.items():
        arguments += ["-p", f"{name}:={value}"]
    node, lab, stop = SpatialQueryNode(arguments), Lab(), threading.Event()
    node.start_threads()
    with spinning(lab), spinning_control(node, stop):
        yield SimpleNamespace(node=node, lab=lab)
    node.close()
    lab.destroy_node()


@contextmanager
def spinning_control(node, stop):
    """The control plane, which `lifecycle.run` spins in a program."""
    from spear_policy.nodes.lifecycle import _PlaneExecutor

    executor = _PlaneExecutor(node, data=False)

    def spin():
        while not stop.is_set():
            executor.spin_once(timeout_sec=0.05)

    thread = threading.Thread(target=spin)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        executor.shutdown()


def test_the_mug_is_found_in_the_live_picture_in_the_cameras_and_the_robots_frame(
    folder, ros_running
):
    camera = {
        "base_frame": "franka_base",
        "camera_position_m": "[0.5, 0.0, 1.5]",
        "camera_orientation_xyzw": "[1.0, 0.0, 0.0, 0.0]",
    }
    with asked_node(folder, **camera) as up:
        found = up.lab.ask_until(lambda answer: answer.success, label="mug")
        assert found.header.frame_id == "camera_external_optical_frame"
        centre_m = CENTRES_M["dark"]
        assert pose_array(found.pose)[:3] == pytest.approx(centre_m, abs=0.1)
        assert found.metric and found.has_pose and found.has_base_pose
        assert found.base_frame_id == "franka_base"
        x, y, z = centre_m  # the camera looks straight down
        assert pose_array(found.base_pose)[:3] == pytest.approx([0.5 + x, -y, 1.5 - z], abs=0.1)
        assert len(found.numbers) == 24 and found.answer.startswith("<coord")
        assert found.inference_time.nanosec > 0 and found.size.x == pytest.approx(0.4, abs=0.15)
        solid, edges, text = wait(lambda: up.lab.markers)[-1].markers
        assert {solid.ns, edges.ns, text.ns, text.text} == {"mug"}
        assert solid.header.frame_id == "franka_base" and solid.type == Marker.CUBE
        assert solid.pose == found.base_pose and len(edges.points) == 24
        # The newest picture counts, and other kinds of answers are numbers.
        up.lab.picture = "bright"
        z_m = CENTRES_M["bright"][2]
        at = up.lab.ask_until(
            lambda a: a.success and abs(a.pose.position.z - z_m) < 0.15, label="mug", kind="point"
        )
        assert (
            at.size.x == 0.0 and wait(lambda: up.lab.markers)[-1].markers[0].type == Marker.SPHERE
        )
        far = up.lab.ask(question="How far is the mug?", kind="length")
        assert far.success and not far.has_pose and far.pose == PoseMsg()
        assert far.numbers[0] == pytest.approx(z_m, abs=0.15)


def test_what_cannot_be_answered_is_refused_in_a_sentence_and_the_node_lives_on(
    folder, ros_running
):
    with asked_node(folder, transport="compressed", max_image_age_s=1.5) as up:
        lab = up.lab
        found = lab.ask_until(lambda answer: answer.success, label="mug")
        assert not found.has_base_pose and found.base_frame_id == ""
        assert wait(lambda: lab.markers)[-1].markers[0].header.frame_id == found.header.frame_id
        assert "both are empty" in lab.ask().message
        assert "is no box" in lab.ask(question="How far is the mug?").message
        lab.age_s = 3.0
        old = lab.ask_until(lambda answer: not answer.success, label="mug")
        assert "max_image_age_s (1.5 s)" in old.message
        lab.age_s = -3.0  # a clock that is ahead, then no picture any more
        lab.ask_until(lambda answer: answer.success, label="mug")
        lab.picture = ""
        assert "s old" in lab.ask_until(lambda answer: not answer.success, label="mug").message
        up.node.trigger_deactivate()
        assert "not active" in lab.ask(label="mug").message
        up.node.trigger_activate()
        assert "no picture has come on /external/image_raw/comp" in lab.ask(label="mug").message
        level, text = up.node.diagnose()[0][1:3]
        assert level != b"\0" and "no picture" in text
        lab.picture = "dark"
        lab.age_s = 0.0
        assert lab.ask_until(lambda answer: answer.success, label="mug")


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"checkpoint": "''"}, "checkpoint is empty"),
        ({"checkpoint": "/nowhere"}, "cannot be read"),
        ({"base_frame": "b", "camera_orientation_xyzw": "[0.0, 0.0, 0.0, 0.5]"}, "camera_position"),
        ({"max_image_age_s": 0.0}, "max_image_age_s"),
    ],
)
def test_a_node_that_cannot_answer_refuses_to_be_configured(
    folder, ros_running, monkeypatch, parameters, words
):
    said = []
    arguments = ["--ros-args", "--log-level", "fatal"]
    for name, value in ({"checkpoint": folder, "autostart": False} | parameters).items():
        arguments += ["-p", f"{name}:={value}"]
    node = SpatialQueryNode(arguments)
    monkeypatch.setattr(type(node.get_logger()), "error", lambda _, text: said.append(text))
    try:
        node.trigger_configure()
        assert len(said) == 1 and words in said[0] and "refused" in said[0]
    finally:
        node.close()


def test_detections_are_published_where_vision_msgs_is(folder, ros_running):
    messages = pytest.importorskip("vision_msgs.msg")
    with asked_node(folder) as up:
        heard = []
        up.lab.create_subscription(
            messages.Detection3DArray, "spatial_query/detections", heard.append, EVENT
        )
        up.lab.ask_until(lambda answer: answer.success and heard, label="mug")
        (found,) = heard[-1].detections
        assert found.results[0].hypothesis.class_id == "mug"
        centre = found.bbox.center.position
        assert [centre.x, centre.y, centre.z] == pytest.approx(CENTRES_M["dark"], abs=0.1)
