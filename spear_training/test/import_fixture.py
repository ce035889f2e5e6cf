"""A source of made-up episodes whose reader can be slow, or die; and the import as a process."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from store_fixture import MadeUp

from spear_training.data import import_episodes, import_run
from spear_training.data.sources import EpisodeSource
from spear_training.data.store_import import ImportProgress, import_to_store


class Trying(MadeUp):
    """Made-up episodes by number that take time, and one of which may be deadly or odd."""

    def __init__(self, source):
        super().__init__(name="tried", episodes=source.episodes, length=2)
        self._source = source

    def read(self, index):
        """Return an episode, after a while."""
        time.sleep(self._source.seconds)
        if index == self._source.deadly and multiprocessing.parent_process():
            os.kill(os.getpid(), signal.SIGKILL)
        if index == self._source.odd:
            raise ZeroDivisionError("nobody thought of this")
        if index == self._source.unreadable:
            raise OSError(5, "Input/output error", "nowhere/3")
        return super().read(index % 7)


@dataclass(frozen=True)
class TryingSource(EpisodeSource):
    """See EpisodeSource; `deadly`, `odd` and `unreadable` are numbers of episodes."""

    folder: Path = Path("nowhere")
    episodes: int = 40
    seconds: float = 0.0
    deadly: int = -1
    odd: int = -1
    unreadable: int = -1

    def open(self):
        """Return a reader."""
        return Trying(self)

    def metadata(self, reader):
        """Return the metadata of its store."""
        return reader.metadata()

    def settled(self, reader):
        """Return the same."""
        return self

    def identity(self, reader):
        """Return words."""
        return f"{self.episodes} tried"


def import_quietly(source, root, episodes="all", workers=1, lines=None, retry_rejected=False):
    """Import to a store; what is said goes to a list."""
    progress = ImportProgress(Console(quiet=True))
    progress.print = (lines if lines is not None else []).append
    with progress:
        given = source, Path(root), episodes, workers, progress
        return import_to_store(*given, retry_rejected=retry_rejected)


def start_import(root, workers, seconds):
    """Start the program with a slow source, in a process group of its own."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-u", __file__, str(root), str(workers), str(seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )


def wait_for_groups(root, count, process):
    """Wait until so many groups of a store are there."""
    while process.poll() is None:
        if len(list((Path(root) / "building").glob("group-*.json"))) >= count:
            return
        time.sleep(0.005)
    raise AssertionError(f"it ended: {process.communicate()}")


def content(root):
    """Return the bytes of every file below a folder."""
    files = [path for path in Path(root).rglob("*") if path.is_file()]
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


if __name__ == "__main__":  # ROOT WORKERS SECONDS: the program, but with a slow source
    import_run.make_source = lambda options: TryingSource(seconds=float(sys.argv[3]))
    given = ["--to", "store", "--format", "bag", "--input", "nowhere", "--output", sys.argv[1]]
    sys.exit(import_episodes.main([*given, "--workers", sys.argv[2]]))
