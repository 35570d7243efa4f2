"""What the HTML of a value says, read as a browser would."""

from __future__ import annotations

from html.parser import HTMLParser


class _Reader(HTMLParser):
    """Collects tags, and the text of each cell, title and unfolded part."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.texts: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.open.append(tag)
        self.tags.add(tag)
        self.texts.append((tag, ""))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, "tags are closed in order"

    def handle_data(self, data: str) -> None:
        kind, text = self.texts[-1]
        self.texts[-1] = kind, text + data


def read(page: str) -> _Reader:
    """The page, which must be well formed."""
    reader = _Reader()
    reader.feed(page)
    reader.close()
    assert not reader.open, "all tags are closed"
    return reader


def cells(page: str) -> dict[str, str]:
    """The rows of the table: name and text."""
    texts = read(page).texts
    names = [text for tag, text in texts if tag == "th"]
    values = [text for tag, text in texts if tag == "span"]
    return dict(zip(names, values, strict=True))
