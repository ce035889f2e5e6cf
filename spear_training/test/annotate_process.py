"""Jobs of `annotate_stages` in processes of their own, for tests that kill them or fill the disk.

Importing takes seconds, so a nursery imports once and every job is a fork of it.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path


class Nursery:
    """A process that has imported everything and makes jobs; use it as a context."""

    def __enter__(self) -> "Nursery":
        self._process = subprocess.Popen(
            [sys.executable, "-u", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"GEMINI_API_KEY": "of the test"},
        )
        return self

    def __exit__(self, *_) -> None:
        self._process.stdin.close()
        self._process.stdout.close()
        assert self._process.wait(timeout=60) == 0

    def start(
        self,
        folder: Path,
        out: Path,
        num_shards: int = 1,
        largest_file: int | None = None,
        **options,
    ) -> "Job":
        """Begin to annotate a folder; `options` are those of `ColourStage`."""
        options["num_shards"] = num_shards
        asked = {"folder": str(folder), "out": str(out), "options": options}
        return self._begin(asked | {"largest_file": largest_file})

    def start_command(self, arguments: list[str]) -> "Job":
        """Begin `annotate` with these arguments."""
        return self._begin({"arguments": arguments})

    def _begin(self, asked: dict) -> "Job":
        with tempfile.NamedTemporaryFile(prefix="spear_annotate_", delete=False) as said:
            pass
        return Job(self, self.ask(asked | {"said": said.name}), Path(said.name))

    def ask(self, asked: dict) -> int:
        """Send a line and return the number that comes back."""
        print(json.dumps(asked), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())


class Job:
    """A job that was begun."""

    def __init__(self, nursery: Nursery, pid: int, said: Path):
        self._nursery, self.said = nursery, said
        self.pid = pid

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def finish(self) -> tuple[int, str]:
        """Wait for it; return its exit code (negative: a signal) and what it said."""
        code = self._nursery.ask({"wait": self.pid})
        said = self.said.read_text()
        self.said.unlink()
        return code, said

    def wait_for_files(self, folder: Path, count: int) -> None:
        """Wait until so many shards are finished."""
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            if len(list(folder.glob("annotations-*.jsonl"))) >= count:
                return
            time.sleep(0.005)
        raise AssertionError(f"{folder} never got {count} finished shards")


def annotate(folder: Path, out: Path, num_shards: int, **options) -> int:
    """Annotate a folder, as the command does it."""
    from functools import partial

    from annotate_stages import ColourStage
    from rich.console import Console

    from spear_policy.shared.progress import ProgressDisplay
    from spear_training.annotation.job import AnnotationJob, annotate_here, run_job
    from spear_training.annotation.pipeline import Pipeline
    from spear_training.annotation.records import photograph_items
    from spear_training.annotation.stages import JobError

    signal.signal(signal.SIGINT, signal.default_int_handler)
    job = AnnotationJob(out, photograph_items(folder), num_shards)
    try:
        with ProgressDisplay(Console(), "annotate", "pictures") as progress:
            pipeline = Pipeline(folder, [ColourStage(**options)])
            counts = run_job(job, partial(annotate_here, pipeline), progress)
    except JobError as error:
        print(error)
        return 2
    except KeyboardInterrupt:
        print("interrupted")
        sys.stdout.flush()
        os._exit(130)  # threads may be at work, as in the command
    print(json.dumps(counts))
    return 0


def serve() -> None:
    """Fork a job for every line that asks for one, and tell how jobs ended."""
    import annotate_stages  # noqa: F401  everything that a job needs
    import rich.console  # noqa: F401
    import torch  # noqa: F401  pictures are resized with it

    import spear_training.annotation.job
    import spear_training.annotation.sources  # noqa: F401

    for line in sys.stdin:
        asked = json.loads(line)
        if "wait" in asked:
            print(os.waitstatus_to_exitcode(os.waitpid(asked["wait"], 0)[1]), flush=True)
        elif child := os.fork():
            print(child, flush=True)
        else:
            sys.stdin.close()
            os._exit(_child(asked))


def _child(asked: dict) -> int:
    file = os.open(asked["said"], os.O_WRONLY)
    os.dup2(file, 1)
    os.dup2(file, 2)
    if "arguments" in asked:
        from spear_training.annotation.annotate import main

        # As a console script does it; Python's own end is a part of what is tested.
        sys.exit(main(asked["arguments"]))
    if asked["largest_file"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, 2 * (asked["largest_file"],))
    code = annotate(Path(asked["folder"]), Path(asked["out"]), **asked["options"])
    sys.stdout.flush()
    return code


if __name__ == "__main__":
    serve()
