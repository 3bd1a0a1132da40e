"""Layers and sensitivities in words: for `repr`, and as HTML for notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def facts(parameters: Iterable[Any], variables: Iterable[Any], solver: str, path: str) -> dict[str, str]:
    """Parameters and variables with their shapes, the solver, the way that calls go."""
    return {
        "parameters": ", ".join(f"{p.name()} {p.shape}" for p in parameters) or "none",
        "variables": ", ".join(f"{v.name()} {tuple(v.shape)}" for v in variables),
        "solver": solver,
        "path": path,
    }


def in_words(known: Mapping[str, str]) -> str:
    """Facts on one line."""
    return "parameters: {parameters}; variables: {variables}; solver: {solver}, path: {path}".format(**known)


def in_html(title: str, known: Mapping[str, str], **more: Any) -> str:
    """Facts as an HTML table; of `more`, those that are not None."""
    from cvxift.diagnostics.render import html_table  # reports are loaded where one is asked for

    added = {name.replace("_", " "): str(value) for name, value in more.items() if value is not None}
    return html_table(title, {**known, **added})
