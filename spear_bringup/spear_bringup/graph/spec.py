"""One process of the node graph as data: what is started, and with which parameters."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


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
        managed: whether the lifecycle manager configures and activates it.

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
    """Raise ValueError when two nodes share a name or a parameter file does not exist."""
    names = [spec.full_name for spec in specs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"the graph has two nodes named {', '.join(twice)}; rename one")
    for spec in specs:
        for path in spec.params_files:
            if not Path(path).is_file():
                raise ValueError(f"params_file {path} does not exist; {spec.name} cannot start")
