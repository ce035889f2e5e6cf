"""Folders as `annotate run` and `annotate questions` leave them, with pictures, and their pages."""

import base64
import io
import json
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
from PIL import Image
from question_fixture import picture, thing, write_run

from spear_training.annotation.annotate import main
from spear_training.annotation.inspection.page import PageOptions, summarise_run
from spear_training.annotation.records import encode_mask

# Elements that HTML never closes.
_VOID = {"meta", "img", "link", "br", "hr", "input"}


def seen(label, centre=(0.0, 0.0, 1.0), sides=(0.2, 0.1, 0.4)):
    """Return an object with a mask that can be drawn."""
    mask = np.zeros((630, 840), bool)
    mask[300:330, 400:440] = True
    return replace(thing(label, centre, sides), mask=encode_mask(mask))


def shelf(name, *labels):
    """Return a picture with objects beside each other, by default a mug and a bowl."""
    found = [
        seen(label, (0.3 * number - 0.3, 0.1, 1.2 + 0.1 * number))
        for number, label in enumerate(labels or ("mug", "bowl"))
    ]
    return picture(*found, name=name, seconds={"read": 0.01, "boxes": 0.03})


def failed(name, reason):
    """Return a picture that failed."""
    return replace(picture(name=name), status="failed", reason=reason)


def run_with_pictures(folder, annotations, num_shards=2):
    """Write a run and its pictures, each of another grey; return the folder of the records."""
    out = write_run(folder, annotations, num_shards)
    for number, annotation in enumerate(annotations):
        path = folder / "images" / annotation.image
        path.parent.mkdir(parents=True, exist_ok=True)
        shade = 20 + 200 * number // len(annotations)
        Image.fromarray(np.full((48, 64, 3), shade, np.uint8)).save(path)
    return out


def summary_of(out, **wanted):
    """Read a run as the command does."""
    return summarise_run(out, PageOptions(**wanted))


def inspect(out, *words):
    """Run the command; return the exit code and, where there is one, the page."""
    code = main(["inspect", str(out), *map(str, words)])
    page = out / "inspect.html"
    return code, Page(page.read_text()) if page.is_file() else None


def write_questions(out, **of_picture):
    """Write a file of questions: name=[(category, question, answer, kind), ...]."""
    names = ("category", "question", "answer", "kind")
    lines = [
        {"id": name, "image": "x", "pairs": [dict(zip(names, p, strict=True)) for p in pairs]}
        for name, pairs in of_picture.items()
    ]
    (out / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


class Page(HTMLParser):
    """A page that was read strictly: what is opened is closed, and nothing else.

    Attributes:
        text: all words, elements apart by blanks.
        images, drawings: data URIs of JPEGs and of SVGs.
        addresses: all other src and href.
        sections: words of each picture's section, by its title.
        tags: how many there are of each element.
    """

    def __init__(self, source):
        super().__init__(convert_charrefs=True)
        self.images, self.drawings, self.addresses, self.sections = [], [], [], {}
        self.tags, self._open, self._words, self._title = {}, [], [], None
        self.source = source
        self.feed(source)
        self.close()
        assert self._open == [], f"not closed: {self._open}"
        self.text = " ".join(" ".join(self._words).split())

    def handle_starttag(self, tag, attrs):
        """Note an element."""
        values = dict(attrs)
        assert len(values) == len(attrs), f"an attribute twice in {tag}"
        self.tags[tag] = self.tags.get(tag, 0) + 1
        if tag not in _VOID:
            self._open.append(tag)
        for name in ("src", "href"):
            address = values.get(name)
            if address:
                if not address.startswith("data:"):
                    self.addresses.append(address)
                elif address.startswith("data:image/svg+xml"):
                    self.drawings.append(address)
                else:
                    self.images.append(address)
        if tag == "section":
            self._title = None

    def handle_startendtag(self, tag, attrs):
        """Note an element of SVG that has nothing inside."""
        self.tags[tag] = self.tags.get(tag, 0) + 1

    def handle_endtag(self, tag):
        """Check that it closes what was opened last."""
        assert self._open and self._open[-1] == tag, f"</{tag}> closes {self._open[-1:]}"
        self._open.pop()

    def handle_data(self, data):
        """Collect words."""
        if "style" in self._open:
            return
        self._words.append(data)
        if "section" in self._open:
            if self._open[-1] == "h2":
                self._title = data
                self.sections[data] = ""
            if self._title is not None:
                self.sections[self._title] += data + " "

    def decoded(self):
        """Decode all images."""
        found = []
        for uri in self.images:
            head, _, data = uri.partition(",")
            assert head == "data:image/jpeg;base64"
            image = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
            image.load()
            found.append(image)
        return found
