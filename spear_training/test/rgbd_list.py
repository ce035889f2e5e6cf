"""A list of RGB-D pictures with given masks, for which the real stages need no network."""

from pathlib import Path

import cv2
import numpy as np

from spear_training.annotation.records import (
    GivenDepth,
    GivenObject,
    Intrinsics,
    Item,
    encode_mask,
)

WIDTH, HEIGHT = 160, 120
CAMERA = Intrinsics(140.0, 140.0, 79.5, 59.5)


def write_items(path: Path, items) -> None:
    """Write a list of items."""
    path.write_text("".join(item.to_json() + "\n" for item in items))


def write_list(folder: Path, count: int) -> Path:
    """Write pictures of a wall with two domes before it; return the list's path."""
    (folder / "depth").mkdir(parents=True)
    items = []
    for number in range(count):
        depth_m = np.full((HEIGHT, WIDTH), 2.0)
        colour = np.full((HEIGHT, WIDTH, 3), 40 + 5 * number, np.uint8)
        objects = []
        for label, middle, shade in (("red dome", 45, 200), ("blue dome", 115, 90)):
            rows, columns = np.mgrid[:HEIGHT, :WIDTH]
            across = np.hypot(columns - middle, 0.8 * (rows - 50 - number)) / 25
            mask = across < 1
            depth_m[mask] = 1.0 + 0.2 * across[mask] ** 2 + 0.01 * number
            colour[mask] = shade
            objects.append(GivenObject(label, mask=encode_mask(mask)))
        name = f"{number:03d}"
        cv2.imwrite(str(folder / f"{name}.png"), colour)
        cv2.imwrite(str(folder / "depth" / f"{name}.png"), (depth_m * 1000).astype(np.uint16))
        depth = GivenDepth(f"depth/{name}.png", 1000.0)
        items.append(Item(name, f"{name}.png", tuple(objects), depth, CAMERA))
    write_items(folder / "items.jsonl", items)
    return folder / "items.jsonl"
