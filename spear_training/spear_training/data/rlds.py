"""RLDS datasets as TFDS stores them: a folder of TFRecord files, read without TensorFlow.

From the bytes up: `TfRecordFile` finds the records of one file, `decode_example` parses one,
`FeatureSpec` (out of features.json) says what its values mean, and `RldsFolder` is the dataset.

Run `ros2 run spear_training inspect_rlds FOLDER` to see what such a folder holds.
"""

import argparse
import json
import os
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import google_crc32c
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from spear_training.data.reader import DataFileError, unreadable

# TFRecord files: their records by number, each checked ---------------------------------------

_LENGTH_BYTES, _HEADER_BYTES, _FOOTER_BYTES = 8, 12, 4


class TfRecordFile:
    """One file. The constructor finds where every record lies; payloads are read when asked for.

    A record is: length (u64, little endian), masked CRC-32C of those 8 bytes (u32), the payload,
    masked CRC-32C of the payload (u32). The format is described in TensorFlow's guide to TFRecord.

    Attributes:
        path: the file.
        offsets: byte offset of each whole record.
        damage: a sentence when the file breaks off or its framing is damaged after the last of
            `offsets`; None when it ends where it should.

    Raises:
        DataFileError: the file does not exist or cannot be opened.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.offsets: list[int] = []
        self.damage: str | None = None
        self._lengths: list[int] = []
        try:
            with open(self.path, "rb") as file:
                self._index(file, os.fstat(file.fileno()).st_size)
        except OSError as error:
            raise DataFileError(unreadable(self.path, error)) from None

    def __len__(self) -> int:
        return len(self.offsets)

    def read(self, index: int) -> bytes:
        """The payload of record `index`, 0-based.

        Raises:
            DataFileError: its checksum is wrong, or the file broke off before it.
            IndexError: the file has no such record.
        """
        if not 0 <= index < len(self):
            if self.damage and index >= len(self):
                raise DataFileError(self.damage)
            raise IndexError(f"{self.path}: no record {index}, there are {len(self)}")
        offset, length = self.offsets[index], self._lengths[index]
        with open(self.path, "rb") as file:
            file.seek(offset + _HEADER_BYTES)
            payload, footer = file.read(length), file.read(_FOOTER_BYTES)
        if len(footer) < _FOOTER_BYTES:
            raise DataFileError(f"{self.path}: became shorter while it was read; copy it again")
        if masked_crc32c(payload) != struct.unpack("<I", footer)[0]:
            raise DataFileError(
                f"{self.path}: record {index} at byte {offset} is damaged (its checksum is wrong); "
                "copy the file again from its source"
            )
        return payload

    def _index(self, file, size: int) -> None:
        offset = 0
        while offset < size:
            file.seek(offset)
            header = file.read(_HEADER_BYTES)
            place = f"{self.path}: record {len(self)} at byte {offset}"
            if len(header) < _HEADER_BYTES:
                self.damage = f"{place} is cut short (the file ends at byte {size}); copy it again"
                return
            length, crc = struct.unpack("<QI", header)
            if masked_crc32c(header[:_LENGTH_BYTES]) != crc:
                fix = f"record {len(self)} at byte {offset} has a damaged length, so nothing after "
                fix += "it can be found; copy the file again, or it is no TFRecord file"
                self.damage = unreadable(self.path, fix=fix)
                return
            end = offset + _HEADER_BYTES + length + _FOOTER_BYTES
            if end > size:
                self.damage = (
                    f"{place} is cut short (it needs bytes up to {end}, the file ends at {size}); "
                    "copy it again"
                )
                return
            self.offsets.append(offset)
            self._lengths.append(length)
            offset = end


def masked_crc32c(data: bytes) -> int:
    """The form that TFRecord stores: turned right by 15 bits, plus a constant.

    A checksum of data that contain their own checksum says little; this keeps them apart.
    """
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


# tf.train.Example messages, with protobuf alone ----------------------------------------------

Values = NDArray | list[bytes]

# The field numbers are TensorFlow's (tensorflow/core/example/{example,feature}.proto).
_EXAMPLE_PROTO = """
name: "spear_tf_example.proto" package: "spear_tf_example" syntax: "proto3"
message_type { name: "BytesList"
  field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_BYTES } }
message_type { name: "FloatList"
  field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_FLOAT } }
message_type { name: "Int64List"
  field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_INT64 } }
message_type { name: "Feature" oneof_decl { name: "kind" }
  field { name: "bytes_list" number: 1 oneof_index: 0 label: LABEL_OPTIONAL
    type: TYPE_MESSAGE type_name: ".spear_tf_example.BytesList" }
  field { name: "float_list" number: 2 oneof_index: 0 label: LABEL_OPTIONAL
    type: TYPE_MESSAGE type_name: ".spear_tf_example.FloatList" }
  field { name: "int64_list" number: 3 oneof_index: 0 label: LABEL_OPTIONAL
    type: TYPE_MESSAGE type_name: ".spear_tf_example.Int64List" } }
message_type { name: "Features"
  nested_type { name: "FeatureEntry" options { map_entry: true }
    field { name: "key" number: 1 label: LABEL_OPTIONAL type: TYPE_STRING }
    field { name: "value" number: 2 label: LABEL_OPTIONAL
      type: TYPE_MESSAGE type_name: ".spear_tf_example.Feature" } }
  field { name: "feature" number: 1 label: LABEL_REPEATED
    type: TYPE_MESSAGE type_name: ".spear_tf_example.Features.FeatureEntry" } }
message_type { name: "Example"
  field { name: "features" number: 1 label: LABEL_OPTIONAL
    type: TYPE_MESSAGE type_name: ".spear_tf_example.Features" } }
"""


def _example_class():
    pool = descriptor_pool.DescriptorPool()
    pool.Add(text_format.Parse(_EXAMPLE_PROTO, descriptor_pb2.FileDescriptorProto()))
    # The protobuf of Ubuntu 24.04 (3.21) has only the older of the two names.
    if hasattr(message_factory, "GetMessageClass"):
        make_class = message_factory.GetMessageClass
    else:
        make_class = message_factory.MessageFactory(pool).GetPrototype
    return make_class(pool.FindMessageTypeByName("spear_tf_example.Example"))


Example = _example_class()


def decode_example(payload: bytes) -> dict[str, Values]:
    """Every feature of a serialised Example: float32 (n,), int64 (n,) or a list of bytes.

    Raises:
        ValueError: `payload` is no Example.
    """
    try:
        example = Example.FromString(payload)
    except DecodeError as error:
        raise ValueError(f"not a tf.train.Example ({error})") from None
    return {key: _values(feature) for key, feature in example.features.feature.items()}


def _values(feature) -> Values:
    kind = feature.WhichOneof("kind")
    if kind == "float_list":
        return np.array(feature.float_list.value, np.float32)
    if kind == "int64_list":
        return np.array(feature.int64_list.value, np.int64)
    return list(feature.bytes_list.value)


# features.json: what each key of a record holds, and how it is decoded ------------------------

STEPS = "steps/"


@dataclass(frozen=True)
class FeatureSpec:
    """One key of a record.

    Attributes:
        key: flat name such as "steps/observation/state"; those of a step begin with "steps/".
        kind: "tensor", "text", "image", or "unsupported" with the reason in `why`.
        shape: of one value; None for an image side that varies. Empty for a scalar or a text.
        dtype: numpy name.
    """

    key: str
    kind: str
    shape: tuple[int | None, ...] = ()
    dtype: str = ""
    why: str = ""

    @property
    def of_step(self) -> bool:
        """Whether each step has one, not the episode."""
        return self.key.startswith(STEPS)

    def count(self, values: Values) -> int:
        """How many values `values` holds. Raises ValueError when that is no whole number."""
        size = int(np.prod(self.shape)) if self.kind == "tensor" else 1
        if len(values) % size:
            raise ValueError(f"{len(values)} numbers, not a multiple of shape {list(self.shape)}")
        return len(values) // size

    def decode(self, values: Values) -> NDArray:
        """(n, *shape) from the n values of a record; texts are str, images are RGB.

        Raises:
            ValueError: the values are of another type or size, or an image is damaged.
        """
        count = self.count(values)
        if isinstance(values, list) != (self.kind in ("text", "image")) and count:
            raise ValueError(f"values of another type than {self.kind}")
        if self.kind == "tensor":
            return np.asarray(values).reshape(count, *self.shape).astype(self.dtype)
        if self.kind == "text":
            return np.array([text.decode() for text in values], dtype=str)
        return np.stack([self._numbered(data, step) for step, data in enumerate(values)])

    def encoded(self, values: Values) -> list[bytes]:
        """The n encoded pictures of a record. Raises ValueError when they are no bytes."""
        if not isinstance(values, list) and self.count(values):
            raise ValueError(f"values of another type than {self.kind}")
        return list(values)

    def _numbered(self, data: bytes, step: int) -> NDArray:
        try:
            return self.picture(data)
        except ValueError as error:
            raise ValueError(f"picture {step} {error}") from None

    def picture(self, data: bytes) -> NDArray:
        """One picture (H, W, channels), RGB where it has three.

        Raises:
            ValueError: it is damaged, or of another size than features.json says.
        """
        colour = self.shape[-1] == 3 and self.dtype == "uint8"
        how = cv2.IMREAD_UNCHANGED
        if colour:  # 16 bits stay 16 bits, and are refused
            how = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), how) if data else None
        if picture is None:
            raise ValueError(f"is damaged ({len(data)} bytes)")
        picture = picture[..., ::-1] if colour else picture.reshape(*picture.shape[:2], -1)
        fits = len(picture.shape) == len(self.shape) and all(
            want in (None, got) for want, got in zip(self.shape, picture.shape, strict=True)
        )
        if not fits or picture.dtype != self.dtype:
            raise ValueError(
                f"is {picture.shape} {picture.dtype}, features.json says {self.shape} {self.dtype}"
            )
        return picture


def read_features(path: Path) -> dict[str, FeatureSpec]:
    """The specs of a features.json by key. What its `description` texts say is not trusted.

    Raises:
        DataFileError: missing, damaged or foreign file.
    """
    try:
        tree = json.loads(path.read_text())
        if "featuresDict" not in tree:
            raise ValueError("no featuresDict at its root")
        specs = list(_walk(tree, ""))
    except OSError as error:
        raise DataFileError(unreadable(path, error)) from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        fix = f"damaged or not TFDS's features.json ({error!r})"
        raise DataFileError(unreadable(path, fix=fix)) from None
    return {spec.key: spec for spec in specs}


def _walk(node: dict, key: str):
    word = node.get("pythonClassName", "unknown feature").rsplit(".", 1)[-1]
    if "featuresDict" in node:
        for name, child in node["featuresDict"]["features"].items():
            yield from _walk(child, f"{key}/{name}" if key else name)
    elif key + "/" == STEPS and "sequence" in node:
        yield from _walk(node["sequence"]["feature"], key)
    elif "text" in node:
        yield FeatureSpec(key, "text")
    elif "image" in node:
        yield FeatureSpec(key, "image", _shape(node["image"]), node["image"]["dtype"])
    elif "tensor" in node:
        yield _tensor(key, node["tensor"])
    else:
        yield FeatureSpec(key, "unsupported", why=f"it is a {word}")


def _tensor(key: str, node: dict) -> FeatureSpec:
    shape, dtype = _shape(node), node["dtype"]
    if node.get("encoding", "none") != "none":
        return FeatureSpec(key, "unsupported", why=f"its encoding is {node['encoding']}")
    if dtype in ("string", "object"):
        return FeatureSpec(key, "text" if not shape else "unsupported", why="an array of texts")
    if None in shape:
        return FeatureSpec(key, "unsupported", why="its shape varies")
    np.dtype(dtype)  # TypeError for a name that is none
    return FeatureSpec(key, "tensor", shape, dtype)


def _shape(node: dict) -> tuple[int | None, ...]:
    sides = (int(side) for side in node.get("shape", {}).get("dimensions", []))
    return tuple(None if side < 0 else side for side in sides)


# The folder ----------------------------------------------------------------------------------


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
class _Split:
    """Files of a split: their names with `*` for the number, and the records in each if known."""

    pattern: str
    names: tuple[str, ...]
    lengths: tuple[int, ...]


@dataclass(frozen=True)
class _DatasetInfo:
    name: str
    version: str
    file_format: str
    splits: dict[str, _Split]


class RldsFolder:
    """A TFDS folder (dataset_info.json, features.json, TFRecord shards), one split of it.

    Attributes:
        path, split: what was asked for.
        name, version: of the dataset.
        features: by key; see FeatureSpec.
        left_out: how many files of the split are not there, with `partial`.

    Raises:
        DataFileError: a file is missing, damaged or of a kind that is not read here. A damaged
            record is no reason: it raises when it is read.
    """

    def __init__(self, path: str | Path, split: str = "train", partial: bool = False):
        """Open a folder; `partial` takes the files of the split that are there, others fail."""
        self.path, self.split = Path(path), split
        info = _read_info(self.path / "dataset_info.json")
        self.name, self.version = info.name, info.version
        self.features = read_features(self.path / "features.json")
        if info.file_format != "tfrecord":
            raise DataFileError(
                f"{self.path}: its files are {info.file_format}; only tfrecord is read"
            )
        if split not in info.splits:
            raise DataFileError(
                f"{self.path}: has no split {split!r}; it has {', '.join(sorted(info.splits))}"
            )
        shards = self._shards(info.splits[split], info.file_format)
        missing = [file for file, _ in shards if not file.is_file()]
        if missing and (not partial or len(missing) == len(shards)):
            there = len(shards) - len(missing)
            fix = "copy them, or take those that are there with --partial" if there else "copy them"
            raise DataFileError(
                f"{self.path}: split {split!r} lacks {len(missing)} of {len(shards)} files, the "
                f"first is {missing[0].name}; {fix}"
            )
        self.left_out = len(missing)
        shards = [(file, length) for file, length in shards if file not in missing]
        self._paths = [file for file, _ in shards]
        self._open: dict[int, TfRecordFile] = {}
        lengths = [
            len(self._file(shard)) if length is None else length
            for shard, (_, length) in enumerate(shards)
        ]
        self._first = np.cumsum([0, *lengths])

    def __len__(self) -> int:
        """Episodes, by dataset_info.json, or counted where it does not say."""
        return int(self._first[-1])

    def _shards(self, split: _Split, kind: str) -> list[tuple[Path, int | None]]:
        """The files of the split and how many records dataset_info.json says they have."""
        paths = [self.path / name for name in split.names]
        if any(path.is_file() for path in paths):
            return list(zip(paths, split.lengths, strict=True))
        # Files that were renamed, or whose number nobody says.
        patterns = (split.pattern, f"*{self.split}.{kind}*")
        found = next((f for p in patterns if (f := sorted(self.path.glob(p)))), [])
        if paths and len(found) == len(paths):
            return list(zip(found, split.lengths, strict=True))
        if paths or not found:
            return [(path, None) for path in paths or [self.path / split.pattern]]
        return [(path, None) for path in found]

    def _file(self, shard: int) -> TfRecordFile:
        if shard not in self._open:
            self._open[shard] = TfRecordFile(self._paths[shard])
        return self._open[shard]

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
        file, record = self._file(shard), index - int(self._first[shard])
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
        splits = {part["name"]: _split(part, info["name"], kind) for part in info["splits"]}
        return _DatasetInfo(info["name"], info["version"], kind, splits)
    except OSError as error:
        fix = "give the folder that holds dataset_info.json, features.json and the .tfrecord files"
        raise DataFileError(unreadable(path, error, fix)) from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        fix = f"damaged or not TFDS's dataset_info.json ({error!r})"
        raise DataFileError(unreadable(path, fix=fix)) from None


def _split(part: dict, name: str, kind: str) -> _Split:
    """The files of a split by its entry in dataset_info.json.

    The words of a template are those of tensorflow_datasets (core/naming.py).
    """
    lengths = tuple(int(length) for length in part.get("shardLengths") or ())
    template = part.get("filepathTemplate") or "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    words = {"DATASET": name, "SPLIT": part["name"], "FILEFORMAT": kind}

    def file_name(index: str, count: str) -> str:
        shard = {"SHARD_INDEX": index, "NUM_SHARDS": count, "SHARD_X_OF_Y": f"{index}-of-{count}"}
        return template.format(**shard, **words)

    count = f"{len(lengths):05d}"
    names = tuple(file_name(f"{shard:05d}", count) for shard in range(len(lengths)))
    return _Split(file_name("*", "*"), names, lengths)


def main(arguments: list[str] | None = None) -> int:
    """Print what a folder holds."""
    parser = argparse.ArgumentParser(
        description="Show the features of an RLDS folder and check every record of a split.",
        epilog="example: ros2 run spear_training inspect_rlds data/bridge_rlds",
    )
    parser.add_argument("folder")
    parser.add_argument("--split", default="train")
    parser.add_argument("--partial", action="store_true", help="take the files that are there")
    options = parser.parse_args(arguments)
    try:
        folder = RldsFolder(options.folder, options.split, options.partial)
    except DataFileError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{folder.name} {folder.version}, split {folder.split}: {len(folder)} episodes")
    if folder.left_out:
        print(f"without {folder.left_out} files, which are not there")
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
