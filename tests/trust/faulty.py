"""Solvers that are wrong: each takes Clarabel's point and spoils it. cvxift must find out."""

from __future__ import annotations

import numpy as np

from cvxift import solvers
from cvxift.solvers import Raw, Session, Solver, Status


class _Session(Session):
    """Solves by Clarabel, then spoils the point in the way of its kind."""

    def __init__(self, structure, options, kind: str) -> None:  # as the base class
        super().__init__(structure, options)
        self.kind = kind
        self.inner = solvers.get("clarabel").session(structure)

    def _solve(self, P, q, A, b, warm):  # as the base class
        kind = self.kind
        if kind == "raises":
            raise KeyError("an exception that nobody declared")
        if kind == "none":
            return None
        if kind == "other instance":
            return self.inner.solve(P, q + 0.3, A, b)
        raw = self.inner.solve(P.copy(), q.copy(), A.copy(), b.copy())
        if kind == "other duals":
            return Raw(raw.x, raw.s, self.inner.solve(P, q * 1.7 + 0.1, A, b).y, Status.SOLVED, "solved")
        if kind == "wrong point":
            return Raw(raw.x + 0.1, raw.s, raw.y, Status.SOLVED, "solved")
        if kind == "nan":
            return Raw(np.full_like(raw.x, np.nan), raw.s, raw.y, Status.SOLVED, "solved")
        if kind == "short":
            return Raw(raw.x[:-1], raw.s, raw.y, Status.SOLVED, "solved")
        if kind == "overwrites":
            q[:] = 0.0
            b[:] = 1.0
            return raw
        if kind == "infeasible":
            return Raw(np.full_like(raw.x, np.nan), raw.s, raw.y, Status.INFEASIBLE, "infeasible")
        raise ValueError(kind)


class Faulty(Solver):
    """A solver of one faulty kind."""

    options: dict = {}  # noqa: RUF012  # as the base class has it

    def __init__(self, kind: str) -> None:
        self.kind, self.name = kind, _name(kind)

    def missing(self) -> str | None:
        """Nothing: it is here."""
        return None

    def unsupported(self, structure) -> str | None:
        """It takes everything."""
        return None

    def _session(self, structure, options) -> Session:
        return _Session(structure, options, self.kind)


def _name(kind: str) -> str:
    return "faulty_" + kind.replace(" ", "_")


KINDS = (
    "raises",
    "none",
    "other instance",
    "other duals",
    "wrong point",
    "nan",
    "short",
    "overwrites",
    "infeasible",
)
FAULTY = {_name(kind): kind for kind in KINDS}

for _kind in KINDS:
    solvers.register(_name(_kind), lambda kind=_kind: Faulty(kind))
