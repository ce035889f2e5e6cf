"""What the policy node does when something is missing, wrong, late or broken."""

import time
from unittest.mock import patch

import numpy as np
import pytest
from policy_fixture import CAMERAS, FakeEngine, policy_fixture, refused
from rclpy.clock import ClockType
from ros_fixture import ros, wait

from spear_msgs.action import RunInstruction
from spear_policy.inference.episode import Episode, save_episode
from spear_policy.nodes.messages import stamp_to_s


@pytest.fixture(scope="module", autouse=True)
def _ros(ros_domain):
    with ros():
        yield


# Inputs that are wrong from the start ------------------------------------------------------------


def test_a_missing_camera_fails_activation_by_name():
    with policy_fixture(FakeEngine(), up=False, startup_timeout_s=1.0) as bench:
        bench.world.cameras = {"external"}
        assert bench.configure()
        refused(bench, "activate", "no image on /wrist/image_raw; start the wrist camera")
        bench.world.cameras = {"external", "wrist"}
        wait(bench.activate)  # it can be tried again


def test_a_missing_robot_fails_activation_by_name():
    with policy_fixture(FakeEngine(), up=False, startup_timeout_s=1.0) as bench:
        bench.world.publishing_states = False
        assert bench.configure()
        refused(bench, "activate", "nothing on /ee_state; start the robot driver")


@pytest.mark.parametrize("encoding", ["mono8", "16UC1"])
def test_a_wrong_encoding_fails_activation_by_name(encoding):
    with policy_fixture(FakeEngine(), up=False, startup_timeout_s=1.0) as bench:
        bench.world.encoding = encoding
        assert bench.configure()
        refused(bench, "activate", f"image_raw has encoding '{encoding}'; a policy needs colour")


def test_a_wrong_size_fails_activation_with_both_sizes():
    with policy_fixture(FakeEngine(), up=False, startup_timeout_s=1.0) as bench:
        bench.world.sizes["wrist"] = (48, 48)
        assert bench.configure()
        refused(bench, "activate", "/wrist/image_raw is 48x48; the engine wants 32x32")


@pytest.mark.parametrize(("offset_s", "words"), [(-60.0, "s old"), (60.0, "ahead of this node's")])
def test_stamps_of_another_clock_fail_activation(offset_s, words):
    with policy_fixture(FakeEngine(), up=False, startup_timeout_s=1.0) as bench:
        bench.world.stamp_offset_s = offset_s
        assert bench.configure()
        refused(bench, "activate", "/external/image_raw", words)


def test_missing_ground_truth_fails_activation_of_an_engine_that_needs_it():
    engine = FakeEngine(cameras=(), needs_objects=True)
    with policy_fixture(engine, up=False, startup_timeout_s=1.0) as bench:
        bench.world.publishing_objects = False
        assert bench.configure()
        refused(bench, "activate", "nothing on /sim_world/objects; start sim_world")


def test_sim_time_without_a_clock_fails_activation_with_the_fix():
    parameters = {"use_sim_time": True, "startup_timeout_s": 1.0}
    with policy_fixture(FakeEngine(), up=False, **parameters) as bench:
        assert bench.configure()
        refused(bench, "activate", "nothing comes on /clock")


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"max_image_age_s": 99.0}, "safety parameter max_image_age_s is 99.0 s; it must be 0.05"),
        ({"step_dt_s": 0.1}, "steps every 0.2 s and step_dt_s is 0.1 s"),
        ({"inference_period_s": 1.5}, "longer than a chunk of 5 steps of 0.2 s"),
    ],
)
def test_settings_that_contradict_fail_configure(parameters, words):
    with policy_fixture(FakeEngine(), up=False, **parameters) as bench:
        refused(bench, "configure", words)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"engine": "magic"}, "engine is 'magic'; it must be one of"),
        ({"engine": "replay"}, "'replay' needs episode_file"),
        ({"engine": "replay", "episode_file": "/no/such.npz"}, "/no/such.npz: there is no such"),
    ],
)
def test_an_engine_that_cannot_be_made_fails_configure(parameters, words):
    with policy_fixture(None, up=False, **parameters) as bench:
        refused(bench, "configure", words)


# Inputs that go wrong while it runs --------------------------------------------------------------


def test_a_camera_that_stops_blocks_and_holds_and_resumes_by_itself():
    with policy_fixture(FakeEngine(), max_image_age_s=3.0) as bench:
        world = bench.world
        world.instruct("go")
        world.wait_for_chunks(1)
        world.cameras = {"external"}
        status = world.wait_for_state("BLOCKED", "/wrist/image_raw")
        assert status.instruction == "go"
        world.wait_for_hold()
        since = len(world.chunks)
        world.cameras = {"external", "wrist"}
        wait(lambda: world.steps(since))
        world.wait_for_state("RUNNING")
        assert not world.holds(since)


@pytest.mark.parametrize(("offset_s", "words"), [(-60.0, "s old"), (60.0, "ahead of this node's")])
def test_stamps_that_leave_the_clock_block(offset_s, words):
    with policy_fixture(FakeEngine()) as bench:
        world = bench.world
        world.instruct("go")
        world.wait_for_chunks(1)
        world.stamp_offset_s = offset_s
        world.wait_for_state("BLOCKED", words)
        world.wait_for_hold()


@pytest.mark.parametrize("jump_s", [-30.0, 30.0])
def test_a_system_clock_that_jumps_ends_the_instruction_with_a_sentence(jump_s):
    with policy_fixture(FakeEngine()) as bench:
        world, node = bench.world, bench.node
        _, _, future = world.run_instruction("go")
        world.wait_for_chunks(1)
        real_s = node.now_s
        with patch.object(node, "now_s", lambda: real_s() + jump_s):
            world.wait_for_state("BLOCKED", f"the system clock jumped by {jump_s:.3f} s")
            world.wait_for_hold()
        wait(future.done)
        assert future.result().result.outcome == RunInstruction.Result.OUTCOME_FAULT
        # A timer on the node clock would sleep for as long as it was set back.
        assert {timer.clock.clock_type for timer in node.io.timers} == {ClockType.STEADY_TIME}


def test_an_encoding_that_changes_blocks():
    with policy_fixture(FakeEngine()) as bench:
        world = bench.world
        world.instruct("go")
        world.wait_for_chunks(1)
        world.encoding = "mono8"
        world.wait_for_state("BLOCKED", "has encoding 'mono8'")


def test_a_goal_that_stays_blocked_ends_as_a_fault():
    with policy_fixture(FakeEngine(), blocked_limit_s=1.0, max_state_age_s=2.0) as bench:
        world = bench.world
        _, _, future = world.run_instruction("go")
        world.wait_for_chunks(1)
        world.publishing_states = False
        wait(future.done)
    result = future.result().result
    assert result.outcome == RunInstruction.Result.OUTCOME_FAULT
    assert "/ee_state" in result.message


# The engine ---------------------------------------------------------------------------------------


def test_an_engine_exception_blocks_holds_and_the_node_lives_on():
    engine = FakeEngine()
    with policy_fixture(engine) as bench:
        world = bench.world
        _, _, future = world.run_instruction("go")
        world.wait_for_chunks(1)
        engine.error = RuntimeError("out of memory")
        world.wait_for_state("BLOCKED", "the engine failed: RuntimeError: out of memory")
        wait(future.done)
        assert future.result().result.outcome == RunInstruction.Result.OUTCOME_FAULT
        world.wait_for_hold()
        engine.error = None
        world.instruct("another")
        assert world.wait_for_chunks(1)[-1].instruction == "another"


def test_an_engine_that_misses_something_blocks_and_goes_on_when_it_is_there():
    engine = FakeEngine()
    with policy_fixture(engine) as bench:
        world = bench.world
        engine.error = ValueError("there is no 'spoon' in the scene")
        world.instruct("go")
        world.wait_for_state("BLOCKED", "no 'spoon'")
        engine.error = None
        world.wait_for_state("RUNNING", "following 'go'")


def test_an_instruction_that_the_engine_cannot_follow_ends_as_a_fault():
    engine = FakeEngine()
    engine.refuses = "cannot follow 'dance'"
    with policy_fixture(engine) as bench:
        _, _, future = bench.world.run_instruction("dance")
        wait(future.done)
        bench.world.wait_for_state("BLOCKED", "cannot follow 'dance'")
    result = future.result().result
    assert result.outcome == RunInstruction.Result.OUTCOME_FAULT
    assert result.message == "cannot follow 'dance'" and result.chunks == 0


def test_a_slow_engine_makes_late_chunks_and_never_a_stuck_node():
    engine = FakeEngine()
    with policy_fixture(engine) as bench:
        world = bench.world
        engine.go_on.clear()
        world.instruct("go")
        wait(lambda: engine.seen)
        began_s = time.monotonic()
        statuses, images = len(world.statuses), world.statuses[-1].images_received
        # Status and images go on meanwhile.
        wait(lambda: len(world.statuses) >= statuses + 3)
        wait(lambda: world.statuses[-1].images_received > images)
        assert not world.steps()
        slow_s = time.monotonic() - began_s
        engine.go_on.set()
        wait(world.steps)  # perhaps a later chunk: the topic keeps only the newest
        status = wait(lambda: world.statuses[-1].chunks_late >= 1 and world.statuses[-1])
    assert stamp_to_s(status.inference_p99) > 0.5 * slow_s  # between the slow one and the next


def test_an_engine_that_always_takes_three_periods_is_late_on_record_and_still_obeys():
    period_s = 0.2
    engine = FakeEngine()
    engine.takes_s = 3 * period_s
    with policy_fixture(engine, inference_period_s=period_s) as bench:
        world = bench.world
        world.instruct("one")
        chunk = world.wait_for_chunks(2)[-1]
        age_s = world.now_s() - stamp_to_s(chunk.header.stamp)
        wait(lambda: any(int(values["chunks_late"]) >= 2 for _, values in world.diagnoses))
        world.instruct("two")
        second = world.wait_for_instruction("two")
        assert bench.deactivate()
        world.wait_for_state("INACTIVE")
        world.wait_for_hold()
    assert stamp_to_s(chunk.inference_time) >= engine.takes_s
    # It looked at the newest image when it began, and says how old that was.
    assert 0.0 <= stamp_to_s(chunk.image_age) <= age_s - engine.takes_s
    assert second.instruction_id == 2 and engine.instructions == ["one", "two"]


def test_a_hanging_engine_does_not_hold_up_deactivation():
    engine = FakeEngine()
    with policy_fixture(engine) as bench:
        world = bench.world
        world.instruct("go")
        world.wait_for_chunks(1)
        engine.go_on.clear()
        before = len(engine.seen)
        wait(lambda: len(engine.seen) > before)
        holds = len(world.holds())
        assert bench.deactivate()
        assert not engine.go_on.is_set()
        wait(lambda: len(world.holds()) > holds)
        count = len(world.steps())
        engine.go_on.set()
        world.wait_for_state("INACTIVE")
        assert len(world.steps()) == count  # what it makes now is thrown away


# Instructions -------------------------------------------------------------------------------------


def test_thousands_of_characters_are_refused_at_both_doors_and_disturb_nothing():
    with policy_fixture(FakeEngine()) as bench:
        world = bench.world
        world.instruct("go")
        world.wait_for_chunks(1)
        holds = len(world.holds())
        world.instruct("x" * 10_000)
        wait(lambda: any("has 10000 characters" in status.text for status in world.statuses))
        _, _, future = world.run_instruction("y" * 4_000)  # a goal holds no more
        wait(future.done)
        assert world.wait_for_chunks(2)[-1].instruction == "go"
        assert len(world.holds()) == holds
    result = future.result().result
    assert result.outcome == RunInstruction.Result.OUTCOME_FAULT
    assert "has 4000 characters, the limit is 500 (max_instruction_characters)" in result.message


def test_a_goal_for_an_inactive_node_is_told_so():
    with policy_fixture(FakeEngine(), up=False) as bench:
        assert bench.configure()
        _, _, future = bench.world.run_instruction("go")
        wait(future.done)
    assert future.result().result.message == "the policy node is not active; activate it first"


def test_an_empty_goal_is_a_stop():
    with policy_fixture(FakeEngine()) as bench:
        world = bench.world
        _, _, first = world.run_instruction("go")
        world.wait_for_chunks(1)
        _, _, second = world.run_instruction(" ")
        wait(lambda: first.done() and second.done())
        world.wait_for_state("WAITING", "emptied")
    outcomes = {future.result().result.outcome for future in (first, second)}
    assert outcomes == {RunInstruction.Result.OUTCOME_CANCELLED}


def test_a_late_cancel_of_a_replaced_goal_does_not_touch_its_successor():
    with policy_fixture(FakeEngine()) as bench:
        world = bench.world
        first, _, first_future = world.run_instruction("one")
        world.run_instruction("two")
        wait(first_future.done)
        wait(first.cancel_goal_async().done)
        assert world.wait_for_chunks(3)[-1].instruction == "two"


# Real engines -------------------------------------------------------------------------------------


def test_the_scripted_engine_runs_in_the_node_and_names_what_is_not_there():
    with policy_fixture(None, engine="scripted") as bench:
        world = bench.world
        world.instruct("put the red cube on the plate")
        chunk = world.wait_for_chunks(3)[-1]
        assert (chunk.checkpoint_id, len(chunk.steps)) == ("pick-and-place-1", 5)
        assert stamp_to_s(chunk.header.stamp) in world.image_stamps_s
        world.instruct("put the spoon on the plate")
        world.wait_for_state("BLOCKED", "no 'spoon' in the scene; it has plate, red cube")


def test_a_replay_publishes_the_recorded_images_as_the_cameras_do(tmp_path):
    steps = 8
    ramp = np.linspace(0.0, 0.07, steps)
    poses = np.column_stack([0.5 + ramp, 0 * ramp, 0.3 + 0 * ramp, *np.eye(4)[[0] * steps].T])
    video = np.arange(steps, dtype=np.uint8)[:, None, None, None] * np.ones((12, 16, 3), np.uint8)
    path = tmp_path / "episode.npz"
    save_episode(
        Episode(
            stamps_s=np.arange(steps) * 0.1,
            poses=poses,
            gripper_openings=np.ones(steps),
            instruction="wipe the table",
            images={"external": video},
        ),
        path,
    )
    with policy_fixture(None, engine="replay", episode_file=str(path)) as bench:
        world = bench.world
        world.cameras = set()
        publisher = bench.node._images._publishers["external"]
        wait(lambda: publisher.get_subscription_count() == 1)
        world.images["external"].clear()
        _, _, future = world.run_instruction("wipe the table")
        wait(future.done)
        # An image of the camera may still have been on its way.
        heard = world.images["external"]
        wait(lambda: sum(image.width == 16 for image in heard) == steps)
        images = [image for image in heard if image.width == 16]
        targets, chunks = bench.node._engine.targets(), world.steps()
    assert future.result().result.outcome == RunInstruction.Result.OUTCOME_DONE
    assert [image.data[0] for image in images] == list(range(steps))
    image = images[0]
    assert (image.encoding, image.height) == ("rgb8", 12)
    assert image.header.frame_id == "camera_external_optical_frame"
    stamps_s = [stamp_to_s(image.header.stamp) for image in images]
    assert np.allclose(stamps_s, targets.stamps_s, rtol=0.0, atol=1e-5)
    assert stamp_to_s(chunks[0].header.stamp) >= stamps_s[0] - 1e-5
    assert max(chunk.steps[0].translation.x for chunk in chunks) > 0.015


def test_the_cameras_of_the_card_and_no_others_are_subscribed():
    with policy_fixture(FakeEngine(cameras=CAMERAS[:1])) as bench:
        names = [info.topic_type for info in bench.world.get_publishers_info_by_topic("x")]
        assert names == []
        own = bench.node.get_name()
        topics = dict(bench.world.get_subscriber_names_and_types_by_node(own, "/"))
        assert "/external/image_raw" in topics and "/wrist/image_raw" not in topics
        assert "/sim_world/objects" not in topics
