"""The linters are content, so that CI says so too."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_linters_are_content():
    missing = [name for name in ("ruff", "ament_flake8", "ament_pep257") if not shutil.which(name)]
    if missing:
        pytest.skip("not installed: " + ", ".join(missing))
    result = subprocess.run([ROOT / ".ci" / "lint"], capture_output=True, text=True, check=False)
    if result.returncode:
        pytest.fail(result.stdout + result.stderr, pytrace=False)
