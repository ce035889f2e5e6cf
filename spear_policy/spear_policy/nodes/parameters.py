"""The parameters of a node from its definition file, in the form of generate_parameter_library.

`config/<executable>.yaml` is YAML that generate_parameter_library reads as well:

    franka_driver:
      robot_timeout_s:
        type: double
        default_value: 0.1
        description: "silence after which the robot counts as lost [s]"
        read_only: true
        additional_constraints: safety
        validation: {bounds<>: [0.02, 5.0]}

Understood of it: the types bool, int, double, string and arrays of them; the validations bounds<>,
gt_eq<>, lt_eq<>, element_bounds<>, one_of<>, fixed_size<> and not_empty<>; no nested groups. A
description may end in the unit, in brackets. A parameter that is `read_only` is fixed from
configure to cleanup; others may change while the node runs. The constraint `safety` is for people.

Values come from ordinary ROS parameter files and arguments. A wrong one fails `configure` with a
sentence, not the start with a traceback.
"""

import copy
import difflib
import math
import re
import textwrap
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from ament_index_python.packages import get_package_share_directory
from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)

from spear_policy.nodes.lifecycle import RefusedError

_REQUIRED = {"type", "default_value", "description"}
_OPTIONAL = {"read_only", "additional_constraints", "validation"}
# By the element's type: the Python types that may be given, and their name for people.
_TYPES = {
    "bool": (bool, "true or false"),
    "int": (int, "a whole number"),
    "double": (int | float, "a number"),
    "string": (str, "text"),
}
# What each validation asks of a value, and how it says so; in the arguments' order.
_VALIDATIONS = {
    "bounds<>": (lambda value, low, high: low <= value <= high, "{} to {}"),
    "gt_eq<>": (lambda value, low: value >= low, "at least {}"),
    "lt_eq<>": (lambda value, high: value <= high, "at most {}"),
    "element_bounds<>": (
        lambda values, low, high: all(low <= value <= high for value in values),
        "{} to {} each",
    ),
    "one_of<>": (lambda value, choices: value in choices, "one of {}"),
    "fixed_size<>": (lambda values, size: len(values) == size, "a list of {}"),
    "not_empty<>": (lambda value: len(value) > 0, "not empty"),
}


@dataclass(frozen=True)
class ParameterSpec:
    """The definition of one parameter.

    Attributes:
        name, type, description: as in the file.
        default: `default_value`.
        validation: arguments by name, such as {"bounds<>": [0.02, 5.0]}.
        safety: a wrong value may hurt somebody; messages say so.
        read_only: fixed from configure to cleanup.
    """

    name: str
    type: str
    default: Any
    description: str
    validation: dict[str, list] = field(default_factory=dict)
    safety: bool = False
    read_only: bool = False

    @property
    def unit(self) -> str:
        """The unit that ends the description; empty when there is none."""
        found = re.search(r"\[([^\]]+)\]$", self.description)
        return found[1] if found else ""

    @property
    def constraints(self) -> str:
        """What a value must be, in words, as `ros2 param describe` shows it."""
        words = [self._words(name) for name in self.validation]
        return ", ".join([*words, *(["safety"] if self.safety else [])])

    @property
    def range(self) -> tuple:
        """(lowest, highest) of a number that has both bounds, else (None, None)."""
        return tuple(self.validation.get("bounds<>", (None, None)))

    def complaint(self, value: Any) -> str | None:
        """What is wrong with `value`, in a sentence; None when nothing is."""
        name = f"{'safety parameter' if self.safety else 'parameter'} {self.name}"
        if wanted := self._wanted_type(value):
            return f"{name} is {value!r}; it must be {wanted}"
        numbers = value if self._is_array else [value]
        if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
            return f"{name} is {value!r}; it must be finite"
        for validation, arguments in self.validation.items():
            if not _VALIDATIONS[validation][0](value, *arguments):
                shown = f"{value!r} {self.unit}".rstrip()
                return f"{name} is {shown}; it must be {self._words(validation)}"
        return None

    def typed(self, value: Any) -> Any:
        """The value in the parameter's type: 1 becomes 1.0, an array becomes a list."""
        convert = float if self.type.startswith("double") else lambda given: given
        return [convert(each) for each in value] if self._is_array else convert(value)

    @property
    def _is_array(self) -> bool:
        return self.type.endswith("_array")

    def _words(self, validation: str) -> str:
        words = _VALIDATIONS[validation][1].format(*self.validation[validation])
        return f"{words} {self.unit}".rstrip() if "bounds" in validation else words

    def _wanted_type(self, value: Any) -> str:
        """Which type it must have instead, in words; empty when it has it."""
        kind, words = _TYPES[self.type.removesuffix("_array")]
        values = [value]
        if self._is_array:
            words = f"a list, each {words}"
            # rclpy gives the arrays of Python's module array, which have a method tolist.
            is_list = isinstance(value, list | tuple) or hasattr(value, "tolist")
            values = list(value) if is_list else [None]
        # To Python, True is a whole number.
        right = all(isinstance(v, kind) and isinstance(v, bool) == (kind is bool) for v in values)
        return "" if right else words


def read_specs(path: str | Path) -> dict[str, ParameterSpec]:
    """The parameters of a definition file, in its order.

    Raises:
        ValueError: another form, a key, type or validation that is not understood, or a default
            that its own validation refuses; names file and parameter.
    """
    path = Path(path)
    content = yaml.safe_load(path.read_text())
    if not isinstance(content, dict) or list(content) != [path.stem]:
        raise ValueError(f"{path}: the only key at the top must be {path.stem}")
    specs = {}
    for name, entry in content[path.stem].items():
        missing, unknown = _REQUIRED - set(entry), set(entry) - _REQUIRED - _OPTIONAL
        if missing or unknown:
            raise ValueError(f"{path}: {name} lacks {sorted(missing)} or has {sorted(unknown)}")
        spec = ParameterSpec(
            name=name,
            type=entry["type"],
            default=entry["default_value"],
            description=entry["description"],
            validation={
                validation: arguments if isinstance(arguments, list) else [arguments]
                for validation, arguments in entry.get("validation", {}).items()
            },
            safety=entry.get("additional_constraints") == "safety",
            read_only=entry.get("read_only", False),
        )
        if spec.type.removesuffix("_array") not in _TYPES:
            raise ValueError(f"{path}: {name} has the unknown type {spec.type!r}")
        if strange := set(spec.validation) - set(_VALIDATIONS):
            raise ValueError(f"{path}: {name} has the unknown validation {strange.pop()!r}")
        if problem := spec.complaint(spec.default):
            raise ValueError(f"{path}: the default is not allowed: {problem}")
        specs[name] = spec
    return specs


def definition_file(package: str, executable: str) -> Path:
    """Where the parameters of an installed node are defined."""
    return Path(get_package_share_directory(package)) / "config" / f"{executable}.yaml"


def parameter_file(package: str, executable: str) -> str:
    """A ROS parameter file with every parameter of a node at its default, each explained above it.

    It is what `--help` shows and what `params/EXECUTABLE.yaml` holds; the key at its top matches
    the node in any namespace.
    """
    node_name = {"policy_node": "policy"}.get(executable, executable)
    lines = [f"/**/{node_name}:", "  ros__parameters:"]
    for spec in read_specs(definition_file(package, executable)).values():
        constraints = f" ({spec.constraints})" if spec.constraints else ""
        lines += textwrap.wrap(
            spec.description + constraints, 96, initial_indent="    # ", subsequent_indent="    # "
        )
        value = yaml.safe_dump([spec.default], default_flow_style=True, width=math.inf).strip()
        lines.append(f"    {spec.name}: {value[1:-1]}")
    return "\n".join(lines) + "\n"


def node_help(package: str, executable: str, text: str) -> str:
    """What a node's `--help` prints: its own words with an example, then its parameters."""
    return (
        f"{text.strip()}\n\nParameters, as a file for --params-file; one like it, to copy, is\n"
        f"{example_file(package, executable)}\n\n{parameter_file(package, executable)}"
    )


def example_file(package: str, executable: str) -> Path:
    """Where the example parameter file of an installed node is."""
    return Path(get_package_share_directory(package)) / "params" / f"{executable}.yaml"


class Parameters:
    """The parameters of one node: declared at once, checked on configure, read by name.

    Attributes:
        specs: by name.
        fixed: whether the read-only ones are held fixed at present.
    """

    def __init__(self, node, package: str, executable: str):
        """Declare on `node` what the definition file of an executable of `package` has."""
        self.specs = read_specs(definition_file(package, executable))
        self.fixed = False
        self._node = node
        for spec in self.specs.values():
            # Dynamic typing: rclpy would end the node with a traceback when somebody writes 1 for
            # 1.0. Our own check says what is wrong.
            descriptor = ParameterDescriptor(
                description=spec.description,
                additional_constraints=spec.constraints,
                dynamic_typing=True,
            )
            node.declare_parameter(spec.name, spec.default, descriptor)
        node.add_on_set_parameters_callback(self._on_change)
        node.describe_parameter = partial(self._describe, node.describe_parameter)

    def __getitem__(self, name: str) -> Any:
        return self.specs[name].typed(self._raw(name))

    def check(self) -> None:
        """Raise RefusedError naming every parameter that is wrong; then hold the fixed ones fixed.

        A given parameter that the node does not know is warned of: it may be a misspelt limit.
        """
        for name in self._unknown():
            meant = difflib.get_close_matches(name, self.specs, 1)
            hint = f"; did you mean {meant[0]}?" if meant else ""
            self._node.get_logger().warning(f"parameter {name} is unknown here and ignored{hint}")
        complaints = [spec.complaint(self._raw(name)) for name, spec in self.specs.items()]
        if problems := [complaint for complaint in complaints if complaint]:
            raise RefusedError("; ".join(problems))
        self.fixed = True

    def release(self) -> None:
        """Let fixed parameters change again; call it in cleanup()."""
        self.fixed = False

    def _describe(self, describe, name: str) -> ParameterDescriptor:
        """With its range, which is only shown: by a declared one rclpy would end the node."""
        descriptor = copy.copy(describe(name))
        low, high = self.specs[name].range if name in self.specs else (None, None)
        if low is None:
            return descriptor
        if self.specs[name].type == "int":
            descriptor.integer_range = [IntegerRange(from_value=low, to_value=high)]
        else:
            bounds = FloatingPointRange(from_value=float(low), to_value=float(high))
            descriptor.floating_point_range = [bounds]
        return descriptor

    def _raw(self, name: str) -> Any:
        return self._node.get_parameter(name).value

    def _unknown(self) -> list[str]:
        given = self._node._parameter_overrides
        return [name for name in given if not self._node.has_parameter(name)]

    def _on_change(self, changes) -> SetParametersResult:
        for change in changes:
            spec = self.specs.get(change.name)
            if spec is None:
                continue
            if self.fixed and spec.read_only:
                reason = f"{change.name} is fixed while the node is configured; clean it up first"
                return SetParametersResult(successful=False, reason=reason)
            if problem := spec.complaint(change.value):
                return SetParametersResult(successful=False, reason=problem)
        return SetParametersResult(successful=True)
