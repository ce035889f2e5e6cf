"""How fast one core reads and decodes episodes of DROID's layout, by process-CPU time.

Run from the project's root: OMP_NUM_THREADS=1 python3 spear_training/test/oxe_speed.py
"""

import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from oxe_folders import TABLE, record_of, written

from spear_training.data.oxe.reader import OxeReader

STEPS_AN_EPISODE, EPISODES = 300, 3


def noisy_picture(draw):
    """Return a JPEG of about DROID's size and detail."""
    coarse = cv2.resize(draw.integers(0, 235, (23, 40, 3), np.uint8), (320, 180))
    pixels = coarse + draw.integers(0, 20, (180, 320, 3), np.uint8)
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def long_record():
    """Return a record of DROID with as many steps as an episode of 20 s has."""
    draw = np.random.default_rng(0)
    pictures = [noisy_picture(draw) for _ in range(20)]
    record, _ = record_of("droid")
    for key, values in record.items():
        if not key.startswith("steps/"):
            continue
        repeat = STEPS_AN_EPISODE // len(values)
        if "image" in key:
            record[key] = (pictures * STEPS_AN_EPISODE)[:STEPS_AN_EPISODE]
        elif isinstance(values, list):
            record[key] = values * repeat
        else:
            record[key] = np.repeat(values, repeat, axis=0)
    return record


def main():
    """Print both rates."""
    with tempfile.TemporaryDirectory() as folder:
        reader = OxeReader(
            TABLE["droid"], written(Path(folder), "droid", [long_record()] * EPISODES)
        )
        start = time.process_time()
        episodes = [reader.read(index) for index in range(EPISODES)]
        read_s = time.process_time() - start
        start = time.process_time()
        count = sum(len([*video]) for video in episodes[0].images.values())
        decode_s = time.process_time() - start
    print(f"read: {EPISODES * STEPS_AN_EPISODE / read_s:.0f} steps/s of 3 cameras, not decoded")
    print(f"decoded: {count / decode_s:.0f} pictures/s of 320x180")


if __name__ == "__main__":
    main()
