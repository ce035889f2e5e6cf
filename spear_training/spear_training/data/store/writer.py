"""A store's life: begun, filled group by group, finished.

    begin_store(root, facts)                      # once, or again to go on
    write_group(root, group, reader, indices)     # any process, any order
    finish_store(root, groups)                    # once all groups are there

The store appears as a whole: meta/info.json is written last, and without it no reader takes the
folder for a data set. Which episodes lie in which group decides every byte, so an import that
was killed and one that was not end with the same files.
"""

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spear_policy.inference.image_geometry import Fit
from spear_training.data.lerobot.layout import INFO_PATH, v3_data_path
from spear_training.data.reader import DataFileError
from spear_training.data.store.episodes import group_table, write_episodes
from spear_training.data.store.facts import (
    FACTS_PATH,
    StoreFacts,
    as_written,
    read_facts,
    write_facts,
)
from spear_training.data.store.lookup import open_lookup, write_lookup
from spear_training.data.store.meta_files import write_info, write_statistics, write_tasks
from spear_training.data.store.numbering import Numbering
from spear_training.data.store.places import (
    BUILDING,
    PLAN_PATH,
    REJECTS_PATH,
    group_arrays_path,
)
from spear_training.data.store.records import GroupRecord, read_group
from spear_training.data.store.scan import FileRows
from spear_training.data.whole_file import write_whole


def is_finished(root: str | Path) -> bool:
    """Whether the folder holds a finished store, or another finished data set."""
    return (Path(root) / INFO_PATH).exists()


def begin_store(root: str | Path, facts: StoreFacts) -> None:
    """Make the folder, or find that an import with the same facts was begun there.

    Raises:
        DataFileError: the folder holds a finished store, an import with other facts, or
            something else.
        OSError: it cannot be written.
    """
    root = Path(root)
    plan = root / PLAN_PATH
    if is_finished(root):
        if plan.exists():  # of a finish that was killed at its very end
            shutil.rmtree(root / BUILDING)
        raise DataFileError(f"{root}: holds a finished data set; delete it or choose a new folder")
    if plan.exists():
        held, wanted = read_facts(plan), as_written(facts)
        for each in dataclasses.fields(StoreFacts):
            old, new = getattr(held, each.name), getattr(wanted, each.name)
            if old != new:
                raise DataFileError(
                    f"{root}: holds a begun import whose {each.name} is {old!r}, not {new!r}; go "
                    "on with the same settings, or delete the folder"
                )
        return
    if root.exists() and any(root.iterdir()) and not (root / BUILDING).is_dir():
        raise DataFileError(f"{root}: is not empty and holds no begun import; choose a new folder")
    plan.parent.mkdir(parents=True, exist_ok=True)
    write_facts(facts, plan)


def finish_store(root: str | Path, groups: int, numbering: Numbering | None = None) -> StoreFacts:
    """Make a store of groups 0 to `groups` - 1.

    Args:
        root: the folder.
        groups: how many there must be.
        numbering: one that has numbered some of them already.

    Returns:
        What meta/spear.json says.

    Raises:
        DataFileError: a group is missing or damaged, or there is not one usable episode.
        OSError: it cannot be written (disk full); call again when it can.
    """
    root = Path(root)
    numbering = numbering or Numbering(root)
    if numbering.advance() < groups:
        raise DataFileError(
            f"{root}: group {numbering.groups} of {groups} is not written; run the import again"
        )
    records = [read_group(root, group) for group in range(groups)]
    facts = _found(read_facts(root / PLAN_PATH), records)
    if not facts.episodes:
        first = next((reject.reason for record in records for reject in record.rejects), "none")
        raise DataFileError(f"{root}: no episode was usable; the first reason is: {first}")
    (root / "meta").mkdir(exist_ok=True)
    write_episodes(root, _episode_tables(root, records, numbering))
    lengths = np.array([e.length for record in records for e in record.episodes])
    write_lookup(root, facts.camera_names, lengths, _rows(root, records, facts))
    arrays = open_lookup(root, facts.camera_names, facts.frames).arrays
    pictures = _pictures(root, records, facts)
    write_statistics(root, arrays["states"], arrays["actions"], pictures)
    write_tasks(root, numbering.tasks)
    rejects = [dataclasses.asdict(reject) for record in records for reject in record.rejects]
    lines = [json.dumps(reject, ensure_ascii=False) + "\n" for reject in rejects]
    write_whole(root / REJECTS_PATH, "".join(lines).encode())
    write_facts(facts, root / FACTS_PATH)
    for left in root.rglob(".*.part"):  # of processes that were killed
        left.unlink()
    write_info(root, facts, len(numbering.tasks))
    shutil.rmtree(root / BUILDING)
    return facts


def _found(plan: StoreFacts, records: list[GroupRecord]) -> StoreFacts:
    """The facts with what the groups hold."""
    fits: dict[str, dict[Fit, None]] = {name: {} for name in plan.camera_names}
    for record in records:
        for each in record.fits:
            fits[each.camera][each.fit] = None
    episodes = [episode for record in records for episode in record.episodes]
    rejects = [reject for record in records for reject in record.rejects]
    return dataclasses.replace(
        plan,
        cameras=tuple(
            dataclasses.replace(camera, fits=tuple(fits[camera.name])) for camera in plan.cameras
        ),
        episodes=len(episodes),
        frames=sum(episode.length for episode in episodes),
        rejected=sum(reject.selected for reject in rejects),
        not_selected=sum(not reject.selected for reject in rejects),
        black_wrist=sum(episode.black_wrist for episode in episodes),
    )


def _arrays(root: Path, group: int) -> dict[str, NDArray]:
    path = group_arrays_path(root, group)
    try:
        with np.load(path) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError) as error:
        raise DataFileError(
            f"{path}: cannot be read ({error}); delete the store and import the data again"
        ) from None


def _episode_tables(root: Path, records: list[GroupRecord], numbering: Numbering) -> Iterator:
    for group, record in enumerate(records):
        if record.episodes:
            arrays = _arrays(root, group)
            statistics = {key: value for key, value in arrays.items() if key.startswith("stats/")}
            first = numbering.first_episodes[group], numbering.first_frames[group]
            yield group_table(record, group, *first, statistics)


def _rows(root: Path, records: list[GroupRecord], facts: StoreFacts) -> Iterator:
    for group, record in enumerate(records):
        if record.episodes:
            arrays = _arrays(root, group)
            yield (
                v3_data_path(root, group),
                FileRows(
                    arrays["states"],
                    arrays["actions"],
                    arrays["stamps_s"],
                    {name: arrays[f"offsets/{name}"] for name in facts.camera_names},
                    {name: arrays[f"lengths/{name}"] for name in facts.camera_names},
                    record.file_bytes,
                ),
            )


def _pictures(root: Path, records: list[GroupRecord], facts: StoreFacts) -> dict:
    """Camera -> histogram of all groups' pictures, and of how many."""
    result = {name: (np.zeros((3, 256), np.int64), 0) for name in facts.camera_names}
    for group, record in enumerate(records):
        arrays = _arrays(root, group) if record.episodes else {}
        for name, (histogram, counted) in result.items() if arrays else ():
            more = arrays[f"histogram/{name}"], int(arrays[f"counted/{name}"])
            result[name] = histogram + more[0], counted + more[1]
    return result
