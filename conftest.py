"""What every test gets: a ROS domain of its own, checked messages, and a look at what it left.

pytest reads this file for `make test` and for `colcon test` alike.
"""

import importlib
import os
import re
import tempfile
import time
import uuid
from contextlib import ExitStack, suppress
from pathlib import Path
from random import SystemRandom

import pytest

ROOT = Path(__file__).resolve().parent
SHARED_MEMORY = Path("/dev/shm")
TAG = "SPEAR_TEST_TAG"
# What only a test file that starts nodes, a simulated robot or a program of ours names. Messages
# alone start nothing.
NEEDS_ROS = re.compile(
    r"rclpy(?!\.serialization)|\.nodes\b(?!\.messages)|\bgraph\b|franky|install/|"
    r"(ros|franka|recorder|graph)_fixture|simulated_franka|dummy_graph|demo_program|remote_link"
)
# Of those, what only one names that starts the simulated robot, which must keep 1 kHz.
NEEDS_ROBOT = re.compile(
    r"franka_fixture|simulated_franka|graph_fixture|demo_program|free_loopback_host"
)
# Helpers that Python and torch keep for the life of the test process.
LASTING_HELPERS = ("resource_tracker", "forkserver", "compile_worker")

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MUJOCO_GL", "egl")
os.environ["ROS_PYTHON_CHECK_FIELDS"] = "1"

# pytest names a test file spear_policy.test.test_x. It would make up a module spear_policy for
# that, out of the folder of this name, unless the real one is there already.
for _package in ("spear_policy", "spear_bringup", "spear_training"):
    with suppress(ImportError):
        importlib.import_module(_package)


with suppress(ImportError):
    from hypothesis import HealthCheck, settings

    # No example fails for being slow: that judges the machine. CI repeats the same examples.
    settings.register_profile(
        "spear",
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
        derandomize="CI" in os.environ,
        print_blob=True,
    )
    settings.load_profile("spear")


def pytest_addoption(parser):
    """Add `--phase`, by which .ci/test runs each kind of test in the way that suits it."""
    parser.addoption(
        "--phase",
        choices=("pure", "nodes", "robot", "network"),
        help="only the test files without ROS, with nodes, with a robot, or over a network",
    )


def _phase(path):
    text = path.read_text()
    if not NEEDS_ROS.search(text):
        return "pure"
    if "remote_link" in text:
        return "network"
    return "robot" if NEEDS_ROBOT.search(text) else "nodes"


def pytest_ignore_collect(collection_path, config):
    """Leave files of the other phases alone: importing them takes longer than most tests."""
    wanted = config.getoption("phase")
    if wanted and collection_path.match("test_*.py") and _phase(collection_path) != wanted:
        return True
    return None


def pytest_collection_modifyitems(items, config):
    """Leave out the tests of the other phases in files that the command line names."""
    wanted = config.getoption("phase")
    if wanted:
        phases = {path: _phase(path) for path in {item.path for item in items}}
        others = [item for item in items if phases[item.path] != wanted]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if phases[item.path] == wanted]


@pytest.fixture(scope="session", autouse=True)
def _ros_logs():
    """Send the log files of all nodes to a folder that goes away."""
    with tempfile.TemporaryDirectory(prefix="spear_test_log_") as folder:
        os.environ["ROS_LOG_DIR"] = folder
        yield


@pytest.fixture(scope="module", autouse=True)
def ros_domain(request):
    """Give this test file a free ROS domain id; fail it for processes and memory it leaves."""
    os.environ[TAG] = uuid.uuid4().hex
    with ExitStack() as stack:
        try:
            from domain_coordinator import domain_id
        except ImportError:  # a Python without ROS: tests of pure logic only
            yield None
            return
        # Any free one, not the first: that one was often in use until a moment ago.
        domain = stack.enter_context(domain_id(lambda: SystemRandom().randint(1, 100)))
        os.environ["ROS_DOMAIN_ID"] = str(domain)
        _remove_dead_shared_memory()  # of runs before this one
        yield domain
        if request.node.get_closest_marker("kills_processes"):
            time.sleep(1.0)
            _remove_dead_shared_memory()
        left = _left_behind(domain)
        deadline = time.monotonic() + 20.0  # what a busy machine may need to end a process
        while left and time.monotonic() < deadline:
            time.sleep(0.1)
            left = _left_behind(domain)
    if left:
        pytest.fail("left behind by this test file: " + "; ".join(left), pytrace=False)


@pytest.fixture(scope="session")
def bridge_rlds_dir():
    """Return the folder of real BridgeData episodes, or skip."""
    folder = ROOT / os.environ.get("SPEAR_TEST_DATA", "../shared/data") / "bridge_rlds"
    if not folder.is_dir():
        pytest.skip(
            "no real BridgeData episodes here: set SPEAR_TEST_DATA to the folder above them"
        )
    return folder.resolve()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """Write a checkpoint folder of the preset tiny, with random weights; not to be changed."""
    from spear_policy.inference.make_checkpoint import untrained_policy
    from spear_policy.inference.spear_engine import save
    from spear_policy.model.config import preset

    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    save(folder, untrained_policy(preset("tiny")))
    return folder


def _left_behind(domain):
    """Name the processes started by this test file and the DDS ports of its domain."""
    return _processes() + _dds_ports(domain)


def _processes():
    tag = f"{TAG}={os.environ[TAG]}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if int(folder.name) == os.getpid() or tag not in (folder / "environ").read_bytes():
                continue
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
        except OSError:
            continue  # it has just ended, or is not ours to look at
        if command and not any(helper in command for helper in LASTING_HELPERS):
            found.append(f"process {folder.name} ({command[:120]})")
    return found


def _dds_ports(domain):
    first = 7400 + 250 * domain  # the RTPS rule for the ports of a domain
    found = []
    for path in SHARED_MEMORY.glob("fastrtps_port*[0-9]"):
        if not first <= int(path.name.removeprefix("fastrtps_port")) < first + 250:
            continue
        users = _users_of(path)
        if os.getpid() in users:
            found.append(f"{path.name}: a ROS context of the tests is still open")
        elif not users:
            found.append(f"{path.name}: shared memory of a killed process")
        # Otherwise it is a process named already, or somebody else's in the same domain.
    return found


def _users_of(path):
    """Return the processes that have a file of shared memory mapped."""
    users = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with suppress(OSError):
            if f" {path}\n" in maps.read_text():
                users.add(int(maps.parent.name))
    return users


def _remove_dead_shared_memory():
    """Remove what no living process uses; a killed process leaves up to 17 MB.

    `fastdds shm clean` does less (ports that lost their lock stay) and takes a port from a
    process that is just opening it, so young files are left alone here.
    """
    for path in SHARED_MEMORY.glob("fastrtps_*"):
        if path.name.endswith(("_el", "_sl")):
            continue
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > 1.0 and not _users_of(path):
                for name in (path.name, f"{path.name}_el", f"sem.{path.name}_mutex"):
                    (SHARED_MEMORY / name).unlink(missing_ok=True)
