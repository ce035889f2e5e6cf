"""Compare our loader with lerobot's dataset class on the same store, by CPU time.

Example: python3 test/benchmark/loaders.py
         python3 test/benchmark/loaders.py --store data/bridge --repeats 50

The first makes up a store. A sample is a random frame: pictures of all cameras, decoded, its state
and sentence, and the actions of the second after it. Both make batches in this process, as each
worker of a training does. lerobot gives pictures as floats and actions as they are stored; ours
gives pictures as bytes and a chunk of deltas. Before anybody is timed both must give the same
pictures, states and sentences.
"""

import argparse
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import by_turns
import numpy as np
import torch
from rich.console import Console
from torch.utils.data import default_collate

from spear_training.data.loader import BatchSource, FrameSampleReader
from spear_training.data.store.bench import make_store
from spear_training.data.store.reader import FrameStore

BATCH, FRAMES = 32, 8000


def lerobot_dataset(store, seconds=0.0):
    """lerobot's dataset, with the actions of some time from each frame on."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    hz = store.metadata.control_hz
    ahead = {"action": [step / hz for step in range(round(seconds * hz) + 1)]}
    return LeRobotDataset(
        "local/store", root=store.root, delta_timestamps=ahead if seconds else None
    )


def check_same(store, batch, dataset):
    """Compare a batch of ours with lerobot's samples of the same frames.

    Raises:
        SystemExit: they are not the same.
    """
    for i, frame in enumerate(batch.frame.tolist()):
        item = dataset[frame]
        for camera in store.metadata.camera_names:
            picture = 255 * item[f"observation.images.{camera}"].permute(1, 2, 0)
            # OpenCV and Pillow decode the same JPEG with other roundings
            off = float((picture - batch.images[camera][i].float()).abs().mean())
            if off > 2:
                raise SystemExit(f"the {camera} picture of frame {frame} differs by {off:.1f}")
        state_same = np.allclose(item["observation.state"], store.states[frame], atol=1e-6)
        if not state_same or item["task"] != batch.sentences[i]:
            raise SystemExit(f"frame {frame} is another one for lerobot")
    print(f"the {len(batch)} samples of a batch are the same for both")


def compare(root, repeats):
    """Print CPU time of a batch, and samples a second."""
    store = FrameStore(root)
    source = BatchSource({"store": FrameSampleReader(store)}, [1.0], batch_size=BATCH, seed=0)
    second, frame_only = lerobot_dataset(store, 1.0), lerobot_dataset(store)
    check_same(store, source[0], second)
    steps, rng = iter(range(1, 1 << 30)), np.random.default_rng(0)

    def theirs(dataset):
        chosen = rng.integers(0, len(store), BATCH).tolist()
        return default_collate([dataset[frame] for frame in chosen])

    contestants = {
        "SPEAR": lambda: source[next(steps)],
        "lerobot": lambda: theirs(second),
        "lerobot, one action": lambda: theirs(frame_only),
    }
    seconds = by_turns.measure(contestants, repeats)
    console = Console()
    console.print(by_turns.table(f"a batch of {BATCH}", seconds, "SPEAR"))
    for name, each in seconds.items():
        middle, most = BATCH / np.median(each), BATCH / np.min(each)
        console.print(f"{name}: {middle:,.0f} samples/s a core, at most {most:,.0f}")


def main():
    """Make a store if there is none, and compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path, help=f"one of {FRAMES} frames is made when not given")
    parser.add_argument("--repeats", type=int, default=20, help=f"batches of {BATCH}")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        # where lerobot puts its own copy of the store; it would ask its hub for a name
        os.environ |= {"HF_HOME": folder, "HF_HUB_OFFLINE": "1"}
        root = options.store or Path(folder) / "store"
        if not options.store:
            make_store(root, FRAMES)
        compare(root, options.repeats)


if __name__ == "__main__":
    main()
