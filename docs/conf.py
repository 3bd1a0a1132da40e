"""Sphinx configuration: Markdown pages by MyST, signatures and docstrings from the code itself."""

from __future__ import annotations

import re
from importlib import metadata
from typing import Any

project = "cvxift"
author = "The cvxift developers"
copyright = author
release = metadata.version("cvxift")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
]
myst_enable_extensions = ["amsmath", "dollarmath"]
myst_heading_anchors = 3
default_role = "code"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"cvxift {release}"
exclude_patterns = ["_build"]

# Docstrings are plain text with mathematics: a star or a bar in them is a star or a bar, not reST markup.
MARKUP = re.compile(r"``.*?``|`.*?`|(?<!\\)[*|]")


def plain(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Escape stars and bars outside of code, after napoleon has read the sections."""
    example = False
    for number, line in enumerate(lines):
        example = line.lstrip().startswith(">>>") or (example and bool(line.strip()))
        if not example and not line.lstrip().startswith(".."):
            lines[number] = MARKUP.sub(lambda found: found[0] if found[0][0] == "`" else "\\" + found[0], line)


def setup(app: Any) -> None:
    """Register the hook behind napoleon's."""
    app.connect("autodoc-process-docstring", plain, priority=600)
