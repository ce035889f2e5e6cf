"""A whole import to a store: begun or gone on with, written, finished."""

from collections.abc import Sequence
from pathlib import Path

from spear_training.data.importing.forecast import look
from spear_training.data.importing.plan import agree_on_plan, only_process
from spear_training.data.importing.progress import ImportProgress
from spear_training.data.importing.selection import parse_selection
from spear_training.data.importing.sources import Source
from spear_training.data.importing.watched_reader import WatchedReader
from spear_training.data.importing.workers import write_groups
from spear_training.data.reader import DataFileError
from spear_training.data.store.facts import FACTS_PATH, StoreFacts, as_written, read_facts
from spear_training.data.store.frames import FrameStore
from spear_training.data.store.group import write_group
from spear_training.data.store.numbering import Numbering
from spear_training.data.store.places import group_record_path
from spear_training.data.store.records import read_group
from spear_training.data.store.rejects import read_rejects
from spear_training.data.store.writer import begin_store, finish_store, is_finished


def import_to_store(
    source: Source, root: Path, episodes: str, workers: int, progress: ImportProgress
) -> StoreFacts:
    """Make a store of the chosen episodes, or go on where an earlier call was stopped.

    Args:
        source: of the episodes.
        root: the store's folder.
        episodes: which, in the words of selection.py.
        workers: processes that write; the store is the same for any number.
        progress: is told.

    Returns:
        What the store says about itself.

    Raises:
        ValueError: a selection of episodes that are not there.
        DataFileError: the source or the folder cannot be used, or no episode is usable.
        OSError: a file cannot be read or written (disk full). Call again to go on.
        WorkerError: a process ended. Call again to go on.
    """
    reader = source.open()
    chosen = parse_selection(episodes, len(reader))
    if not chosen:
        raise DataFileError(f"{source.folder}: holds no episode")
    facts = source.facts(reader)
    if is_finished(root) and _is_same_import(root, facts, chosen):
        progress.say(f"{root} is finished already")
        return read_facts(root / FACTS_PATH)
    begin_store(root, facts)
    with only_process(root):
        job = _Job(root, progress)
        careful = WatchedReader(reader, facts.robot, lambda _: None)
        forecast = look(careful, facts, chosen)
        if forecast.reason:
            progress.say(f"of those looked at first, {forecast.reason}")
        size = forecast.group_episodes(len(chosen))
        groups = agree_on_plan(root, source.identity(reader), chosen, size).groups()
        there = [g for g in range(len(groups)) if group_record_path(root, g).exists()]
        done = sum(len(groups[group]) for group in there)
        progress.begin(len(chosen), done)
        for group in there:
            write_group(root, group, reader, groups[group])  # checks that it holds these episodes
            job.written(group)
        missing = [(g, groups[g]) for g in sorted({*range(len(groups))} - {*there})]
        if missing and (warning := forecast.room_warning(root, len(chosen) - done)):
            progress.say(warning)
        write_groups(root, source.settled(reader), facts.robot, missing, workers, job)
        progress.end()
        progress.say(f"finishing {root}")
        return finish_store(root, len(groups), job.numbering)


class _Job:
    """What happens to a group once it is there."""

    def __init__(self, root: Path, progress: ImportProgress):
        self._root, self._progress = root, progress
        self.numbering = Numbering(root)

    def looked_at(self, frames: int) -> None:
        self._progress.add(frames)

    def written(self, group: int) -> None:
        for reject in read_group(self._root, group).rejects:
            if reject.selected:
                self._progress.rejected(reject.source_index, reject.reason)
        self.numbering.advance()


def _is_same_import(root: Path, facts: StoreFacts, chosen: Sequence[int]) -> bool:
    """Whether a finished store is what this import would make."""
    try:
        store = FrameStore(root)
        held = store.facts
        looked_at = {*store.episodes.source_index.tolist()}
        looked_at |= {reject.source_index for reject in read_rejects(root)}
    except DataFileError:
        return False
    same = ("name", "robot", "control_hz", "action_from", "gripper_from", "state_known", "row_hash")
    return (
        all(getattr(held, name) == getattr(facts, name) for name in same)
        and held.camera_names == facts.camera_names
        and held.source == as_written(facts).source
        and looked_at == set(chosen)
    )
