"""A node's description becomes the command line and parameter file that ROS reads."""

import pytest
import rclpy
from rclpy.node import Node

from spear_bringup.graph import NodeSpec, check_graph, manager_spec


@pytest.fixture(scope="module")
def context():
    """A ROS context that takes no arguments from pytest."""
    context = rclpy.Context()
    rclpy.init(args=[], context=context)
    yield context
    rclpy.shutdown(context=context)


def _read(context, arguments, **defaults):
    node = Node("default", context=context, cli_args=arguments, use_global_arguments=False)
    for name, value in defaults.items():
        node.declare_parameter(name, value)
    values = {name: node.get_parameter(name).value for name in defaults}
    values["name"] = node.get_fully_qualified_name()
    node.destroy_node()
    return values


@pytest.mark.parametrize("namespace", ["", "left"])
def test_deployment_values_win_over_files_that_name_the_node(context, tmp_path, namespace):
    ours, theirs = tmp_path / "ours.yaml", tmp_path / "theirs.yaml"
    ours.write_text("/**:\n  ros__parameters: {address: wide, other: wide}\n")
    theirs.write_text("/**/driver:\n  ros__parameters: {address: named, other: named}\n")
    spec = NodeSpec(
        "p", "e", "driver", namespace, (ours, theirs), {"address": "127.0.0.1", "rate_hz": 1.0}
    )
    given = tmp_path / "given.yaml"
    given.write_text(spec.parameter_file_text())
    values = _read(context, spec.ros_arguments(given), address="", other="", rate_hz=0.0)
    assert values["name"] == spec.full_name
    assert values["address"] == "127.0.0.1"
    assert values["other"] == "named"


def test_every_parameter_keeps_its_type(context, tmp_path):
    parameters = {
        "number": 1.0,
        "small": 1e-7,
        "whole": 3,
        "flag": True,
        "word": "1e5",
        "sentence": 'put the "red" cube: now',
        "list": [1.0, float("inf")],
        "names": ["a", "b"],
    }
    spec = NodeSpec("p", "e", "n", parameters=parameters)
    path = tmp_path / "given.yaml"
    path.write_text(spec.parameter_file_text())
    kinds = {"number": 0.0, "small": 0.0, "whole": 0, "flag": False, "word": "", "sentence": ""}
    values = _read(context, spec.ros_arguments(path), **kinds, list=[0.0], names=[""])
    assert {name: _plain(values[name]) for name in parameters} == parameters


def _plain(value):
    return value.tolist() if hasattr(value, "tolist") else value


def test_two_nodes_of_one_name_and_a_missing_file_are_refused():
    with pytest.raises(ValueError, match="two nodes named /a"):
        check_graph([NodeSpec("p", "e", "a"), NodeSpec("p", "f", "a")])
    with pytest.raises(ValueError, match="params_file /nowhere.yaml does not exist"):
        check_graph([NodeSpec("p", "e", "a", params_files=("/nowhere.yaml",))])


def test_the_manager_knows_the_managed_nodes_in_order():
    specs = [NodeSpec("p", "e", name, "left") for name in ("robot", "policy")]
    spec = manager_spec([*specs, NodeSpec("p", "e", "viewer", managed=False)], autostart=False)
    assert spec.parameters["node_names"] == ["/left/robot", "/left/policy"]
    assert spec.parameters["deactivate_first"] == ["/left/policy"]
    assert not spec.managed
    assert "deactivate_first" not in manager_spec(specs[:1]).parameters
