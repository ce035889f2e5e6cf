"""What the numbers of a dataset look like: by this a person confirms an entry of the table."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from spear_policy.geometry import quaternions as quat
from spear_policy.inference.episode import EpisodeError
from spear_training.data.oxe.poses import Steps, needs_detection, wander_deg
from spear_training.data.oxe.reader import select, selector_keys
from spear_training.data.oxe.table import (
    Condition,
    LinearGripper,
    Row,
    Subset,
    find_row,
    load_table,
)
from spear_training.data.reader import DataFileError, NotSelectedError
from spear_training.data.rlds import RldsEpisode, RldsFolder

EXAMPLE = """\
example:
  ros2 run spear_training inspect_row fmb data/fmb/0.1.0 --episodes 50
"""
# Embeddings and depth images are no numbers that a person reads.
MOST_COLUMNS, MOST_TEXTS = 64, 8
# A change of this share of the range is a command, and a gripper follows it in so many steps.
SUDDEN, FOLLOWS_STEPS = 0.25, 10


def report(row: Row, folder: RldsFolder, episodes: int) -> Iterator[str]:
    """Lines about `episodes` episodes, evenly over the split; damaged ones are named."""
    yield f"row {row.name}; {folder.name} {folder.version}, {folder.split}: {len(folder)} episodes"
    for each in row.unconfirmed:
        yield f"unconfirmed: {each.key}: {each.check}"
    records, damage = _records(folder, min(episodes, len(folder)))
    yield from damage
    if not records:
        return
    yield f"\ncolumns over {len(records)} episodes: smallest, 1 %, median, 99 %, largest"
    for key, values in _stacked(records).items():
        for column in range(values.shape[1]):
            marks = np.percentile(values[:, column], [0, 1, 50, 99, 100])
            yield f"  {key}[{column}]  " + "  ".join(f"{mark:.4f}" for mark in marks)
    yield from _selection(row, records)
    yield from _quaternions(_stacked(records))
    yield from _orders(row, [record.steps for record in records])
    yield from _grippers(row, [record.steps for record in records])
    yield from _texts(records)


def _records(folder: RldsFolder, count: int) -> tuple[list[RldsEpisode], list[str]]:
    keys = [
        spec.key
        for spec in folder.features.values()
        if spec.kind == "text"
        or (spec.kind == "tensor" and int(np.prod(spec.shape)) <= MOST_COLUMNS)
    ]
    records, damage = [], []
    for index in np.linspace(0, len(folder) - 1, count).round().astype(int):
        try:
            records.append(folder.read(int(index), keys))
        except DataFileError as error:
            damage.append(f"damaged: {error}")
    return records, damage


def _stacked(records: list[RldsEpisode]) -> dict[str, NDArray]:
    kinds = {key: value.dtype.kind for key, value in records[0].steps.items()}
    return {
        key: np.concatenate([_columns(record.steps[key]) for record in records])
        for key, kind in kinds.items()
        if kind in "fiub"
    }


def _columns(values: NDArray) -> NDArray:
    return values.reshape(len(values), -1).astype(float)


def _selection(row: Row, records: list[RldsEpisode]) -> Iterator[str]:
    parts = [("the row", row.subset)] + [(f"subset {each.name}", each) for each in row.subsets]
    for name, subset in parts:
        rules = [*row.conditions, *([subset] if subset else [])]
        unknown = subset is not None and subset.matches is None
        if not rules or unknown or not set(selector_keys(rules)) <= records[0].metadata.keys():
            continue
        taken = sum(_is_selected(rules, record) for record in records)
        yield f"\n{name} takes {taken} of these episodes ({taken / len(records):.0%})"


def _is_selected(rules: list[Condition | Subset], record: RldsEpisode) -> bool:
    try:
        select(rules, record.metadata)
    except NotSelectedError:
        return False
    return True


def _quaternions(stacked: dict[str, NDArray]) -> Iterator[str]:
    found = []
    for key, values in stacked.items():
        for first in range(values.shape[1] - 3):
            four = values[:, first : first + 4]
            if np.all(quat.is_unit(four)) and np.ptp(four, axis=0).max() > 0:
                axes = {
                    order: Rotation.from_quat(xyzw).apply([0, 0, 1]).mean(axis=0)
                    for order, xyzw in (("xyzw", four), ("wxyz", quat.xyzw_from_wxyz(four)))
                }
                said = ", ".join(f"read {o}: {np.round(axis, 2)}" for o, axis in axes.items())
                found.append(f"  {key}[{first}:{first + 4}]; the hand's z axis on average {said}")
    if found:
        yield "\ncolumns of length 1, which are quaternions:"
        yield from found


def _orders(row: Row, episodes: list[Steps]) -> Iterator[str]:
    for entry in ("pose", "command"):
        rule = getattr(row, entry)
        if not needs_detection(rule):
            continue
        worst: dict[str, float] = {}
        for steps in episodes:
            try:
                for order, degrees in wander_deg(rule, steps).items():
                    worst[order] = max(worst.get(order, 0.0), degrees)
            except EpisodeError as error:
                yield f"  {entry}: {error}"
        said = ", ".join(f"{order} {degrees:.1f}" for order, degrees in worst.items())
        yield f"\n{entry}: the hand wanders on the flange by [deg]: {said}; the true order: about 0"


def _grippers(row: Row, episodes: list[Steps]) -> Iterator[str]:
    measured, commanded = row.gripper_opening, row.gripper_command
    if not isinstance(measured, LinearGripper) or not isinstance(commanded, LinearGripper):
        return
    same = opposite = 0
    for steps in episodes:
        opening = _columns(steps[measured.key])[:, measured.first_column]
        command = _columns(steps[commanded.key])[:, commanded.first_column]
        turns = np.flatnonzero(np.abs(np.diff(command)) > SUDDEN * np.ptp(command)) + 1
        ends = np.append(turns, len(command) - 1)[1:]
        for turn, end in zip(turns, ends, strict=True):
            followed = opening[min(end, turn + FOLLOWS_STEPS)] - opening[turn]
            agreement = followed * (command[turn] - command[turn - 1])
            same, opposite = same + int(agreement > 0), opposite + int(agreement < 0)
    yield (
        f"\ngripper: {measured.key}[{measured.first_column}] followed a sudden change of "
        f"{commanded.key}[{commanded.first_column}] in the same direction {same} times, "
        f"in the opposite {opposite} times"
    )


def _texts(records: list[RldsEpisode]) -> Iterator[str]:
    yield "\ntexts, some of each:"
    for key, first in {**records[0].metadata, **records[0].steps}.items():
        if np.asarray(first).dtype.kind != "U":
            continue
        values: dict[str, None] = {}
        for record in records:
            found = record.steps.get(key, record.metadata.get(key))
            values |= dict.fromkeys(np.atleast_1d(found).tolist())
        for value in list(values)[:MOST_TEXTS]:
            yield f"  {key}: {value!r}"


def main(arguments: list[str] | None = None) -> int:
    """Print the report."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("row", help="row of the mixture table")
    parser.add_argument("folder", type=Path, help="folder with dataset_info.json")
    parser.add_argument("--split", default="train")
    parser.add_argument("--episodes", type=int, default=20, help="how many to read (20)")
    parser.add_argument("--table", type=Path, help="a table of your own, with what differs")
    options = parser.parse_args(arguments)
    try:
        row = find_row(load_table(options.table), options.row)
        folder = RldsFolder(options.folder, options.split)
        for line in report(row, folder, options.episodes):
            print(line)
    except DataFileError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
