"""Everything that a page says of a run, gathered in one reading of its records."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from spear_training.annotation.frame import JobError
from spear_training.annotation.inspection.asked import Asked, read_asked
from spear_training.annotation.inspection.run_records import Place, RunRecords
from spear_training.annotation.inspection.sample import Sample
from spear_training.annotation.inspection.tally import Tally
from spear_training.annotation.job.run_card import images_root, read_run
from spear_training.annotation.records import Annotation
from spear_training.vqa.bins import NAME as BINS
from spear_training.vqa.bins import FittedBins
from spear_training.vqa.question_file import NAME as QUESTIONS

# Passes things on and shows how far it is: (things, what they are, how many).
Watch = Callable[[Iterable, str, int], Iterable]


def unwatched(things: Iterable, _name: str, _total: int) -> Iterable:
    """Show nothing."""
    return things


@dataclass(frozen=True)
class Wanted:
    """What a person wants to see.

    Attributes:
        count: pictures.
        only: their status, or all.
        ids: these pictures alone, in place of a sample.
        seed: other seeds draw other pictures.
        images: where the pictures are now; None: where the run says.
        bins: of the 3D tokens; None: bins.json in the run's folder, if it is there.
    """

    count: int = 50
    only: str = "all"
    ids: tuple[str, ...] = ()
    seed: int = 0
    images: Path | None = None
    bins: Path | None = None


@dataclass(frozen=True)
class Survey:
    """What was gathered.

    Attributes:
        run: of run.json.
        tally: of all records.
        places: of the pictures to show, in the order of the list.
        asked: the questions; None: there are none yet.
        bins: of the 3D tokens; None: they are not known.
        images: folder of the pictures; None: it is gone.
        notes: what is missing or wrong, in sentences.
    """

    run: dict
    tally: Tally
    places: tuple[Place, ...]
    asked: Asked | None
    bins: FittedBins | None
    images: Path | None
    notes: tuple[str, ...]
    records: RunRecords

    def annotation(self, place: Place) -> Annotation:
        """Read the record of a picture.

        Raises:
            JobError: its file was written anew meanwhile.
        """
        return self.records.at(place)


def survey(out: Path, wanted: Wanted, watch: Watch = unwatched) -> Survey:
    """Read the records of a run, and what lies beside them.

    Args:
        out: a folder that `annotate run` writes, or has written, to.
        wanted: which pictures, and where things are.
        watch: see `Watch`.

    Raises:
        JobError: the folder is no run's, has no record yet, or not those that are wanted.
        OSError: a file cannot be read.
    """
    run = read_run(out)
    notes: list[str] = []
    bins = _bins(out, wanted, notes)
    records, tally = RunRecords(out, run["num_shards"]), Tally(bins.bins if bins else None)
    listed = run["items"]["count"]
    places = _places(watch(records.read(), "records", listed), tally, wanted)
    if not tally.statuses:
        raise JobError(f"{out} has no records yet: `annotate run` writes them")
    notes += _shard_notes(records, listed)
    if not places:
        notes.append(f"No picture is {wanted.only}.")
    ids = {place.id for place in places}
    asked = read_asked(out / QUESTIONS, ids, bins.bins if bins else None)
    notes += _asked_notes(asked, bins)
    images = _images(out, run, wanted, notes)
    return Survey(run, tally, tuple(places), asked, bins, images, tuple(notes), records)


def _places(found, tally: Tally, wanted: Wanted) -> list[Place]:
    sample, by_id = Sample(wanted.count, wanted.seed, wanted.only), {}
    for place, annotation in found:
        tally.add(annotation)
        sample.add(place, annotation)
        if annotation.id in wanted.ids:
            by_id[annotation.id] = place
    if not wanted.ids:
        return sample.places()
    if missing := [name for name in wanted.ids if name not in by_id]:
        raise JobError(f"no record has the id {missing[0]!r}; the list of the run has them all")
    return list(by_id.values())


def _bins(out: Path, wanted: Wanted, notes: list[str]) -> FittedBins | None:
    if wanted.bins:
        return FittedBins.load(wanted.bins)
    if not (out / BINS).is_file():
        return None
    try:
        return FittedBins.load(out / BINS)
    except JobError as error:
        notes.append(f"{error}.")
        return None


def _images(out: Path, run: dict, wanted: Wanted, notes: list[str]) -> Path | None:
    if wanted.images:
        if not wanted.images.is_dir():
            raise JobError(f"{wanted.images} is no folder: give that of the pictures")
        return wanted.images
    try:
        return images_root(out, run)
    except JobError as error:
        notes.append(f"No picture can be shown: {error}, or give the folder with --images.")
        return None


def _shard_notes(records: RunRecords, listed: int):
    counts = records.counts
    if counts.in_work or counts.not_begun:
        yield (
            f"The run is not finished: of its shards {counts.finished} are finished, "
            f"{counts.in_work} in work and {counts.not_begun} not begun. This page is about what "
            f"is done so far; the list has {listed:,} pictures."
        )
    if counts.damaged:
        yield (
            f"{len(counts.damaged):,} lines hold no record and are left out. The first: "
            f"{counts.damaged[0]}."
        )


def _asked_notes(asked: Asked | None, bins: FittedBins | None):
    if asked is None:
        yield f"There are no questions yet ({QUESTIONS}): `annotate questions` writes them."
        return
    if bins is None:
        yield (
            f"What the 3D tokens stand for is not known, as there is no {BINS} here: give the "
            "file with --bins."
        )
    if asked.damaged:
        yield f"{asked.damaged:,} lines of {QUESTIONS} are damaged and left out."
