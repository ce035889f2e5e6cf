"""statistics.json: what a training normalises by, to be read again and stored with checkpoints."""

import json
from collections.abc import Mapping
from pathlib import Path

from spear_policy.inference.statistics import Statistics, statistics_hash
from spear_policy.model.config_reading import ConfigError
from spear_training.data.reader import DataFileError
from spear_training.data.statistics.normalisation import SCHEMES, Normalisation
from spear_training.data.whole_file import write_whole

FORMAT, VERSION = "spear-statistics", 1


def write_normalisation(
    path: Path, found: Normalisation, shares: Mapping[str, float], rows: Mapping[str, str]
) -> None:
    """Write it, whole or not at all.

    Args:
        path: of the file.
        found: what to write.
        shares: of each data set in the mixture.
        rows: hash of the table row that each data set was imported by, or "".

    Raises:
        OSError: it cannot be written.
    """
    values = {
        "format": FORMAT,
        "version": VERSION,
        "scheme": found.scheme,
        "pooled": _hashed(found.pooled),
        "data_sets": {
            name: {"share": shares[name], "row_hash": rows[name], **_hashed(statistics)}
            for name, statistics in sorted(found.by_data_set.items())
        },
    }
    write_whole(path, (json.dumps(values, indent=1) + "\n").encode())


def read_normalisation(path: Path) -> Normalisation:
    """Read what `write_normalisation` wrote.

    Raises:
        DataFileError: missing, damaged, foreign or newer, or numbers that somebody edited.
    """
    try:
        values = json.loads(Path(path).read_text())
        if (values.get("format"), values.get("version")) != (FORMAT, VERSION):
            raise DataFileError(f"{path}: is no {FORMAT} {VERSION}; make it again with stats")
        if values["scheme"] not in SCHEMES:
            raise ValueError(f"unknown scheme {values['scheme']!r}")
        data_sets = {name: _checked(part) for name, part in values["data_sets"].items()}
        return Normalisation(values["scheme"], _checked(values["pooled"]), data_sets)
    except OSError as error:
        raise DataFileError(f"{path}: cannot be read ({error.strerror}); run stats") from None
    except DataFileError:
        raise
    except (ConfigError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataFileError(
            f"{path}: damaged ({type(error).__name__}: {error}); make it again with stats"
        ) from None


def _hashed(statistics: Statistics) -> dict:
    return {"statistics": statistics.to_dict(), "hash": statistics_hash(statistics)}


def _checked(values: dict) -> Statistics:
    statistics = Statistics.from_dict(values["statistics"])
    if statistics_hash(statistics) != values["hash"]:
        raise ValueError("the hash is of other numbers: somebody edited them")
    return statistics
