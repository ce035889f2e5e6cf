"""A camera that repeats itself while the robot moves is found out, and only then."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from spear_policy.geometry.poses import Pose
from spear_policy.inference.camera_health import (
    CameraHealth,
    CameraLevel,
    CameraLimits,
    ImageDigest,
    digest,
)

LIMITS = CameraLimits()
OK, WARN, HOLD = CameraLevel
STILL = Pose([0.5, 0, 0.3], [1, 0, 0, 0])
DT = 0.2


def picture(seed):
    return np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def moved(metres=0.0, radians=0.0):
    turn = Rotation.from_quat([1, 0, 0, 0]) * Rotation.from_rotvec([0, 0, radians])
    return Pose([0.5 + metres, 0, 0.3], turn.as_quat())


def watch(images, poses, limits=LIMITS, camera="external"):
    """The verdicts on frames that come every 0.2 s."""
    camera_watch = CameraHealth({camera: limits})
    return [
        camera_watch.add(camera, 10 + DT * k, image, pose)
        for k, (image, pose) in enumerate(zip(images, poses, strict=True))
    ]


def levels(verdicts):
    return [verdict.level for verdict in verdicts]


FROZEN = [picture(0)] * 16
MOVING = [moved(0.01 * k) for k in range(16)]


def test_the_same_picture_while_the_arm_moves_warns_then_holds():
    verdicts = watch(FROZEN, MOVING)
    # Noticed within 1 s in all: an arm at 0.15 m/s goes 150 mm in that time.
    assert levels(verdicts) == [OK] * 3 + [WARN] * 2 + [HOLD] * 11
    assert verdicts[5].text == (
        "the external camera has shown exactly the same picture for 1.0 s (6 frames) while the end "
        "effector moved 50 mm and turned 0 degrees: its driver is frozen, restart it"
    )


def test_the_node_has_the_same_limits():
    content = (Path(__file__).parents[1] / "config" / "policy_node.yaml").read_text()
    given = {
        name: each["default_value"] for name, each in yaml.safe_load(content)["policy_node"].items()
    }
    times_s = given["frozen_after_s"], given["frozen_hold_after_s"]
    assert times_s == (LIMITS.frozen_after_s, LIMITS.hold_after_s)


def test_a_turn_alone_is_motion_too():
    verdicts = watch(FROZEN, [moved(radians=0.06 * k) for k in range(16)])
    assert levels(verdicts) == [OK] * 3 + [WARN] * 2 + [HOLD] * 11


def test_a_still_arm_before_a_still_scene_is_no_fault():
    assert set(levels(watch(FROZEN * 20, [STILL] * 320))) == {OK}


def test_a_real_sensor_whose_every_picture_differs_is_no_fault():
    assert set(levels(watch([picture(k) for k in range(16)], MOVING))) == {OK}


def test_one_pixel_of_difference_is_enough():
    images = []
    for k in range(16):
        image = picture(0)
        image[k, 5, 1] ^= 1
        images.append(image)
    assert set(levels(watch(images, MOVING))) == {OK}


def test_an_arm_that_came_back_has_moved():
    there_and_back = [moved(0.05 * np.sin(k)) for k in range(15)] + [moved(0)]
    assert watch(FROZEN, there_and_back)[-1].level is HOLD


def test_the_first_move_after_a_long_rest_warns_before_it_holds():
    verdicts = watch(FROZEN * 2, [STILL] * 20 + MOVING[:12])
    assert set(levels(verdicts[:20])) == {OK}
    found = levels(verdicts[20:])
    assert found == sorted(found) and found.count(WARN) == 2 and found[-1] is HOLD


def test_it_recovers_with_the_first_new_picture():
    verdicts = watch([*FROZEN, picture(1), picture(2)], [*MOVING, moved(0.2), moved(0.21)])
    assert levels(verdicts)[-3:] == [HOLD, OK, OK]
    assert verdicts[-1].text == ""


def test_a_slow_camera_is_judged_by_frames_as_well_as_by_time():
    limits = CameraLimits(min_frames=8)
    assert levels(watch(FROZEN, MOVING, limits)).index(WARN) == 7


def test_the_same_frame_given_again_is_no_new_frame():
    watcher = CameraHealth({"wrist": LIMITS})
    for metres in np.linspace(0, 1, 100):
        watcher.add("wrist", 10.0, FROZEN[0], moved(metres))
    assert watcher.verdict.level is OK


def test_a_clock_set_back_begins_anew():
    watcher = CameraHealth({"wrist": LIMITS})
    for k, pose in enumerate(MOVING):
        watcher.add("wrist", 10 + DT * k, FROZEN[0], pose)
    assert watcher.verdict.level is HOLD
    assert watcher.add("wrist", 1.0, FROZEN[0], STILL).level is OK


def test_a_camera_that_need_not_see_the_arm_can_be_left_out():
    limits = CameraLimits(judge_frozen=False)
    assert set(levels(watch(FROZEN, MOVING, limits))) == {OK}


def test_a_required_camera_that_is_black_warns_at_once_and_then_holds():
    rng = np.random.default_rng(0)
    dark = [rng.integers(0, 3, (48, 64, 3), dtype=np.uint8) for _ in range(8)]
    verdicts = watch(dark, [STILL] * 8)
    assert levels(verdicts) == [WARN] * 5 + [HOLD] * 3
    assert verdicts[-1].text.startswith("the external camera has been black for 1.4 s (no value ab")
    assert "the policy is blind" in verdicts[-1].text


def test_a_dim_picture_is_not_black():
    dim = np.zeros((48, 64, 3), np.uint8)
    dim[3, 4, 2] = 3
    assert watch([dim], [STILL])[0].level is OK


def test_black_is_forgotten_with_the_first_light():
    black = np.zeros((48, 64, 3), np.uint8)
    verdicts = watch([black] * 10 + [picture(0)] + [black], [STILL] * 12)
    assert levels(verdicts)[-3:] == [HOLD, OK, WARN]


def test_an_optional_camera_may_be_black_without_stopping_the_robot():
    black = [np.zeros((48, 64, 3), np.uint8)] * 16
    verdicts = watch(black, MOVING, CameraLimits(required=False), "wrist")
    assert set(levels(verdicts)) == {WARN}
    assert "goes on without it" in verdicts[-1].text


def test_the_cameras_together_have_the_worst_level_and_both_sentences():
    watcher = CameraHealth({"external": LIMITS, "wrist": CameraLimits(hold_after_s=9)})
    for k, pose in enumerate(MOVING):
        watcher.add("external", 10 + DT * k, FROZEN[0], pose)
        watcher.add("wrist", 10 + DT * k, picture(7), pose)
    assert watcher.verdict.level is HOLD
    assert "external camera" in watcher.verdict.text and "; the wrist" in watcher.verdict.text
    watcher.add("external", 20.0, picture(1), MOVING[-1])
    assert watcher.verdict.level is WARN and "external" not in watcher.verdict.text


def test_a_digest_stands_for_its_picture():
    assert levels(watch([digest(image) for image in FROZEN], MOVING)) == levels(
        watch(FROZEN, MOVING)
    )


@settings(deadline=None)
@given(st.integers(0, 47), st.integers(0, 63), st.integers(0, 2), st.integers(1, 255))
def test_the_digest_sees_every_byte(row, column, channel, change):
    image = picture(3)
    before = digest(image)
    assert digest(image.copy()) == before
    image[row, column, channel] ^= change
    assert digest(image) != before


def test_the_digest_sees_the_shape_and_does_not_depend_on_memory_layout():
    image = picture(3)
    assert digest(image.reshape(64, 48, 3)) != digest(image)
    flipped = np.ascontiguousarray(image[:, ::-1])[:, ::-1]
    assert digest(flipped) == digest(image)


@pytest.mark.parametrize(
    ("camera", "stamp_s", "image", "words"),
    [
        ("left", 1.0, picture(0), "no camera 'left' is watched, only external"),
        ("external", float("nan"), picture(0), "stamped nan"),
        ("external", 1.0, picture(0)[..., 0], r"shape \(48, 64\)"),
        ("external", 1.0, picture(0).astype(float), "float64"),
        ("external", 1.0, np.zeros((0, 0, 3), np.uint8), "empty"),
    ],
)
def test_what_cannot_be_judged_is_named(camera, stamp_s, image, words):
    with pytest.raises(ValueError, match=words):
        CameraHealth({"external": LIMITS}).add(camera, stamp_s, image, STILL)


def test_a_collision_of_digests_alone_raises_no_alarm():
    same = ImageDigest(1, (48, 64, 3), 200)
    other = [ImageDigest(k, (48, 64, 3), 200) for k in range(2, 30)]
    images = [*other[:6], same, same, *other[6:14]]  # two different pictures with one CRC
    assert set(levels(watch(images, MOVING))) == {OK}
