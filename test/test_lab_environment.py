"""Each extra works in an environment of its own, with the versions of a lab's apt ROS 2 Jazzy.

Ubuntu's own packages cannot be installed here; constraints-apt.txt names the same versions (numpy
below 2).
"""

import os
import re
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("spear_policy", "spear_bringup", "spear_training")
NEEDS_ROS = re.compile(
    r"rclpy|_msgs\b|\.nodes|\bgraph\b|franky|simulated_franka|franka_fixture|install/setup|"
    r"trial_bags|bag_reader"
)
# What must be importable with the lists of an environment.
MODULES = {
    "robot": ("spear_policy", "spear_bringup"),
    "training": ("spear_training.data",),
    "annotation": ("spear_training.annotation", "spear_training.vqa"),
    "robot annotation": PACKAGES,
}
# Imports every module below the packages that are named; only what is part of ROS may be missing.
IMPORTS = """
import importlib, pkgutil, re, sys
import numpy, torch
ros = re.compile(
    r"rclpy|launch|launch_ros|ament_index_python|domain_coordinator|\\w+_(msgs|interfaces)"
)
for top in sys.argv[1:]:
    package = importlib.import_module(top)
    for found in pkgutil.walk_packages(package.__path__, top + "."):
        try:
            importlib.import_module(found.name)
        except ImportError as error:  # our folder `launch` stands in the way of ROS's own
            assert ros.fullmatch(error.name.partition(".")[0]), (found.name, error)
assert numpy.__version__.startswith("1.26."), numpy.__version__
assert torch.from_numpy(numpy.ones(3)).numpy().sum() == 3
print(*(name for name in ("ray", "pyarrow", "franky") if importlib.util.find_spec(name)))
"""
THERE = {"robot": "franky", "training": "pyarrow", "annotation": "ray pyarrow"}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module", params=MODULES)
def lab(request):
    """Make the environment of some extras; return them and a function that runs its Python."""
    ours = ("PYTHONPATH", "LD_LIBRARY_PATH", "_ROS_WHEELS_BOOTSTRAP_COMPLETE", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    environment["PYTHONPATH"] = ":".join(str(ROOT / package) for package in PACKAGES)
    with tempfile.TemporaryDirectory(prefix="spear_lab_") as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], env=environment, check=True)
        python = Path(folder, "bin", "python")

        def run(*arguments):
            result = subprocess.run(
                [python, *map(str, arguments)],
                env=environment,
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
            )
            if result.returncode:
                pytest.fail(f"{arguments}:\n{result.stdout}{result.stderr}", pytrace=False)
            return result.stdout

        requirements = ROOT / "requirements"
        install = runpy.run_path(str(requirements / "bootstrap.py"))["install_packages"]
        lists = ["common", *request.param.split()]
        files = [argument for name in lists for argument in ("-r", requirements / f"{name}.txt")]
        tools = ["pytest", "pytest-timeout", "hypothesis"]
        assert not install(python, ["-c", requirements / "constraints-apt.txt", *files, *tools])
        yield request.param, run


def test_every_module_of_an_extra_imports_and_nothing_conflicts(lab):
    extras, run = lab
    there = run("-c", IMPORTS, *MODULES[extras]).splitlines()[-1]
    assert there == THERE.get(extras, "ray pyarrow franky")
    run("-m", "pip", "check")


def test_the_logic_without_ros_passes_its_tests(lab):
    extras, run = lab
    if extras != "robot annotation":
        pytest.skip("the tests of a package need all of its extras")
    folders = [ROOT / package / "test" for package in PACKAGES]
    files = [path for folder in folders for path in sorted(folder.glob("test_*.py"))]
    plain = [path for path in files if not NEEDS_ROS.search(path.read_text())]
    assert plain, "no test file that needs no ROS"
    run("-m", "pytest", "-q", *plain)
