"""The checkpoint that the demo of engine spear runs on: yours, or one with random weights."""

import json
import subprocess
from pathlib import Path

from spear_bringup.graph.executables import find_executable


def is_untrained(folder: Path) -> bool:
    """Whether a checkpoint's card says that nothing was trained. The policy node checks the rest.

    Raises:
        ValueError: the folder has no readable card.json.
    """
    path = folder / "card.json"
    try:
        card = json.loads(path.read_text())
    except FileNotFoundError:
        raise ValueError(
            f"checkpoint {folder} has no card.json; name the folder that training left, or one "
            "from make_checkpoint"
        ) from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    return isinstance(card, dict) and card.get("recipe") == "untrained"


def make_untrained(folder: Path) -> Path:
    """Make the preset `tiny` with random weights in `folder`, in the place of an older such one.

    Raises:
        ValueError: the folder holds a trained checkpoint.
        OSError: make_checkpoint is not installed, or failed; the text is what it said.
    """
    if (folder / "card.json").exists() and not is_untrained(folder):
        raise ValueError(
            f"{folder} holds a trained checkpoint; run it with --checkpoint {folder}, or choose "
            "another --out"
        )
    executable = find_executable("spear_policy", "make_checkpoint")
    # As a process of its own: this package stays without torch.
    command = [executable, "--preset", "tiny", "--output", folder]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        raise OSError(f"no checkpoint was made: {made.stderr.strip()}")
    return folder
