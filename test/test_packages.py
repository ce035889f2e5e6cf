"""What the packages say about themselves is true: dependencies, programs, versions."""

import ast
import os
import re
import runpy
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from xml.etree import ElementTree

import pytest

from spear_policy.shared.programs import PROGRAMS
from spear_policy.shared.programs import main as run_installed

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
    "hypothesis": "python3-hypothesis",
    "pytest": "python3-pytest",
    "rich": "python3-rich",
    "scipy": "python3-scipy",
    "yaml": "python3-yaml",
}
# Needed without an import: the launch command, and what conftest.py and pyproject.toml ask for.
USED_OTHERWISE = {"spear_bringup": {"ros2launch"}}
USED_BY_TESTS = {"domain_coordinator", "python3-hypothesis", "python3-pytest-timeout"}
# What a person asks for by an option, and is told to install where it is missing.
OPTIONAL = {"wandb"}
# Import name -> what pip calls it.
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
    within = [line.split()[1] for line in lines if line.startswith("-r ")]
    return {match.group().lower() for match in names}.union(*map(names_in, within))


def declared(package, tags=("depend", "exec_depend")):
    """Return the dependencies that package.xml names."""
    tree = ElementTree.parse(ROOT / package / "package.xml")
    return {node.text for node in tree.getroot() if node.tag in tags}


def rosdep_keys(names):
    """Return what package.xml calls imported libraries."""
    return {ROSDEP_KEYS.get(name, name) for name in names}


def programs(package):
    """Return the names of the programs that a package installs below lib/."""
    entries = re.findall(r'"(\w+) = ([\w.]+:\w+)"', (ROOT / package / "setup.py").read_text())
    assert {target for _, target in entries} == {"spear_policy.shared.programs:main"}
    return [name for name, _ in entries]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_import_is_declared_for_a_lab_machine(package):
    pip_lists = ["annotation.txt" if package == "spear_training" else "robot.txt"]
    by_pip = set().union(*map(names_in, pip_lists))
    undeclared = []
    for name in sorted(imported_libraries(package) - OPTIONAL):
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


@pytest.mark.parametrize("package", PACKAGES)
def test_a_program_is_installed_under_a_name_of_its_own_and_help_has_an_example(
    package, monkeypatch, capsys
):
    """The nodes' help is proved by test_parameter_files.py."""
    here = [name for name, module in PROGRAMS.items() if module.startswith(f"{package}.")]
    assert programs(package) == here
    for program in here:
        assert program not in ("bench", "demo", "look", "report", "run", "stats")
        if PROGRAMS[program].startswith(f"{package}.nodes") and program != "spear_demo":
            continue
        monkeypatch.setattr(sys, "argv", [program, "--help"])
        with suppress(SystemExit):
            run_installed()
        out = capsys.readouterr().out
        assert "example" in out.lower() and program in out, program


@pytest.mark.parametrize(
    ("command", "library", "extra"),
    [
        ("franka_driver", "franky", "robot"),
        ("spear_stats --mixture x.yaml --out y", "pyarrow", "training"),
        ("annotate inspect out", "pycocotools", "annotation"),
    ],
)
def test_a_missing_library_is_one_sentence_with_its_extra(command, library, extra):
    program = (
        f"import sys; sys.modules[{library!r}] = None; sys.argv = {command.split()!r}; "
        "from spear_policy.shared.programs import main; sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert f"needs the Python package {library}" in done.stderr
    assert f"requirements/{extra}.txt" in done.stderr and f"EXTRAS={extra}" in done.stderr


def test_an_engine_that_lacks_a_library_is_refused_with_the_extra(monkeypatch):
    from spear_policy.inference.engine import make_engine

    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "spear_policy.inference.spear_engine", raising=False)
    with pytest.raises(ValueError, match="needs the Python package torch.*requirements/robot.txt"):
        make_engine({"engine": "spear", "checkpoint": "anything"})


def test_the_extras_of_setup_py_are_the_lists_of_requirements(monkeypatch):
    extras = {}
    monkeypatch.setattr("setuptools.setup", lambda **given: extras.update(given["extras_require"]))
    robot = []
    for package in PACKAGES:
        monkeypatch.chdir(ROOT / package)
        runpy.run_path("setup.py")
        robot += extras.pop("robot", [])
    lists = {"robot": robot, **extras}
    for name in ("robot", "training", "annotation"):
        assert {re.match(r"[\w-]+", each)[0].lower() for each in lists[name]} == names_in(
            f"{name}.txt"
        )
    assert not {"ray", "pyarrow"} & names_in("robot.txt") and "pi-heif" in names_in(
        "annotation.txt"
    )


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
    for requirements in ("ros", "common", "robot", "annotation", "dev"):
        assert names_in(f"{requirements}.txt") <= pinned, requirements
    for requirements in ("common", "robot", "annotation"):
        assert names_in(f"{requirements}.txt") <= names_in("constraints-apt.txt"), requirements


def test_the_image_is_made_by_the_commands_of_the_readme():
    """The image itself is built by .github/workflows/jazzy.yml: here is no Docker."""
    readme = (ROOT / "README.md").read_text()
    recipe = readme[readme.index("## On a lab machine") :].split("```")[1].splitlines()
    image = " ".join((ROOT / "Dockerfile").read_text().replace("\\\n", " ").split())
    for word in ("rosdep install", "python3 -m venv", "pip install", "colcon build"):
        (line,) = (line for line in recipe if word in line)
        assert line.removesuffix(" && . install/setup.bash") in image
    launch_test = ROOT / ".ci" / "launch_test"
    assert ".ci/launch_test" in image and os.access(launch_test, os.X_OK)
    subprocess.run(["bash", "-n", launch_test], check=True)


def test_nothing_cites_a_file_that_a_user_does_not_have():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout
    texts = (ROOT / name for name in listed.split() if name.endswith((".md", ".py", ".yaml")))
    cites = re.compile(
        r"facts/\w|\.\./shared|(?<![\w.~])/(?:home|root|work)/|DESIGN section|python3 -m spear_"
    )
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
