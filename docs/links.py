"""Checks that links and pictures of the built site lead somewhere: a part of `make docs`.

    python docs/links.py docs/_build/html

Only what leads to the site itself is checked; nothing is asked of the network.
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The names of places in a page, and where its links lead."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.places: set[str] = set()
        self.links: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take in what one tag says."""
        for name, value in attrs:
            if value is None:
                continue
            if name == "id" or (tag == "a" and name == "name"):
                self.places.add(value)
            elif (tag, name) in {("a", "href"), ("img", "src"), ("link", "href")}:
                self.links.add(value)


def wrong(site: Path) -> list[str]:
    """What leads nowhere, as lines to print."""
    paths = (path for path in sorted(site.rglob("*.html")) if "_static" not in path.parts)
    pages = {path: Page(path.read_text()) for path in paths}
    found: list[str] = []
    for path, page in pages.items():
        for link in sorted(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            place = unquote(parts.fragment) if target in pages else ""
            if not target.exists():
                found.append(f"{path.relative_to(site)}: {link}: no such file")
            # From source files it is the page that counts: Sphinx takes one name for each module.
            elif place and "_modules" not in path.parts and place not in pages[target].places:
                found.append(f"{path.relative_to(site)}: {link}: no such place")
    return found


if __name__ == "__main__":
    lines = wrong(Path(sys.argv[1]).resolve())
    print("\n".join(lines) or "every link of the site leads somewhere")
    sys.exit(bool(lines))
