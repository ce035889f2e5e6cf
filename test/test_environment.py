"""Sourcing install/setup.bash is all a shell needs."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROFILE = "FASTRTPS_DEFAULT_PROFILES_FILE"


def test_everything_imports_in_a_fresh_shell(in_fresh_shell):
    in_fresh_shell(
        "python3 -c 'import rclpy, torch, spear_msgs, spear_policy, spear_bringup, spear_training'"
    )


def test_the_python_is_the_workspace_one_and_sources_are_linked(in_fresh_shell):
    python, package = in_fresh_shell(
        "python3 -c 'import sys, spear_policy; print(sys.prefix); print(spear_policy.__file__)'"
    ).splitlines()
    assert Path(python) == ROOT / ".venv"
    assert Path(package).resolve() == ROOT / "spear_policy" / "spear_policy" / "__init__.py"


@pytest.mark.parametrize(
    ("name", "default", "other"),
    [
        ("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp", "rmw_other"),
        ("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST", "SUBNET"),
        ("OMP_NUM_THREADS", "1", "8"),
        ("MUJOCO_GL", "egl", "osmesa"),
    ],
)
def test_a_setting_has_a_default_and_the_user_wins(in_fresh_shell, name, default, other):
    assert in_fresh_shell(f'echo "${name}"') == default
    assert in_fresh_shell(f'echo "${name}"', **{name: other}) == other


def test_sourcing_twice_changes_nothing(in_fresh_shell):
    show = 'echo "$PATH $LD_LIBRARY_PATH $AMENT_PREFIX_PATH $CMAKE_PREFIX_PATH $PYTHONPATH"'
    assert in_fresh_shell(show) == in_fresh_shell(f". install/setup.bash && {show}")


def test_a_node_gets_the_shared_memory_that_images_need(in_fresh_shell, ros_domain):
    script = """python3 -c '
import pathlib, rclpy
rclpy.init()
node = rclpy.create_node("probe")
lines = pathlib.Path("/proc/self/maps").read_text().splitlines()
spans = [line.split()[0].split("-") for line in lines if "/dev/shm/fastrtps_" in line]
print(max(int(end, 16) - int(start, 16) for start, end in spans))
node.destroy_node()
rclpy.shutdown()'"""
    domain = {"ROS_DOMAIN_ID": str(ros_domain)}
    assert int(in_fresh_shell(script, **domain).splitlines()[-1]) >= 16 * 2**20
    mine = in_fresh_shell(f'echo "${PROFILE}"', **{PROFILE: "/mine.xml"})
    assert mine == "/mine.xml"
    assert in_fresh_shell(f'test -f "${PROFILE}" && echo there') == "there"


def test_tests_run_with_field_checks_and_a_domain_of_their_own(ros_domain):
    assert os.environ["ROS_PYTHON_CHECK_FIELDS"] == "1"
    assert os.environ["ROS_DOMAIN_ID"] == str(ros_domain)
