"""The versions of a lab's apt ROS 2 Jazzy (numpy below 2) work too, in an environment of their own.

Ubuntu's own packages cannot be installed here; constraints-apt.txt names the same versions.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("spear_policy", "spear_bringup", "spear_training")
NEEDS_ROS = re.compile(
    r"rclpy|spear_msgs|free_places|\.nodes|franky|simulated_franka|franka_fixture|install/setup"
)
IMPORTS = """
import numpy, scipy, cv2, rosbags.rosbag2, mcap.writer, mcap_ros2.decoder, av, torch
import franky, franky_sim, mujoco, pinocchio, google.protobuf, matplotlib, jinja2, rich
import tokenizers, pycocotools.mask, google.genai, pyarrow, transformers
import spear_policy.geometry, spear_policy.model.config
assert numpy.__version__.startswith("1.26."), numpy.__version__
assert torch.from_numpy(numpy.ones(3)).numpy().sum() == 3
print("fine")
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def lab_python():
    """Make the environment and return a function that runs its Python."""
    ours = ("PYTHONPATH", "LD_LIBRARY_PATH", "_ROS_WHEELS_BOOTSTRAP_COMPLETE", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    environment["PYTHONPATH"] = ":".join(str(ROOT / package) for package in PACKAGES)
    with tempfile.TemporaryDirectory(prefix="spear_lab_") as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], env=environment, check=True)

        def run(*arguments):
            result = subprocess.run(
                [f"{folder}/bin/python", *map(str, arguments)],
                env=environment,
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
            )
            if result.returncode:
                pytest.fail(f"{arguments}:\n{result.stdout}{result.stderr}", pytrace=False)
            return result.stdout

        lists = [ROOT / "requirements" / name for name in ("lab.txt", "apps.txt", "training.txt")]
        limits = ROOT / "requirements" / "constraints-apt.txt"
        tools = ["pytest", "pytest-timeout", "hypothesis", "PyYAML"]
        files = [argument for path in lists for argument in ("-r", path)]
        run("-m", "pip", "install", "-qq", "--no-input", "-c", limits, *files, *tools)
        yield run


def test_the_libraries_import(lab_python):
    assert lab_python("-c", IMPORTS).strip() == "fine"


def test_nothing_conflicts(lab_python):
    lab_python("-m", "pip", "check")


def test_the_logic_without_ros_passes_its_tests(lab_python):
    folders = [ROOT / package / "test" for package in PACKAGES]
    files = [path for folder in folders for path in sorted(folder.glob("test_*.py"))]
    plain = [path for path in files if not NEEDS_ROS.search(path.read_text())]
    assert plain, "no test file that needs no ROS"
    lab_python("-m", "pytest", "-q", "-m", "not slow", *plain)
