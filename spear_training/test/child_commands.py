"""Commands for the tests of processes side by side; spawned processes import them."""

import os
import signal
import sys
import time
from pathlib import Path


def leave_status(words):
    """Note the process in FOLDER, then end with STATUS."""
    folder, status = words
    Path(folder, f"{status}-{os.getpid()}").touch()
    return int(status)


def die(words):
    """End as a process does that the kernel kills."""
    Path(words[0], "died").touch()
    os.kill(os.getpid(), signal.SIGKILL)


def wait_for_interrupt(words):
    """Wait until somebody interrupts; note it, tidy up and end."""
    folder, name = words
    Path(folder, f"{name}.started").touch()
    try:
        time.sleep(120)
    except KeyboardInterrupt:
        time.sleep(0.3)
        Path(folder, f"{name}.tidied").touch()
        return 130
    return 0


def main(folder):
    """Run two waiting processes side by side."""
    from spear_training.annotation.synthetic.generate import side_by_side

    try:
        side_by_side(wait_for_interrupt, [[folder, "a"], [folder, "b"]], 2)
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
