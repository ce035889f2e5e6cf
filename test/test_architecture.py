"""The rules of the house: imports point down only, a file is one idea, a word means one thing.

CONTRIBUTING.md says why.
"""

import ast
import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from spear_policy.shared.programs import PROGRAMS

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("spear_policy", "spear_bringup", "spear_training")
ROS_LIBRARIES = ("rclpy", "cv_bridge", "launch", "launch_ros", "tf2_ros")
# Lines and modules. A file is one idea read top to bottom: neither a cupboard nor a hall.
LONGEST_FILE = 700
SHORT_MODULE = 60
LEAST_MEAN_LENGTH = 200
FEWEST_MODULES = 3
METAPHORS = (
    "desk lane door ticket lathe easel painter paints survey hear heard tell told say says said "
    "look mend mended things moment journal"
).split()

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
    # What engines there are and need; a graph is checked before anything starts.
    "spear_bringup.graph": [
        "spear_bringup",
        "spear_policy.shared",
        "spear_policy.inference.engine",
    ],
    # Which engines see the simulation's ground truth.
    "spear_bringup.trials.report": [
        "spear_bringup",
        "spear_policy.shared",
        "spear_policy.inference.engine",
    ],
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
        ("spear_policy.inference.engine", "from spear_policy.geometry.poses import Chunk"),
        ("spear_policy.nodes.policy_node", "import rclpy"),
        ("spear_bringup.nodes.demo", "from spear_policy.nodes.lifecycle import Node"),
        ("spear_training.train.loop", "import torch\nfrom spear_bringup.sim import scene"),
    ],
)
def test_a_lawful_import_passes(module, source):
    assert not offences(module, imports_of(source, module))


def production_modules():
    """Return the path of every module of the packages by its dotted name."""
    return {
        ".".join(path.relative_to(ROOT / package).with_suffix("").parts): path
        for package in PACKAGES
        for path in python_files(f"{package}/{package}")
        if path.name != "__init__.py"
    }


def length(path):
    """Return the number of lines of a file."""
    return len(path.read_text().splitlines())


def importers(modules):
    """Return the modules that import each module."""
    found = {name: set() for name in modules}
    for module, path in modules.items():
        for name in imports_of(path.read_text(), module):
            # `from a.b import c` names a.b.c, which is a module or something inside one.
            for imported in (name, name.rpartition(".")[0]):
                if imported in found and imported != module:
                    found[imported].add(module)
    return found


def test_no_file_is_too_long_or_has_a_name_that_says_nothing():
    files = python_files(*PACKAGES, "test", "requirements")
    wrong = [path for path in files if path.name in ("utils.py", "helpers.py")]
    wrong += [path for path in files if length(path) > LONGEST_FILE]
    assert not wrong, [str(path.relative_to(ROOT)) for path in wrong]


def test_a_short_module_has_two_importers_or_belongs_into_the_one_it_has():
    modules, started = production_modules(), set(PROGRAMS.values())
    used_by = importers(modules)
    wrong = [
        f"{name} ({length(path)} lines) is imported by {sorted(used_by[name]) or 'nobody'}"
        for name, path in modules.items()
        if length(path) < SHORT_MODULE and len(used_by[name]) < 2 and name not in started
    ]
    assert not wrong, "\n".join(wrong)


def test_a_folder_has_at_least_three_modules():
    folders = Counter(path.parent for path in production_modules().values())
    few = {str(path.relative_to(ROOT)): n for path, n in folders.items() if n < FEWEST_MODULES}
    for package in PACKAGES:  # the top of a package holds folders
        few.pop(f"{package}/{package}", None)
    assert not few, few


def test_modules_are_rooms_not_cupboards():
    lengths = [length(path) for path in production_modules().values()]
    assert sum(lengths) / len(lengths) >= LEAST_MEAN_LENGTH


def test_no_two_classes_of_the_suite_have_one_name():
    places = defaultdict(list)
    for module, path in production_modules().items():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                places[node.name].append(module)
    twice = {name: found for name, found in places.items() if len(found) > 1}
    assert not twice, "\n".join(f"{name}: {found}" for name, found in twice.items())


def test_exceptions_are_called_errors():
    wrong = []
    for module, path in production_modules().items():
        for node in ast.walk(ast.parse(path.read_text())):
            bases = [ast.unparse(base) for base in getattr(node, "bases", [])]
            raised = any(base.endswith(("Error", "Exception")) for base in bases)
            if isinstance(node, ast.ClassDef) and raised and not node.name.endswith("Error"):
                wrong.append(f"{module}.{node.name}")
    assert not wrong, "\n".join(wrong)


def test_names_are_words_of_the_field():
    wrong = []
    for module, path in production_modules().items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                # A look-ahead is one of the field's words.
                words = re.findall(r"[A-Z]?[a-z]+", node.name.replace("look_ahead", ""))
                wrong += [f"{module}.{node.name}" for word in words if word.lower() in METAPHORS]
    assert not wrong, "\n".join(sorted(set(wrong)))


def test_documents_name_no_file_that_is_gone():
    names = {path.name for path in ROOT.rglob("*.py") if ".venv" not in path.parts}
    modules = set(production_modules())
    packages = {name.rpartition(".")[0] for name in modules} | set(PACKAGES)
    gone = []
    for document in [*sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("*.md"))]:
        if document.name == "CHANGELOG.md":
            continue
        text = document.read_text()
        gone += [
            f"{document.name}: {name}"
            for name in re.findall(r"([\w.]+\.py)\b", text)
            if name not in names and not name.startswith("ROBOT")
        ]
        imported = re.findall(r"from (spear_(?:policy|bringup|training)(?:\.\w+)+) import", text)
        gone += [f"{document.name}: {name}" for name in imported if name not in modules | packages]
        for name in re.findall(r"\bspear_(?:policy|bringup|training)(?:\.[a-z_0-9]+)+", text):
            # A module, or something inside one.
            if not {name, name.rpartition(".")[0]} & (modules | packages - set(PACKAGES)):
                gone.append(f"{document.name}: {name}")
    assert not gone, "\n".join(gone)
