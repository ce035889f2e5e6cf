"""A page that we wrote, taken apart again."""

import base64
from html.parser import HTMLParser

import cv2
import numpy as np

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """What is on a page.

    Attributes:
        words: its text, with single spaces.
        rows: cells of each table row.
        addresses: of all pictures.
        tags: how often each element occurs.
    """

    def __init__(self, path):
        super().__init__()
        self.addresses, self.rows, self.tags = [], [], {}
        self._open, self._texts = [], []
        self.feed(path.read_text())
        self.close()
        assert not self._open, f"never closed: {self._open}"
        self.words = " ".join(" ".join(self._texts).split())
        self.rows = [[" ".join("".join(cell).split()) for cell in row] for row in self.rows]

    def handle_starttag(self, tag, attributes):
        """Note an element."""
        self.tags[tag] = self.tags.get(tag, 0) + 1
        values = dict(attributes)
        if tag == "img":
            self.addresses.append(values["src"])
            assert values["alt"]
        for name in ("src", "href"):
            if name in values:
                assert values[name].startswith(("data:", "#")), values[name]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append([])
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        """Note its end."""
        assert self._open.pop() == tag, f"{tag} ends out of turn at {self.getpos()}"

    def handle_data(self, data):
        """Note text."""
        if self._open and self._open[-1] == "style":
            return
        self._texts.append(data)
        if {"td", "th"} & set(self._open):
            self.rows[-1][-1].append(data)

    def pictures(self):
        """Return the decoded JPEGs, RGB."""
        found = []
        for kind, content in map(decoded, self.addresses):
            if kind == "image/jpeg":
                picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
                assert picture is not None
                found.append(picture[..., ::-1])
        return found

    def drawings(self):
        """Return the texts of the SVG drawings."""
        return [
            content.decode()
            for kind, content in map(decoded, self.addresses)
            if kind == "image/svg+xml"
        ]


def decoded(address):
    """Return kind and content of a data address."""
    head, _, body = address.partition(",")
    assert head.startswith("data:")
    assert head.endswith(";base64")
    return head[5:-7], base64.b64decode(body, validate=True)
