"""Tensors in safetensors files: their names and shapes at once, their values one at a time."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
FLOATS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
# Pages of a mapped file count as memory of the process until it is unmapped.
MAPPED_BYTES = 64 * 2**20


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; names the file, the key and the mend."""


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies and what it is, without its values."""

    path: Path
    shape: tuple[int, ...]
    dtype: torch.dtype | None  # None when it is not a floating-point number


class TensorFiles(Mapping[str, Tensor]):
    """The tensors of one or several files, mapped when they are asked for.

    A tensor is a view of its file: copy what should last, so that the file can be unmapped.

    Attributes:
        where: the file or folder, for messages.
        entries: what there is, by key, in the order of the files.
    """

    def __init__(self, where: Path, paths: list[Path]):
        """Read the headers; use `open_tensors` instead.

        Raises:
            CheckpointError: a file is missing or damaged, or two of them have the same key.
        """
        self.where = where
        self.entries: dict[str, Entry] = {}
        self._mapped, self._mapped_path, self._given_bytes = None, None, 0
        for path in paths:
            self._read_header(path)
        self._mapped = self._mapped_path = None

    def __getitem__(self, key: str) -> Tensor:
        """Map one tensor."""
        path = self.entries[key].path
        if path != self._mapped_path or self._given_bytes > MAPPED_BYTES:
            self._map(path)
        try:
            values = self._mapped.get_tensor(key)
        except SafetensorError as error:
            raise _damaged(path, error) from None
        self._given_bytes += values.nbytes
        return values

    def __contains__(self, key: object) -> bool:
        """Say whether there is a tensor of that name, without mapping it."""
        return key in self.entries

    def __iter__(self) -> Iterator[str]:
        """Iterate over the keys in the order of the files."""
        return iter(self.entries)

    def __len__(self) -> int:
        """Count the tensors."""
        return len(self.entries)

    def _map(self, path):
        self._mapped = self._mapped_path = None  # unmaps the last one
        try:
            self._mapped = safe_open(path, framework="pt", device="cpu")
        except SafetensorError as error:
            raise _damaged(path, error) from None
        except OSError as error:
            raise CheckpointError(
                f"cannot read {path} ({error.strerror or error}): put the checkpoint's file there"
            ) from None
        self._mapped_path, self._given_bytes = path, 0

    def _read_header(self, path):
        self._map(path)
        for key in self._mapped.keys():  # noqa: SIM118 (not a dict)
            if key in self.entries:
                raise CheckpointError(
                    f"{path} and {self.entries[key].path.name} both have the tensor {key!r}: "
                    "copy the whole folder again"
                )
            header = self._mapped.get_slice(key)
            self.entries[key] = Entry(
                path, tuple(header.get_shape()), FLOATS.get(header.get_dtype())
            )


def open_tensors(path: str | Path) -> TensorFiles:
    """Open a safetensors file, or a folder with one, or with several and their index.

    Raises:
        CheckpointError: nothing of that kind is there, a part is missing, or it is damaged.
    """
    path = Path(path)
    if not path.is_dir():
        return TensorFiles(path, [path])
    if (path / WEIGHTS).exists():
        return TensorFiles(path / WEIGHTS, [path / WEIGHTS])
    if not (path / INDEX).exists():
        raise CheckpointError(
            f"{path} is not a checkpoint folder: it has neither {WEIGHTS} nor {INDEX}; give the "
            "folder that has"
        )
    return _open_shards(path)


def check_finite(values: Tensor, key: str, where: Path | str) -> None:
    """Refuse NaN and infinity without a temporary copy.

    Raises:
        CheckpointError: with the file and the key.
    """
    if values.numel() and not all(map(torch.isfinite, values.aminmax())):
        raise CheckpointError(
            f"{where}: the tensor {key!r} has NaN or infinity in {_name(values.dtype)}: copy the "
            "file again, or use an earlier checkpoint"
        )


def read_json(path: Path) -> dict:
    """Read a JSON object.

    Raises:
        CheckpointError: the file is missing or is something else.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(
            f"cannot read {path} ({error.strerror}): put the checkpoint's {path.name} there"
        ) from None
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON ({error}): copy it again") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} is not a JSON object: copy it again")
    return values


def _open_shards(folder):
    index = folder / INDEX
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise CheckpointError(f"{index} has no 'weight_map' of tensors: copy it again")
    names = sorted({str(name) for name in places.values()})
    outside = [name for name in names if Path(name).name != name]
    if outside:
        raise CheckpointError(
            f"{index} names {outside[0]!r}, which is not a file beside it: copy it again"
        )
    files = TensorFiles(folder, [folder / name for name in names])
    for key, name in places.items():
        if key not in files or files.entries[key].path.name != name:
            raise CheckpointError(
                f"{index} says that {name} has the tensor {key!r}, but it has not: copy the whole "
                "folder again"
            )
    return files


def _damaged(path, error):
    return CheckpointError(
        f"{path} is not a whole safetensors file ({error}): copy it again from its source"
    )


def _name(dtype):
    return str(dtype).removeprefix("torch.")
