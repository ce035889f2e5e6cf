"""A folder of pictures that were taken out of recordings, with the list of them.

    OUT/import.json            how the pictures were made; a later run must agree
    OUT/frames/<unit>/*.jpg    the pictures of one unit: a camera of a take, an episode
    OUT/frames/<unit>.json     its part of the list; written last, so a unit with it is whole
    OUT/items.jsonl            the list; written when all units are there
    OUT/rejected.jsonl         what could not be used, and why

Units may be made by several processes at once, in any order; the list comes out the same.

Here are the folder and its units for BridgeData V2, whose stored pictures were squashed to a square
from 640x480: an item says so, and the stages see the scene as it was. Units of Ego-Exo4D are made
in ego_exo4d.py.
"""

import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spear_policy.inference.episode import EpisodeError
from spear_policy.shared.files import write_atomically, write_lines, write_or_verify
from spear_training.annotation.records import Item
from spear_training.data.reader import DataFileError, EpisodeReader

JPEG_QUALITY = 95


@dataclass
class Unit:
    """What one unit came to."""

    items: list[Item] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)


class FrameFolder:
    """Writes such a folder; whatever is there already is kept."""

    def __init__(self, out: Path, settings: dict):
        """Begin, or go on with, a folder.

        Args:
            settings: all that the pictures depend on, as plain JSON values.

        Raises:
            MismatchError: the folder was made with other settings.
            OSError: it cannot be written.
        """
        self.out = out
        (out / "frames").mkdir(parents=True, exist_ok=True)
        fix = "use the same options again, or choose another --out"
        write_or_verify(out / "import.json", settings, tuple(settings), fix)

    def has(self, unit: str) -> bool:
        """Whether a unit is whole."""
        return self._part(unit).is_file()

    def write_picture(self, unit: str, name: str, image: NDArray[np.uint8]) -> str:
        """Write a picture (H, W, 3) RGB as JPEG.

        Returns:
            Its path, relative to the folder.

        Raises:
            OSError: the disk is full, or the like; no half picture has this name.
        """
        path = self.out / "frames" / unit / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, _jpeg(image))
        return path.relative_to(self.out).as_posix()

    def finish_unit(self, unit: str, made: Unit) -> None:
        """Note that all pictures of a unit are written.

        Raises:
            OSError: the disk is full, or the like.
        """
        values = {
            "items": [json.loads(item.to_json()) for item in made.items],
            "rejected": made.rejected,
        }
        path = self._part(unit)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(values, ensure_ascii=False))

    def make(
        self, units: Sequence[str], make_unit: Callable[[str], Unit], report: Callable[[str], None]
    ) -> int:
        """Make the units that are missing, and report how each went.

        Returns:
            How much was rejected in these units, in earlier runs as well.

        Raises:
            OSError: the disk is full, or the like; the units so far are whole.
        """
        rejected = 0
        for count, unit in enumerate(units, 1):
            begin = f"[{count}/{len(units)}] {unit}"
            if self.has(unit):
                rejected += len(self._read(unit)["rejected"])
                report(f"{begin}: kept")
                continue
            made = make_unit(unit)
            self.finish_unit(unit, made)
            rejected += len(made.rejected)
            for reason in made.rejected:
                report(f"{begin}: REJECTED, {reason}")
            report(f"{begin}: {len(made.items)} pictures")
        return rejected

    def finish(self, units: Sequence[str]) -> tuple[int, int] | None:
        """Write the list, if all units are there.

        Returns:
            How many pictures are in it and how much was rejected; None: units are missing.

        Raises:
            OSError: the disk is full, or the like.
        """
        if not all(self.has(unit) for unit in units):
            return None
        counts = {"rejected": 0, "items": 0}

        def lines(key: str) -> Iterator[bytes]:
            for unit in units:
                for value in self._read(unit)[key]:
                    counts[key] += 1
                    value = {"unit": unit, "reason": value} if key == "rejected" else value
                    yield json.dumps(value, ensure_ascii=False).encode()

        write_lines(self.out / "rejected.jsonl", lines("rejected"))
        write_lines(self.out / "items.jsonl", lines("items"))
        return counts["items"], counts["rejected"]

    def _read(self, unit: str) -> dict:
        return json.loads(self._part(unit).read_text(encoding="utf-8"))

    def _part(self, unit: str) -> Path:
        return self.out / "frames" / f"{unit}.json"


def _jpeg(image: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    # The pictures are small: full resolution of the colours costs little.
    Image.fromarray(image).save(file, "JPEG", quality=JPEG_QUALITY, subsampling="4:4:4")
    return file.getvalue()


# BridgeData V2: frames of the camera over the shoulder --------------------------------------------

CAMERA = "external"
NATIVE_ASPECT = 4 / 3


def bridge_units(reader: EpisodeReader, every_episode: int) -> dict[str, int]:
    """Name the units, each so many-th episode: unit name -> number of the episode."""
    return {f"{reader.name}/{index:06d}": index for index in range(0, len(reader), every_episode)}


def make_episode(
    folder: FrameFolder, name: str, reader: EpisodeReader, index: int, every: int
) -> Unit:
    """Write each so many-th picture of an episode, the first one included.

    Raises:
        OSError: the disk is full, or the like.
    """
    try:
        video = reader.read(index).images[CAMERA]
        pictures = {step: video[step] for step in range(0, len(video), every)}
    except (DataFileError, EpisodeError) as error:
        return Unit(rejected=[str(error)])
    squashed = video.shape[1] == video.shape[2]
    aspect = NATIVE_ASPECT if squashed else None
    made = Unit()
    for step, picture in pictures.items():
        path = folder.write_picture(name, f"{step:03d}", picture)
        made.items.append(Item(f"{name}/{step:03d}", path, native_aspect=aspect))
    return made
