"""Which code made a trial: the git revision and the versions of what matters."""

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_DISTRIBUTIONS = (
    "spear_bringup",
    "spear_policy",
    "ros-jazzy-rclpy",
    "rosbags",
    "franky-control",
    "franky-sim",
    "mujoco",
    "torch",
    "numpy",
)


@cache
def git_revision() -> str | None:
    """Revision of this source tree, with "-dirty" when it has changes; None outside of git."""
    here = Path(__file__).resolve().parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10.0)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None if answer.returncode == 0 else None


@cache
def software_versions() -> dict[str, str]:
    """Versions by distribution name; what is not installed is left out."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
