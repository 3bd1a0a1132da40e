"""The table of solvers: which exist, and which to try first for a program of a given structure."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import entry_points

import numpy as np

from cvxift.errors import ProgramError
from cvxift.program.structure import Structure
from cvxift.solvers.base import Solver

GROUP = "cvxift.solvers"
"""Entry-point group under which another package offers a solver: a name, and a callable that returns a `Solver`."""

_BUILT_IN = {
    "daqp": "cvxift.solvers.daqp:Daqp",
    "piqp": "cvxift.solvers.piqp:Piqp",
    "osqp": "cvxift.solvers.osqp:Osqp",
    "clarabel": "cvxift.solvers.clarabel:Clarabel",
    "scs": "cvxift.solvers.scs:Scs",
    "moreau": "cvxift.solvers.moreau:Moreau",
}
_registered: dict[str, Callable[[], Solver]] = {}
_open: dict[str, Solver] = {}


def register(name: str, factory: Callable[[], Solver]) -> None:
    """Add a solver, or replace one.

    Args:
        name: the name it is asked for by, in any case.
        factory: called without arguments when the solver is first used; returns the `Solver`.

    Example:
        >>> from cvxift.solvers.clarabel import Clarabel
        >>> register("my_clarabel", Clarabel)
        >>> get("my_clarabel").name
        'clarabel'
    """
    _registered[name.lower()] = factory
    _open.pop(name.lower(), None)


def names() -> list[str]:
    """The names `get` knows without asking CVXPY: built in, registered, and from installed packages."""
    return sorted({*_BUILT_IN, *_registered, *_entry_points()})


def get(name: str | Solver) -> Solver:
    """The solver of that name.

    Args:
        name: a name in any case; besides `names()`, any solver that CVXPY has installed, such as ``"HIGHS"``. A
            `Solver` is returned as it is.

    Returns:
        The solver; its package may still be missing (`Solver.missing`).

    Raises:
        ProgramError: nobody knows the name; lists the known ones.
    """
    if isinstance(name, Solver):
        return name
    key = name.lower()
    if key not in _open:
        _open[key] = _load(key)
    return _open[key]


def _load(key: str) -> Solver:
    if key in _registered:
        return _registered[key]()
    if key in _BUILT_IN:
        module, _, attribute = _BUILT_IN[key].partition(":")
        return getattr(importlib.import_module(module), attribute)()
    if key in _entry_points():
        return _entry_points()[key].load()()
    from cvxift.solvers.cvxpy import Cvxpy, installed

    if key.upper() in installed():
        return Cvxpy(key.upper())
    others = ", ".join(sorted(other for other in installed() if other.lower() not in _BUILT_IN))
    raise ProgramError(f"No solver is called '{key}'. Known: {', '.join(names())}; through CVXPY: {others}.")


@lru_cache(maxsize=1)
def _entry_points() -> dict:
    return {point.name.lower(): point for point in entry_points(group=GROUP)}


def choose(structure: Structure) -> list[str]:
    """The solvers to try for programs of this structure, best first; only those installed that can solve it.

    Args:
        structure: sizes, cones and patterns.

    Returns:
        Names for `get`, at least one wherever Clarabel is installed.
    """
    return [name for name in _ranking(structure) if get(name).supports(structure) is None]


def _ranking(structure: Structure) -> list[str]:
    if not structure.cones.polyhedral:
        return ["clarabel", "scs"]
    if _dense_size(structure) and _may_be_definite(structure):
        return ["daqp", "piqp", "clarabel", "osqp"]
    return ["piqp", "clarabel", "osqp"]


def _dense_size(structure: Structure) -> bool:
    """Whether dense matrices of these sizes are cheap to factorize."""
    return structure.n <= 300 and structure.m <= 1000


def _may_be_definite(structure: Structure) -> bool:
    """Whether P can be positive definite: it stores every diagonal entry."""
    return np.count_nonzero(structure.P_rows == structure.P_cols) == structure.n
