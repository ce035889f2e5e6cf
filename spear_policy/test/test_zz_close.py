import signal, subprocess, sys, time
import pytest
from lifecycle_msgs.msg import Transition
from policy_fixture import World
from ros_fixture import ros, spinning, transit, wait


@pytest.fixture(scope="module", autouse=True)
def _ros(ros_domain):
    with ros():
        yield


@pytest.fixture
def world():
    world = World()
    with spinning(world):
        yield world
    world.action.destroy()
    world.destroy_node()


def start():
    command = [sys.executable, "-m", "spear_policy.nodes.policy_node", "--ros-args"]
    ages = [f"max_{what}_age_s:=10.0" for what in ("image", "state", "objects")]
    patient = ["max_image_skew_s:=1.0", "startup_timeout_s:=60.0", *ages]
    return subprocess.Popen(
        [*command, *[p for e in patient for p in ("-p", e)]],
        stderr=subprocess.STDOUT,
        stdout=subprocess.PIPE,
        text=True,
    )


def end(process, *sigs):
    for s in sigs:
        process.send_signal(s)
        time.sleep(0.05)
    t = time.monotonic()
    log, _ = process.communicate(timeout=60)
    return process.returncode, round(time.monotonic() - t, 2), log


@pytest.mark.parametrize(
    "case",
    ["unconfigured", "inactive", "waiting", "topic", "goal", "topic_term", "twice", "goal_gone"],
)
def test_close(world, case):
    process = start()
    transit(
        world, "/policy", Transition.TRANSITION_CONFIGURE, "inactive"
    ) if case != "unconfigured" else time.sleep(3)
    if case not in ("unconfigured", "inactive"):
        transit(world, "/policy", Transition.TRANSITION_ACTIVATE, "active")
    if case.startswith("topic") or case == "twice":
        world.instruct("put the red cube on the plate")
        world.wait_for_chunks(3)
    if case.startswith("goal"):
        _, _, f = world.run_instruction("put the red cube on the plate")
        world.wait_for_chunks(2)
    if case == "goal_gone":
        world.action.destroy()
    sigs = {"topic_term": [signal.SIGTERM], "twice": [signal.SIGINT, signal.SIGINT]}.get(
        case, [signal.SIGINT]
    )
    rc, t, log = end(process, *sigs)
    with open("/tmp/close.log", "a") as f:
        f.write(f"=== {case} rc {rc} {t} s\n{log}\n")
    if case == "goal_gone":
        from rclpy.action import ActionClient
        from spear_msgs.action import RunInstruction

        world.action = ActionClient(world, RunInstruction, "run_instruction")
