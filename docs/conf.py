"""How Sphinx builds the site: `make docs`."""

from __future__ import annotations

import os
import re
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

from docutils.nodes import SkipNode
from latex2mathml.converter import convert
from sphinx.util import logging

logger = logging.getLogger(__name__)

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
REPOSITORY = "https://github.com/pairfold/pairfold"

project = "pairfold"
author = "the developers of pairfold"
copyright = "the developers of pairfold; MIT licence"
version = release = version_of("pairfold")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
    "sphinx_design",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "gallery/**/*.md5", "gallery/**/*.ipynb", "gallery/**/*.py"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
# A name of the library in a signature or a text leads to it; those of other libraries are words.
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(numpy|torch|jax|collections|scipy)\..*|Tensor|LinearOperator|.*\._V"),
    ("py:class", r"PairfoldLinearOperator|pairfold\.frontends\..*"),
]
suppress_warnings = ["config.cache"]  # the table of the gallery below holds functions

# -- pages in Markdown -----------------------------------------------------------------------------
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4

# -- the interface, from its docstrings ------------------------------------------------------------
# One backtick in a docstring is code; words with stars are names, not emphasis.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_type_aliases = {"ArrayLike": "ArrayLike"}
autoclass_content = "class"
napoleon_numpy_docstring = False
napoleon_use_rtype = False

# -- the gallery -----------------------------------------------------------------------------------
os.environ.setdefault("MPLBACKEND", "agg")
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py$",
    "ignore_pattern": r"__init__\.py",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_signature": False,
    "min_reported_time": 1,
    "within_subsection_order": "FileNameSortKey",
    "matplotlib_animations": False,
}

# -- looks -----------------------------------------------------------------------------------------
html_theme = "pydata_sphinx_theme"
html_math_renderer = "mathml"
html_title = "pairfold"
html_static_path = ["_static"]
html_css_files = ["pairfold.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "github_url": REPOSITORY,
    "navbar_align": "left",
    "show_toc_level": 2,
    "header_links_before_dropdown": 6,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
}
copybutton_exclude = ".linenos, .gp, .go"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# A link of a page to a file of the repository that is no page of the site.
_LINK = re.compile(r"\]\((\.\.?/[^)#\s]+)(#[^)\s]*)?\)")


def _to_the_repository(app: object, name: str, source: list[str]) -> None:
    """Links to files outside of docs/, which are right on GitHub, lead there from the site."""
    folder = (DOCS / name).parent

    def changed(found: re.Match[str]) -> str:
        place = (folder / found[1]).resolve()
        if place.is_relative_to(DOCS):
            return found[0]
        if not place.exists():
            raise FileNotFoundError(f"{name} links to {found[1]}, which is not there")
        kind = "tree" if place.is_dir() else "blob"
        return f"]({REPOSITORY}/{kind}/main/{place.relative_to(ROOT)}{found[2] or ''})"

    source[0] = _LINK.sub(changed, source[0])


_CODE = re.compile(r"(`[^`]*`)")


def _plain(
    app: object, what: str, name: str, of: object, options: object, lines: list[str]
) -> None:
    """Docstrings are plain text: bars are absolute values, and `Genred`s is a word."""
    example = False
    for place, line in enumerate(lines):
        example = bool(line.strip()) and (example or line.lstrip().startswith(">>>"))
        if not example:
            parts = _CODE.split(line)
            parts[::2] = [part.replace("|", r"\|") for part in parts[::2]]
            parts[2::2] = [re.sub(r"^(?=\w)", r"\\ ", part) for part in parts[2::2]]
            lines[place] = "".join(parts)


def _math(writer: Any, node: Any) -> None:
    """Formulas as MathML, which browsers draw without a script and without a network."""
    display = "block" if node.tagname == "math_block" else "inline"
    markup = convert(node.astext(), display=display)
    if unknown := re.search(r">\s*(\\\w+)", markup):
        logger.warning("%s would stand in the formula as it is", unknown[1], location=node)
    if display == "block":  # what is wider than a phone scrolls by itself
        markup = f'<div class="formula">{markup}</div>'
    writer.body.append(markup)
    raise SkipNode


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.add_html_math_renderer("mathml", (_math, None), (_math, None))
    app.connect("source-read", _to_the_repository)
    app.connect("autodoc-process-docstring", _plain, priority=100)
