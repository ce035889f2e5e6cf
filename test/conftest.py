"""Fixtures of the system tests."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def in_fresh_shell():
    """Return a function that runs a script in an empty shell which sourced install/setup.bash."""
    if not (ROOT / "install" / "setup.bash").exists():
        pytest.skip("this workspace was not built by `make build`")

    def run(script, **variables):
        environment = {"HOME": os.environ["HOME"], "PATH": "/usr/bin:/bin", **variables}
        result = subprocess.run(
            ["bash", "-c", f". install/setup.bash && {script}"],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout.strip()

    return run
