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


@pytest.mark.parametrize("discovery_range", ["LOCALHOST", "SUBNET"])
def test_a_node_listens_on_loopback_only(in_fresh_shell, ros_domain, discovery_range):
    script = """python3 -c '
import os, pathlib, rclpy
rclpy.init()
node = rclpy.create_node("probe")
links = [os.readlink(each) for each in pathlib.Path("/proc/self/fd").iterdir() if each.is_symlink()]
own = {link[8:-1] for link in links if link.startswith("socket:[")}
for table in ("udp", "udp6"):
    for line in pathlib.Path("/proc/self/net", table).read_text().splitlines()[1:]:
        fields = line.split()
        if fields[9] in own:
            print("socket", *fields[1].split(":"))
node.destroy_node()
rclpy.shutdown()'"""
    given = {"ROS_DOMAIN_ID": str(ros_domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": discovery_range}
    lines = [line.split()[1:] for line in in_fresh_shell(script, **given).splitlines()]
    first_ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    # In the range LOCALHOST rmw_fastrtps adds a transport that only sends, from ephemeral ports.
    listening = {address for address, port in lines if int(port, 16) < first_ephemeral}
    loopback, multicast = "0100007F", "0100FFEF"  # joined on loopback
    assert loopback in listening and listening <= {loopback, multicast}
    if discovery_range == "SUBNET":
        assert {address for address, _ in lines} <= {loopback, multicast}
