"""Annotated pictures with questions, by number: what the training loader reads."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spear_policy.model.text.coordinate_bins import CoordinateBins
from spear_training.annotation.frame import JobError
from spear_training.annotation.records import STATUSES
from spear_training.vqa.examples import make_example
from spear_training.vqa.pairs import Example
from spear_training.vqa.record_files import RecordFiles
from spear_training.vqa.settings import QuestionSettings


@dataclass(frozen=True)
class Sample:
    """A picture and what is asked about it.

    Attributes:
        image: absolute path; `annotation.picture.read_picture` reads it.
        native_aspect: for `image_geometry.plan_fit`; None: square pixels.
        example: the questions; None where nothing can be asked.
    """

    image: Path
    native_aspect: float | None
    example: Example | None


class VqaSet:
    """The pictures of one finished run. May be copied to worker processes.

    Failed pictures do not count, nor do empty ones, except where random pixels are asked about.
    """

    def __init__(
        self,
        folder: Path,
        settings: QuestionSettings | None = None,
        bins: CoordinateBins | None = None,
    ):
        """Open a folder that `annotate run` has finished.

        Args:
            bins: of the model; what they cannot say is not asked. None: all is asked.

        Raises:
            JobError: it is no such folder, a shard is not finished, or no picture can be used.
            OSError: a file cannot be read.
        """
        self.records = RecordFiles(folder)
        self.settings, self.bins = settings or QuestionSettings(), bins
        baseline = bool(self.settings.weights.get("pixel_points"))
        wanted = [STATUSES.index(status) for status in ("ok", "empty")[: 1 + baseline]]
        self._numbers = np.flatnonzero(np.isin(self.records.statuses, wanted))
        if not len(self._numbers):
            raise JobError(f"{folder}: none of its {len(self.records)} pictures can be used")

    def __len__(self) -> int:
        """How many pictures can be used."""
        return len(self._numbers)

    def example(self, index: int, seed: int) -> Sample:
        """Draw the questions of one picture.

        Args:
            index: 0 .. len - 1.
            seed: of this pass; another one gives other questions.

        Raises:
            JobError: a file has changed since it was opened.
            OSError: it cannot be read.
        """
        annotation = self.records.annotation(self._numbers[index])
        example = make_example(annotation, seed, self.settings, self.bins)
        return Sample(self.records.image_path(annotation), annotation.native_aspect, example)
