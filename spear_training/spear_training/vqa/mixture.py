"""Several data sets as one endless stream of samples, in the shares of a named mixture."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from spear_policy.model.text.coordinate_bins import CoordinateBins
from spear_training.annotation.frame import JobError
from spear_training.data.sampling.mixture_order import MixtureOrder
from spear_training.vqa.dataset import Sample, VqaSet
from spear_training.vqa.draws import key_of
from spear_training.vqa.settings import QuestionSettings

FILE = Path(__file__).with_name("mixtures.yaml")
_MOST_SKIPPED = 1000


@dataclass(frozen=True)
class Mixture:
    """A named mixture.

    Attributes:
        about: what it is, for people.
        data_sets: name -> share of all samples.
        settings: what is asked.
    """

    name: str
    about: str
    data_sets: Mapping[str, float]
    settings: QuestionSettings


@cache
def load_mixtures(path: Path = FILE) -> dict[str, Mixture]:
    """Read a file of mixtures.

    Raises:
        JobError: one of them is not complete; names it.
        OSError: the file cannot be read.
    """
    try:
        stored = yaml.safe_load(path.read_text(encoding="utf-8"))
        return {name: _mixture(name, values) for name, values in stored.items()}
    except (yaml.YAMLError, AttributeError) as error:
        raise JobError(f"{path.name} holds no mixtures: {error}") from None


def mixture(name: str) -> Mixture:
    """Return the mixture of that name.

    Raises:
        JobError: there is none; the message lists those that there are.
    """
    known = load_mixtures()
    if name not in known:
        raise JobError(f"there is no mixture {name!r}: choose from {', '.join(known)}")
    return known[name]


class MixtureSet:
    """Samples of a mixture by index: a pure function of the seed and the index.

    Each data set gives each of its pictures once a pass, in an order that changes from pass to
    pass; every draw has its own questions. May be copied to worker processes.
    """

    def __init__(
        self,
        mixed: Mixture,
        folders: Mapping[str, Path],
        seed: int = 0,
        bins: CoordinateBins | None = None,
    ):
        """Open the data sets.

        Args:
            folders: where `annotate run` has written each data set.
            bins: of the model; what they cannot say is not asked.

        Raises:
            JobError: a folder is missing, unknown or not finished, or a share is no share.
            OSError: a file cannot be read.
        """
        check_folders(mixed, folders)
        self.seed = seed
        self.sets = {name: VqaSet(folders[name], mixed.settings, bins) for name in mixed.data_sets}
        self._names = tuple(self.sets)
        sizes = [len(pictures) for pictures in self.sets.values()]
        try:
            self._order = MixtureOrder(list(mixed.data_sets.values()), sizes, seed)
        except ValueError as error:
            raise JobError(f"mixture {mixed.name}: {error}") from None

    def sample(self, index: int) -> Sample:
        """The sample of an index (0, 1, ...; there is no end); its example is never None.

        A picture of which nothing can be asked is replaced by the next one in its folder.

        Raises:
            JobError: a file has changed, or there is nothing to ask about many pictures.
            OSError: a file cannot be read.
        """
        drawn = self._order.draw(index, 1)
        name = self._names[drawn.data_set[0]]
        first, pictures = int(drawn.place[0]), self.sets[name]
        count = len(pictures)
        seed = key_of(self.seed, name, int(drawn.turn[0]))
        for step in range(min(count, _MOST_SKIPPED)):
            sample = pictures.example((first + step) % count, seed)
            if sample.example is not None:
                return sample
        raise JobError(
            f"{pictures.records.folder}: {step + 1} pictures on end have nothing to ask about: "
            "look at them with `annotate inspect`, or give the categories other weights"
        )


def check_folders(mixed: Mixture, folders: Mapping[str, Path]) -> None:
    """Refuse folders that are not those of a mixture.

    Raises:
        JobError: says which is missing or unknown.
    """
    missing = [name for name in mixed.data_sets if name not in folders]
    unknown = [name for name in folders if name not in mixed.data_sets]
    if missing or unknown:
        wants = ", ".join(f"{name}=FOLDER" for name in mixed.data_sets)
        wrong = f"no folder for {', '.join(missing)}" if missing else f"no {', '.join(unknown)}"
        raise JobError(f"the mixture {mixed.name} has {wrong}: give {wants}")


def _mixture(name: str, values: dict) -> Mixture:
    try:
        about, shares = values["about"], values["data_sets"]
        rest = {key: values[key] for key in values.keys() - {"about", "data_sets"}}
        settings = QuestionSettings(**rest)
        bad = [key for key, share in shares.items() if not 0 < share < float("inf")]
        if bad or not shares:
            raise ValueError(f"shares of {', '.join(bad) or 'no data sets'} must be above 0")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        said = f"{error} is missing" if isinstance(error, KeyError) else error
        raise JobError(f"mixture {name}: {said}") from None
    return Mixture(name, about, shares, settings)
