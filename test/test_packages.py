"""What the packages say about themselves is true: dependencies, programs, versions."""

import ast
import re
import subprocess
import sys
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("spear_policy", "spear_bringup", "spear_training")
NODES = ("franka_driver", "sim_world", "trial_recorder", "lifecycle_manager")
# Import name -> rosdep key, where apt has the library.
ROSDEP_KEYS = {
    "cv2": "python3-opencv",
    "google": "python3-protobuf",
    "jinja2": "python3-jinja2",
    "markupsafe": "python3-jinja2",
    "matplotlib": "python3-matplotlib",
    "numpy": "python3-numpy",
    "PIL": "python3-pil",
    "hypothesis": "python3-hypothesis",
    "pytest": "python3-pytest",
    "rich": "python3-rich",
    "scipy": "python3-scipy",
    "yaml": "python3-yaml",
}
# Needed without an import: the launch command, and what conftest.py and pyproject.toml ask for.
USED_OTHERWISE = {"spear_bringup": {"ros2launch"}}
USED_BY_TESTS = {"domain_coordinator", "python3-hypothesis", "python3-pytest-timeout"}
# Import name -> what pip calls it (requirements/lab.txt, and training.txt for spear_training).
PIP_NAMES = {
    "franky": "franky-control",
    "franky_sim": "franky-sim",
    "google_crc32c": "google-crc32c",
    "pinocchio": "pin",
    "mcap_ros2": "mcap-ros2-support",
}


def imported_libraries(package, folders=None):
    """Return the first parts of all imports of folders: a package's own and its launch files."""
    found = set()
    for folder in folders or (package, "launch"):
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


def declared(package, tags=("depend", "exec_depend")):
    """Return the dependencies that package.xml names."""
    tree = ElementTree.parse(ROOT / package / "package.xml")
    return {node.text for node in tree.getroot() if node.tag in tags}


def rosdep_keys(names):
    """Return what package.xml calls imported libraries."""
    return {ROSDEP_KEYS.get(name, name) for name in names}


def programs(package):
    """Return (name, module, function) of what a package installs below lib/."""
    return re.findall(r'"(\w+) = ([\w.]+):(\w+)"', (ROOT / package / "setup.py").read_text())


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
def test_package_xml_names_no_dependency_that_nothing_uses(package):
    own = rosdep_keys(imported_libraries(package)) | USED_OTHERWISE.get(package, set())
    assert declared(package) - own == set()
    tests = rosdep_keys(imported_libraries(package, ("test",))) | USED_BY_TESTS
    assert declared(package, ("test_depend",)) - tests == set()


@pytest.mark.parametrize("package", [*PACKAGES, "test"])
def test_what_tests_import_is_a_dependency_of_tests(package):
    folders = ("test",) if package in PACKAGES else ("",)
    everything = declared(package, ("depend", "exec_depend", "test_depend"))
    wanted = rosdep_keys(imported_libraries(package, folders)) | USED_BY_TESTS
    by_apt = {key for key in wanted if re.search(r"^python3-|_msgs$|_python$|^rclpy$|^spear_", key)}
    assert by_apt - everything == set()


def test_a_program_has_a_name_of_its_own_and_help_with_an_example(monkeypatch, capsys):
    """The nodes' help is proved by test_parameter_files.py."""
    for package in PACKAGES:
        for program, module, function in programs(package):
            assert program not in ("bench", "demo", "look", "report", "run", "stats")
            if program.endswith("_node") or program in NODES:
                continue
            monkeypatch.setattr(sys, "argv", [program, "--help"])
            with suppress(SystemExit):
                getattr(import_module(module), function)()
            out = capsys.readouterr().out
            assert "example" in out.lower() and program in out, program


@pytest.mark.parametrize("package", PACKAGES)
def test_every_program_has_a_module_with_a_main(package):
    for program, module, function in programs(package):
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


def test_nothing_cites_a_file_that_a_user_does_not_have():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout
    texts = (ROOT / name for name in listed.split() if name.endswith((".md", ".py", ".yaml")))
    cites = re.compile(r"facts/\w|\.\./shared|/work/|DESIGN section")
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in texts
        for line in path.read_text().splitlines()
        if cites.search(line) and "SPEAR_TEST_DATA" not in line and path != Path(__file__)
    ]
    assert not found, "\n".join(found)


def test_colcon_runs_only_quick_tests_whatever_the_workspace(tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "spear").symlink_to(ROOT)

    def python(folder, *arguments):
        command = [sys.executable, "-m", *arguments]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True).stdout

    known = python(tmp_path, "colcon", "--log-base", "log", "info")
    assert known.count("pytest-args: ['--phase', 'pure']") == len([*PACKAGES, "test"])
    assert "-DBUILD_TESTING=OFF" in known
    chosen = python(ROOT / "test", "pytest", "--collect-only", "-q", "--phase", "pure")
    assert "test_lint.py" in chosen
    assert "test_lab_environment" not in chosen and "test_demo" not in chosen
