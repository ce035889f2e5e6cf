"""Motion statistics of a store: gathered by several processes, kept beside it."""

import json
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from spear_training.data.reader import DataFileError
from spear_training.data.statistics.motion import MotionStatistics
from spear_training.data.store.frames import FrameStore
from spear_training.data.store.poses import stored_poses
from spear_training.data.targets import DT_S, STEPS
from spear_training.data.whole_file import write_whole

KEPT = "meta/spear_motion.json"
VERSION = 2  # of what is counted; statistics kept by another are gathered anew
_EPISODES_A_TASK = 64


def kept_statistics(store: FrameStore) -> MotionStatistics | None:
    """What an earlier run kept beside the store; None where it does not fit any more."""
    try:
        values = json.loads((store.root / KEPT).read_text())
        if values["made_for"] != _made_for(store):
            return None
        return MotionStatistics.from_dict(values["statistics"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def gather(store: FrameStore, workers: int = 0) -> Iterator[tuple[int, MotionStatistics]]:
    """Count every moment of a store, part by part.

    Args:
        store: what is read; pictures are not.
        workers: processes; 0 counts in this one.

    Yields:
        how many episodes are counted, and the statistics so far; the last are the whole.

    Raises:
        DataFileError: an episode has numbers that no episode can have.
    """
    tasks = [
        range(begin, min(begin + _EPISODES_A_TASK, len(store.episodes)))
        for begin in range(0, len(store.episodes), _EPISODES_A_TASK)
    ]
    found, done = MotionStatistics(), 0
    for task, part in zip(tasks, _parts(store, tasks, workers), strict=True):
        found.merge(part)
        done += len(task)
        yield done, found


def keep(store: FrameStore, statistics: MotionStatistics) -> None:
    """Keep what was gathered beside the store. Raises OSError."""
    values = {"made_for": _made_for(store), "statistics": statistics.to_dict()}
    write_whole(store.root / KEPT, json.dumps(values).encode())


def _parts(store: FrameStore, tasks: list[range], workers: int) -> Iterator[MotionStatistics]:
    if not workers or len(tasks) < 2:
        yield from (_count(store.root, task, store) for task in tasks)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(tasks)), mp_context=context) as pool:
        futures = [pool.submit(_count, store.root, task) for task in tasks]
        try:
            for future in futures:
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _count(root: Path, episodes: range, store: FrameStore | None = None) -> MotionStatistics:
    store = store or FrameStore(root)
    found = MotionStatistics()
    commanded = store.facts.action_from == "commanded"
    for episode in episodes:
        first = int(store.episodes.first_frame[episode])
        rows = slice(first, first + int(store.episodes.length[episode]))
        name = f"{store.facts.name} episode {episode}"
        try:
            measured = stored_poses(store.stamps_s[rows], store.states[rows])
            told = stored_poses(measured.stamps_s, store.actions[rows]) if commanded else measured
            found.add(name, measured, told, store.actions[rows, 7], store.facts.state_known)
        except ValueError as error:
            raise DataFileError(f"{root}: {name}: {error}; import it again") from None
    return found


def _made_for(store: FrameStore) -> dict:
    """What the statistics depend on."""
    return {
        "version": VERSION,
        "frames": len(store),
        "row_hash": store.facts.row_hash,
        "action_from": store.facts.action_from,
        "steps": STEPS,
        "dt_s": DT_S,
    }
