"""Every block of Python on every page runs, a page being one namespace: `make docs-test`."""

from __future__ import annotations

import doctest
from pathlib import Path

from sybil import Sybil
from sybil.parsers.myst import PythonCodeBlockParser, SkipParser

# A plugin, loaded by name, and no conftest.py: those hold for the files beside and below them
# alone, and some pages are in the root.
pytest_collect_file = Sybil(
    parsers=[
        PythonCodeBlockParser(doctest_optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE),
        SkipParser(),
    ],
    path=str(Path(__file__).resolve().parents[1]),
    patterns=["docs/*.md", "docs/**/*.md", "README.md", "CONTRIBUTING.md"],
    excludes=["docs/_build/**", "docs/gallery/**"],
).pytest()
