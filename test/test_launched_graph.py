"""The graph of the list is the graph that runs: every process alive and active, none left."""

import importlib.util
from functools import partial
from pathlib import Path

import pytest
import yaml
from ament_index_python.packages import get_package_share_directory
from graph_fixture import START_TIMEOUT_S, leftovers, simulation

from spear_bringup.graph import franka_graph, manager_spec, sim_graph
from spear_bringup.nodes.supervisor import stale_shared_memory
from spear_policy.nodes.parameters import read_specs

LAUNCH = Path(__file__).resolve().parents[1] / "spear_bringup" / "launch"


def test_every_process_of_the_list_is_active_and_none_is_left_behind(tmp_path, ros_domain):
    with simulation(tmp_path, ros_domain, record=True, namespace="left") as graph:
        graph.wait_active(START_TIMEOUT_S)
        names = [spec.name for spec in graph.specs]
        assert names == ["sim_world", "franka_driver", "trial_recorder", "policy"]
        assert graph.states() == dict.fromkeys(names, "active")
        assert not any(process.ended for process in graph.processes.values())
        # The namespace makes a second robot with the same names.
        shown = set(graph.node.get_node_names_and_namespaces())
        assert {(name, "/left") for name in names} <= shown
        topics = dict(graph.node.get_topic_names_and_types())
        assert {"/left/ee_state", "/left/action_chunk", "/left/external/image_raw"} <= set(topics)
        # And a clock of its own, so that two simulations do not mix.
        assert "/left/clock" in topics and "/clock" not in topics
    assert not leftovers(graph)
    assert [process.returncode for process in graph.processes.values()] == [0, 0, 0, 0]
    assert graph.shared_memory
    assert not stale_shared_memory(graph.shared_memory)


@pytest.mark.parametrize("engine", ["scripted", "replay", "spear"])
def test_every_parameter_that_the_list_sets_is_known_to_its_node(engine, tmp_path):
    given = {
        "episode_file": tmp_path / "episode.npz" if engine == "replay" else None,
        "checkpoint": tmp_path / "checkpoint" if engine == "spear" else None,
        "spatial_checkpoint": tmp_path / "vlm",
    }
    graphs = [sim_graph(engine, **given)]
    if engine != "scripted":
        graphs.append(franka_graph("172.16.0.2", engine, **given))
    for spec in [spec for graph in graphs for spec in graph]:
        config = Path(get_package_share_directory(spec.package)) / "config"
        known = read_specs(config / f"{spec.executable}.yaml")
        given = dict(spec.parameters)
        for path in spec.params_files:
            content = yaml.safe_load(path.read_text())
            given |= content.get(f"/**/{spec.name}", {}).get("ros__parameters", {})
        given.pop("use_sim_time", None)
        for name, value in given.items():
            assert name in known, f"{spec.name} has no parameter {name}"
            assert known[name].complaint(str(value) if isinstance(value, Path) else value) is None


@pytest.mark.parametrize("graph", [sim_graph, partial(franka_graph, "172.16.0.2")])
def test_the_checkpoint_reaches_the_policy_from_whatever_folder(graph, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    policy = graph(engine="spear", checkpoint="mine")[-1]
    assert policy.name == "policy"
    assert policy.parameters["checkpoint"] == tmp_path / "mine"
    # Without one the node's parameter stays what a parameter file makes it.
    assert "checkpoint" not in graph(engine="spear", checkpoint="")[-1].parameters


@pytest.mark.parametrize("graph", [sim_graph, partial(franka_graph, "172.16.0.2", "spear")])
def test_a_stage_1_model_brings_a_node_that_nothing_waits_for(graph, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    without, specs = graph(), graph(spatial_checkpoint="vlm/final", namespace="left")
    assert {spec.name for spec in specs} - {spec.name for spec in without} == {"spatial_query"}
    spatial = specs[-1]
    assert spatial.parameters["checkpoint"] == tmp_path / "vlm/final"
    assert spatial.namespace == "left" and not spatial.managed
    assert spatial.full_name not in manager_spec(specs).parameters["node_names"]


def test_an_engine_and_a_file_that_do_not_fit_are_refused_in_words():
    with pytest.raises(ValueError, match="engine replay needs episode_file"):
        sim_graph("replay")
    with pytest.raises(
        ValueError, match="episode_file is for engine replay; engine scripted takes"
    ):
        sim_graph("scripted", episode_file="x.npz")
    with pytest.raises(ValueError, match="checkpoint is for engine spear; engine scripted takes"):
        sim_graph("scripted", checkpoint="x")
    with pytest.raises(ValueError, match="must be one of spear, scripted, replay"):
        sim_graph("gpt")
    with pytest.raises(ValueError, match="reads ground truth"):
        franka_graph("172.16.0.2", "scripted")


@pytest.mark.parametrize("name", ["sim", "franka"])
def test_the_launch_file_describes_the_same_nodes_to_the_real_launch(name):
    pytest.importorskip("launch_ros", reason="launch_ros comes with apt ROS 2; PyPI has no wheel")
    from launch import LaunchContext
    from launch.actions import DeclareLaunchArgument, OpaqueFunction

    path = LAUNCH / f"{name}.launch.py"
    module_spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    entities = module.generate_launch_description().entities
    context = LaunchContext()
    for entity in entities:
        if isinstance(entity, DeclareLaunchArgument):
            entity.visit(context)
    build = next(entity for entity in entities if isinstance(entity, OpaqueFunction))
    actions = build.visit(context)
    specs = sim_graph() if name == "sim" else franka_graph("172.16.0.2")
    assert [a.node_executable for a in actions] == [
        *(spec.executable for spec in specs),
        "lifecycle_manager",
    ]
