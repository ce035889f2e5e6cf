"""The features.json of a TFDS folder: what each key of a record holds, and how to decode it."""

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from spear_training.data.reader import DataFileError
from spear_training.data.tf_example import Values

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
        how = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION if colour else cv2.IMREAD_UNCHANGED
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
        raise DataFileError(f"{path}: cannot be read ({error.strerror})") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataFileError(f"{path}: damaged or not TFDS's features.json ({error!r})") from None
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
