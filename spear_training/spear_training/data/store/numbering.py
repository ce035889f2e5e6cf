"""The true numbers of every row: episodes, frames and tasks counted over all groups.

A group's numbers begin where those of the group before it end, so they are known only when all
groups before it are there. They are set in place then; the pictures are not written again.
"""

import json
from pathlib import Path

from spear_training.data.lerobot.layout import v3_data_path
from spear_training.data.reader import DataFileError
from spear_training.data.store.pages import set_numbers
from spear_training.data.store.places import group_numbered_path, group_record_path
from spear_training.data.store.records import (
    GroupRecord,
    global_numbers,
    local_numbers,
    read_group,
)
from spear_training.data.whole_file import write_whole


class Numbering:
    """Numbers the groups of a store one after the other, as far as they are there.

    One process does it, while others write groups or when they are through.

    Attributes:
        groups: how many are numbered.
        episodes, frames: how many these hold.
        tasks: sentence -> its number, in order of first appearance.
        first_episodes, first_frames: of each group.
    """

    def __init__(self, root: str | Path):
        self._root = Path(root)
        self.groups = self.episodes = self.frames = 0
        self.tasks: dict[str, int] = {}
        self.first_episodes: list[int] = []
        self.first_frames: list[int] = []

    def advance(self) -> int:
        """Number every group that is there and has all groups before it; how many in all.

        Raises:
            DataFileError: a group's file or record is damaged.
            OSError: a file cannot be written; call again when it can.
        """
        while group_record_path(self._root, self.groups).exists():
            self._number(read_group(self._root, self.groups))
        return self.groups

    def _number(self, record: GroupRecord) -> None:
        group, path = self.groups, v3_data_path(self._root, self.groups)
        tasks = dict(self.tasks)
        for sentence in record.sentences:
            tasks.setdefault(sentence, len(tasks))
        begin = json.dumps([self.episodes, self.frames, [tasks[s] for s in record.sentences]])
        done = group_numbered_path(self._root, group)
        if record.episodes and not (done.exists() and done.read_text() == begin):
            after = global_numbers(record, self.episodes, self.frames, tasks)
            try:
                set_numbers(path, local_numbers(record), after)
            except FileNotFoundError:
                raise DataFileError(
                    f"{path}: is missing, although its group was written; delete "
                    f"{group_record_path(self._root, group)} and run the import again"
                ) from None
            write_whole(done, begin.encode())
        self.first_episodes.append(self.episodes)
        self.first_frames.append(self.frames)
        self.tasks = tasks
        self.episodes += len(record.episodes)
        self.frames += record.frames
        self.groups += 1
