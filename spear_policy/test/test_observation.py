"""Which synchronised inputs the policy gets, as RGB, and the sentence when it gets none."""

from types import SimpleNamespace

import numpy as np
import pytest

from spear_policy.geometry.poses import Pose
from spear_policy.inference.engine import CameraSpec, SceneObject
from spear_policy.inference.image_codec import CvBridge
from spear_policy.inference.observation import (
    CameraFrame,
    FrameBuffer,
    InputError,
    InputLimits,
    Synchroniser,
    decode,
)

TOPICS = {"external": "/external/image_raw", "wrist": "/wrist/image_raw"}
TOPICS |= {"ee_state": "/ee_state", "objects": "/sim_world/objects"}
EXTERNAL, WRIST = CameraSpec("external", 64, 48), CameraSpec("wrist", 32, 32)
DOWN = [1.0, 0.0, 0.0, 0.0]


def pose(x):
    return Pose([x, 0.0, 0.3], DOWN)


class Bench:
    """A synchroniser whose inputs are given by hand; the steady clock runs 500 s ahead."""

    def __init__(self, *cameras, needs_objects=False, **limits):
        self.synchroniser = Synchroniser(cameras, InputLimits(**limits), TOPICS, needs_objects)

    def image(self, camera, stamp_s, received_s=None):
        received_s = stamp_s + 500.0 if received_s is None else received_s
        self.synchroniser.add_frame(
            camera, CameraFrame(stamp_s, received_s, f"{camera} {stamp_s:g}")
        )

    def states(self, first_s, last_s, every_s=0.01):
        """States from first to last; x is the stamp, opening a tenth of it."""
        for stamp_s in np.arange(first_s, last_s + 1e-9, every_s):
            measured, commanded = pose(stamp_s), pose(stamp_s + 100)
            args = (stamp_s, stamp_s + 500.0, measured, commanded, stamp_s / 10)
            self.synchroniser.add_state(*args)

    def newest(self, now_s, steady_s=None):
        return self.synchroniser.newest(now_s, now_s + 500.0 if steady_s is None else steady_s)

    def problem(self, now_s, steady_s=None):
        with pytest.raises(InputError) as caught:
            self.newest(now_s, steady_s)
        return str(caught.value)


def test_the_state_is_interpolated_at_the_external_images_stamp():
    bench = Bench(EXTERNAL, WRIST)
    bench.states(1.0, 2.0, every_s=0.1)
    bench.image("external", 1.95)
    bench.image("wrist", 1.97)
    synced = bench.newest(2.0)
    assert synced.stamp_s == 1.95
    assert synced.measured.position_m[0] == pytest.approx(1.95)
    assert synced.commanded.position_m[0] == pytest.approx(101.95)
    assert synced.gripper_opening == pytest.approx(0.195)
    assert synced.image_skew_s == pytest.approx(0.02)
    assert synced.frames["wrist"].message == "wrist 1.97"


def test_without_cameras_the_newest_state_gives_the_stamp():
    bench = Bench()
    bench.states(1.0, 2.0)
    assert bench.newest(2.01).stamp_s == pytest.approx(2.0)
    assert bench.newest(2.02) is None
    bench.states(2.05, 2.05)
    assert bench.newest(2.06).stamp_s == pytest.approx(2.05)


def test_the_newest_pair_within_the_skew_is_taken_not_the_newest_images():
    bench = Bench(EXTERNAL, WRIST)
    bench.states(1.0, 2.0)
    for stamp_s in (1.80, 1.87, 1.94):
        bench.image("external", stamp_s)
    bench.image("wrist", 1.86)
    synced = bench.newest(2.0)
    assert (synced.stamp_s, synced.frames["wrist"].stamp_s) == (1.87, 1.86)
    assert bench.newest(2.0) is None  # 1.94 still has no partner
    bench.image("wrist", 1.93)
    assert bench.newest(2.0).stamp_s == 1.94


def test_a_moment_is_given_out_once():
    bench = Bench(EXTERNAL)
    bench.states(1.0, 2.0)
    bench.image("external", 1.9)
    assert bench.newest(2.0).stamp_s == 1.9
    assert bench.newest(2.1) is None


def test_an_image_newer_than_the_states_waits_and_the_one_before_is_taken():
    bench = Bench(EXTERNAL)
    bench.states(1.0, 1.90)
    bench.image("external", 1.88)
    bench.image("external", 1.96)
    assert bench.newest(1.97).stamp_s == 1.88
    bench.states(1.91, 1.95)
    assert bench.newest(1.97).stamp_s == 1.96  # within the slack


def test_an_optional_camera_is_left_out_when_it_has_nothing():
    bench = Bench(EXTERNAL, CameraSpec("wrist", 32, 32, required=False))
    bench.states(1.0, 2.0)
    bench.image("external", 1.9)
    assert set(bench.newest(2.0).frames) == {"external"}
    bench.image("external", 1.98)
    bench.image("wrist", 1.97)
    assert set(bench.newest(2.0).frames) == {"external", "wrist"}


def test_a_missing_camera_is_named():
    bench = Bench(EXTERNAL, WRIST)
    bench.states(1.0, 2.0)
    bench.image("external", 1.9)
    assert bench.problem(2.0) == (
        "no image on /wrist/image_raw; start the wrist camera or remap the topic"
    )


def test_a_missing_state_is_named():
    bench = Bench(EXTERNAL)
    bench.image("external", 1.9)
    assert bench.problem(2.0) == "nothing on /ee_state; start the robot driver or remap it"


def test_a_stale_image_is_named_with_its_age():
    bench = Bench(EXTERNAL)
    bench.states(1.0, 3.0)
    bench.image("external", 2.0, received_s=502.9)
    assert "/external/image_raw is 1.00 s old (limit 0.5 s); the external camera has stopped" in (
        bench.problem(3.0)
    )


def test_a_camera_that_stopped_is_noticed_on_the_steady_clock_too():
    # Stamps look fresh because the node clock stands still; nothing has come for a second.
    bench = Bench(EXTERNAL)
    bench.states(1.0, 2.0)
    bench.image("external", 2.0, received_s=502.0)
    assert "nothing came on /external/image_raw for 1.0 s" in bench.problem(2.0, steady_s=503.0)


def test_a_slow_simulation_is_judged_by_its_own_clock_alone():
    bench = Bench(EXTERNAL, judge_receipt=False)
    bench.states(1.0, 2.0)
    bench.image("external", 2.0, received_s=502.0)
    assert bench.newest(2.0, steady_s=503.0).stamp_s == 2.0


@pytest.mark.parametrize("which", ["image", "state"])
def test_a_stamp_ahead_of_the_clock_is_named_with_the_fix(which):
    bench = Bench(EXTERNAL)
    bench.states(1.0, 5.0 if which == "state" else 2.0)
    bench.image("external", 5.0 if which == "image" else 1.99)
    topic = "/external/image_raw" if which == "image" else "/ee_state"
    text = bench.problem(2.0)
    assert f"{topic} is stamped 3.00 s ahead of this node's clock (limit 0.05 s)" in text
    assert "use_sim_time" in text


def test_a_stale_state_is_named():
    bench = Bench(EXTERNAL)
    bench.states(1.0, 1.5)
    bench.image("external", 1.99)
    assert "nothing came on /ee_state for 0.5 s (limit 0.2 s)" in bench.problem(2.0)
    assert "/ee_state is 0.50 s old" in bench.problem(2.0, steady_s=501.6)


def test_cameras_that_never_agree_are_named_with_their_distance():
    bench = Bench(EXTERNAL, WRIST)
    bench.states(1.0, 2.0)
    bench.image("external", 1.99)
    bench.image("wrist", 1.78)
    text = bench.problem(2.0)
    assert "within 0.05 s of each other, the newest are 0.21 s apart" in text
    assert "raise max_image_skew_s" in text


def test_states_that_begin_after_the_image_are_no_ground_to_stand_on():
    bench = Bench(EXTERNAL)
    bench.states(1.95, 2.0)
    bench.image("external", 1.8)
    assert "/ee_state begins after the newest image" in bench.problem(2.0)


def test_a_bad_state_counts_until_a_good_one_comes():
    bench = Bench(EXTERNAL)
    bench.states(1.0, 2.0)
    bench.image("external", 1.99)
    bench.synchroniser.reject("ee_state", "measured has NaN")
    assert bench.problem(2.0) == "/ee_state: measured has NaN"
    bench.states(2.01, 2.01)
    assert bench.newest(2.01).stamp_s == 1.99


def test_objects_are_asked_for_only_when_they_are_needed():
    cube = SceneObject(pose(0.5), (0.04, 0.04, 0.04))
    without = Bench()
    without.states(1.0, 2.0)
    without.synchroniser.add_objects(2.0, 502.0, {"red cube": cube})
    assert without.newest(2.0).objects == {}
    bench = Bench(needs_objects=True)
    bench.states(1.0, 2.0)
    assert "nothing on /sim_world/objects; start sim_world" in bench.problem(2.0)
    bench.synchroniser.add_objects(2.0, 502.0, {"red cube": cube})
    assert bench.newest(2.0).objects == {"red cube": cube}
    bench.states(2.01, 3.0)
    assert "/sim_world/objects" in bench.problem(3.0)


def test_a_clock_that_was_set_back_starts_anew():
    bench = Bench(EXTERNAL)
    bench.states(100.0, 101.0)
    bench.image("external", 100.95)
    assert bench.newest(101.0).stamp_s == 100.95
    bench.states(1.0, 2.0)
    bench.image("external", 1.95)
    assert bench.newest(2.0).stamp_s == 1.95


def test_frames_that_newer_ones_replaced_are_counted_as_dropped():
    buffer = FrameBuffer("/external/image_raw")
    frames = [CameraFrame(float(i), float(i), None) for i in range(20)]
    for frame in frames[:10]:
        buffer.put(frame)
    assert (buffer.received, buffer.dropped) == (10, 4)
    buffer.use(frames[7])
    assert buffer.dropped == 7  # 0 to 6
    for frame in frames[10:]:
        buffer.put(frame)
    buffer.use(frames[19])
    assert (buffer.received, buffer.dropped) == (20, 18)  # all but 7 and 19


# Decoding -----------------------------------------------------------------------------------------


BRIDGE = CvBridge(SimpleNamespace, SimpleNamespace)
SPEC = CameraSpec("external", 8, 6)
RGB = np.random.default_rng(2).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def decoded(message, spec=SPEC):
    frames = {"external": CameraFrame(0.0, 0.0, message)}
    return decode(frames, (spec,), {"external": "/external/image_raw"}, BRIDGE)["external"]


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8"])
def test_every_colour_encoding_becomes_the_same_rgb(encoding):
    picture = RGB if encoding.startswith("rgb") else RGB[..., ::-1]
    if encoding.endswith("a8"):
        picture = np.dstack([picture, RGB[..., 0]])
    message = BRIDGE.cv2_to_imgmsg(np.ascontiguousarray(picture), encoding)
    np.testing.assert_array_equal(decoded(message), RGB)


def test_a_compressed_image_becomes_rgb_not_bgr():
    message = BRIDGE.cv2_to_compressed_imgmsg(RGB[..., ::-1], "png")
    np.testing.assert_array_equal(decoded(message), RGB)


def test_a_camera_without_a_wanted_size_may_have_any():
    message = BRIDGE.cv2_to_imgmsg(RGB, "rgb8")
    assert decoded(message, CameraSpec("external", 0, 0)).shape == (6, 8, 3)


def test_a_wrong_size_is_refused_with_both_sizes():
    message = BRIDGE.cv2_to_imgmsg(RGB, "rgb8")
    with pytest.raises(InputError, match="/external/image_raw is 8x6; the engine wants 640x480"):
        decoded(message, CameraSpec("external", 640, 480))


@pytest.mark.parametrize(
    ("picture", "encoding"),
    [(RGB[..., 0], "mono8"), (RGB[..., 0].astype(np.uint16), "16UC1"), (RGB, "8UC3")],
)
def test_an_image_without_colour_is_refused(picture, encoding):
    message = BRIDGE.cv2_to_imgmsg(picture, encoding)
    with pytest.raises(InputError, match=f"has encoding '{encoding}'; a policy needs colour"):
        decoded(message)


def test_a_compressed_grey_image_is_refused():
    message = BRIDGE.cv2_to_compressed_imgmsg(RGB[..., 0], "png")
    with pytest.raises(InputError, match="a policy needs colour"):
        decoded(message)


def test_broken_data_is_refused_with_the_topic():
    message = BRIDGE.cv2_to_imgmsg(RGB, "rgb8")
    message.data = message.data[:-1]
    with pytest.raises(InputError, match="/external/image_raw: the image has 143 bytes"):
        decoded(message)
