"""Faults in the running graph: what must happen, seen from outside."""

import math

import numpy as np
import pytest
from graph_fixture import START_TIMEOUT_S, Watcher, simulation

from spear_bringup.sim.tasks import task_of_seed
from spear_msgs.msg import ActionChunk, GateStatus
from spear_policy.geometry.poses import Chunk
from spear_policy.nodes.messages import chunk_to_msg, pose_array, stamp_to_s

pytestmark = pytest.mark.kills_processes

SEED = 3
INSTRUCTION = task_of_seed(SEED).instruction
CHUNK_TIMEOUT_S, STOPPING_S = 0.3, 0.4  # of the driver; what a stop may take at most


@pytest.fixture(scope="module")
def graph(tmp_path_factory, ros_domain):
    """Simulation, driver and policy; the tests below break it bit by bit, in their order."""
    folder = tmp_path_factory.mktemp("faults")
    with simulation(folder, ros_domain, seed=SEED) as graph:
        graph.wait_active(START_TIMEOUT_S)
        yield graph


@pytest.fixture(scope="module")
def watcher(graph):
    """What the graph says."""
    watcher = Watcher(graph)
    watcher.until(lambda: watcher.states and watcher.gate and watcher.policy, "the first messages")
    return watcher


def _chunk(watcher: Watcher, source_id: str, translation_m: float) -> ActionChunk:
    state = watcher.states[-1]
    pose = pose_array(state.measured)
    chunk = Chunk(
        stamp_s=stamp_to_s(state.header.stamp),
        dt_s=0.2,
        translations_m=np.full((5, 3), translation_m),
        rotations_xyzw=np.tile([0.0, 0.0, 0.0, 1.0], (5, 1)),
        gripper_openings=np.ones(5),
        anchor_measured=pose,
        anchor_commanded=pose,
        chunk_id=1,
        source_id=source_id,
    )
    return chunk_to_msg(chunk, state.header.frame_id, state.ee_frame_id)


def _reasons(watcher: Watcher) -> list[int]:
    return [status.reason for status in watcher.gate]


def test_a_second_publisher_of_chunks_is_refused_at_once_and_named(watcher):
    handle = watcher.instruct(INSTRUCTION)
    watcher.until(lambda: len(watcher.chunks) > 3, "the policy's chunks")
    policy_source = watcher.chunks[-1].source_id
    watcher.sender.publish(_chunk(watcher, "intruder", 0.0))
    refused = GateStatus.REASON_DUPLICATE_SOURCE
    watcher.until(lambda: refused in _reasons(watcher), "the refusal of the second publisher")
    status = next(status for status in watcher.gate if status.reason == refused)
    assert status.verdict == GateStatus.VERDICT_HELD  # neither of two is to be trusted
    assert "intruder" in status.text and policy_source[:8] in status.text
    watcher.stop_instruction(handle)


def test_a_chunk_with_nan_is_rejected_and_the_robot_does_not_move(watcher):
    watcher.wait_node_time(3.0)  # the policy holds, and another source may speak
    before = watcher.position()
    watcher.sender.publish(_chunk(watcher, "broken", math.nan))
    refused = GateStatus.REASON_NOT_FINITE
    watcher.until(lambda: refused in _reasons(watcher), "the refusal of NaN")
    status = next(status for status in watcher.gate if status.reason == refused)
    assert status.verdict == GateStatus.VERDICT_REJECTED and status.source_id == "broken"
    watcher.wait_node_time(1.0)
    assert np.linalg.norm(watcher.position() - before) < 1e-3


def test_an_arm_without_its_policy_rests_in_time(graph, watcher):
    watcher.wait_node_time(3.0)
    first = len(watcher.chunks)
    watcher.instruct(INSTRUCTION)
    start = watcher.position()
    watcher.until(lambda: len(watcher.chunks) > first + 5, "chunks")
    watcher.until(lambda: np.linalg.norm(watcher.position() - start) > 0.03, "motion")
    graph.kill("policy")
    assert graph.processes["policy"].wait(60.0)
    held = GateStatus.REASON_CHUNK_TIMEOUT
    watcher.until(lambda: watcher.gate[-1].reason == held, "a hold after the last chunk")
    assert watcher.gate[-1].verdict == GateStatus.VERDICT_HELD
    watcher.wait_node_time(1.0)
    last = [chunk for chunk in watcher.chunks if chunk.steps][-1]
    due_s = stamp_to_s(last.steps[-1].header.stamp)
    rest_s = due_s + CHUNK_TIMEOUT_S + STOPPING_S

    def late():
        states = list(watcher.states)
        return [state for state in states if stamp_to_s(state.header.stamp) > rest_s]

    watcher.until(lambda: len(late()) > 20, "states after the stop")
    places = np.array([pose_array(state.measured)[:3] for state in late()])
    assert np.ptp(places, axis=0).max() < 1e-3
    assert graph.states()["franka_driver"] == "active"


def test_a_lost_robot_stops_the_driver_until_a_person_recovers_it(graph, watcher):
    graph.kill("sim_world")
    lost = GateStatus.REASON_ROBOT_LOST
    watcher.until(lambda: watcher.gate[-1].reason == lost, "the loss of the robot")
    assert watcher.gate[-1].verdict == GateStatus.VERDICT_STOPPED
    assert "recover" in watcher.gate[-1].text
