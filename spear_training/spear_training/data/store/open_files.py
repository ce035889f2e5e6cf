"""Data files that stay open for the next read, as few as a process may have."""

import os
import threading
from collections import OrderedDict
from pathlib import Path

from spear_training.data.reader import DataFileError

# Of all stores of a process together; a shell's usual limit is 1024.
MOST_OPEN_FILES = 256


class OpenFiles:
    """Reads bytes of files at an offset, from any thread, keeping the last files open.

    After a fork the child opens its own.
    """

    def __init__(self, most: int = MOST_OPEN_FILES):
        self._most = most
        self._forget()

    def read(self, path: Path, offset: int, length: int, file_bytes: int) -> bytes:
        """`length` bytes at `offset` of a file that must have `file_bytes`.

        Raises:
            DataFileError: the file is missing, cannot be read, or has another size.
        """
        if os.getpid() != self._process:
            self._forget()
        with self._lock:
            handle = self._handles.get(path)
            if handle is None:
                handle = self._handles[path] = _Handle(path, file_bytes)
                if len(self._handles) > self._most:
                    self._handles.popitem(last=False)
            else:
                self._handles.move_to_end(path)
        # Without the lock: a file that is closed meanwhile stays open while `handle` lives.
        try:
            content = os.pread(handle.descriptor, length, offset)
        except OSError as error:
            raise DataFileError(f"{path}: cannot be read ({error.strerror})") from None
        if len(content) < length:
            raise DataFileError(f"{path}: became shorter while it was read; copy it again")
        return content

    def _forget(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._handles: OrderedDict[Path, _Handle] = OrderedDict()


class _Handle:
    """An open file, closed when nobody holds it any more."""

    def __init__(self, path: Path, file_bytes: int):
        self.descriptor = -1
        try:
            self.descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise DataFileError(f"{path}: cannot be read ({error.strerror})") from None
        size = os.fstat(self.descriptor).st_size
        if size != file_bytes:
            raise DataFileError(
                f"{path}: has {size} bytes, the store says {file_bytes}; it is cut short or was "
                "changed: copy it again"
            )

    # Bound here: when Python ends, `os` may be gone first.
    def __del__(self, close=os.close):
        if self.descriptor >= 0:
            close(self.descriptor)


SHARED = OpenFiles()
