"""What every reader of recorded data is, and how it says that a file cannot be used."""

from typing import Protocol

from spear_policy.inference.episode import Episode


class DataFileError(ValueError):
    """A data file or folder cannot be used; the text names it, the place in it and the mend."""


class EpisodeReader(Protocol):
    """Episodes by number. A damaged one raises when it is read and leaves the others alone."""

    @property
    def name(self) -> str:
        """A word for file names and reports, such as "bridge_dataset-train"."""

    def __len__(self) -> int:
        """How many episodes there are, damaged ones included."""

    def read(self, index: int) -> Episode:
        """Episode `index`, 0-based.

        Raises:
            DataFileError: the file is damaged there.
            EpisodeError: what is in the file is no usable episode.
            IndexError: no such number.
        """
