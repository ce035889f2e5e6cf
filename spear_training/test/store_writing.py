"""Stores written group by group by the tests, and their bytes."""

from store_fixture import finish_store, write_group

from spear_training.data.store.format import CameraMetadata, StoreMetadata
from spear_training.data.store.writer import StoreWriter, begin_store

# What a store of the real Bridge episodes says about itself.
BRIDGE = StoreMetadata(
    name="bridge",
    robot="WidowX 250",
    control_hz=5,
    cameras=(CameraMetadata("external", native_aspect=4 / 3),),
    action_from="reached",
    gripper_from="commanded",
)


def groups_of(count, size):
    """Return the reader's numbers of each group."""
    return [range(first, min(first + size, count)) for first in range(0, count, size)]


def write_store(root, reader, size=2, metadata=None):
    """Write a store in groups of `size` episodes, or go on with it."""
    begin_store(root, metadata or reader.metadata())
    groups = groups_of(len(reader), size)
    for group in range(len(StoreWriter(root).records), len(groups)):
        write_group(root, group, reader, groups[group])
    return finish_store(root, len(groups))


def content(root):
    """Return the bytes of every file below a folder."""
    files = [path for path in root.rglob("*") if path.is_file()]
    return {str(path.relative_to(root)): path.read_bytes() for path in files}
