"""The node graph as actions of the real `launch_ros`; imported by the launch files only."""

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node

from spear_bringup.graph import NodeSpec, check_graph, manager_spec

# After Nav2's habit: name, default, choices, description.
_COMMON = (
    ("namespace", "", None, "namespace of every node; one per robot"),
    ("params_file", "", None, "ROS parameter file of yours; it wins over the shipped ones"),
    ("log_level", "info", ("debug", "info", "warn", "error"), "of every node"),
    ("record", "true", ("true", "false"), "run the trial recorder"),
    ("autostart", "true", ("true", "false"), "configure and activate every node at start"),
    ("out_dir", "out/trials", None, "folder of the recorder's bags and score sheet"),
    ("episode_file", "", None, "the recording that engine:=replay repeats"),
    ("checkpoint", "", None, "the checkpoint folder of engine:=spear; make_checkpoint makes one"),
    ("spatial_checkpoint", "", None, "a stage-1 folder: run the node spatial_query with it"),
)


def describe(graph, **own: tuple[str, tuple[str, ...] | None, str]) -> LaunchDescription:
    """The launch description of a graph.

    Args:
        graph: `sim_graph` or `franka_graph`; gets every argument but autostart.
        own: further arguments by name, (default, choices, description) each.
    """
    arguments = [*_COMMON, *((name, *rest) for name, rest in own.items())]
    names = [argument[0] for argument in arguments]

    def build(context: LaunchContext) -> list:
        values = {name: LaunchConfiguration(name).perform(context) for name in names}
        autostart = values.pop("autostart") == "true"
        specs = graph(**{name: _typed(value) for name, value in values.items()})
        check_graph(specs)
        return [as_action(spec) for spec in [*specs, manager_spec(specs, autostart)]]

    declared = [_declare(*argument) for argument in arguments]
    return LaunchDescription([*declared, OpaqueFunction(function=build)])


# What closing may take: the arm comes to rest, the bag is finished, an engine ends its inference.
_SIGTERM_TIMEOUT_S, _SIGKILL_TIMEOUT_S = 30, 10


def as_action(spec: NodeSpec) -> Node:
    """One node of the graph. It is never respawned."""
    kind = LifecycleNode if spec.managed else Node
    parameters = [str(path) for path in spec.params_files]
    if spec.parameters:
        parameters.append({key: _plain(value) for key, value in spec.parameters.items()})
    return kind(
        package=spec.package,
        executable=spec.executable,
        name=spec.name,
        namespace=spec.namespace,
        parameters=parameters,
        remappings=list(spec.remappings),
        ros_arguments=["--log-level", spec.log_level],
        output="both",
        respawn=False,
        sigterm_timeout=str(_SIGTERM_TIMEOUT_S),
        sigkill_timeout=str(_SIGKILL_TIMEOUT_S),
    )


def _declare(name: str, default: str, choices, description: str) -> DeclareLaunchArgument:
    options = {"choices": list(choices)} if choices else {}
    return DeclareLaunchArgument(name, default_value=default, description=description, **options)


def _typed(value: str):
    """A launch argument is text; the graph wants booleans, whole numbers and None for nothing."""
    if value in ("true", "false"):
        return value == "true"
    return int(value) if value.lstrip("-").isdigit() else value


def _plain(value):
    """What launch_ros takes as a parameter value: paths as text, tuples as lists."""
    if isinstance(value, list | tuple):
        return list(value)
    return value if isinstance(value, bool | int | float) else str(value)
