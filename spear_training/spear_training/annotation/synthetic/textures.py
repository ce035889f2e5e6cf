"""Colours with names, and procedural textures: what surfaces look like."""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

COLOURS = {
    "red": (0.78, 0.10, 0.09),
    "orange": (0.93, 0.46, 0.08),
    "yellow": (0.95, 0.80, 0.14),
    "green": (0.15, 0.55, 0.20),
    "blue": (0.12, 0.28, 0.75),
    "purple": (0.46, 0.19, 0.60),
    "pink": (0.93, 0.52, 0.66),
    "brown": (0.43, 0.27, 0.15),
    "black": (0.07, 0.07, 0.08),
    "white": (0.93, 0.93, 0.91),
    "grey": (0.50, 0.51, 0.53),
    "turquoise": (0.17, 0.68, 0.66),
}


@dataclass(frozen=True)
class Paint:
    """How a surface looks.

    Attributes:
        rgb: colour 0..1; a texture has it already.
        texture: (height, width, 3) uint8, or None.
        repeat: copies of the texture for 1 in the surface's texture coordinates.
        specular, shininess: 0..1, as MuJoCo means them.
    """

    rgb: tuple[float, float, float]
    texture: NDArray[np.uint8] | None = None
    repeat: float = 1.0
    specular: float = 0.2
    shininess: float = 0.3


def colour(rng: np.random.Generator, name: str) -> tuple[float, float, float]:
    """A shade of a named colour."""
    return tuple(np.clip(np.array(COLOURS[name]) + rng.normal(0, 0.025, 3), 0.03, 0.97))


def some_paint(rng: np.random.Generator, rgb: ArrayLike, gloss: float = 0.4) -> Paint:
    """Mostly one colour, at times with a pattern of a lighter or darker one."""
    rgb = tuple(np.asarray(rgb, float))
    paint = Paint(rgb, specular=gloss * rng.uniform(0.5, 1.3), shininess=rng.uniform(0.2, 0.8))
    pattern = rng.choice(["plain", "mottled", "stripes", "checks"], p=[0.5, 0.2, 0.18, 0.12])
    if pattern == "plain":
        return paint
    if pattern == "mottled":
        shade = 0.88 + 0.24 * noise(rng, 128, 16)
        return replace(paint, texture=_bytes(rgb * shade[..., None]), repeat=2)
    other = np.clip(np.array(rgb) * 0.35 + rng.uniform(0.2, 0.6), 0, 1)
    across, down = np.meshgrid(np.arange(128), np.arange(128))
    if pattern == "stripes":
        chosen = (across if rng.random() < 0.5 else down) % 32 < rng.integers(4, 12)
    else:
        chosen = (across // 16 + down // 16) % 2 == 0
    texture = _bytes(np.where(chosen[..., None], other, rgb))
    return replace(paint, texture=texture, repeat=int(rng.integers(1, 4)))


def printed(rng: np.random.Generator, rgb: ArrayLike) -> Paint:
    """A package: bars, patches and rows of something like writing on the colour."""
    page = np.empty((160, 160, 3))
    page[:] = rgb
    for _ in range(rng.integers(3, 7)):
        left, top = rng.integers(0, 130, 2)
        wide, high = rng.integers(14, 90), rng.integers(8, 50)
        page[top : top + high, left : left + wide] = rng.uniform(0.05, 0.95, 3)
    dark = page.mean() > 0.45
    for top in range(int(rng.integers(6, 40)), 150, int(rng.integers(9, 20))):
        left = int(rng.integers(4, 30))
        while left < 140 and rng.random() < 0.9:
            wide = int(rng.integers(3, 16))
            page[top : top + 4, left : left + wide] = 0.06 if dark else 0.94
            left += wide + 3
    return Paint(tuple(rgb), _bytes(page), specular=0.25, shininess=0.4)


def wood(rng: np.random.Generator, size_px: int = 256) -> Paint:
    """Veneer with a grain along the texture's width."""
    light = np.array([0.68, 0.50, 0.33]) * rng.uniform(0.45, 1.25) + rng.uniform(-0.04, 0.04, 3)
    bend = 0.35 * noise(rng, size_px, 4)
    rows = np.arange(size_px)[:, None] / size_px
    rings = np.sin(2 * np.pi * (rows * rng.integers(5, 14) + bend * 3))
    fine = noise(rng, size_px, size_px // 2, 6)
    grain = light * (1 + 0.10 * rings[..., None] + 0.16 * (fine[..., None] - 0.5))
    return Paint(tuple(light), _bytes(grain), specular=rng.uniform(0.05, 0.3), shininess=0.3)


def stone(rng: np.random.Generator, rgb: ArrayLike, size_px: int = 256) -> Paint:
    """Clouds and veins, as on marble or concrete."""
    clouds = 0.6 * noise(rng, size_px, 4) + 0.4 * noise(rng, size_px, 24)
    veins = np.exp(-18 * np.abs(noise(rng, size_px, 5) - 0.5))
    shade = 0.85 + 0.28 * clouds - rng.uniform(0, 0.2) * veins
    pixels = np.asarray(rgb) * shade[..., None]
    return Paint(tuple(rgb), _bytes(pixels), specular=rng.uniform(0.05, 0.5), shininess=0.6)


def cloth(rng: np.random.Generator, rgb: ArrayLike, size_px: int = 256) -> Paint:
    """A weave, a carpet, or a check of two colours."""
    other = np.clip(np.asarray(rgb) * rng.uniform(0.4, 0.9) + rng.uniform(0, 0.3), 0, 1)
    across, down = np.meshgrid(np.arange(size_px), np.arange(size_px))
    width = int(rng.choice([8, 16, 32, 64]))
    mix = (across // width % 2 + down // width % 2) / 2 if rng.random() < 0.4 else 0.5
    mix = 0.5 * mix + 0.5 * rng.random((size_px, size_px)) * rng.uniform(0.2, 0.8)
    pixels = np.asarray(rgb) * (1 - mix[..., None]) + other * mix[..., None]
    return Paint(tuple(rgb), _bytes(pixels), specular=0.02, shininess=0.1)


def tiles(rng: np.random.Generator, rgb: ArrayLike) -> Paint:
    """Square tiles, or bricks, with joints."""
    count = int(rng.choice([4, 8]))
    side = 256 // count
    high = side // 2 if rng.random() < 0.4 else side  # bricks
    across, down = np.meshgrid(np.arange(256), np.arange(256))
    across = across + down // high % 2 * (side - high)
    tone = rng.uniform(0.82, 1.1, (2 * count, count))[down // high, across // side % count]
    pixels = np.asarray(rgb) * tone[..., None]
    pixels[(across % side < 2) | (down % high < 2)] = np.asarray(rgb) * 0.3 + 0.35
    return Paint(tuple(rgb), _bytes(pixels), specular=rng.uniform(0, 0.5), shininess=0.5)


def plaster(rng: np.random.Generator, rgb: ArrayLike) -> Paint:
    """A painted wall: one colour that is never quite even."""
    shade = 0.94 + 0.12 * (0.6 * noise(rng, 256, 6) + 0.4 * noise(rng, 256, 80))
    return Paint(tuple(rgb), _bytes(np.asarray(rgb) * shade[..., None]), specular=0.02)


def metal(rng: np.random.Generator) -> Paint:
    """Steel, brass or something dark."""
    rgb = [(0.62, 0.63, 0.65), (0.70, 0.58, 0.30), (0.22, 0.22, 0.24)][rng.integers(3)]
    return Paint(tuple(np.array(rgb) * rng.uniform(0.85, 1.15)), specular=0.9, shininess=0.7)


def noise(rng: np.random.Generator, size_px: int, rows: int, columns: int | None = None) -> NDArray:
    """Smooth noise 0..1 (size, size) that repeats without a seam, of cells (by default square)."""
    grid = np.tile(rng.random((rows, columns or rows)).astype(np.float32), (3, 3))
    smooth = cv2.resize(grid, (3 * size_px, 3 * size_px), interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth[size_px:-size_px, size_px:-size_px], 0, 1).astype(float)


def _bytes(pixels: NDArray) -> NDArray[np.uint8]:
    return np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)
