"""The dependency rule: imports point down only, and each heavy library has one place."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("spear_policy", "spear_bringup", "spear_training")
ROS_LIBRARIES = ("rclpy", "cv_bridge", "launch", "launch_ros", "tf2_ros")
LONGEST_FILE = 700

# Who may import what of our own packages. A module not named here may use its own package.
ALLOWED = {
    "spear_policy.geometry": ["spear_policy.geometry"],
    "spear_policy.shared": ["spear_policy.shared"],
    "spear_policy.model": [
        "spear_policy.model",
        "spear_policy.geometry",
        "spear_policy.shared",
    ],
    "spear_policy.inference": [
        "spear_policy.inference",
        "spear_policy.model",
        "spear_policy.geometry",
        "spear_policy.shared",
    ],
    "spear_policy.nodes": ["spear_policy", "spear_msgs"],
    "spear_policy": ["spear_policy"],
    # The lifecycle base and its companions are shared by the nodes of both packages.
    "spear_bringup.nodes": [
        "spear_bringup",
        "spear_policy.geometry",
        "spear_policy.shared",
        "spear_policy.nodes",
        "spear_msgs",
    ],
    "spear_bringup": ["spear_bringup", "spear_policy.geometry", "spear_policy.shared"],
    "spear_training": [
        "spear_training",
        "spear_policy.model",
        "spear_policy.inference",
        "spear_policy.geometry",
        "spear_policy.shared",
        "spear_bringup.sim",
        "spear_bringup.control",
    ],
}
TORCH_PLACES = ("spear_policy.model", "spear_policy.inference", "spear_training")


def within(name, parents):
    """Tell whether a dotted name is one of the parents or inside one."""
    return any(name == parent or name.startswith(parent + ".") for parent in parents)


def imports_of(source, module):
    """Return the dotted names that a module imports, relative ones made absolute."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # `module` is a.b.c for a/b/c.py; one dot means a.b.
            stem = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*stem, *([node.module] if node.module else [])])
            found += [f"{base}.{alias.name}" for alias in node.names]
    return found


def offences(module, names):
    """Return what is wrong with the imports of one module."""
    ours = [name for name in names if within(name, [*PACKAGES, "spear_msgs"])]
    place = max((key for key in ALLOWED if within(module, [key])), key=len)
    found = [name for name in ours if not within(name, ALLOWED[place])]
    if ".nodes" not in module:
        found += [name for name in ours if ".nodes" in name]
        found += [name for name in names if within(name, ROS_LIBRARIES)]
    if not within(module, TORCH_PLACES):
        found += [name for name in names if within(name, ["torch"])]
    return [f"{module} imports {name}" for name in dict.fromkeys(found)]


def python_files(*parts):
    """Return the Python files of every package below the given folders."""
    return [path for part in parts for path in sorted((ROOT / part).rglob("*.py"))]


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_down(package):
    found = []
    for path in python_files(f"{package}/{package}"):
        module = ".".join(path.relative_to(ROOT / package).with_suffix("").parts)
        found += offences(module, imports_of(path.read_text(), module))
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("spear_policy.geometry.poses", "import rclpy"),
        ("spear_policy.geometry.poses", "import torch.nn"),
        ("spear_policy.geometry.poses", "from spear_policy.inference import engine"),
        ("spear_policy.inference.engine", "from spear_policy.nodes import qos"),
        ("spear_policy.nodes.policy_node", "import spear_bringup"),
        ("spear_bringup.control.gate", "from ..nodes import franka_driver"),
        ("spear_bringup.control.gate", "def f():\n    from torch import nn"),
        ("spear_bringup.drivers.franka", "from spear_policy import inference"),
        ("spear_bringup.drivers.franka", "from spear_policy.nodes.messages import SENSOR"),
        ("spear_bringup.nodes.demo", "from spear_training.data import rlds"),
        ("spear_training.data.rlds", "import spear_bringup.drivers"),
    ],
)
def test_a_breach_is_found(module, source):
    assert offences(module, imports_of(source, module))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("spear_policy.inference.engine", "from spear_policy.geometry.chunks import Chunk"),
        ("spear_policy.nodes.policy_node", "import rclpy"),
        ("spear_bringup.nodes.demo", "from spear_policy.nodes.lifecycle import Node"),
        ("spear_training.train.loop", "import torch\nfrom spear_bringup.sim import scene"),
    ],
)
def test_a_lawful_import_passes(module, source):
    assert not offences(module, imports_of(source, module))


def test_no_file_is_too_long_or_has_a_name_that_says_nothing():
    files = python_files(*PACKAGES, "test", "requirements")
    wrong = [path for path in files if path.name in ("utils.py", "helpers.py")]
    wrong += [path for path in files if len(path.read_text().splitlines()) > LONGEST_FILE]
    assert not wrong, [str(path.relative_to(ROOT)) for path in wrong]
