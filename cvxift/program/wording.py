"""Expressions and entries as they stand in messages."""

from __future__ import annotations

from typing import Any

LONG = 120  # characters of an expression that a message shows


def short(thing: Any) -> str:
    """An expression or constraint on one line, cut where it is long.

    Args:
        thing: anything with a text, such as a CVXPY object.

    Returns:
        Its text without line breaks, at most 120 characters.

    Example:
        >>> short("a    +   b")
        'a + b'
    """
    text = " ".join(str(thing).split())
    return text if len(text) <= LONG else text[: LONG - 1] + "…"


def subscript(entry: tuple[int, ...]) -> str:
    """An entry as a subscript; nothing for a scalar's.

    Args:
        entry: indices.

    Returns:
        Text such as ``[0, 2]``.
    """
    return f"[{', '.join(map(str, entry))}]" if entry else ""
