"""A camera that shows the past while the arm moves stops the policy, over real DDS."""

import pytest
from policy_fixture import SIZES, FakeEngine, policy_fixture
from rclpy.impl.rcutils_logger import RcutilsLogger
from ros_fixture import ros, wait

from spear_policy.nodes.lifecycle import OK, WARN
from spear_policy.nodes.messages import stamp_to_s

SOON = {"frozen_after_s": 0.5, "frozen_hold_after_s": 0.5}
FROZEN = "camera has shown exactly the same picture"


@pytest.fixture(scope="module", autouse=True)
def _ros(ros_domain):
    with ros():
        yield


@pytest.fixture
def log(monkeypatch):
    """(level, sentence) of every warning and information in the log, in order."""
    said = []
    for level in ("warning", "info"):
        monkeypatch.setattr(
            RcutilsLogger, level, lambda _, text, level=level, **__: said.append((level, text))
        )
    return said


@pytest.mark.parametrize("frozen", SIZES)
def test_a_frozen_camera_warns_then_holds_and_resumes_by_itself(log, frozen):
    with policy_fixture(FakeEngine(), **SOON) as bench:
        world = bench.world
        world.noisy = set(SIZES)
        world.move(0.05)
        world.instruct("go")
        world.wait_for_chunks(2)
        world.noisy = set(SIZES) - {frozen}  # its stamps stay fresh
        status = world.wait_for_state("BLOCKED", f"the {frozen} {FROZEN}")
        world.wait_for_hold()
        assert status.instruction == "go" and "restart it" in status.text
        level, values = world.wait_for_diagnosis(state="BLOCKED", cameras=FROZEN)
        assert level == WARN and frozen in values["cameras"]
        since = len(world.chunks)
        world.noisy = set(SIZES)
        wait(lambda: world.steps(since))
        world.wait_for_state("RUNNING", "following 'go'")
        wait(lambda: world.diagnoses[-1][1]["cameras"] == "" and world.diagnoses[-1][0] == OK)
        assert not world.holds(since)
    ours = [(level, text) for level, text in log if FROZEN in text or "fine again" in text]
    # First a warning, later one hold, then all is well; each is said once.
    levels = [(level, text.split(":")[0].split(" ")[0]) for level, text in ours]
    assert levels == [("warning", "the"), ("info", "hold"), ("info", "the")], ours


def _long_enough(world):
    """Wait until what is answered now would long have raised the alarm."""
    first = world.wait_for_chunks(1)[0]
    goal_s = stamp_to_s(first.header.stamp) + 4 * sum(SOON.values())
    wait(lambda: stamp_to_s(world.steps()[-1].header.stamp) > goal_s)


def test_a_still_arm_before_a_still_scene_is_no_alarm(log):
    with policy_fixture(FakeEngine(), **SOON) as bench:
        world = bench.world
        world.instruct("go")
        _long_enough(world)
        assert len(world.holds()) == 1  # the one that begins every instruction
    assert not any(FROZEN in text for _, text in log)


def test_a_moving_arm_before_live_cameras_is_no_alarm(log):
    with policy_fixture(FakeEngine(), **SOON) as bench:
        world = bench.world
        world.noisy = set(SIZES)
        world.move(0.05)
        world.instruct("go")
        _long_enough(world)
        assert len(world.holds()) == 1
    assert not any(FROZEN in text for _, text in log)


def test_a_camera_that_is_not_watched_may_stay_the_same(log):
    parameters = {**SOON, "watch_external_camera": False}
    with policy_fixture(FakeEngine(), **parameters) as bench:
        world = bench.world
        world.noisy = {"wrist"}
        world.move(0.05)
        world.instruct("go")
        _long_enough(world)
        assert len(world.holds()) == 1
    assert not any(FROZEN in text for _, text in log)
