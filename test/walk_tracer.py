"""Which files of ours a run enters: how many a person opens who follows it."""

import sys
import threading
from contextlib import contextmanager
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("spear_policy", "spear_bringup", "spear_training")


@cache
def own_path(filename):
    """The path below the root of a file of the packages; None of any other file."""
    try:
        # colcon links the packages from its build folder.
        path = Path(filename).resolve().relative_to(ROOT)
    except ValueError:
        return None
    inside = len(path.parts) > 2 and path.parts[0] == path.parts[1] and path.parts[0] in PACKAGES
    return str(path) if inside else None


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
        path = own_path(code.co_filename)
        if path is None:
            return
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
        assert self.files, f"{title}: no file of ours was entered"
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
