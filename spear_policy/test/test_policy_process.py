"""policy_node as the process that a launch file starts, driven through its services."""

import re
import signal
import subprocess
import sys
import time

import pytest
from lifecycle_msgs.msg import Transition
from policy_fixture import World
from ros_fixture import ros, spinning, transit, wait

from spear_policy.inference.engine import ENGINES


@pytest.fixture(scope="module", autouse=True)
def _ros(ros_domain):
    with ros():
        yield


@pytest.fixture
def world():
    """The neighbours."""
    world = World()
    with spinning(world):
        yield world
    world.action.destroy()
    world.destroy_node()


def test_the_process_follows_an_instruction_and_holds_when_it_is_interrupted(world):
    command = [sys.executable, "-m", "spear_policy.nodes.policy_node", "--ros-args"]
    ages = [f"max_{what}_age_s:=10.0" for what in ("image", "state", "objects")]
    patient = ["max_image_skew_s:=1.0", "startup_timeout_s:=60.0", *ages]  # with a busy machine
    parameters = [part for each in patient for part in ("-p", each)]
    process = subprocess.Popen([*command, *parameters], stderr=subprocess.PIPE, text=True)
    try:
        transit(world, "/policy", Transition.TRANSITION_CONFIGURE, "inactive")
        transit(world, "/policy", Transition.TRANSITION_ACTIVATE, "active")
        world.wait_for_state("WAITING")
        _, _, future = world.run_instruction("put the red cube on the plate")
        world.wait_for_chunks(3)
    finally:
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)  # one Ctrl-C is two under launch, which sends its own
        _, log = process.communicate(timeout=60)
    assert process.returncode == 0, log
    assert not re.search("Traceback|RCLError|InvalidHandle|may not have got its result", log), log
    world.wait_for_hold()
    wait(future.done)  # the goal got its result before the end
    assert "deactivated" in future.result().result.message


def test_help_names_the_engines():
    command = [sys.executable, "-m", "spear_policy.nodes.policy_node", "--help"]
    out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert all(f"  {name}: {entry.summary}" in out for name, entry in ENGINES.items())
