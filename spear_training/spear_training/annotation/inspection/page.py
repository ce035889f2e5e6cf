"""One page about a run, or several: each a file that needs no other.

From bottom to top: the sample that is shown, drawn by chance but the same for the same seed; what
the page shows of one picture; the summary of a run, finished or in work, gathered in one reading of
its records; the pages.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from spear_policy.model.coordinate_bins import BINS_FILE
from spear_policy.shared.files import write_atomically
from spear_policy.shared.pages import jpeg_address, render
from spear_policy.shared.seeds import seed_of
from spear_training.annotation.boxes import edges_of
from spear_training.annotation.frame import read_frame
from spear_training.annotation.inspection.counts import (
    AskedQuestions,
    CountSummary,
    Tally,
    read_asked,
    settings_rows,
    summarise,
)
from spear_training.annotation.inspection.overlays import (
    Image,
    colour_of,
    draw_box_2d,
    draw_box_3d,
    draw_mark,
    draw_names,
    drawn_on,
    project,
    tinted,
)
from spear_training.annotation.inspection.token_text import AskedPair, TokenReader
from spear_training.annotation.records import (
    STATUSES,
    Annotation,
    Intrinsics,
    Item,
    RecordError,
    decode_mask,
)
from spear_training.annotation.run_folder import (
    images_root,
    lock_file,
    read_run,
    read_shard,
    shards_of,
)
from spear_training.annotation.stages import JobError, StageError
from spear_training.vqa.bins import FittedBins
from spear_training.vqa.dataset import NAME as QUESTIONS

# A sample of pictures of every status ----------------------------------------------------------


class PictureSample:
    """Draws pictures while their records go by; holds no more than `count` of each status.

    Each picture has a number that follows from its id and the seed, and the lowest win. So the
    sample does not depend on the order or the shards, and a larger one contains a smaller one.
    """

    def __init__(self, count: int, seed: int, only: str = "all"):
        """Take how many pictures, and which status: one of `records.STATUSES`, or all."""
        self._count, self._seed = count, seed
        statuses = STATUSES if only == "all" else (only,)
        self._seen: Counter[str] = Counter()
        # (minus the picture's number, its place in the list, its record)
        self._heaps: dict[str, list[tuple[int, int, Annotation]]] = {
            status: [] for status in statuses
        }

    def add(self, annotation: Annotation) -> None:
        """Let a record go by."""
        if annotation.status not in self._heaps:
            return
        heap = self._heaps[annotation.status]
        order = self._seen.total()
        self._seen[annotation.status] += 1
        entry = (-seed_of(f"{self._seed} {annotation.id}"), order, annotation)
        if len(heap) < self._count:
            heapq.heappush(heap, entry)
        elif entry[0] > heap[0][0]:
            heapq.heapreplace(heap, entry)

    def drawn(self) -> list[Annotation]:
        """The records drawn, in the order of the list."""
        drawn = []
        for status, share in shares(self._seen, self._count).items():
            drawn += sorted(self._heaps.get(status, []), reverse=True)[:share]
        return [annotation for _, _, annotation in sorted(drawn, key=lambda entry: entry[1])]


def shares(there: Counter[str], total: int) -> dict[str, int]:
    """Split a total among statuses so that rare ones are seen.

    Args:
        there: pictures that there are, by status.
        total: pictures wanted.

    Returns:
        How many of each. A tenth of the total (2 at least) may be failed and as many empty, the
        others are ok; what one has not is left to the others.
    """
    few = min(max(2, total // 10), total // 3)
    found = {status: min(there[status], few) for status in ("failed", "empty")}
    for status in ("ok", "empty", "failed"):
        taken = found.get(status, 0)
        found[status] = taken + min(there[status] - taken, total - sum(found.values()))
    return found


# What the page shows of one picture ------------------------------------------------------------


JPEG_QUALITY = 80
_MARK = "#ffffff"
_SAME_PLACE_PX = 8.0


@dataclass(frozen=True)
class PageEntry:
    """All that is shown of one picture.

    Attributes:
        annotation: its record.
        pictures: titles, and addresses that hold JPEGs.
        rows: its objects, each with number and colour as on the pictures, sides along the box's x,
            y, z axis [cm, or units], distance of the centre [m, or units], "" or why its size is
            unusual.
        pairs: questions about it.
        notes: what could not be shown, and why.
    """

    annotation: Annotation
    pictures: tuple[tuple[str, str], ...]
    rows: tuple[dict, ...]
    pairs: tuple[AskedPair, ...]
    notes: tuple[str, ...]


def make_entry(
    annotation: Annotation,
    images: Path | None,
    pairs: Sequence[AskedPair],
    unusual: dict[str, str] | None = None,
) -> PageEntry:
    """Draw a picture and what was found in it; what cannot be drawn is noted.

    Args:
        annotation: the record.
        images: folder that its picture is relative to; None: it is not known.
        pairs: questions about it, explained.
        unusual: label -> why the size of this object is unusual.
    """
    notes: list[str] = []
    image = _read(annotation, images, notes)
    return PageEntry(
        annotation,
        () if image is None else _pictures(image, annotation, pairs, notes),
        tuple(_rows(annotation, unusual or {})),
        tuple(pairs),
        tuple(notes),
    )


def _draw_flat(axes, annotation: Annotation, pairs: Sequence[AskedPair]) -> None:
    names = []
    for number, found in enumerate(annotation.objects):
        draw_box_2d(axes, found.box_xyxy_px, colour_of(number))
        names.append((f"{number + 1} {found.label}", found.box_xyxy_px, colour_of(number)))
    for number, (u, v) in _places(pairs, annotation.intrinsics):
        draw_mark(axes, (u, v), _MARK, "ring")
        names.append((f"Q{number}", (u + 8, v + 8, u + 8, v + 8), _MARK))
    draw_names(axes, names)


def _draw_space(axes, annotation: Annotation) -> None:
    """Oriented boxes and keypoints; needs the intrinsics."""
    numbered = list(enumerate(annotation.objects))
    # The furthest first, so that near boxes lie over it.
    numbered.sort(key=lambda each: -np.linalg.norm(each[1].centre_m))
    for number, found in numbered:
        draw_box_3d(axes, found.vertices, annotation.intrinsics, colour_of(number))
        points = {"disc": found.closest_m, "ring": found.furthest_m, "cross": found.centre_m}
        for mark, point in points.items():
            draw_mark(axes, project(point, annotation.intrinsics), colour_of(number), mark)


def _read(annotation: Annotation, images: Path | None, notes: list[str]) -> Image | None:
    if images is None:
        return None
    # The aspect on record is that of the upright picture.
    item = Item(
        annotation.id, annotation.image, native_aspect=annotation.native_aspect, upright=True
    )
    try:
        return read_frame(item, images).image
    except StageError as error:
        notes.append(f"The picture cannot be shown: {error}.")
        return None


def _pictures(
    image: Image, annotation: Annotation, pairs, notes: list[str]
) -> tuple[tuple[str, str], ...]:
    if not annotation.objects:
        return (_page_picture("The picture", image),)
    masked = image
    for number, found in enumerate(annotation.objects):
        try:
            masked = tinted(masked, decode_mask(found.mask), colour_of(number))
        except (RecordError, ValueError) as error:
            notes.append(f"{found.label}: {error}")
    flat = drawn_on(masked, lambda axes: _draw_flat(axes, annotation, pairs))
    shown = [_page_picture("Masks, 2D boxes", flat)]
    if annotation.intrinsics is None:
        notes.append("The record has no intrinsics, so its 3D boxes cannot be drawn.")
    else:
        space = drawn_on(image, lambda axes: _draw_space(axes, annotation))
        shown.append(_page_picture("Oriented 3D boxes, keypoints", space))
    return tuple(shown)


def _places(pairs: Sequence[AskedPair], camera: Intrinsics | None) -> Iterator[tuple[int, NDArray]]:
    """Numbers of questions, and the pixels (u, v) that they or their answers speak of."""
    for number, pair in enumerate(pairs, 1):
        places = [np.array(pixel) for pixel in pair.pixels_px()]
        if camera:
            places += [project(point, camera) for point in pair.points_m()]
        shown: list[NDArray] = []
        for place in places:
            # A question may say in space what its answer says in the picture.
            known = any(np.abs(place - other).max() < _SAME_PLACE_PX for other in shown)
            if np.isfinite(place).all() and not known:
                shown.append(place)
                yield number, place


def _page_picture(title: str, image: Image) -> tuple[str, str]:
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    stored = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), quality)[1]
    return title, jpeg_address(stored.tobytes())


def _rows(annotation: Annotation, unusual: dict[str, str]):
    factor = 100.0 if annotation.metric else 1.0
    for number, found in enumerate(annotation.objects):
        sides = np.linalg.norm(edges_of(found.vertices), axis=1) * factor
        yield {
            "found": found,
            "number": number + 1,
            "colour": colour_of(number),
            "sides": sides.tolist(),
            "distance": float(np.linalg.norm(found.centre_m)),
            "unusual": unusual.get(found.label, ""),
        }


# Reading a run: counts, sample and questions ---------------------------------------------------


# Passes values on and shows how far it is: (values, what they are, how many).
Progress = Callable[[Iterable, str, int], Iterable]


def no_progress(values: Iterable, _name: str, _total: int) -> Iterable:
    """Show nothing."""
    return values


@dataclass(frozen=True)
class PageOptions:
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
class RunSummary:
    """What was gathered.

    Attributes:
        run: of run.json.
        tally: of all records.
        shown: records of the pictures to show, in the order of the list.
        asked: the questions; None: there are none yet.
        bins: of the 3D tokens; None: they are not known.
        images: folder of the pictures; None: it is gone.
        notes: what is missing or wrong, in sentences.
    """

    run: dict
    tally: Tally
    shown: tuple[Annotation, ...]
    asked: AskedQuestions | None
    bins: FittedBins | None
    images: Path | None
    notes: tuple[str, ...]


def summarise_run(out: Path, options: PageOptions, progress: Progress = no_progress) -> RunSummary:
    """Read the records of a run, and what lies beside them.

    Args:
        out: a folder that `annotate run` writes, or has written, to.
        options: which pictures, and where things are.
        progress: see `Progress`.

    Raises:
        JobError: the folder is no run's, has no record yet, or not those that are wanted.
        OSError: a file cannot be read.
    """
    run = read_run(out)
    notes: list[str] = []
    bins = _bins(out, options, notes)
    finished, missing = shards_of(out)
    damaged: list[str] = []
    records = (one for shard in finished for one in read_shard(shard.file(out), damaged))
    tally, listed = Tally(), run["items"]["count"]
    shown = _shown(progress(records, "records", listed), tally, options)
    if not tally.statuses:
        raise JobError(f"{out} has no records yet: `annotate run` writes them")
    if missing:
        in_work = sum(lock_file(shard.file(out)).is_file() for shard in missing)
        notes.append(
            f"The run is not finished: of its shards {len(finished)} are finished, {in_work} in "
            f"work and {len(missing) - in_work} not begun. This page is about what is done so far; "
            f"the list has {listed:,} pictures."
        )
    if damaged:
        notes.append(
            f"{len(damaged):,} lines hold no record and are left out. The first: {damaged[0]}."
        )
    if not shown:
        notes.append(f"No picture is {options.only}.")
    asked = read_asked(out / QUESTIONS, {annotation.id for annotation in shown})
    notes += _asked_notes(asked, bins)
    images = _images(out, run, options, notes)
    return RunSummary(run, tally, tuple(shown), asked, bins, images, tuple(notes))


def _shown(found, tally: Tally, options: PageOptions) -> list[Annotation]:
    sample, by_id = PictureSample(options.count, options.seed, options.only), {}
    for annotation in found:
        tally.add(annotation)
        sample.add(annotation)
        if annotation.id in options.ids:
            by_id[annotation.id] = annotation
    if not options.ids:
        return sample.drawn()
    if missing := [name for name in options.ids if name not in by_id]:
        raise JobError(f"no record has the id {missing[0]!r}; the list of the run has them all")
    return list(by_id.values())


def _bins(out: Path, options: PageOptions, notes: list[str]) -> FittedBins | None:
    if options.bins:
        return FittedBins.load(options.bins)
    if not (out / BINS_FILE).is_file():
        return None
    try:
        return FittedBins.load(out / BINS_FILE)
    except JobError as error:
        notes.append(f"{error}.")
        return None


def _images(out: Path, run: dict, options: PageOptions, notes: list[str]) -> Path | None:
    if options.images:
        if not options.images.is_dir():
            raise JobError(f"{options.images} is no folder: give that of the pictures")
        return options.images
    try:
        return images_root(out, run)
    except JobError as error:
        notes.append(f"No picture can be shown: {error}, or give the folder with --images.")
        return None


def _asked_notes(asked: AskedQuestions | None, bins: FittedBins | None):
    if asked is None:
        yield f"There are no questions yet ({QUESTIONS}): `annotate questions` writes them."
        return
    if bins is None:
        yield (
            f"What the 3D tokens stand for is not known, as there is no {BINS_FILE} here: give the "
            "file with --bins."
        )
    if asked.damaged:
        yield f"{asked.damaged:,} lines of {QUESTIONS} are damaged and left out."


# Writing the pages -----------------------------------------------------------------------------


PAGE = "inspect.html"
PER_PAGE = 60
_TEMPLATE = Path(__file__).parent / "templates" / "inspect.html"


def write_pages(
    found: RunSummary, page: Path, per_page: int = PER_PAGE, progress: Progress = no_progress
) -> list[Path]:
    """Write the pages about a run.

    Args:
        found: what to say.
        page: file of the first page, which has the summary; others are NAME-2.html and so on.
        per_page: pictures on a page.
        progress: see `Progress`.

    Returns:
        The files.

    Raises:
        OSError: a file cannot be written; what was there before still is.
    """
    summary = summarise(found.tally, found.asked, found.run["items"]["count"])
    more = range(2, -(-len(found.shown) // per_page) + 1)
    files = [page, *(page.with_name(f"{page.stem}-{n}{page.suffix}") for n in more)]
    entries = _entries(found, summary, progress(found.shown, "pictures", len(found.shown)))
    page.parent.mkdir(parents=True, exist_ok=True)
    for number, file in enumerate(files):
        text = render(
            _TEMPLATE,
            found=found,
            summary=summary if number == 0 else None,
            settings=settings_rows(found.run),
            # Drawn when the page gets to them: one decoded picture at a time is in memory.
            entries=islice(entries, per_page),
            first=number * per_page,
            number=number,
            links=[other.name for other in files],
            made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        )
        # Words of a model may hold halves of characters, which no file can.
        write_atomically(file, text.encode("utf-8", "replace"))
    return files


def _entries(
    found: RunSummary, summary: CountSummary, annotations: Iterable[Annotation]
) -> Iterator[PageEntry]:
    reader = TokenReader(found.bins.bins if found.bins else None)
    unusual: dict[str, dict[str, str]] = {}
    for each in summary.outliers:
        words = f"{each.times:.2g} times the usual size"
        unusual.setdefault(each.id, {})[each.label] = words
    for annotation in annotations:
        stored = found.asked.of_picture.get(annotation.id, []) if found.asked else []
        pairs = [reader.pair(pair) for pair in stored]
        yield make_entry(annotation, found.images, pairs, unusual.get(annotation.id))
