"""Every node's parameters are those of its definition file, and come from ordinary ROS files."""

import gc
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import rclpy
import yaml

from spear_bringup.graph import NodeSpec, check_graph
from spear_bringup.nodes.franka_driver import FrankaDriver
from spear_bringup.nodes.lifecycle_manager import LifecycleManager
from spear_bringup.nodes.sim_world import SimWorld
from spear_bringup.nodes.trial_recorder import TrialRecorder
from spear_policy.nodes.parameters import definition_file, parameter_file, read_specs
from spear_policy.nodes.policy_node import PolicyNode
from spear_policy.nodes.spatial_query import SpatialQueryNode
from spear_policy.shared.config import params_file_problem

ROOT = Path(__file__).resolve().parents[1]
NODES = {
    ("spear_policy", "policy_node"): PolicyNode,
    ("spear_policy", "spatial_query"): SpatialQueryNode,
    ("spear_bringup", "franka_driver"): FrankaDriver,
    ("spear_bringup", "sim_world"): SimWorld,
    ("spear_bringup", "trial_recorder"): TrialRecorder,
}
EXECUTABLES = [*NODES, ("spear_bringup", "lifecycle_manager")]
# A parameter of each, and a value that is not its default.
EXAMPLES = {
    "policy_node": ("inference_period_s", 0.5),
    "spatial_query": ("max_image_age_s", 2.0),
    "franka_driver": ("robot_host", "127.9.9.9"),
    "sim_world": ("seed", 7),
    "trial_recorder": ("jpeg_quality", 50),
}


def declared(node):
    """Return the values of a node's own parameters by name."""
    names = set(node._parameters) - {"use_sim_time", "start_type_description_service"}
    return {name: plain(node.get_parameter(name).value) for name in names}


def start(package, executable, *arguments):
    """Run a node's program until it ends."""
    program = f"import sys; from {package}.nodes.{executable} import main; sys.exit(main())"
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def plain(value):
    """Return a value as YAML has it."""
    return value.tolist() if hasattr(value, "tolist") else value


@pytest.fixture(scope="module", autouse=True)
def _ros(ros_domain):
    rclpy.init()
    yield
    gc.collect()  # a lifecycle node refers to itself and keeps its DDS participant until now
    rclpy.shutdown()


@pytest.mark.parametrize(("package", "executable"), NODES)
def test_a_node_declares_what_its_file_defines(package, executable):
    node = NODES[package, executable](["--ros-args", "--log-level", "fatal"])
    try:
        specs = read_specs(definition_file(package, executable))
        assert declared(node) == {name: spec.default for name, spec in specs.items()}
    finally:
        node.close()


def test_the_lifecycle_manager_declares_what_its_file_defines():
    manager = LifecycleManager(threading.Event())
    try:
        specs = read_specs(definition_file("spear_bringup", "lifecycle_manager"))
        assert declared(manager.node) == {name: spec.default for name, spec in specs.items()}
    finally:
        manager.io.destroy_node()
        manager.node.destroy_node()


@pytest.mark.parametrize(("package", "executable"), EXECUTABLES)
def test_the_example_file_has_every_parameter_and_help_prints_it(package, executable):
    example = ROOT / package / "params" / f"{executable}.yaml"
    assert example.read_text() == parameter_file(package, executable), (
        f"{example} is old: write parameter_file() of spear_policy.nodes.parameters there"
    )
    done = start(package, executable, "--help")
    assert done.returncode == 0 and done.stdout.rstrip().endswith(example.read_text().rstrip())
    assert f"ros2 run {package} {executable} --ros-args" in done.stdout and not done.stderr


@pytest.mark.parametrize(("package", "executable"), NODES)
def test_a_node_takes_its_example_file_and_gets_the_defaults(package, executable):
    example = ROOT / package / "params" / f"{executable}.yaml"
    assert params_file_problem(example) == ""
    arguments = ["--log-level", "fatal", "--params-file", str(example), "-r", "__ns:=/left"]
    node = NODES[package, executable](["--ros-args", *arguments])
    try:
        specs = read_specs(definition_file(package, executable))
        assert set(specs) <= set(node._parameter_overrides)
        assert declared(node) == {name: spec.default for name, spec in specs.items()}
    finally:
        node.close()


@pytest.mark.parametrize("key", ["/**", "{name}", "/**/{name}"])
@pytest.mark.parametrize(("package", "executable"), NODES)
def test_a_node_takes_an_ordinary_parameter_file(package, executable, key, tmp_path):
    name, value = EXAMPLES[executable]
    node_name = "policy" if executable == "policy_node" else executable
    path = tmp_path / "mine.yaml"
    path.write_text(
        yaml.safe_dump({key.format(name=node_name): {"ros__parameters": {name: value}}})
    )
    check_graph([NodeSpec(package, executable, node_name, params_files=(path,))])
    arguments = ["--ros-args", "--log-level", "fatal", "--params-file", str(path)]
    node = NODES[package, executable](arguments)
    try:
        assert node.params[name] == value
    finally:
        node.close()


@pytest.mark.parametrize(("package", "executable"), EXECUTABLES)
def test_a_definition_file_in_the_place_of_a_parameter_file_is_refused(package, executable):
    path = definition_file(package, executable)
    done = start(package, executable, "--ros-args", "--params-file", str(path))
    assert done.returncode == 2 and not done.stdout
    assert f"params_file {path} defines parameters under '{executable}'" in done.stderr
    assert "ros__parameters:" in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("robot_host: 10.0.0.1\n", "has no ros__parameters under 'robot_host'"),
        ("left: {policy: {engine: spear}}\n", "has no ros__parameters under 'left'"),
        ("", "has no parameters"),
        ("a: [1\n", "is not YAML"),
    ],
)
def test_a_file_that_sets_no_parameters_is_refused_before_anything_starts(tmp_path, text, words):
    path = Path(tmp_path / "mine.yaml")
    path.write_text(text)
    with pytest.raises(ValueError, match=words):
        check_graph([NodeSpec("p", "e", "a", params_files=(path,))])
