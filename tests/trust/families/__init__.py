"""The families of problems: name -> builder. A builder states one problem with the kit's draws."""

from __future__ import annotations

from collections.abc import Callable

from ..kit import Case, Kit, Stated

FAMILIES: dict[str, Callable[[Kit], None]] = {}


def family(build: Callable[[Kit], None]) -> Callable[[Kit], None]:
    """Enter a builder in the table under its own name."""
    FAMILIES[build.__name__] = build
    return build


from . import bounds, composites, control, curved, entropies, failing, linear, matrices, networks, statistics  # noqa: E402, F401


def build(case: Case, *, scaled: bool) -> Stated:
    """The problem of a case, as it stands or in other units."""
    kit = Kit(case, scaled)
    FAMILIES[case.family](kit)
    return kit.stated()
