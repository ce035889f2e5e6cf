"""Which stores are trained on together, and how much of each.

`oxe` is the paper's mixture (Table 4): the stores of its rows below one folder, each with the
weight that the table gives it. Any other mixture is a small YAML file:

    parts:
      - {store: stores/bridge, weight: 70}
      - {store: /data/our_lab, weight: 30}

Paths are relative to the file.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from spear_training.data.oxe.table import find_row, load_table
from spear_training.data.reader import DataFileError
from spear_training.data.store.frames import FrameStore

OXE = "oxe"


@dataclass(frozen=True)
class Part:
    """One data set of a mixture.

    Attributes:
        name: what it is called in statistics and reports; unique.
        store: its folder.
        weight: only ratios to the other parts' count.
    """

    name: str
    store: Path
    weight: float


def load_mixture(
    mixture: str | Path,
    root: Path | None = None,
    *,
    table: Path | None = None,
    only: Collection[str] = (),
) -> tuple[Part, ...]:
    """Find the stores of a mixture.

    Args:
        mixture: `oxe`, or a YAML file.
        root: for `oxe`, the folder of its stores, each named after its row.
        table: for `oxe`, a user's own table, see oxe.table.
        only: parts to use, by name; all where empty. Their ratios stay.

    Raises:
        DataFileError: a file or a store is missing, or a part is unknown; names it and the mend.
    """
    if str(mixture) == OXE:
        if root is None:
            raise DataFileError("the mixture oxe needs the folder that holds its stores (--root)")
        rows = load_table(table)
        for name in only:
            find_row(rows, name)
        parts = [Part(row.name, Path(root) / row.name, row.weight) for row in rows.values()]
    else:
        parts = _read_file(Path(mixture))
    known = [part.name for part in parts]
    if unknown := sorted(set(only) - set(known)):
        raise DataFileError(f"the mixture has no {unknown[0]!r}; it has {', '.join(known)}")
    chosen = tuple(part for part in parts if not only or part.name in only)
    missing = [part for part in chosen if not part.store.is_dir()]
    if missing:
        raise DataFileError(
            f"{len(missing)} of {len(chosen)} stores are missing, the first is "
            f"{missing[0].store}: make it with import_episodes, or name those you have with "
            f"--only (missing: {', '.join(part.name for part in missing)})"
        )
    return chosen


def open_stores(parts: Sequence[Part]) -> list[FrameStore]:
    """Open the store of every part. Raises DataFileError for one that is damaged."""
    return [FrameStore(part.store) for part in parts]


def _read_file(path: Path) -> list[Part]:
    try:
        values = yaml.safe_load(path.read_text())
        listed = values["parts"]
        parts = []
        for entry in listed:
            if unknown := set(entry) - {"store", "weight", "name"}:
                raise ValueError(f"a part has no {', '.join(sorted(unknown))}")
            store = path.parent / entry["store"]
            weight = float(entry["weight"])
            if not 0 < weight < float("inf"):
                raise ValueError(f"the weight of {store} is {weight}: it must be positive")
            parts.append(Part(str(entry.get("name", store.name)), store, weight))
    except OSError as error:
        raise DataFileError(
            f"{path}: cannot be read ({error.strerror}); give {OXE!r} or a YAML file"
        ) from None
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        said = f"{error} is missing" if isinstance(error, KeyError) else error
        raise DataFileError(f"{path}: no mixture: {said}; data/mixture.py shows one") from None
    names = [part.name for part in parts]
    if not parts or len(set(names)) < len(names):
        raise DataFileError(f"{path}: parts must be there, each with a name of its own: {names}")
    return parts
