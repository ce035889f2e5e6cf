"""Parameters from one YAML a node: value, unit, bound and one line of why for each.

An entry of `config/<executable>.yaml`:
    robot_timeout_s: {default: 0.1, unit: s, bounds: [0.02, 2.0], safety: true, why: "..."}
`choices: [..]` replaces `bounds` for words. `live: true` lets a parameter change while the node
runs; all others are fixed from configure to cleanup. A value out of bounds fails `configure`.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from ament_index_python.packages import get_package_share_directory
from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult

from spear_policy.nodes.lifecycle import Refused

_KEYS = {"default", "unit", "bounds", "choices", "why", "safety", "live", "length"}


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter: its default, unit, inclusive bounds or choices, and why it exists."""

    name: str
    default: Any
    unit: str
    why: str
    bounds: tuple[float, float] | None = None
    choices: tuple | None = None
    length: int | None = None
    safety: bool = False
    live: bool = False

    @property
    def description(self) -> str:
        """One line with unit and bound, as `ros2 param describe` shows it."""
        bound = f", {list(self.bounds)}" if self.bounds else ""
        bound += f", one of {list(self.choices)}" if self.choices else ""
        return f"{self.why} [{self.unit}{bound}]"

    def complaint(self, value: Any) -> str | None:
        """What is wrong with `value`, in a sentence; None when nothing is."""
        kind = "safety parameter" if self.safety else "parameter"
        if self.choices is not None and value not in self.choices:
            return f"{kind} {self.name} is {value!r}; it must be one of {list(self.choices)}"
        if self.length is not None and len(value) != self.length:
            return f"{kind} {self.name} has {len(value)} numbers; it needs {self.length}"
        numbers = value if isinstance(value, list | tuple) or hasattr(value, "tolist") else [value]
        for number in numbers:
            if isinstance(number, float) and not math.isfinite(number):
                return f"{kind} {self.name} is {value!r}; it must be finite"
            if self.bounds is None or isinstance(number, str | bool):
                continue
            low, high = self.bounds
            if not low <= number <= high:
                bound = f"{low} to {high} {self.unit}"
                return f"{kind} {self.name} is {value!r} {self.unit}; it must be {bound}"
        return None


def read_specs(path: Path) -> dict[str, ParameterSpec]:
    """The parameters of a YAML file in its order.

    Raises:
        ValueError: an entry lacks default, unit or why, has an unknown key, or a default out of
            its own bounds.
    """
    specs = {}
    for name, entry in yaml.safe_load(Path(path).read_text()).items():
        missing = {"default", "unit", "why"} - set(entry)
        unknown = set(entry) - _KEYS
        if missing or unknown:
            raise ValueError(f"{path}: {name} lacks {sorted(missing)} or has {sorted(unknown)}")
        fields = {key: tuple(v) if key in ("bounds", "choices") else v for key, v in entry.items()}
        spec = ParameterSpec(name=name, **fields)
        if problem := spec.complaint(spec.default):
            raise ValueError(f"{path}: the default is out of bounds: {problem}")
        specs[name] = spec
    return specs


class Parameters:
    """The parameters of one node: declared at once, checked on configure, read by name.

    Args:
        node: a SpearNode.
        package, name: the YAML is `share/<package>/config/<name>.yaml`.
    """

    def __init__(self, node, package: str, name: str):
        share = Path(get_package_share_directory(package))
        self.specs = read_specs(share / "config" / f"{name}.yaml")
        self._node = node
        self.fixed = False
        for spec in self.specs.values():
            descriptor = ParameterDescriptor(description=spec.description)
            node.declare_parameter(spec.name, spec.default, descriptor)
        node.add_on_set_parameters_callback(self._judge)

    def __getitem__(self, name: str) -> Any:
        value = self._node.get_parameter(name).value
        return value.tolist() if hasattr(value, "tolist") else value

    def check(self) -> None:
        """Raise Refused naming every parameter out of bounds; then hold the fixed ones fixed."""
        complaints = [spec.complaint(self[name]) for name, spec in self.specs.items()]
        if problems := [complaint for complaint in complaints if complaint]:
            raise Refused("; ".join(problems))
        self.fixed = True

    def release(self) -> None:
        """Let fixed parameters change again; call it in cleanup()."""
        self.fixed = False

    def _judge(self, changes) -> SetParametersResult:
        for change in changes:
            spec = self.specs.get(change.name)
            if spec is None:
                continue
            if self.fixed and not spec.live:
                reason = f"{change.name} is fixed while the node is configured; clean it up first"
                return SetParametersResult(successful=False, reason=reason)
            if problem := spec.complaint(change.value):
                return SetParametersResult(successful=False, reason=problem)
        return SetParametersResult(successful=True)
