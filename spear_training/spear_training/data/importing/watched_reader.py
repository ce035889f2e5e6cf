"""A reader that tells how far it is, and that no odd episode can bring down."""

import logging
from collections.abc import Callable

from spear_policy.inference.episode import Episode, EpisodeError
from spear_training.data.reader import DataFileError, EpisodeReader

log = logging.getLogger(__name__)


class WatchedReader:
    """Another reader, watched; see EpisodeReader."""

    def __init__(self, reader: EpisodeReader, robot: str, told: Callable[[int], None]):
        """Watch a reader.

        Args:
            reader: to be watched.
            robot: that moves in every episode of the store.
            told: gets the frames of each episode that was looked at; 0 of one that is of no use.
        """
        self._reader, self._robot, self._told = reader, robot, told
        self._logged: set[type] = set()

    @property
    def name(self) -> str:
        """The reader's name."""
        return self._reader.name

    def __len__(self) -> int:
        return len(self._reader)

    def read(self, index: int) -> Episode:
        """Episode `index`.

        Raises:
            DataFileError, EpisodeError, IndexError: see EpisodeReader. An error that the reader
                does not know of becomes a DataFileError, so that it costs one episode only.
            OSError: the file cannot be read now; perhaps it can later.
        """
        frames = 0
        try:
            episode = self._reader.read(index)
            frames = len(episode)
        except (DataFileError, EpisodeError, OSError, MemoryError):
            raise
        except Exception as error:
            if type(error) not in self._logged:
                self._logged.add(type(error))
                log.error("episode %d: an error that no reader expects", index, exc_info=error)
            raise DataFileError(
                f"an error that no reader expects, please report it ({type(error).__name__}: "
                f"{error})"
            ) from error
        finally:
            self._told(frames)
        if episode.robot and episode.robot != self._robot:
            raise EpisodeError(
                f"{episode.name}: its robot is {episode.robot!r}, the store's {self._robot!r}: "
                "import them apart"
            )
        return episode
