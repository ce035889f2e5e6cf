"""The stored annotations of a finished run by number, without reading them all.

Opening notes where each line begins and its status; a record is read and parsed when it is
asked for. Only the places are held, so a copy for a worker process is small.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from spear_training.annotation.frame import JobError
from spear_training.annotation.job.run_card import images_root, read_run
from spear_training.annotation.job.shards import Shard
from spear_training.annotation.records import STATUSES, Annotation, RecordError

# A quote inside a label is escaped, so no label can look like this.
_STATUS = re.compile(rb'"status": "(%s)"' % "|".join(STATUSES).encode())


class RecordFiles:
    """All records of one folder, in the order of its list.

    Attributes:
        folder: as given.
        images: folder that the records' pictures are relative to.
        statuses: (pictures,) of each record, as a number of `records.STATUSES`.
    """

    def __init__(self, folder: Path):
        """Look through a folder that `annotate run` has finished.

        Raises:
            JobError: it is no such folder, a shard is not finished, or the pictures are gone.
            OSError: a file cannot be read.
        """
        self.folder = Path(folder)
        run = read_run(self.folder)
        self.images = images_root(self.folder, run)
        shards = [Shard(index, run["num_shards"]) for index in range(run["num_shards"])]
        missing = [shard.index for shard in shards if not shard.file(self.folder).is_file()]
        if missing:
            raise JobError(
                f"{self.folder}: {len(missing)} of {len(shards)} shards are not finished (the "
                f"first is {missing[0]}): run `annotate run` with --shard {missing[0]}"
            )
        self._paths = [shard.file(self.folder) for shard in shards]
        found = [_look_through(path) for path in self._paths]
        self._shard = np.repeat(np.arange(len(found), dtype=np.int32), [len(s) for _, s in found])
        self._begin = np.concatenate([begins for begins, _ in found])
        self.statuses = np.concatenate([statuses for _, statuses in found])

    def __len__(self) -> int:
        """How many pictures."""
        return len(self._begin)

    def annotation(self, number: int) -> Annotation:
        """Read one record.

        Raises:
            JobError: the file has changed, or was damaged, since it was opened.
            OSError: it cannot be read.
        """
        path, begin = self._paths[self._shard[number]], int(self._begin[number])
        with path.open("rb", buffering=1 << 14) as file:
            file.seek(begin)
            line = file.readline()
        return _parsed(line, path, begin)

    def __iter__(self) -> Iterator[Annotation]:
        """Read all records in order.

        Raises:
            JobError: a file has changed, or was damaged, since it was opened.
            OSError: it cannot be read.
        """
        for path in self._paths:
            with path.open("rb") as file:
                begin = 0
                for line in file:
                    yield _parsed(line, path, begin)
                    begin += len(line)

    def image_path(self, annotation: Annotation) -> Path:
        """Absolute path of a record's picture."""
        return Path(os.path.abspath(self.images / annotation.image))


def _look_through(path: Path):
    begins, statuses, begin = [], [], 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            found = _STATUS.search(line)
            if not found or not line.endswith(b"\n"):
                raise JobError(f"{path}, line {number} is no annotation, or it is cut")
            begins.append(begin)
            statuses.append(STATUSES.index(found[1].decode()))
            begin += len(line)
    return np.array(begins, np.int64), np.array(statuses, np.int8)


def _parsed(line: bytes, path: Path, begin: int) -> Annotation:
    try:
        return Annotation.from_json(line.decode("utf-8", "replace"))
    except RecordError as error:
        raise JobError(
            f"{path}, byte {begin}: {error}; was it written anew? Open the folder again"
        ) from None
