"""Solvers that go wrong in every way: answers that are none, points of other problems, data written over."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import numpy as np

from cvxift import solvers
from cvxift.solvers import Raw, Session, Solver, Status


def solved(session: Session, P, q, A, b) -> Raw:
    """The right answer, by Clarabel."""
    return solvers.get("clarabel").session(session.structure).solve(P.copy(), q.copy(), A.copy(), b.copy())


def raising(error: BaseException) -> Callable[..., Any]:
    """A solver whose library raises."""

    def solve(session, P, q, A, b, warm):
        raise error

    return solve


def changed(change: Callable[[Raw], Any]) -> Callable[..., Any]:
    """A solver whose right answer is changed on the way."""

    def solve(session, P, q, A, b, warm):
        raw = solved(session, P, q, A, b)
        out = change(raw)
        return raw if out is None else out

    return solve


def another_cost(session, P, q, A, b, warm):
    """The point and the duals of an instance with another cost."""
    return solved(session, P, 2.0 * q + 1.0, A, b)


def other_duals(session, P, q, A, b, warm):
    """Right in x, with the multipliers of another instance."""
    right, wrong = solved(session, P, q, A, b), solved(session, P, 2.0 * q + 1.0, A, b)
    return Raw(right.x, right.s, wrong.y, Status.SOLVED, "mixed up")


def overwriting(session, P, q, A, b, warm):
    """The solution of a program without a linear cost, which it then writes over the data; what is held, too."""
    raw = solved(session, P, np.zeros_like(q), A, b)
    for values in (P, q, A, b):
        values[...] = 0.0
    if warm is not None:
        warm.x[...] = warm.y[...] = np.nan
    return raw


def claiming(status: Status) -> Callable[..., Any]:
    """A solver that has no point and says why."""
    return lambda session, P, q, A, b, warm: session.failure("trust me", status)


FAULTS: dict[str, Callable[..., Any]] = {
    "raises KeyError": raising(KeyError("somewhere inside")),
    "raises RuntimeError": raising(RuntimeError("license expired")),
    "raises AssertionError": raising(AssertionError()),
    "raises MemoryError": raising(MemoryError("cannot allocate")),
    "returns None": lambda *_: None,
    "returns an array": lambda session, P, q, A, b, warm: np.zeros(session.structure.n),
    "returns a status that is a word": changed(lambda raw: Raw(raw.x, raw.s, raw.y, "optimal", "")),  # type: ignore[arg-type]
    "x is too long": changed(lambda raw: Raw(np.append(raw.x, 0.0), raw.s, raw.y, raw.status, "")),
    "y is missing": changed(lambda raw: Raw(raw.x, raw.s, raw.y[:0], raw.status, "")),
    "s and y are None": changed(lambda raw: Raw(raw.x, None, None, raw.status, "")),  # type: ignore[arg-type]
    "x is NaN": changed(lambda raw: Raw(raw.x * np.nan, raw.s, raw.y, raw.status, "")),
    "y is infinite": changed(lambda raw: Raw(raw.x, raw.s, raw.y + np.inf, raw.status, "")),
    "s is NaN": changed(lambda raw: Raw(raw.x, raw.s * np.nan, raw.y, raw.status, "")),
    "is far away": changed(lambda raw: Raw(raw.x + 1e3, raw.s, raw.y, raw.status, "")),
    "is zero": changed(lambda raw: Raw(0.0 * raw.x, 0.0 * raw.s, 0.0 * raw.y, raw.status, "")),
    "has turned multipliers": changed(lambda raw: Raw(raw.x, raw.s, -raw.y, raw.status, "")),
    "has the point of another cost": another_cost,
    "has another instance's multipliers": other_duals,
    "writes over the data": overwriting,
    "says infeasible": claiming(Status.INFEASIBLE),
    "says unbounded": claiming(Status.UNBOUNDED),
    "says failed": claiming(Status.FAILED),
}


class FaultySession(Session):
    """Answers with the fault."""

    def _solve(self, P, q, A, b, warm):
        return self.options["fault"](self, P, q, A, b, warm)


class Faulty(Solver):
    """A solver with one of `FAULTS`; it takes every program.

    Args:
        fault: its name.
        name: the solver's own; default: from the fault's.
    """

    options = MappingProxyType({})

    def __init__(self, fault: str, name: str | None = None) -> None:
        self.name, self._fault = name or f"faulty: {fault}", FAULTS[fault]

    def missing(self):
        return None

    def unsupported(self, structure):
        return None

    def _session(self, structure, options):
        return FaultySession(structure, {"fault": self._fault})


def register(fault: str) -> str:
    """Register the faulty solver and return the name to ask for it by."""
    name = f"faulty: {fault}"
    solvers.register(name, lambda: Faulty(fault))
    return name
