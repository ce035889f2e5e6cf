"""The policy node in normal work, over real DDS."""

import numpy as np
import pytest
from action_msgs.msg import GoalStatus
from policy_fixture import FakeEngine, policy_fixture
from rclpy.lifecycle import TransitionCallbackReturn
from ros_fixture import ros, wait
from std_msgs.msg import String

from spear_msgs.action import RunInstruction
from spear_msgs.msg import PolicyStatus
from spear_policy.nodes.messages import EVENT, chunk_from_msg, stamp_to_s

Result = RunInstruction.Result


@pytest.fixture(scope="module", autouse=True)
def _ros(ros_domain):
    with ros():
        yield


def test_an_instruction_on_the_topic_becomes_chunks_that_describe_themselves():
    engine = FakeEngine()
    with policy_fixture(engine) as bench:
        world = bench.world
        world.instruct("  put it down ")
        first, second, *_ = world.wait_for_chunks(2)
        heard_s = world.now_s()
    assert engine.warm and engine.instructions == ["put it down"]
    assert (first.instruction, first.instruction_id) == ("put it down", 1)
    assert (first.header.frame_id, first.steps[0].rotation_frame_id) == ("franka_base", "franka_ee")
    assert first.checkpoint_id == "fake-1" and len(first.source_id) == 32
    # The topic keeps only the newest: a world that is served late may miss one.
    assert second.chunk_id > first.chunk_id and second.source_id == first.source_id
    chunk = chunk_from_msg(first)
    assert chunk.anchor_measured[0] == 0.5 and chunk.anchor_commanded[0] == 0.51
    assert [step.chunk_id for step in first.steps] == [first.chunk_id] * 5
    assert 0 <= stamp_to_s(first.image_age) <= heard_s - stamp_to_s(first.header.stamp)
    seen = engine.seen[0]
    assert seen.gripper_opening == 0.75
    assert {name: image.shape for name, image in seen.images.items()} == {
        "external": (48, 64, 3),
        "wrist": (32, 32, 3),
    }
    assert (seen.images["external"] == [200, 100, 50]).all()


def test_chunks_are_stamped_with_the_external_image_and_come_no_sooner_than_the_period_allows():
    engine = FakeEngine()
    with policy_fixture(engine, inference_period_s=0.3) as bench:
        world = bench.world
        said_s = world.now_s()
        world.instruct("go")
        chunks = world.wait_for_chunks(5)
    times = np.array([stamp_to_s(chunk.header.stamp) for chunk in chunks])
    assert set(times) <= world.image_stamps_s
    assert np.diff(times).min() > 0, "an image was answered twice"
    # Counted from the instruction: after a late inference the next one may follow sooner, and the
    # images have a rhythm of their own. How it keeps its period: test_pace.
    begun_s = np.array(engine.begun_s) - said_s
    assert (begun_s >= 0.3 * np.arange(len(begun_s)) - 1e-3).all(), np.round(begun_s, 3)


def test_each_step_is_published_once_when_it_is_due_unless_a_newer_chunk_replaced_it():
    engine = FakeEngine(dt_s=0.1)
    with policy_fixture(engine, inference_period_s=0.25, step_dt_s=0.1) as bench:
        world = bench.world
        world.instruct("go")
        world.wait_for_chunks(5)
        wait(lambda: len(world.deltas) > 5)
        due = [stamp_to_s(delta.header.stamp) for delta in world.deltas]
        keys = [(delta.chunk_id, delta.step) for delta in world.deltas]
    assert len(set(keys)) == len(keys)
    assert keys == sorted(keys) and due == sorted(due)


def test_compressed_cameras_give_the_same_pictures():
    engine = FakeEngine()
    transports = {"external_transport": "compressed", "wrist_transport": "compressed"}
    with policy_fixture(engine, **transports) as bench:
        bench.world.instruct("go")
        bench.world.wait_for_chunks(1)
    assert (engine.seen[0].images["wrist"] == [200, 100, 50]).all()


def test_a_new_instruction_holds_first_and_throws_away_the_chunk_in_the_making():
    engine = FakeEngine()
    with policy_fixture(engine) as bench:
        world = bench.world
        world.instruct("one")
        world.wait_for_chunks(1)
        engine.go_on.clear()
        before = len(engine.seen)
        wait(lambda: len(engine.seen) > before)  # the engine is at work on "one"
        holds = len(world.holds())
        world.instruct("two")
        wait(lambda: len(world.holds()) > holds)
        engine.go_on.set()
        world.wait_for_instruction("two")
        hold, chunks = world.holds()[holds], list(world.chunks)
    assert not hold.steps
    after = [chunk for chunk in chunks if chunk.chunk_id > hold.chunk_id]
    assert {chunk.instruction for chunk in after} == {"two"}
    assert [chunk.chunk_id for chunk in chunks] == sorted(chunk.chunk_id for chunk in chunks)


def test_the_same_sentence_again_does_not_restart_what_is_running():
    with policy_fixture(FakeEngine()) as bench:
        world = bench.world
        world.instruct("go")
        world.wait_for_chunks(1)
        holds = len(world.holds())
        world.instruct("go")
        chunks = world.wait_for_chunks(3)
        assert chunks[-1].instruction_id == 1 and len(world.holds()) == holds


def test_an_empty_instruction_holds_and_waits():
    with policy_fixture(FakeEngine()) as bench:
        world = bench.world
        world.instruct("go")
        world.wait_for_chunks(1)
        world.instruct("   ")
        status = world.wait_for_state("WAITING", "emptied")
        world.wait_for_hold()
        assert (status.instruction, status.engine) == ("", "scripted")


def test_a_goal_gets_feedback_and_is_done_when_the_last_steps_were_due():
    engine = FakeEngine()
    engine.final_after = 3
    with policy_fixture(engine) as bench:
        world = bench.world
        asked_s = world.now_s()
        handle, feedbacks, future = world.run_instruction("put it down")
        wait(lambda: feedbacks)
        running = (GoalStatus.STATUS_EXECUTING, GoalStatus.STATUS_SUCCEEDED)
        wait(lambda: handle.status in running)
        wait(future.done)
        answer, now_s = future.result(), world.now_s()
        last = wait(lambda: [chunk for chunk in world.steps() if chunk.final])[-1]
        world.wait_for_state("DONE")
        wait(lambda: world.said == ["put it down"])
    assert answer.status == GoalStatus.STATUS_SUCCEEDED
    result = answer.result
    assert (result.outcome, result.instruction_id, result.chunks) == (Result.OUTCOME_DONE, 1, 4)
    assert now_s > stamp_to_s(last.steps[-1].header.stamp)
    assert 0.3 - 1e-3 <= stamp_to_s(result.elapsed) <= now_s - asked_s  # the fourth of 0.1 s each
    news = [entry.feedback for entry in feedbacks]
    assert [entry.chunks for entry in news] == sorted(entry.chunks for entry in news)
    assert {entry.instruction_id for entry in news} == {1}


def test_a_cancelled_goal_holds_and_says_so():
    with policy_fixture(FakeEngine()) as bench:
        world = bench.world
        handle, _, future = world.run_instruction("go")
        world.wait_for_chunks(1)
        wait(handle.cancel_goal_async().done)
        wait(future.done)
        world.wait_for_state("WAITING", "cancelled")
        world.wait_for_hold()
    assert future.result().status == GoalStatus.STATUS_CANCELED
    assert future.result().result.outcome == Result.OUTCOME_CANCELLED


def test_a_goal_runs_out_of_its_time():
    with policy_fixture(FakeEngine()) as bench:
        _, _, future = bench.world.run_instruction("go", timeout_s=0.6)
        wait(future.done)
        bench.world.wait_for_state("WAITING", "out of time")
        bench.world.wait_for_hold()
    assert future.result().status == GoalStatus.STATUS_ABORTED
    assert future.result().result.outcome == Result.OUTCOME_TIMEOUT


def test_topic_and_action_are_two_doors_to_one_thing():
    with policy_fixture(FakeEngine()) as bench:
        world = bench.world
        _, _, first = world.run_instruction("one")
        world.wait_for_chunks(1)
        _, _, second = world.run_instruction("two")
        wait(first.done)
        world.wait_for_instruction("two")
        world.instruct("three")
        wait(second.done)
        third = world.wait_for_instruction("three")
        wait(lambda: world.said == ["one", "two", "three"])
    for future, number in ((first, 1), (second, 2)):
        result = future.result().result
        assert (result.outcome, result.instruction_id) == (Result.OUTCOME_REPLACED, number)
    assert third.instruction_id == 3


def test_a_finished_instruction_does_not_come_back_after_deactivation():
    engine = FakeEngine()
    with policy_fixture(engine) as bench:
        world = bench.world
        _, _, future = world.run_instruction("go")
        world.wait_for_chunks(1)
        assert bench.deactivate()
        wait(future.done)
        assert future.result().result.outcome == Result.OUTCOME_FAULT
        assert "deactivated" in future.result().result.message
        world.wait_for_state("INACTIVE")
        world.wait_for_hold()
        assert bench.activate()
        world.wait_for_state("WAITING")
        count = len(engine.seen)
        world.instruct("go")
        world.wait_for_chunks(1)
        assert len(engine.instructions) == 2 and len(engine.seen) > count


def test_an_instruction_from_before_activation_is_taken_up():
    engine = FakeEngine()
    with policy_fixture(engine, up=False) as bench:
        assert bench.configure()
        bench.world.instruct("go")
        wait(lambda: bench.node._coordinator._waiting == "go")
        assert bench.activate()
        bench.world.wait_for_chunks(1)


def test_a_restarted_policy_waits_until_somebody_says_it_again():
    engine = FakeEngine()
    with policy_fixture(engine) as bench:
        world = bench.world
        world.instruct("go")  # latched by its publisher
        world.wait_for_chunks(1)
        assert (
            bench.deactivate() and bench.node.trigger_cleanup() is TransitionCallbackReturn.SUCCESS
        )
        count = len(world.statuses)
        bench.up()
        wait(lambda: len(world.statuses) >= count + 4)
        assert world.statuses[-1].state == PolicyStatus.STATE_WAITING
        assert engine.instructions == ["go"]
        world.instruct("go")
        world.wait_for_chunks(1)


def test_an_instruction_of_a_volatile_publisher_is_followed():
    with policy_fixture(FakeEngine()) as bench:
        world = bench.world
        person = world.create_publisher(String, "instruction", EVENT)
        wait(lambda: person.get_subscription_count() == 2)
        person.publish(String(data="go"))
        world.wait_for_chunks(1)


def test_the_status_is_latched_and_repeated_every_second():
    with policy_fixture(FakeEngine(), up=False) as bench:
        world = bench.world
        world.wait_for_state("INACTIVE")
        count = len(world.statuses)
        wait(lambda: len(world.statuses) >= count + 2)
        assert {status.state for status in world.statuses} == {PolicyStatus.STATE_INACTIVE}


def test_the_figures_of_the_status_are_counted():
    with policy_fixture(FakeEngine()) as bench:
        world = bench.world
        world.instruct("go")
        world.wait_for_chunks(3)

        def counted():
            status = world.statuses[-1]
            return status if status.images_dropped > 0 and status.chunk_id > 3 else None

        status = wait(counted)
    assert status.source_id == world.chunks[-1].source_id
    assert status.images_received > status.images_dropped
    assert stamp_to_s(status.inference_p99) >= stamp_to_s(status.inference_p50) > 0


def test_two_policy_nodes_have_different_source_ids():
    with policy_fixture(FakeEngine(), up=False) as a, policy_fixture(FakeEngine(), up=False) as b:
        assert a.node._coordinator._outputs.source_id != b.node._coordinator._outputs.source_id
