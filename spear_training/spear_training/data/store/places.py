"""Where things lie in a store's folder, besides what LeRobot defines."""

from pathlib import Path

REJECTS_PATH = "meta/rejects.jsonl"
# What is there while a store is being written; gone when it is whole.
BUILDING = "building"
PLAN_PATH = BUILDING + "/plan.json"
# Columns as plain arrays, and where each JPEG lies: for reading at random.
LOOKUP = "lookup"


def group_record_path(root: Path, group: int) -> Path:
    """What a written group holds; it is written last, so the group is whole if it is there."""
    return root / BUILDING / f"group-{group:06d}.json"


def group_arrays_path(root: Path, group: int) -> Path:
    """Columns and statistics of a written group."""
    return root / BUILDING / f"group-{group:06d}.npz"


def group_numbered_path(root: Path, group: int) -> Path:
    """From which numbers on its rows were numbered; it is written after that was done."""
    return root / BUILDING / f"group-{group:06d}.numbered"
