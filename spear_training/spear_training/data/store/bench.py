"""How quickly a store gives random samples, by the processor time of one process.

Processor time, not the clock: on a shared machine the clock measures the neighbours.

Example:
    ros2 run spear_training bench_data FOLDER --samples 2000
    ros2 run spear_training bench_data /tmp/made_up --make 20000

The second makes a store of that many frames first, for a machine without data.
"""

import argparse
import sys
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from spear_policy.geometry import quaternions as quat
from spear_policy.inference.episode import Episode
from spear_training.data.reader import DataFileError
from spear_training.data.store.format import (
    EXTERNAL,
    PICTURE_SIZES,
    WRIST,
    CameraMetadata,
    StoreMetadata,
)
from spear_training.data.store.reader import FrameStore
from spear_training.data.store.writer import StoreWriter, begin_store, encode_episode

# Episodes of no robot --------------------------------------------------------------------------


HZ = 15.0
_SCENES = 8

MADE_UP_METADATA = StoreMetadata(
    name="made_up",
    robot="none",
    control_hz=HZ,
    cameras=(CameraMetadata(EXTERNAL), CameraMetadata(WRIST)),
    action_from="commanded",
    gripper_from="commanded",
    reader="spear_training.data.store.bench",
)


class MadeUpReader:
    """Episodes from a random number generator, the same every time; see EpisodeReader.

    Args:
        episodes: how many.
        steps: frames of each.
    """

    name = "made_up"

    def __init__(self, episodes: int, steps: int = 100):
        self._episodes, self._steps = episodes, steps

    def __len__(self) -> int:
        return self._episodes

    def read(self, index: int) -> Episode:
        """Episode `index`: a smooth walk of the hand before textured pictures."""
        if not 0 <= index < len(self):
            raise IndexError(f"made_up: no episode {index}, there are {len(self)}")
        rng = np.random.default_rng(index)
        walk = np.cumsum(rng.normal(0, [0.004] * 3 + [0.01] * 3, (self._steps, 6)), axis=0)
        commanded = np.hstack([[0.4, 0, 0.3] + walk[:, :3], quat.from_rotation_vector(walk[:, 3:])])
        opening = (np.sin(np.arange(self._steps) / 15 + index) > 0).astype(float)
        late = np.maximum(np.arange(self._steps) - 1, 0)
        return Episode(
            stamps_s=np.arange(self._steps) / HZ,
            poses=commanded[late],
            gripper_openings=opening[late],
            gripper_commands=opening,
            command_poses=commanded,
            instruction=f"made-up task {index % 7}",
            images={name: self._video(name, index) for name in (EXTERNAL, WRIST)},
            robot="none",
            source={"dataset": self.name, "index": str(index)},
        )

    def _video(self, camera: str, index: int) -> NDArray[np.uint8]:
        scene = _scene(index % _SCENES, *PICTURE_SIZES[camera])
        return np.stack([np.roll(scene, step, axis=1) for step in range(self._steps)])


@lru_cache(maxsize=2 * _SCENES)
def _scene(seed: int, width: int, height: int) -> NDArray[np.uint8]:
    """A picture with detail at every scale, about as hard for JPEG as a camera's."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((height, width, 3), np.float32)
    for cell_px, weight in ((70, 50), (23, 30), (7, 18), (3, 8)):
        cells = height // cell_px + 2, width // cell_px + 2
        coarse = rng.normal(0, weight, (*cells, 3)).astype(np.float32)
        picture += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    grain = rng.normal(0, 3, picture.shape)
    return np.clip(picture + grain + 128, 0, 255).astype(np.uint8)


# How quickly a store gives random samples ------------------------------------------------------


GOAL_SAMPLES_S = 1000
_MADE_STEPS, _MADE_GROUP = 100, 40


@dataclass(frozen=True)
class BenchResult:
    """What reading took.

    Attributes:
        samples: how many were read; each is one frame, all cameras and the numbers.
        read_cpu_s: processor time for the encoded pictures and the numbers.
        decoded_cpu_s: processor time for the decoded pictures and the numbers.
        decoded_wall_s: time by the clock of the latter.
        jpeg_bytes: of all samples.
    """

    samples: int
    read_cpu_s: float
    decoded_cpu_s: float
    decoded_wall_s: float
    jpeg_bytes: int

    @property
    def samples_per_cpu_s(self) -> float:
        """Decoded samples a second of one core."""
        return self.samples / self.decoded_cpu_s

    def __str__(self) -> str:
        decode_share = 1 - self.read_cpu_s / self.decoded_cpu_s
        return (
            f"{self.samples_per_cpu_s:,.0f} random samples/s/core read and decoded (goal "
            f"{GOAL_SAMPLES_S:,}), {self.samples / self.read_cpu_s:,.0f} read only\n"
            f"{self.jpeg_bytes / self.samples / 1e3:.1f} kB of JPEG a sample, "
            f"{self.jpeg_bytes / self.decoded_cpu_s / 1e6:.1f} MB/s/core, decoding is "
            f"{100 * decode_share:.0f} % of the processor time; {self.samples} samples, "
            f"{self.decoded_cpu_s:.2f} s of processor, {self.decoded_wall_s:.2f} s by the clock"
        )


def bench_store(store: FrameStore, samples: int, seed: int = 0) -> BenchResult:
    """Read `samples` random frames of `store`, once as bytes and once decoded."""
    rng = np.random.default_rng(seed)
    chosen = rng.integers(0, len(store), (2, samples)).tolist()
    cameras = store.metadata.camera_names
    jpeg_bytes = 0
    begin = time.process_time()
    for frame in chosen[0]:
        jpeg_bytes += sum(len(store.jpeg(frame, camera)) for camera in cameras)
        _numbers(store, frame)
    read_cpu_s = time.process_time() - begin
    begin, begin_wall = time.process_time(), time.perf_counter()
    for frame in chosen[1]:
        for camera in cameras:
            store.image(frame, camera)
        _numbers(store, frame)
    decoded_cpu_s, wall_s = time.process_time() - begin, time.perf_counter() - begin_wall
    return BenchResult(samples, read_cpu_s, decoded_cpu_s, wall_s, jpeg_bytes)


def make_store(root: Path, frames: int) -> None:
    """Make a store of at least `frames` made-up frames.

    Raises:
        DataFileError: the folder holds something else.
        OSError: it cannot be written.
    """
    reader = MadeUpReader(-(-frames // _MADE_STEPS), _MADE_STEPS)
    begin_store(root, MADE_UP_METADATA)
    writer = StoreWriter(root)
    starts = range(0, len(reader), _MADE_GROUP)
    for first in starts[len(writer.records) :]:
        group = range(first, min(first + _MADE_GROUP, len(reader)))
        encoded = (each for i in group for each in encode_episode(reader, i, MADE_UP_METADATA))
        writer.add_group(group, encoded)
    writer.finish(len(starts))


def _numbers(store: FrameStore, frame: int) -> None:
    """Touch the numbers of a sample: those of its frame and of the second after it."""
    store.states[frame].copy()
    store.actions[frame : frame + 30].copy()
    store.stamps_s[frame : frame + 30].copy()


def main(arguments: list[str] | None = None) -> int:
    """Print what reading takes; 2 where the folder holds no store."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--make", type=int, metavar="FRAMES", help="make a store there first")
    options = parser.parse_args(arguments)
    try:
        if options.make:
            begin = time.process_time()
            make_store(options.folder, options.make)
            made_s = time.process_time() - begin
            print(f"made in {made_s:.1f} s of processor, {options.make / made_s:,.0f} frames/s")
        print(bench_store(FrameStore(options.folder), options.samples))
    except (DataFileError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
