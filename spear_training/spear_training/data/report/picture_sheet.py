"""Some frames of some episodes, as the model will see them."""

from dataclasses import dataclass

from spear_training.data.importing.selection import spread
from spear_training.data.reader import DataFileError
from spear_training.data.store.facts import WRIST
from spear_training.data.store.frames import FrameStore
from spear_training.pages.drawing import jpeg_address

EPISODES, FRAMES = 12, 4


@dataclass(frozen=True)
class SheetRow:
    """One episode of the sheet.

    Attributes:
        episode: its number.
        sentences: all that name its motion.
        strips: camera -> addresses of its pictures, from the beginning to the end.
        trouble: why pictures are missing, in words.
    """

    episode: int
    sentences: tuple[str, ...]
    strips: dict[str, list[str]]
    trouble: str = ""


def picture_sheet(store: FrameStore) -> list[SheetRow]:
    """Rows for episodes from all over the store; a damaged file costs its rows only."""
    return [_row(store, episode) for episode in spread(range(len(store.episodes)), EPISODES)]


def _row(store: FrameStore, episode: int) -> SheetRow:
    episodes = store.episodes
    first, length = int(episodes.first_frame[episode]), int(episodes.length[episode])
    frames = spread(range(first, first + length), FRAMES)
    cameras = [
        name
        for name in store.facts.camera_names
        if name != WRIST or not episodes.black_wrist[episode]
    ]
    strips, trouble = {}, ""
    try:
        for camera in cameras:
            strips[camera] = [jpeg_address(store.jpeg(frame, camera)) for frame in frames]
    except DataFileError as error:
        trouble = str(error)
    if not trouble and len(cameras) < len(store.facts.camera_names):
        trouble = "It has no wrist camera."
    return SheetRow(episode, episodes.sentences(episode), strips, trouble)
