"""The policy node on simulated time: slow, stalled and set back."""

import numpy as np
import pytest
from policy_fixture import FakeEngine, policy_fixture
from ros_fixture import ros, sim_clock, wait

from spear_msgs.action import RunInstruction
from spear_policy.nodes.messages import stamp_to_s


@pytest.fixture(scope="module", autouse=True)
def _ros(ros_domain):
    with ros():
        yield


def test_a_slow_simulation_gives_the_same_chunks_slower():
    engine = FakeEngine()
    settings = {"use_sim_time": True, "inference_period_s": 0.2, "max_image_age_s": 2.0}
    with sim_clock(0.25) as clock, policy_fixture(engine, **settings) as bench:
        world = bench.world
        engine.now_s = bench.node.now_s
        said_s = bench.node.now_s()
        world.instruct("go")
        chunks = world.wait_for_chunks(4)
    stamps = np.array([stamp_to_s(chunk.header.stamp) for chunk in chunks])
    assert clock.START_S < stamps[0] and stamps[-1] <= clock.now_s
    # An image comes every 0.2 s of wall time, and nobody minds: it is 0.05 s of this clock.
    begun_s = np.array(engine.begun_s) - said_s
    assert (begun_s >= 0.2 * np.arange(len(begun_s)) - 1e-3).all(), np.round(begun_s, 3)


def test_a_stalled_clock_blocks_and_holds_and_resumes():
    settings = {"use_sim_time": True, "clock_stall_s": 0.5}
    with sim_clock(1.0) as clock, policy_fixture(FakeEngine(), **settings) as bench:
        world = bench.world
        world.instruct("go")
        world.wait_for_chunks(1)
        clock.rate = 0.0
        world.wait_for_state("BLOCKED", "/clock has stood still for")
        world.wait_for_hold()
        clock.rate = 1.0
        world.wait_for_state("RUNNING")
        world.wait_for_chunks(1)


def test_a_clock_that_was_set_back_ends_the_instruction_and_the_next_one_works():
    settings = {"use_sim_time": True}
    with sim_clock(1.0) as clock, policy_fixture(FakeEngine(), **settings) as bench:
        world = bench.world
        _, _, future = world.run_instruction("go")
        world.wait_for_chunks(1)
        clock.back_s = 900.0
        world.wait_for_state("BLOCKED", "/clock went back by")
        wait(future.done)
        assert future.result().result.outcome == RunInstruction.Result.OUTCOME_FAULT
        world.instruct("again")
        chunk = world.wait_for_chunks(1)[-1]
        assert chunk.instruction == "again" and stamp_to_s(chunk.header.stamp) < clock.START_S


def test_two_simulated_clocks_are_named():
    with sim_clock(1.0), policy_fixture(FakeEngine(), use_sim_time=True) as bench:
        world = bench.world
        world.instruct("go")
        world.wait_for_chunks(1)
        with sim_clock(1.0):
            world.wait_for_state("BLOCKED", "2 nodes publish /clock (/sim_clock, /sim_clock)")
            world.wait_for_hold()


def test_the_time_of_a_goal_is_simulated_time():
    with sim_clock(4.0), policy_fixture(FakeEngine(), use_sim_time=True) as bench:
        begun_s = bench.node.now_s()
        _, _, future = bench.world.run_instruction("go", timeout_s=6.0)
        wait(future.done)
        ended_s = bench.node.now_s()
    result = future.result().result
    assert result.outcome == RunInstruction.Result.OUTCOME_TIMEOUT
    assert 6.0 - 1e-6 <= stamp_to_s(result.elapsed) <= ended_s - begun_s + 1e-6
