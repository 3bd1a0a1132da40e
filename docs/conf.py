"""Sphinx configuration: Markdown pages by MyST, signatures and docstrings from the code itself."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import gallery

import cvxift

project = "cvxift"
author = "The cvxift developers"
copyright = author
release = cvxift.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx-mathjax-offline",  # pages can be read without a network
    "sphinx_copybutton",
]
myst_enable_extensions = ["amsmath", "deflist", "dollarmath"]
myst_heading_anchors = 3
default_role = "code"

autosummary_generate = True
autosummary_ignore_module_all = False
autodoc_member_order = "bysource"
# Inventories are read only where a builder asks for it (CVXIFT_INTERSPHINX=1): a build needs no network.
intersphinx_mapping = (
    {
        "python": ("https://docs.python.org/3", None),
        "numpy": ("https://numpy.org/doc/stable", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
        "jax": ("https://docs.jax.dev/en/latest", None),
        "cvxpy": ("https://www.cvxpy.org", None),
    }
    if os.environ.get("CVXIFT_INTERSPHINX")
    else {}
)
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"cvxift {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = ["fit.js"]
templates_path = ["templates"]
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
    """Write the gallery's pages, and register the hook behind napoleon's."""
    gallery.write_pages(Path(__file__).parent / "generated" / "gallery")
    app.connect("autodoc-process-docstring", plain, priority=600)
