"""The weights side of a checkpoint folder: model.safetensors, config.json, tokenizer.json.

First the tensors of safetensors files, of this suite or of others, then saving and loading a whole
folder. What is loaded is never resident twice: the modules begin on the meta device and each
tensor is copied from the mapped file straight to where it stays. It is copied, not kept as a view
of the file, so that a file that is replaced or a disk that goes away cannot reach a running robot.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from spear_policy.model.config import ModelConfig
from spear_policy.model.gemma import RmsNorm
from spear_policy.model.spear import SpearModel
from spear_policy.model.tokenizer import FILE_NAME as TOKENIZER
from spear_policy.model.tokenizer import TextTokenizer, TokenizerError
from spear_policy.shared.progress import byte_progress

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
CONFIG = "config.json"
ADAPTER = "adapter_model.safetensors"
FILES = (CONFIG, TOKENIZER, WEIGHTS)


# Tensors in safetensors files --------------------------------------------------------------------

FLOATS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
# What torch.compile, data-parallel and checkpointing wrappers put into the names of parameters.
WRAPPERS = re.compile(r"\b(module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
# Pages of a mapped file count as memory of the process until it is unmapped.
MAPPED_BYTES = 64 * 2**20


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; names the file, the key and the fix."""


@dataclass(frozen=True)
class TensorEntry:
    """Where a tensor lies and what it is, without its values."""

    path: Path
    key: str  # its name there
    shape: tuple[int, ...]
    dtype: torch.dtype | None  # None when it is not a floating-point number


def plain_name(key: str) -> str:
    """The name of a tensor without those of wrappers around the modules that it is in."""
    return WRAPPERS.sub("", key)


class TensorFiles(Mapping[str, Tensor]):
    """The tensors of one or several files, mapped when they are asked for.

    A tensor is a view of its file: copy what should last, so that the file can be unmapped.

    Attributes:
        where: the file or folder, for messages.
        entries: what there is, by `plain_name`, in the order of the files.
    """

    def __init__(self, where: Path, paths: list[Path]):
        """Read the headers; use `open_tensors` instead.

        Raises:
            CheckpointError: a file is missing or damaged, or two of them have the same key.
        """
        self.where = where
        self.entries: dict[str, TensorEntry] = {}
        self._mapped, self._mapped_path, self._given_bytes = None, None, 0
        for path in paths:
            self._read_header(path)
        self._mapped = self._mapped_path = None

    def __getitem__(self, key: str) -> Tensor:
        """Map one tensor."""
        path, name = self.entries[key].path, self.entries[key].key
        if path != self._mapped_path or self._given_bytes > MAPPED_BYTES:
            self._map(path)
        try:
            values = self._mapped.get_tensor(name)
        except SafetensorError as error:
            raise _damaged(path, error) from None
        self._given_bytes += values.nbytes
        return values

    def __contains__(self, key: object) -> bool:
        """Whether there is a tensor of that name, without mapping it."""
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
            raise _unreadable(path, error) from None
        self._mapped_path, self._given_bytes = path, 0

    def _read_header(self, path):
        self._map(path)
        for name in self._mapped.keys():  # noqa: SIM118 (not a dict)
            key = plain_name(name)
            if key in self.entries:
                raise CheckpointError(
                    f"{path} and {self.entries[key].path.name} both have the tensor {key!r}: "
                    "copy the whole folder again"
                )
            header = self._mapped.get_slice(name)
            self.entries[key] = TensorEntry(
                path, name, tuple(header.get_shape()), FLOATS.get(header.get_dtype())
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
    if (path / ADAPTER).exists():
        raise CheckpointError(
            f"{path} has PEFT's adapters and not the weights that they change: merge them into "
            "their model (merge_and_unload), save it, and give that folder"
        )
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
        raise _unreadable(path, error) from None
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
    for key, name in ((plain_name(key), name) for key, name in places.items()):
        if key not in files or files.entries[key].path.name != name:
            raise CheckpointError(
                f"{index} says that {name} has the tensor {key!r}, but it has not: copy the whole "
                "folder again"
            )
    return files


def _unreadable(path, error):
    return CheckpointError(
        f"cannot read {path} ({error.strerror or error}): put the checkpoint's {path.name} there"
    )


def _damaged(path, error):
    return CheckpointError(
        f"{path} is not a whole safetensors file ({error}): copy it again from its source"
    )


def _name(dtype):
    return str(dtype).removeprefix("torch.")


# A checkpoint folder -----------------------------------------------------------------------------


def save_weights(folder: str | Path, model: SpearModel, tokenizer: TextTokenizer) -> dict[str, str]:
    """Write model.safetensors, config.json and tokenizer.json.

    A new folder appears whole or not at all. In a folder that exists the three files are replaced
    one after another, each whole; its other files stay. The hashes in the card tell a mixture.

    Returns:
        The SHA-256 in hex of each of the three by name, for the card.

    Raises:
        ValueError: a tensor has no values or is not finite, or the tokenizer is of another
            vocabulary; nothing is written.
        OSError: the disk is full or read-only; the folder stays as it was.
    """
    folder = Path(folder).resolve()
    if tokenizer.config != model.config.vocabulary:
        raise ValueError("the tokenizer is of another vocabulary than the model: save its own")
    tensors = {name: values.detach().contiguous() for name, values in model.state_dict().items()}
    for name, values in tensors.items():
        if values.is_meta:
            raise ValueError(f"{name!r} is on the meta device: give the model its values first")
        check_finite(values, name, f"the model that should be saved in {folder}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(beside, ignore_errors=True)  # of a process that died
    try:
        beside.mkdir()
        _write(beside, model.config, tensors, tokenizer)
        hashes = {name: _sha256(beside / name) for name in FILES}
        if folder.exists():
            for path in sorted(beside.iterdir()):
                os.replace(path, folder / path.name)
        else:
            os.rename(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return hashes


def load_weights(
    folder: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    expected_hashes: Mapping[str, str] | None = None,
    progress: bool | None = None,
) -> tuple[SpearModel, TextTokenizer]:
    """Load what `save_weights` wrote, in evaluation mode.

    Args:
        folder: with model.safetensors, config.json and tokenizer.json.
        device: where the weights go, one by one.
        dtype: of the weights, those of `kept_in_fp32` excepted; None: everything as stored.
        expected_hashes: SHA-256 of each file, from the card; None: not compared.
        progress: draw a bar on stderr, if that is a terminal.

    Raises:
        CheckpointError: something is missing, too much, damaged, of a wrong shape or not finite;
            names the file, the key and the fix.
        ValueError: `dtype` is none that weights can have.
    """
    folder = Path(folder)
    if dtype is not None and dtype not in FLOATS.values():
        raise ValueError(f"dtype is {dtype}: weights can be float32, bfloat16 or float16")
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder} is not a checkpoint folder: give one with {WEIGHTS} and {CONFIG}"
        )
    hashes = dict(expected_hashes or {})
    weights_hash = hashes.pop(WEIGHTS, None)  # later: it takes time, the others are small
    for name, expected in hashes.items():
        _check_hash(folder / name, expected)
    model = _empty_model(folder / CONFIG)
    try:
        tokenizer = TextTokenizer.load(folder, model.config.vocabulary)
    except TokenizerError as error:
        raise CheckpointError(str(error)) from None
    path = folder / WEIGHTS
    files = open_tensors(path)
    kept = kept_in_fp32(model)
    _compare(files, model)
    if dtype is None:
        _check_one_dtype(files, kept)
    total = path.stat().st_size * (1 + (weights_hash is not None))
    with byte_progress(f"loading {folder.name}", total, progress) as done:
        if weights_hash is not None:
            _check_hash(path, weights_hash)
            done(path.stat().st_size)
        state = {}
        for name in files:
            stored = files[name]
            wanted = stored.dtype if dtype is None else torch.float32 if name in kept else dtype
            state[name] = stored.to(device, wanted, copy=True)
            check_finite(state[name], name, path)
            done(stored.nbytes)
            del stored  # or its file stays mapped
    model.load_state_dict(state, assign=True)
    return model.eval(), tokenizer


def kept_in_fp32(model: SpearModel) -> frozenset[str]:
    """Name the parameters that stay in fp32 when a model is loaded in bf16.

    The velocity's head and RMS norms compute in fp32 whatever their input is, and
    are less than a ten-thousandth of the weights: rounding them would save nothing.
    """
    names = {f"{name}.weight" for name, part in model.named_modules() if isinstance(part, RmsNorm)}
    if model.expert is not None:
        names |= {"expert.action_out.weight", "expert.action_out.bias"}
    return frozenset(names)


def _write(folder, config, tensors, tokenizer):
    try:
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    except SafetensorError as error:
        raise OSError(f"cannot write {folder / WEIGHTS}: {error}") from None
    text = json.dumps(config.to_dict(), indent=2) + "\n"
    (folder / CONFIG).write_text(text, encoding="utf-8")
    # safetensors lets nobody else read its file; what this user's umask says is in the other one
    (folder / WEIGHTS).chmod((folder / CONFIG).stat().st_mode)
    tokenizer.save(folder)
    for path in folder.iterdir():
        with open(path, "rb+") as file:
            os.fsync(file.fileno())


def _empty_model(path):
    values = read_json(path)
    try:
        config = ModelConfig.from_dict(values)
        with torch.device("meta"):
            return SpearModel(config)
    except (ValueError, ArithmeticError, RuntimeError) as error:  # sizes that cannot be
        raise CheckpointError(
            f"{path}: {error}; copy it again from where {WEIGHTS} came from"
        ) from None


def _compare(files, model):
    """Compare names, shapes and kinds with the model's, before any value is read."""
    expected = model.state_dict()
    missing = [name for name in expected if name not in files]
    extra = [name for name in files if name not in expected]
    fix = f"{CONFIG} is of another model: copy both files from the same checkpoint"
    for names, what in ((missing, "lacks"), (extra, "has the unknown")):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise CheckpointError(f"{files.where} {what} tensor {names[0]!r}{more}: {fix}")
    for name, entry in files.entries.items():
        shape = tuple(expected[name].shape)
        if entry.shape != shape:
            raise CheckpointError(
                f"{files.where}: the tensor {name!r} is {entry.shape} where {CONFIG} needs "
                f"{shape}: copy both files from the same checkpoint"
            )
        if entry.dtype is None:
            raise CheckpointError(
                f"{files.where}: the tensor {name!r} is not floating-point: quantised weights "
                "are not supported, use the checkpoint in float32 or bfloat16"
            )


def _check_one_dtype(files, kept):
    """Layers of different dtypes could not be multiplied with each other."""
    names = {files.entries[name].dtype: name for name in files if name not in kept}
    if len(names) > 1:
        (first, a), (second, b) = list(names.items())[:2]
        raise CheckpointError(
            f"{files.where} stores {a!r} in {first} and {b!r} in {second}: say which dtype to "
            "load all in"
        )


def _sha256(path):
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_hash(path, expected):
    try:
        found = _sha256(path)
    except OSError as error:
        raise _unreadable(path, error) from None
    if found != expected.lower():
        raise CheckpointError(
            f"{path} has the sha256 {found[:12]}..., not {expected[:12]}... as its card says: "
            "copy the file and its card again from the same checkpoint"
        )
