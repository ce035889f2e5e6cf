"""Which files of ours a run enters: how many a person opens who follows it."""

import sys
import threading
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = tuple(
    f"{ROOT}/{name}/{name}/" for name in ("spear_policy", "spear_bringup", "spear_training")
)


class Walk:
    """Notes the files whose functions are called while it is on; imports do not count.

    Threads that start after `install` are followed too, so that a node's worker is.

    Attributes:
        files: path below the root -> the functions that were entered, in order.
        changes: how often the run went from one of these files to another.
    """

    def __init__(self):
        self.files: dict[str, list[str]] = {}
        self.changes = 0
        self._on = False
        self._last: dict[int, str] = {}

    def install(self):
        """Follow this thread and those that start from now on."""
        sys.setprofile(self._note)
        threading.setprofile(self._note)

    def uninstall(self):
        """Follow nothing any more."""
        sys.setprofile(None)
        threading.setprofile(None)

    @contextmanager
    def on(self):
        """Note what is entered inside."""
        self._on = True
        try:
            yield self
        finally:
            self._on = False

    def _note(self, frame, event, _):
        code = frame.f_code
        if not self._on or event != "call" or code.co_name == "<module>":
            return
        if not code.co_filename.startswith(PACKAGES):
            return
        path = str(Path(code.co_filename).relative_to(ROOT))
        functions = self.files.setdefault(path, [])
        if code.co_qualname not in functions:
            functions.append(code.co_qualname)
        thread = threading.get_ident()
        self.changes += self._last.get(thread, path) != path
        self._last[thread] = path

    def show(self, title, most):
        """Print the files, and fail when they are more than `most`."""
        print(f"\n{title}: {len(self.files)} files, {self.changes} changes of file")
        for path, functions in self.files.items():
            print(f"  {path}: {', '.join(functions[:3])}{' ...' if functions[3:] else ''}")
        assert len(self.files) <= most, f"{title}: {len(self.files)} files, {most} at most"


@contextmanager
def walk():
    """Follow what happens inside, on this thread and on those that it starts."""
    followed = Walk()
    followed.install()
    try:
        yield followed
    finally:
        followed.uninstall()
