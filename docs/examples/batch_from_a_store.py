"""A batch of training samples from a store that `import_episodes --to store` made.

python3 docs/examples/batch_from_a_store.py STORE
"""

import sys

from spear_training.data.loader import BatchSource, FrameSampleReader, batches
from spear_training.data.store.reader import FrameStore


def main(folder):
    readers = {"mine": FrameSampleReader(FrameStore(folder))}
    source = BatchSource(readers, weights=[1.0], batch_size=4, seed=0)
    for batch in batches(source, first=0, stop=2, workers=0):
        shapes = {name: tuple(images.shape) for name, images in batch.images.items()}
        print(f"step {batch.step}: {shapes}, deltas {tuple(batch.translations_m.shape)}")
        print(f"  {batch.sentences[0]!r}: {batch.translations_m[0, -1].tolist()} m in 1 s")


if __name__ == "__main__":
    main(*sys.argv[1:])
