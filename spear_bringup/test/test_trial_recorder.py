"""The recorder as a process: trials, wrong calls, signals, a full disk, a killed recorder."""

import resource
import shutil
import signal
import tempfile
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import rclpy
from lifecycle_msgs.msg import Transition
from rclpy.executors import SingleThreadedExecutor
from recorder_fixture import counts_in, gradient, raw_image, recorder, wait_for
from rosbags.highlevel import AnyReader
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import String

from spear_bringup.trials.bag_reader import frames, read_trial
from spear_bringup.trials.bag_repair import RepairError, repair
from spear_msgs.msg import EndEffectorCommand, PolicyStatus, TrialInfo
from spear_policy.nodes.messages import EVENT, LATCHED, SENSOR

pytestmark = pytest.mark.kills_processes


@pytest.fixture(scope="module")
def node(ros_domain):
    """Return a node that is spun by its own thread."""
    rclpy.init()
    node = rclpy.create_node("lab")
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    stop = threading.Event()

    def spin():
        while not stop.is_set():
            executor.spin_once(timeout_sec=0.1)

    thread = threading.Thread(target=spin)
    thread.start()
    yield node
    stop.set()
    thread.join()
    executor.shutdown()
    node.destroy_node()
    rclpy.shutdown()


def test_a_trial_leaves_a_whole_bag_and_a_whole_row(node, tmp_path):
    with recorder(node, tmp_path) as lab:
        instruction, status, external, commands = lab.publishers(
            (String, "instruction", EVENT),
            (PolicyStatus, "policy_status", LATCHED),
            (Image, "external/image_raw", SENSOR),
            (EndEffectorCommand, "command", EVENT),
        )
        # before the start, and so known from the last message only
        instruction.publish(String(data="lift the red cube"))
        status.publish(
            PolicyStatus(engine="scripted", checkpoint_id="expert-1", statistics_hash="abc")
        )
        wrist = lab.publisher(Image, "wrist/image_raw", SENSOR)
        wrist_compressed = lab.publisher(CompressedImage, "wrist/image_raw/compressed", SENSOR)
        wait_for(lambda: not wrist.get_subscription_count(), "change to the compressed topic")

        started = lab.start(seed=42, operator_name="ada")
        assert started.success and Path(started.bag).is_dir()
        assert "/joint_states" in started.message and "/command" not in started.message
        ready = CompressedImage(format="rgb8; jpeg compressed bgr8")
        ready.data.frombytes(cv2.imencode(".jpg", gradient())[1].tobytes())
        for number in range(20):
            external.publish(raw_image(gradient()))
            wrist_compressed.publish(ready)
            commands.publish(EndEffectorCommand(seam_translation=number * 1e-3))
            time.sleep(0.02)  # best effort: of many at once, the later ones are lost
        late = lab.publisher(JointState, "joint_states", SENSOR)  # a driver that came late
        late.publish(JointState(name=["joint1"], position=[0.5]))
        # More than all there is but TrialInfo: that one comes every second, what is lost is lost.
        lab.wait_for_messages(66)
        ended = lab.end(score=0.75, notes="slow but good")
        assert ended.success and ended.bag == started.bag
        assert "no message came on /ee_state, /action_chunk" in ended.message
        wait_for(lambda: lab.infos[-1].state == TrialInfo.STATE_ENDED, "TrialInfo ENDED")
        assert lab.infos[-1].outcome == TrialInfo.OUTCOME_SUCCESS and lab.infos[-1].seed == 42
        assert lab.stop() == 0

    (row,) = lab.rows()
    counts = counts_in(started.bag)
    assert row.messages == dict(sorted(counts.items()))
    for camera in ("external", "wrist"):
        assert 1 <= counts[f"/{camera}/image_raw/compressed"] <= 20
    assert counts["/command"] == 20 and counts["/joint_states"] == 1
    assert counts["/instruction"] == 1 and counts["/policy_status"] == 1
    assert row.trial_id == started.trial_id and row.bag == f"bags/{started.trial_id}"
    assert (row.instruction, row.seed, row.operator) == ("lift the red cube", 42, "ada")
    assert (row.outcome, row.score, row.notes) == ("SUCCESS", 0.75, "slow but good")
    assert (row.engine, row.checkpoint_id) == ("scripted", "expert-1")
    assert row.statistics_hash == "abc" and not row.fault and not row.dropped
    assert "/ee_state" in row.missing and "/command" not in row.missing
    assert row.software["rosbags"] and 0 < row.duration_s < row.wall_duration_s + 1
    seams = read_trial(Path(started.bag)).commands.seams_m
    assert seams == pytest.approx(np.arange(20) * 1e-3)
    for camera in ("external", "wrist"):
        _, picture = next(frames(Path(started.bag), camera))
        expected = gradient()[..., ::-1] if camera == "external" else gradient()
        assert np.abs(picture.astype(int) - expected).mean() < 3
    assert not list(tmp_path.glob("*.open.json"))


def test_wrong_states_parameters_and_disks_are_refused_with_a_sentence(node, tmp_path):
    with recorder(node, tmp_path, activate=False, jpeg_quality=0) as lab:
        refused = lab.start()
        assert not refused.success and "not active" in refused.message
        assert "no trial is being recorded" in lab.end().message
        assert not lab.change(Transition.TRANSITION_CONFIGURE)  # jpeg_quality is out of bounds
        assert lab.set_parameter("jpeg_quality", 80)
        lab.activate()

        assert lab.set_parameter("least_free_space_mb", 1_000_000)
        refused = lab.start()
        assert not refused.success
        assert "MB are free in" in refused.message and "make room" in refused.message
        assert not (tmp_path / "bags").exists()
        assert lab.set_parameter("least_free_space_mb", 1)
        assert "no trial is being recorded" in lab.end().message
        assert "is no file name" in lab.start(trial_id="../elsewhere").message

        assert lab.start(trial_id="mine").success
        again = lab.start(trial_id="other")
        assert not again.success and "mine is being recorded; call end_trial" in again.message
        assert "not the running one, which is mine" in lab.end(trial_id="other").message
        assert "it must be 0 to 1" in lab.end(score=1.5).message
        assert "outcome 9 is unknown" in lab.end(outcome=9).message
        assert lab.end(trial_id="mine").success

        taken = lab.start(trial_id="mine")
        assert not taken.success and "exists already; give another trial_id" in taken.message
        assert lab.start(trial_id="other").success  # none of it has left anything behind
        assert lab.change(Transition.TRANSITION_DEACTIVATE)
        assert "not active" in lab.start().message
        assert lab.stop() == 0
    assert [(row.trial_id, row.outcome) for row in lab.rows()] == [
        ("mine", "SUCCESS"),
        ("other", "ABORTED"),
    ]
    assert counts_in(tmp_path / "bags/other").get("/trial")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_a_trial_closes_the_bag_and_writes_the_row(node, tmp_path, number):
    with recorder(node, tmp_path) as lab:
        commands = lab.publisher(EndEffectorCommand, "command", EVENT)
        bag = lab.start(seed=3).bag
        for _ in range(50):
            commands.publish(EndEffectorCommand())
        lab.wait_for_messages(50)
        assert lab.stop(number) == 0
    (row,) = lab.rows()
    assert row.outcome == "ABORTED" and "stopped during the trial" in row.notes
    assert counts_in(bag)["/command"] == row.messages["/command"] == 50


def fill(lab, publisher, until):
    """Publish images as fast as they are taken until `until()`."""
    message = CompressedImage(format="jpeg")
    message.data.frombytes(np.random.default_rng(0).bytes(100_000))

    def step():
        publisher.publish(message)
        return until()

    return wait_for(step, "the end of filling")


def test_a_trial_on_a_full_disk_is_stopped_at_once_and_earlier_data_stays(node, tmp_path):
    with recorder(node, tmp_path) as lab:
        instructions = lab.listen(String, "instruction", EVENT)
        images = lab.publisher(CompressedImage, "external/image_raw/compressed", EVENT)
        bag = Path(lab.start().bag)
        mcap = bag / f"{bag.name}.mcap"
        fill(lab, images, lambda: mcap.stat().st_size > 3_000_000)
        limit = mcap.stat().st_size + 500_000
        resource.prlimit(lab.process.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        fill(lab, images, lambda: has_fault(lab))
        fault_s = time.monotonic()
        wait_for(lambda: [i.data for i in instructions] == [""], "the end of the instruction")
        wait_for(lambda: lab.infos[-1].state == TrialInfo.STATE_ENDED, "the end of the trial")
        assert time.monotonic() - fault_s < 2.0
        assert lab.infos[-1].outcome == TrialInfo.OUTCOME_ABORTED
        assert "the file reached its size limit; make room" in lab.infos[-1].text
        assert "are readable" in lab.infos[-1].text
        assert "no trial is being recorded" in lab.end().message

        resource.prlimit(lab.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        assert lab.start(trial_id="next").success  # the recorder itself is well
        assert lab.end().success
        assert lab.stop() == 0
    row = lab.rows()[0]
    assert row.outcome == "ABORTED" and "size limit" in row.fault
    assert counts_in(bag) == row.messages
    assert row.messages["/external/image_raw/compressed"] >= 20


def test_a_running_trial_leaves_a_fifth_of_the_least_space_and_may_go_on_flagged(node, tmp_path):
    with recorder(node, tmp_path, stop_unrecorded_trial="false") as lab:
        assert lab.start(trial_id="stopped").success
        free_mb = shutil.disk_usage(tmp_path).free / 1e6
        assert lab.set_parameter("least_free_space_mb", int(4 * free_mb))
        time.sleep(0.3)  # three looks at the disk
        assert lab.infos[-1].state == TrialInfo.STATE_RECORDING
        assert lab.set_parameter("stop_unrecorded_trial", True)
        time.sleep(0.3)
        assert lab.infos[-1].state == TrialInfo.STATE_RECORDING  # more than a fifth is left
        assert lab.set_parameter("least_free_space_mb", int(6 * free_mb))
        wait_for(lambda: lab.infos[-1].state == TrialInfo.STATE_ENDED, "the end of the trial")
        assert lab.stop() == 0
    (row,) = lab.rows()
    assert row.outcome == "ABORTED" and "a running trial wants" in row.fault
    assert counts_in(tmp_path / row.bag) == row.messages


def has_fault(lab):
    """Whether the recorder has said that it cannot write."""
    return any(info.state == TrialInfo.STATE_FAULT for info in lab.infos)


def flushed(bag):
    """Return how many commands of a bag that is being written are on the disk."""
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(bag, Path(folder) / bag.name)
        try:
            return repair(copy).counts.get("/command", 0)
        except RepairError:  # nothing on the disk yet
            return 0


def test_a_killed_recorder_is_made_good_by_the_next_one(node, tmp_path):
    with recorder(node, tmp_path) as lab:
        commands = lab.publisher(EndEffectorCommand, "command", EVENT)
        assert lab.start(seed=5, trial_id="killed").success
        for _ in range(30):
            commands.publish(EndEffectorCommand())
        lab.wait_for_messages(30)
        # What a kill may cost is what was not flushed yet.
        wait_for(lambda: flushed(tmp_path / "bags/killed") == 30, "a flush")
        assert lab.stop(signal.SIGKILL) == -signal.SIGKILL
    assert not lab.rows() and (tmp_path / "killed.open.json").exists()
    with recorder(node, tmp_path) as lab:
        assert lab.stop() == 0
    (row,) = lab.rows()
    assert (row.trial_id, row.seed, row.outcome) == ("killed", 5, "ABORTED")
    assert "the recorder died" in row.fault and not (tmp_path / "killed.open.json").exists()
    assert counts_in(tmp_path / "bags/killed") == row.messages
    assert row.messages["/command"] == 30


def test_under_simulated_time_a_trial_needs_a_clock_and_is_timed_by_it(node, tmp_path):
    began_s = time.monotonic()
    with recorder(node, tmp_path, use_sim_time="true") as lab:
        assert "no /clock has come" in lab.start().message
        clock = lab.publisher(Clock, "/clock", SENSOR)
        tick = Clock()
        tick.clock.sec = 100
        clock.publish(tick)
        started = wait_for(lambda: (r := lab.start()).success and r, "start on /clock")
        commands = lab.publisher(EndEffectorCommand, "command", EVENT)
        for second in range(101, 131):
            tick.clock.sec = second
            clock.publish(tick)
        # Best effort: the last tick may be lost, and time then stands still until the next.
        wait_for(lambda: clock.publish(tick) or lab.infos[-1].duration.sec == 30, "30 s on /clock")
        before = lab.infos[-1].messages
        for _ in range(30):
            commands.publish(EndEffectorCommand())
        lab.wait_for_messages(before + 30)  # a few of them are TrialInfo
        ended = lab.end()
        assert ended.duration.sec == 30
        assert lab.stop() == 0
    (row,) = lab.rows()
    assert row.duration_s == 30.0 and 0.0 < row.wall_duration_s < time.monotonic() - began_s
    with AnyReader([Path(started.bag)]) as reader:
        connections = [c for c in reader.connections if c.topic == "/command"]
        assert {time_ns for _, time_ns, _ in reader.messages(connections)} == {130 * 10**9}


def test_the_command_is_recorded_once():
    from spear_policy.nodes.parameters import read_specs

    path = Path(__file__).parents[1] / "config/trial_recorder.yaml"
    specs = read_specs(path)
    assert specs["topics"].default.count("command") == 1
