"""One page about a run, or several: each a file that needs no other."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import cache
from itertools import islice
from pathlib import Path

from spear_training.annotation.inspection.drawing import PALETTE, web_colour
from spear_training.annotation.inspection.entries import Entry, make_entry
from spear_training.annotation.inspection.plan_views import HEIGHT_PX, WIDTH_PX
from spear_training.annotation.inspection.run_records import Place
from spear_training.annotation.inspection.summary import Summary, settings_rows, summarise
from spear_training.annotation.inspection.survey import Survey, Watch, unwatched
from spear_training.annotation.inspection.token_text import TokenReader
from spear_training.data.whole_file import whole_file

PAGE = "inspect.html"
PER_PAGE = 60
_TEMPLATES = Path(__file__).parent / "templates"


def write_pages(
    found: Survey, page: Path, per_page: int = PER_PAGE, watch: Watch = unwatched
) -> list[Path]:
    """Write the pages about a run.

    Args:
        found: what to say.
        page: file of the first page, which has the summary; others are NAME-2.html and so on.
        per_page: pictures on a page.
        watch: see `survey.Watch`.

    Returns:
        The files.

    Raises:
        JobError: a record was written anew meanwhile.
        OSError: a file cannot be written; what was there before still is.
    """
    template = _template()
    summary = summarise(found.tally, found.asked, found.run["items"]["count"])
    files = _files(page, -(-len(found.places) // per_page))
    entries = _entries(found, summary, watch(found.places, "pictures", len(found.places)))
    page.parent.mkdir(parents=True, exist_ok=True)
    for number, file in enumerate(files):
        text = template.stream(
            found=found,
            summary=summary if number == 0 else None,
            settings=settings_rows(found.run),
            # Drawn when the page gets to them, so that one at a time is in memory.
            entries=islice(entries, per_page),
            first=number * per_page,
            number=number,
            links=[other.name for other in files],
            view_size=(WIDTH_PX, HEIGHT_PX),
            colours=[web_colour(number) for number in range(len(PALETTE))],
            made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        )
        text.enable_buffering(50)
        with whole_file(file) as beside:
            # Words of a model may hold halves of characters, which no file can.
            text.dump(str(beside), encoding="utf-8", errors="replace")
    return files


@cache
def _template():
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("inspect.html")


def _files(page: Path, count: int) -> list[Path]:
    more = (page.with_name(f"{page.stem}-{n}{page.suffix}") for n in range(2, count + 1))
    return [page, *more]


def _entries(found: Survey, summary: Summary, places: Sequence[Place]) -> Iterator[Entry]:
    reader = TokenReader(found.bins.bins if found.bins else None)
    unusual: dict[str, dict[str, str]] = {}
    for each in summary.outliers:
        words = f"{each.times:.2g} times the usual size"
        unusual.setdefault(each.id, {})[each.label] = words
    for place in places:
        annotation = found.annotation(place)
        stored = found.asked.of_picture.get(annotation.id, []) if found.asked else []
        pairs = [reader.pair(pair) for pair in stored]
        yield make_entry(annotation, found.images, pairs, unusual.get(annotation.id))
