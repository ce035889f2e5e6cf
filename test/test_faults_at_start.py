"""Faults that keep the graph from starting: each is reported in words that name the fix."""

import socket

import pytest
from graph_fixture import START_TIMEOUT_S, simulation

from spear_bringup.nodes.supervisor import GraphError


def test_the_policy_refuses_to_run_without_its_camera_and_names_the_topic(tmp_path, ros_domain):
    parameters = {"sim_world": {"cameras": False}, "policy": {"startup_timeout_s": 2.0}}
    graph = simulation(tmp_path, ros_domain, parameters=parameters)
    # The list itself says that there are cameras, and what it says wins over a file.
    graph.specs[0].parameters.pop("cameras")
    with graph, pytest.raises(GraphError, match="external/image_raw") as caught:
        graph.wait_active(START_TIMEOUT_S)
    assert str(caught.value).startswith("/policy did not activate")


def test_an_invalid_safety_parameter_fails_configure_and_is_named(tmp_path, ros_domain):
    parameters = {"franka_driver": {"robot_timeout_s": -1.0}}
    only = {"franka_driver"}
    with simulation(tmp_path, ros_domain, only, parameters=parameters) as graph:
        with pytest.raises(GraphError) as caught:
            graph.wait_active(START_TIMEOUT_S)
    assert str(caught.value).startswith("/franka_driver did not configure")
    assert "safety parameter robot_timeout_s is -1.0 s; it must be" in str(caught.value)


def test_a_robot_that_is_not_there_is_named_by_its_address(tmp_path, ros_domain):
    with simulation(tmp_path, ros_domain, {"franka_driver"}, use_sim_time=False) as graph:
        host = graph.specs[0].parameters["robot_host"]
        with pytest.raises(GraphError, match=host) as caught:
            graph.wait_active(START_TIMEOUT_S)
    assert str(caught.value).startswith("/franka_driver did not configure")


def test_a_taken_port_fails_the_simulation_with_its_number(tmp_path, ros_domain):
    with simulation(tmp_path, ros_domain, {"sim_world"}) as graph:
        with socket.socket() as other:
            other.bind((graph.specs[0].parameters["host"], 1337))
            other.listen()
            with pytest.raises(GraphError, match="1337") as caught:
                graph.wait_active(START_TIMEOUT_S)
    assert str(caught.value).startswith("/sim_world did not configure")
