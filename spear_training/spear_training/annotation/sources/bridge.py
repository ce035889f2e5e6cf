"""BridgeData V2: frames of the camera over the shoulder, as items.

The stored pictures were squashed to a square from 640x480; an item says so, and the stages see
the scene as it was. What the files hold is in `spear_training.data.bridge`.
"""

from spear_policy.inference.episode import EpisodeError
from spear_training.annotation.items import Item
from spear_training.annotation.sources.frame_folder import FrameFolder, Unit
from spear_training.data.reader import DataFileError, EpisodeReader

CAMERA = "external"
NATIVE_ASPECT = 4 / 3


def bridge_units(reader: EpisodeReader, every_episode: int) -> dict[str, int]:
    """Name the units, each so many-th episode: unit name -> number of the episode."""
    return {f"{reader.name}/{index:06d}": index for index in range(0, len(reader), every_episode)}


def make_unit(
    folder: FrameFolder, name: str, reader: EpisodeReader, index: int, every: int
) -> Unit:
    """Write each so many-th picture of an episode, the first one included.

    Raises:
        OSError: the disk is full, or the like.
    """
    try:
        video = reader.read(index).images[CAMERA]
    except (DataFileError, EpisodeError) as error:
        return Unit(rejected=[str(error)])
    squashed = video.shape[1] == video.shape[2]
    aspect = NATIVE_ASPECT if squashed else None
    made = Unit()
    for step in range(0, len(video), every):
        path = folder.write_picture(name, f"{step:03d}", video[step])
        made.items.append(Item(f"{name}/{step:03d}", path, native_aspect=aspect))
    return made
