"""The mixture table: the one that comes with SPEAR, and what a user confirms or changes in it."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from spear_training.data.oxe.row import Row
from spear_training.data.oxe.row_reading import read_row
from spear_training.data.reader import DataFileError

SHIPPED = Path(__file__).with_name("oxe_table.yaml")
TOTAL_WEIGHT = 100.0
# The one in C is ten times as fast; both are safe.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def load_table(mine: str | Path | None = None) -> dict[str, Row]:
    """All rows by name, in the order of the table.

    Args:
        mine: a user's file: the rows, and of each the entries, that differ. An entry with an
            encoding other than before replaces the whole entry, any other is changed key by key,
            and an empty one (null) takes it away.

    Raises:
        DataFileError: a file is missing or no table, a row or an entry is unknown or impossible,
            or the weights do not sum to 100; the text names it.
    """
    values = dict(_shipped())
    where = str(SHIPPED)
    if mine is not None:
        where = str(mine)
        for name, changes in _read(Path(mine)).items():
            if name not in values:
                known = ", ".join(values)
                raise DataFileError(f"{mine}: unknown row {name!r}; the table has {known}")
            if not isinstance(changes, Mapping):
                raise DataFileError(f"{mine}: row {name} is {changes!r}: it must have entries")
            values[name] = merged(values[name], changes)
    rows = {name: read_row(name, entries, where) for name, entries in values.items()}
    total = sum(row.weight for row in rows.values())
    if abs(total - TOTAL_WEIGHT) > 1e-6:
        raise DataFileError(f"{where}: the weights sum to {total:g}, not to {TOTAL_WEIGHT:g}")
    return rows


def find_row(rows: Mapping[str, Row], name: str) -> Row:
    """The row of this name. Raises DataFileError when there is none."""
    if name not in rows:
        raise DataFileError(f"no row {name!r} in the mixture table; it has {', '.join(rows)}")
    return rows[name]


def merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with `changes` in it; see load_table."""
    result = dict(values)
    for key, change in changes.items():
        old = result.get(key)
        both = isinstance(old, Mapping) and isinstance(change, Mapping)
        if change is None:
            result.pop(key, None)
        elif both and "unconfirmed" not in old and _same_encoding(old, change):
            result[key] = merged(old, change)
        else:
            result[key] = change
    return result


def _same_encoding(old: Mapping[str, Any], change: Mapping[str, Any]) -> bool:
    return change.get("encoding", old.get("encoding")) == old.get("encoding")


@cache
def _shipped() -> dict[str, Any]:
    return _read(SHIPPED)


def _read(path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text(), _LOADER)
    except OSError as error:
        raise DataFileError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataFileError(f"{path}: not a YAML file ({error})") from None
    if not isinstance(values, dict):
        raise DataFileError(f"{path}: must hold rows by name")
    return values
