"""The graphs of SPEAR: which nodes run, with what, in which order.

First a node as data and what is made of it, then the graphs, then the addresses of a graph that
shares its machine with others.
"""

import contextlib
import json
import math
import os
import random
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import domain_coordinator
from ament_index_python.packages import (
    PackageNotFoundError,
    get_package_prefix,
    get_package_share_directory,
)

from spear_policy.inference.engine import ENGINES
from spear_policy.shared.config import params_file_problem

# One node -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NodeSpec:
    """A node and how it is started. Never respawned: after a death a person looks first.

    Attributes:
        package, executable: what `ros2 run` would be given.
        name: node name, unique in its namespace.
        namespace: "" or a name such as "left"; it makes a second robot of the same graph.
        params_files: ROS parameter files; a later one wins over an earlier one.
        parameters: deployment values such as an address; they win over every file.
        remappings: (from, to) pairs.
        log_level: "debug", "info", "warn" or "error".
        managed: whether the lifecycle manager configures and activates it, and holds the robot
            when it dies.

    The place in the graph's list is the order of activation; deactivation and ending go backwards.
    """

    package: str
    executable: str
    name: str
    namespace: str = ""
    params_files: tuple[Path, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    remappings: tuple[tuple[str, str], ...] = ()
    log_level: str = "info"
    managed: bool = True

    @property
    def full_name(self) -> str:
        """The name with its namespace: "/policy" or "/left/policy"."""
        return "/" + "/".join(part for part in (self.namespace.strip("/"), self.name) if part)

    def parameter_file_text(self) -> str:
        """`parameters` as a ROS parameter file.

        The key is the full name: values under a wildcard, as `-p` on a command line makes them,
        would lose against a file that names the node.
        """
        lines = [f"{self.full_name}:", "  ros__parameters:"]
        lines += [f"    {key}: {_as_yaml(value)}" for key, value in self.parameters.items()]
        return "\n".join(lines) + "\n"

    def ros_arguments(self, parameter_file: Path | None = None) -> list[str]:
        """The command line after the executable; `parameter_file` holds `parameter_file_text()`."""
        arguments = ["--ros-args", "--log-level", self.log_level, "-r", f"__node:={self.name}"]
        if self.namespace:
            arguments += ["-r", f"__ns:=/{self.namespace.strip('/')}"]
        for source, target in self.remappings:
            arguments += ["-r", f"{source}:={target}"]
        files = self.params_files + ((parameter_file,) if parameter_file else ())
        for path in files:
            arguments += ["--params-file", str(path)]
        return arguments


def _as_yaml(value: Any) -> str:
    """A value as YAML that keeps its type: "1" stays a string, 1.0 stays a double."""
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_as_yaml(item) for item in value) + "]"
    if not isinstance(value, bool | int | float | str):
        raise TypeError(f"a parameter is a bool, int, float, str or a list of one, not {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    return json.dumps(value)


def check_graph(specs: list[NodeSpec]) -> None:
    """Raise ValueError when two nodes share a name or a parameter file cannot be used."""
    names = [spec.full_name for spec in specs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"the graph has two nodes named {', '.join(twice)}; rename one")
    for spec in specs:
        for path in spec.params_files:
            if problem := params_file_problem(path):
                raise ValueError(problem)


def manager_spec(specs: list[NodeSpec], autostart: bool = True, **timeouts: float) -> NodeSpec:
    """The lifecycle manager for launch, of the managed nodes of `specs` in their order.

    It runs on the steady clock, never on /clock: it must notice a simulation that died.

    Args:
        specs: the graph.
        autostart: bring everything up at start; otherwise ~/activate_all does.
        timeouts: parameters of config/lifecycle_manager.yaml.
    """
    managed = [spec for spec in specs if spec.managed]
    policies = [spec.full_name for spec in managed if spec.name == "policy"]
    # ROS has no type for an empty list; the default names a policy that is not there.
    first = {"deactivate_first": policies} if policies else {}
    return NodeSpec(
        package="spear_bringup",
        executable="lifecycle_manager",
        name="lifecycle_manager",
        namespace=managed[0].namespace,
        parameters={
            "node_names": [spec.full_name for spec in managed],
            **first,
            "autostart": autostart,
            **timeouts,
        },
        log_level=managed[0].log_level,
        managed=False,
    )


def find_executable(package: str, name: str) -> Path:
    """Path of an executable of an installed package, as `ros2 run` would find it.

    Raises:
        FileNotFoundError: the package or the executable is not installed; names the fix.
    """
    try:
        prefix = get_package_prefix(package)
    except PackageNotFoundError as error:
        raise FileNotFoundError(
            f"package {package} is not installed here; source install/setup.bash"
        ) from error
    path = Path(prefix) / "lib" / package / name
    if not path.is_file():
        raise FileNotFoundError(f"{package} has no executable {name} ({path}); build it first")
    return path


# The graphs ---------------------------------------------------------------------------------------


def sim_graph(
    engine: str = "scripted",
    record: bool = True,
    namespace: str = "",
    seed: int = 0,
    episode_file: Path | str | None = None,
    checkpoint: Path | str | None = None,
    spatial_checkpoint: Path | str | None = None,
    host: str = "127.0.0.1",
    out_dir: Path | str = "out/trials",
    use_sim_time: bool = True,
    params_file: Path | str | None = None,
    log_level: str = "info",
) -> list[NodeSpec]:
    """The simulated Franka: the world stands behind the robot's own protocol, the rest is real.

    Args:
        engine: "scripted", "replay" or "spear".
        record: run the trial recorder too.
        namespace: of all nodes; "" for none.
        seed: of the first scene.
        episode_file: what engine "replay" repeats.
        checkpoint: folder of engine "spear"; None leaves it to your `params_file`.
        spatial_checkpoint: folder of a stage-1 model; None runs no spatial_query node.
        host: loopback address that the simulated robot listens on.
        out_dir: the recorder's folder.
        use_sim_time: False runs the other nodes on system time (to try what then breaks).
        params_file: a ROS parameter file of yours; it wins over config/sim_overrides.yaml.
        log_level: of every node.

    Raises:
        ValueError: unknown engine, "replay" without an episode file, or either of the two files
            with an engine that does not read it.
    """
    others = _robot_nodes(
        engine,
        record,
        namespace,
        episode_file,
        checkpoint,
        spatial_checkpoint,
        host,
        out_dir,
        params_file,
        log_level,
        overrides="sim_overrides.yaml",
        use_sim_time=use_sim_time,
    )
    world = NodeSpec(
        package="spear_bringup",
        executable="sim_world",
        name="sim_world",
        namespace=namespace,
        params_files=_files("sim_overrides.yaml", params_file),
        # Two publishers of one camera would mix.
        parameters={"host": host, "seed": seed, "cameras": not ENGINES[engine].publishes_images},
        log_level=log_level,
        remappings=_own_clock(namespace),
    )
    return [world, *(replace(node, remappings=world.remappings) for node in others)]


def _own_clock(namespace: str) -> tuple[tuple[str, str], ...]:
    """A simulation in a namespace has a clock there: two in one domain do not mix."""
    return (("/clock", "clock"),) if namespace else ()


def franka_graph(
    robot_host: str,
    engine: str = "spear",
    record: bool = True,
    namespace: str = "",
    episode_file: Path | str | None = None,
    checkpoint: Path | str | None = None,
    spatial_checkpoint: Path | str | None = None,
    out_dir: Path | str = "out/trials",
    use_sim_time: bool = False,
    params_file: Path | str | None = None,
    log_level: str = "info",
) -> list[NodeSpec]:
    """A real Franka; your camera drivers publish external/image_raw and wrist/image_raw.

    Args are those of `sim_graph`; `robot_host` is the robot's network address.

    Raises:
        ValueError: as `sim_graph`; also for engine "scripted", which reads ground truth.
    """
    if engine in ENGINES and ENGINES[engine].simulation_only:
        raise ValueError(
            f"engine {engine} reads ground truth from a simulation; use spear or replay"
        )
    return _robot_nodes(
        engine,
        record,
        namespace,
        episode_file,
        checkpoint,
        spatial_checkpoint,
        robot_host,
        out_dir,
        params_file,
        log_level,
        overrides="franka_overrides.yaml",
        use_sim_time=use_sim_time,
    )


def _robot_nodes(
    engine,
    record,
    namespace,
    episode_file,
    checkpoint,
    spatial_checkpoint,
    robot_host,
    out_dir,
    params_file,
    log_level,
    *,
    overrides,
    use_sim_time,
) -> list[NodeSpec]:
    if engine not in ENGINES:
        raise ValueError(f"engine is {engine!r}; it must be one of {', '.join(ENGINES)}")
    given = {"episode_file": episode_file, "checkpoint": checkpoint}
    for name, value in given.items():
        if value and name != ENGINES[engine].needs:
            user = next(each for each, entry in ENGINES.items() if entry.needs == name)
            raise ValueError(f"{name} is for engine {user}; engine {engine} takes none")
    if ENGINES[engine].needs == "episode_file" and not episode_file:
        raise ValueError(f"engine {engine} needs episode_file, the recording to repeat")
    common = {
        "namespace": namespace,
        "params_files": _files(overrides, params_file),
        "log_level": log_level,
    }
    driver = NodeSpec(
        package="spear_bringup",
        executable="franka_driver",
        name="franka_driver",
        parameters={"robot_host": robot_host, "use_sim_time": use_sim_time},
        **common,
    )
    recorder = NodeSpec(
        package="spear_bringup",
        executable="trial_recorder",
        name="trial_recorder",
        parameters={"directory": Path(out_dir).absolute(), "use_sim_time": use_sim_time},
        **common,
    )
    answers = {"engine": engine, "use_sim_time": use_sim_time}
    answers |= {name: Path(value).absolute() for name, value in given.items() if value}
    policy = NodeSpec(
        package="spear_policy",
        executable="policy_node",
        name="policy",
        parameters=answers,
        **common,
    )
    # The policy comes last: only then is there somebody to move the robot and to be recorded.
    specs = [driver, *([recorder] if record else []), policy]
    if spatial_checkpoint:
        spatial = {"checkpoint": Path(spatial_checkpoint).absolute(), "use_sim_time": use_sim_time}
        # It answers people and moves nothing, so it starts itself and nothing waits for it.
        specs.append(
            NodeSpec(
                package="spear_policy",
                executable="spatial_query",
                name="spatial_query",
                parameters=spatial,
                managed=False,
                **common,
            )
        )
    return specs


def _files(own: str, yours: Path | str | None) -> tuple[Path, ...]:
    share = Path(get_package_share_directory("spear_bringup"))
    return (share / "config" / own, *([Path(yours).absolute()] if yours else []))


# A ROS domain and a loopback address that nobody else on this machine uses ------------------------

ROBOT_PORTS = (1337, 1338)  # arm and hand, as libfranka has them


@contextlib.contextmanager
def free_domain_id() -> Iterator[int]:
    """ROS_DOMAIN_ID when it is set, otherwise a free one, reserved while the block runs.

    Raises:
        ValueError: ROS_DOMAIN_ID is no number.
    """
    given = os.environ.get("ROS_DOMAIN_ID", "")
    if given:
        if not given.isdigit():
            raise ValueError(f"ROS_DOMAIN_ID is {given!r}; it must be a number such as 7")
        yield int(given)
        return
    reservation = domain_coordinator.domain_id()
    domain = reservation.__enter__()
    try:
        yield domain
    finally:
        # Not as a `with` block: it would take an OSError of the caller for a domain in use.
        reservation.__exit__(None, None, None)


def free_loopback_host(tries: int = 50) -> str:
    """An address 127.x.y.z on which the simulated robot's ports can be bound.

    Raises:
        OSError: none found.
    """
    for _ in range(tries):
        host = f"127.{random.randint(60, 250)}.{random.randint(0, 250)}.{random.randint(1, 250)}"
        if ports_are_free(host):
            return host
    raise OSError(f"no loopback address with free ports {ROBOT_PORTS} in {tries} tries")


def ports_are_free(host: str, ports: tuple[int, ...] = ROBOT_PORTS) -> bool:
    """Whether nobody listens on these TCP ports of `host`."""
    for port in ports:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                return False
    return True
