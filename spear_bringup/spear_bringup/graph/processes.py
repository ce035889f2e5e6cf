"""Operating system processes of the node graph: started apart, watched, ended without a trace."""

import fcntl
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")


class NodeProcess:
    """One process in a process group of its own, its output in a file.

    Start it from a thread that lives as long as the process should: when that thread ends, be it
    by SIGKILL of this whole program, the kernel sends SIGINT to the process.
    """

    def __init__(self, name: str, command: Sequence[str], log_path: Path, environment: Mapping):
        self.name = name
        self.log_path = Path(log_path)
        guard = ["setpriv", "--pdeathsig", "INT", "--"] if shutil.which("setpriv") else []
        with open(self.log_path, "wb") as log:
            self._process = subprocess.Popen(
                [*guard, *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                start_new_session=True,
            )
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        return self._process.poll()

    @property
    def ended(self) -> str | None:
        """How it ended, in words; None while it runs."""
        code = self.returncode
        if code is None:
            return None
        if code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        return f"ended with exit status {code}"

    def last_lines(self, count: int = 12) -> str:
        """The newest lines of its output."""
        lines = self.log_path.read_text(errors="replace").splitlines()
        return "\n".join(lines[-count:])

    def send(self, number: int) -> None:
        """Send a signal to the process and all that it started."""
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            pass

    def wait(self, timeout_s: float) -> bool:
        """Whether the process has ended within `timeout_s`."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def end(self, interrupt_timeout_s: float = 15.0, terminate_timeout_s: float = 5.0) -> str:
        """End it and its whole group: SIGINT, then SIGTERM, then SIGKILL. Returns what it took."""
        took = "already ended" if self.returncode is not None else ""
        for number, patience_s in (
            (signal.SIGINT, interrupt_timeout_s),
            (signal.SIGTERM, terminate_timeout_s),
            (signal.SIGKILL, 10.0),
        ):
            if took:
                break
            self.send(number)
            if self.wait(patience_s):
                took = signal.Signals(number).name
        deadline = time.monotonic() + 2.0
        while self.group_alive() and time.monotonic() < deadline:
            self.send(signal.SIGKILL)
            time.sleep(0.01)
        return took or "not even SIGKILL"

    def group_alive(self) -> bool:
        """Whether any process of its group still runs."""
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def shared_memory(self) -> set[Path]:
        """The FastDDS files in /dev/shm that it has mapped now."""
        return mapped_shared_memory(self.pid)


def mapped_shared_memory(pid: int) -> set[Path]:
    """FastDDS files in /dev/shm that a process has mapped; empty when it cannot be read."""
    try:
        lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    except OSError:
        return set()
    names = {Path(line.split()[5]) for line in lines if f"{SHARED_MEMORY}/" in line}
    return {name for name in names if "fastrtps_" in name.name}


def stale_shared_memory(files: set[Path]) -> set[Path]:
    """Those of `files` that are there although their owner is gone, with their companions.

    The owner holds a lock on `<file>_el`. A port's file may have found a new owner meanwhile:
    ports are numbered for the whole machine.
    """
    stale = set()
    for path in files:
        lock = path.with_name(f"{path.name}_el")
        if not _locked(lock):
            stale |= {path, lock, path.with_name(f"sem.{path.name}_mutex")}
    return {path for path in stale if path.exists()}


def remove_shared_memory(files: set[Path]) -> None:
    """Remove the stale ones of `files`; FastDDS does so itself unless their owner was killed."""
    for path in stale_shared_memory(files):
        path.unlink(missing_ok=True)


def _locked(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
