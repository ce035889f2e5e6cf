"""RLDS data sets as TFDS stores them: a folder of TFRecord files, without TensorFlow.

Run `python3 -m spear_training.data.rlds FOLDER` to see what such a folder holds.
"""

import argparse
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spear_training.data.reader import DataFileError
from spear_training.data.tf_example import Values, decode_example
from spear_training.data.tfds_features import STEPS, FeatureSpec, read_features
from spear_training.data.tfrecord import TfRecordFile


@dataclass(frozen=True, eq=False)
class RldsEpisode:
    """One record, decoded.

    Attributes:
        steps: key without "steps/" -> (T, ...) array: numbers, texts (str), images (RGB); images
            are a list of bytes where they were not to be decoded.
        metadata: other keys, such as "episode_metadata/file_path" -> one value.
        file, record: where it lies.
    """

    steps: dict[str, NDArray | list[bytes]]
    metadata: dict[str, NDArray]
    file: Path
    record: int

    @property
    def where(self) -> str:
        """File and record in words."""
        return f"{self.file}: record {self.record}"


@dataclass(frozen=True)
class _DatasetInfo:
    name: str
    version: str
    file_format: str
    shards: dict[str, list[tuple[str, int]]]


class RldsFolder:
    """A TFDS folder (dataset_info.json, features.json, TFRecord shards), one split of it.

    Attributes:
        path, split: what was asked for.
        name, version: of the data set.
        features: by key; see FeatureSpec.

    Raises:
        DataFileError: a file is missing, damaged or of a kind that is not read here. A damaged
            record is no reason: it raises when it is read.
    """

    def __init__(self, path: str | Path, split: str = "train"):
        self.path, self.split = Path(path), split
        info = _read_info(self.path / "dataset_info.json")
        self.name, self.version = info.name, info.version
        self.features = read_features(self.path / "features.json")
        if info.file_format != "tfrecord":
            raise DataFileError(
                f"{self.path}: its files are {info.file_format}; only tfrecord is read"
            )
        if split not in info.shards:
            raise DataFileError(
                f"{self.path}: has no split {split!r}; it has {', '.join(sorted(info.shards))}"
            )
        shards = info.shards[split]
        self._paths = [self.path / file for file, _ in shards]
        missing = [file.name for file in self._paths if not file.is_file()]
        if missing:
            raise DataFileError(
                f"{self.path}: split {split!r} lacks {len(missing)} of {len(shards)} files, the "
                f"first is {missing[0]}; copy them, or choose another split"
            )
        self._first = np.cumsum([0] + [length for _, length in shards])
        self._open: dict[int, TfRecordFile] = {}

    def __len__(self) -> int:
        """Episodes, by dataset_info.json."""
        return int(self._first[-1])

    def read(
        self, index: int, keys: Iterable[str] | None = None, decode_images: bool = True
    ) -> RldsEpisode:
        """Episode `index`, 0-based; of its features only `keys` (flat, with "steps/"), or all.

        Args:
            index, keys: see above.
            decode_images: False leaves pictures as the bytes they are stored as.

        Raises:
            DataFileError: the record is missing or damaged, or disagrees with features.json.
            IndexError: the split has no such episode.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"{self.path}: no episode {index} in {self.split}, it has {len(self)}")
        shard = int(np.searchsorted(self._first, index, side="right")) - 1
        if shard not in self._open:
            self._open[shard] = TfRecordFile(self._paths[shard])
        file, record = self._open[shard], index - int(self._first[shard])
        try:
            payload = file.read(record)
        except IndexError:
            raise DataFileError(
                f"{file.path}: has {len(file)} records, dataset_info.json says "
                f"{self._first[shard + 1] - self._first[shard]}; copy both again"
            ) from None
        where = f"{file.path}: record {record}"
        try:
            example = decode_example(payload)
        except ValueError as error:
            raise DataFileError(f"{where} is {error}") from None
        specs = self._wanted(keys)
        steps = _step_count(specs, example, where)
        decoded = {
            spec.key: _of_record(
                spec.encoded if spec.kind == "image" and not decode_images else spec.decode,
                spec,
                example,
                where,
            )
            for spec in specs
        }
        for spec in specs:
            count, expected = len(decoded[spec.key]), steps if spec.of_step else 1
            if count != expected:
                raise DataFileError(f"{where}: {spec.key} has {count} values, not {expected}")
        return RldsEpisode(
            {key.removeprefix(STEPS): v for key, v in decoded.items() if key.startswith(STEPS)},
            {key: v[0] for key, v in decoded.items() if not key.startswith(STEPS)},
            file.path,
            record,
        )

    def _wanted(self, keys: Iterable[str] | None) -> list[FeatureSpec]:
        if keys is None:
            return [spec for spec in self.features.values() if spec.kind != "unsupported"]
        wanted = []
        for key in keys:
            spec = self.features.get(key)
            if spec is None:
                held = ", ".join(sorted(self.features))
                raise DataFileError(f"{self.path}: has no feature {key}; it has {held}")
            if spec.kind == "unsupported":
                raise DataFileError(f"{self.path}: feature {key} cannot be read: {spec.why}")
            wanted.append(spec)
        return wanted


def _step_count(specs: list[FeatureSpec], example: dict[str, Values], where: str) -> int:
    """T, by the first feature of a step; the others are compared with it."""
    for spec in specs:
        if spec.of_step:
            return _of_record(spec.count, spec, example, where)
    return 0


def _of_record(function, spec: FeatureSpec, example: dict[str, Values], where: str):
    if spec.key not in example:
        raise DataFileError(f"{where}: {spec.key} is missing, although features.json names it")
    try:
        return function(example[spec.key])
    except ValueError as error:
        raise DataFileError(f"{where}: {spec.key}: {error}") from None


def _read_info(path: Path) -> _DatasetInfo:
    try:
        info = json.loads(path.read_text())
        kind = info.get("fileFormat", "tfrecord")
        shards = {part["name"]: _shards(part, info["name"], kind) for part in info["splits"]}
        return _DatasetInfo(info["name"], info["version"], kind, shards)
    except OSError as error:
        raise DataFileError(
            f"{path}: cannot be read ({error.strerror}); give the folder that holds "
            "dataset_info.json, features.json and the .tfrecord files"
        ) from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataFileError(
            f"{path}: damaged or not TFDS's dataset_info.json ({error!r})"
        ) from None


def _shards(part: dict, name: str, kind: str) -> list[tuple[str, int]]:
    """File name and number of records of each shard of a split."""
    lengths = [int(length) for length in part.get("shardLengths", [])]
    template = part.get("filepathTemplate", "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}")
    words = {"DATASET": name, "SPLIT": part["name"], "FILEFORMAT": kind}
    return [
        (template.format(SHARD_X_OF_Y=f"{shard:05d}-of-{len(lengths):05d}", **words), length)
        for shard, length in enumerate(lengths)
    ]


def main(arguments: list[str] | None = None) -> int:
    """Print what a folder holds."""
    parser = argparse.ArgumentParser(
        prog="python3 -m spear_training.data.rlds",
        description="Show the features of an RLDS folder and check every record of a split.",
        epilog="example: python3 -m spear_training.data.rlds ../shared/data/bridge_rlds",
    )
    parser.add_argument("folder")
    parser.add_argument("--split", default="train")
    options = parser.parse_args(arguments)
    try:
        folder = RldsFolder(options.folder, options.split)
    except DataFileError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{folder.name} {folder.version}, split {folder.split}: {len(folder)} episodes")
    for spec in folder.features.values():
        shape = "x".join(str(side) for side in spec.shape)
        print(f"  {spec.key:40} {spec.kind:12} {spec.dtype:8} {shape} {spec.why}")
    bad = 0
    for index in range(len(folder)):
        try:
            folder.read(index)
        except DataFileError as error:
            bad += 1
            print(f"episode {index}: {error}", file=sys.stderr)
    print(f"{len(folder) - bad} episodes are sound, {bad} are damaged")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
