"""What the packages say about themselves is true: dependencies, programs, versions."""

import ast
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("spear_policy", "spear_bringup", "spear_training")
# Import name -> rosdep key, where apt has the library.
ROSDEP_KEYS = {
    "cv2": "python3-opencv",
    "google": "python3-protobuf",
    "jinja2": "python3-jinja2",
    "markupsafe": "python3-jinja2",
    "matplotlib": "python3-matplotlib",
    "numpy": "python3-numpy",
    "PIL": "python3-pil",
    "rich": "python3-rich",
    "scipy": "python3-scipy",
    "yaml": "python3-yaml",
}
# Import name -> what pip calls it (requirements/lab.txt, and training.txt for spear_training).
PIP_NAMES = {
    "franky": "franky-control",
    "franky_sim": "franky-sim",
    "google_crc32c": "google-crc32c",
    "pinocchio": "pin",
    "mcap_ros2": "mcap-ros2-support",
}


def imported_libraries(package):
    """Return the first parts of all imports of a package and of its launch files."""
    found = set()
    for folder in (package, "launch"):
        for path in (ROOT / package / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    found |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {package}


def names_in(requirements):
    """Return the names of a requirements list, lower case, without versions."""
    lines = (ROOT / "requirements" / requirements).read_text().splitlines()
    names = [re.match(r"[A-Za-z0-9._-]+", line) for line in lines if line[:1].isalnum()]
    return {match.group().lower() for match in names}


def declared(package):
    """Return the dependencies that package.xml names."""
    tree = ElementTree.parse(ROOT / package / "package.xml")
    return {node.text for node in tree.getroot() if node.tag in ("depend", "exec_depend")}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_import_is_declared_for_a_lab_machine(package):
    pip_lists = ["lab.txt"] + ["training.txt"] * (package == "spear_training")
    by_pip = set().union(*map(names_in, pip_lists))
    undeclared = []
    for name in sorted(imported_libraries(package)):
        key = ROSDEP_KEYS.get(name, name)
        if key not in declared(package) and PIP_NAMES.get(name, name).lower() not in by_pip:
            undeclared.append(f"{name} ({key})")
    assert not undeclared, f"not in package.xml or requirements/{pip_lists}: {undeclared}"


@pytest.mark.parametrize("package", PACKAGES)
def test_every_program_has_a_module_with_a_main(package):
    entries = re.findall(r'"(\w+) = ([\w.]+):(\w+)"', (ROOT / package / "setup.py").read_text())
    for program, module, function in entries:
        spec = find_spec(module)
        assert spec, f"{program}: no module {module}"
        tree = ast.parse(Path(spec.origin).read_text())
        functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
        assert function in functions, f"{program}: no {function} in {module}"


def test_all_packages_have_one_version():
    versions = set()
    for folder in (*PACKAGES, "spear_msgs", "test"):
        versions.add(ElementTree.parse(ROOT / folder / "package.xml").findtext("version"))
        if folder != "spear_msgs":
            setup = (ROOT / folder / "setup.py").read_text()
            versions.add(re.search(r'version="([^"]+)"', setup).group(1))
    assert len(versions) == 1, versions


def test_every_requirement_is_pinned():
    pinned = names_in("constraints.txt") | names_in("constraints-ros.txt")
    for requirements in ("ros.txt", "apps.txt", "dev.txt"):
        assert names_in(requirements) <= pinned, requirements
    assert names_in("lab.txt") <= names_in("constraints-apt.txt")
