"""Masks as COCO stores them: compressed run lengths, columns first."""

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco


class MaskError(ValueError):
    """A stored mask cannot be read; says what about it."""


def encode_mask(mask: NDArray[np.bool_]) -> dict:
    """Plain values for JSON: `size` [height, width] and `counts`, of a mask (H, W)."""
    stored = coco.encode(np.asfortranarray(mask, np.uint8))
    return {"size": [int(side) for side in stored["size"]], "counts": stored["counts"].decode()}


def decode_mask(stored: dict) -> NDArray[np.bool_]:
    """Read a mask (H, W) that `encode_mask`, or COCO's own code, wrote.

    Raises:
        MaskError: the runs do not fill the size, or there is none.
    """
    try:
        height, width = (int(side) for side in stored["size"])
        counts = stored["counts"].encode("ascii")
        found = coco.decode({"size": [height, width], "counts": counts})
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise MaskError(f"the mask is damaged ({type(error).__name__}: {error})") from None
    # pycocotools leaves what a cut mask does not reach as it found the memory.
    if found.max(initial=0) > 1 or coco.encode(found)["counts"] != counts:
        raise MaskError(f"the mask is damaged: its runs do not fill {width}x{height} pixels")
    return found.astype(bool)
