"""DAQP: dense dual active-set method for strictly convex quadratic programs (Arnström, Bemporad, Axehill, 2022).

It minimizes ½xᵀHx + fᵀx subject to lower ≤ Ax ≤ upper, where the first rows may be bounds on the first variables; its
multipliers λ satisfy Hx + f + Aᵀλ = 0 with λ > 0 at an upper and λ < 0 at a lower bound. Rows have an upper side only
here (equalities both), so λ is y. The active set is exact, hence s = 0 wherever y > 0.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvxift._types import Floats
from cvxift.program.products import apply
from cvxift.program.structure import Structure
from cvxift.solvers.base import Raw, Session, Solver, Status
from cvxift.solvers.layout import Bounds, Dense
from cvxift.solvers.settings import optional

daqp = optional("daqp")

_EXITS = {
    2: (Status.SOLVED, "optimal with soft constraints"),
    1: (Status.SOLVED, "optimal"),
    -1: (Status.INFEASIBLE, "primal infeasible"),
    -2: (Status.NUMERICAL, "cycling between active sets"),
    -3: (Status.UNBOUNDED, "unbounded"),
    -4: (Status.ITERATION_LIMIT, "iteration limit"),
    # These two end before the first iteration, and x is whatever memory held.
    -5: (Status.FAILED, "cost matrix not positive semidefinite"),
    -6: (Status.FAILED, "the equalities, or the starting active set, are linearly dependent"),
    -7: (Status.ITERATION_LIMIT, "time limit"),
}
# DAQP passes over rows whose norm in the metric of P⁻¹ is under about 3e-6, and inactive rows may be violated by
# primal_tol: where a row is violated by more than _VIOLATED, or there is no point and a row's norm, squared, is under
# _FAINT of the cost, it is asked again in other units.
_VIOLATED, _FAINT = 1e-10, 1e-6
_EQUALITY, _ACTIVE_UPPER, _ACTIVE_LOWER = 5, 1, 3


class Daqp(Solver):
    """DAQP through its Python package `daqp`, which solves outside Python's lock."""

    name = "daqp"
    package = daqp
    conic = False
    active_set = True
    verbose_options = MappingProxyType({"verbose": True})
    # primal_tol: inactive rows may be violated by so much; the solver's 1e-6 can decide the active set of a nearly
    # degenerate point wrongly. eta_prox: with a singular P the proximal iterations stop at ‖Δx‖ ≤ eta_prox / eps_prox;
    # the solver's 1e-6 leaves residuals of 1e-4 (GOULDQP2 of the Maros–Mészáros set), 1e-10 costs no more time.
    defaults = MappingProxyType({"primal_tol": 1e-9, "eta_prox": 1e-10})
    tight = MappingProxyType({"primal_tol": 1e-12, "eta_prox": 1e-13})

    @property
    def options(self) -> Mapping[str, Any]:
        """DAQP's settings, and `verbose`: DAQP itself prints nothing, so one line a solve says how it ended."""
        return {**daqp.Model().settings, **self.defaults, "verbose": False}

    def _session(self, structure: Structure, options: Mapping[str, Any]) -> Session:
        return DaqpSession(structure, options)


class DaqpSession(Session):
    """Dense matrices are filled in place; each solve is one stateless call of `daqp.solve`."""

    releases_gil = True

    def __init__(self, structure: Structure, options: Mapping[str, Any]) -> None:
        super().__init__(structure, {name: value for name, value in options.items() if name != "verbose"})
        self._verbose = bool(options.get("verbose"))
        n, zero = structure.n, structure.cones.zero
        self._zero = zero
        self._P = Dense(structure.P_rows, structure.P_cols, (n, n)) if structure.nnzP else None
        self._bounds = Bounds(structure)
        general = self._bounds.general
        if self._bounds.count:
            place = np.full(structure.m, -1)
            place[general] = np.arange(len(general))
            self._kept = np.flatnonzero(place[structure.A_rows] >= 0)
            self._A = Dense(place[structure.A_rows[self._kept]], structure.A_cols[self._kept], (len(general), n))
        else:
            self._A = Dense(structure.A_rows, structure.A_cols, (structure.m, n))
        width = self._bounds.width
        self._sense = np.zeros(width + len(general), dtype=np.intc)
        self._sense[width : width + zero] = _EQUALITY
        self._lower = np.full(width + len(general), -np.inf)

    def solve_batch(
        self, P: Floats, q: Floats, A: Floats, b: Floats, warm: Sequence[Raw | None] | None = None
    ) -> list[Raw]:
        """Solve a batch: one call an instance, all around it at once; see `Session.solve_batch`.

        Instances that are more than a plain call (a number that is not finite, a violated row, no point) are solved one
        by one, with the results of `solve` to the last bit.
        """
        if self._bounds.count or self._P is None or warm is not None or len(q) < 2:
            return super().solve_batch(P, q, A, b, warm)
        start = time.perf_counter()
        zero, sense = self._zero, self._sense
        plain = np.isfinite(P.sum(-1) + q.sum(-1) + A.sum(-1) + b.sum(-1))
        H, matrices = self._P.stack(P), self._A.stack(A)
        q, b = (part if part.flags.writeable else part.copy() for part in (q, b))
        lower = np.full(b.shape, -np.inf)
        lower[:, :zero] = b[:, :zero]
        # This loop is most of a batch's time: it holds the solver's call and what depends on each call alone.
        call, options, nothing = daqp.solve, self.options, (np.zeros(q.shape[1]), np.zeros(b.shape[1]))
        xs, ys, ends = [], [], []
        for fine, P_i, q_i, A_i, b_i, lower_i in zip(plain.tolist(), H, q, matrices, b, lower):
            if fine:
                x, value, flag, info = call(P_i, q_i, A_i, b_i, lower_i, sense, **options)
                y, end = info["lam"], (flag, info["iterations"])
                if self._verbose:
                    _tell(_EXITS.get(flag, (Status.FAILED, ""))[1], value, info)
            else:
                (x, y), end = nothing, None
            xs.append(x)
            ys.append(y)
            ends.append(end)
        x, y = np.array(xs), np.array(ys)
        s = b - apply(matrices, x)
        finite = np.isfinite(x.sum(-1) + y.sum(-1) + s.sum(-1))
        violated = (s[:, zero:].min(-1, initial=0.0) < -_VIOLATED) | ((s[:, :zero] ** 2).sum(-1) > _VIOLATED**2)
        _complement(s, y, zero)
        good = (plain & finite & ~violated).tolist()
        seconds = (time.perf_counter() - start) / len(q)
        raws = []
        for i, (end, fine, x_i, s_i, y_i) in enumerate(zip(ends, good, x, s, y)):
            status, message = _EXITS.get(end[0], (Status.FAILED, "")) if end else (Status.FAILED, "")
            if end and fine and status.has_point:
                raws.append(Raw(x_i, s_i, y_i, status, message, end[1], seconds))
            else:
                raws.append(self.solve(P[i], q[i], A[i], b[i]))
        return raws

    def _solve(self, P: Floats, q: Floats, A: Floats, b: Floats, warm: Raw | None) -> Raw:
        solve = self._solve_bounded if self._bounds.count else self._solve_general
        raw = solve(P, q, A, b, warm)
        if not raw.status.has_point or self._violates(raw):
            units = self._units(raw, P, A, b)
            if units is not None:
                size, cost = units
                raw = solve(P / cost, q / cost, A / size[self.structure.A_rows], b / size, None)
                raw.s *= size
                raw.y *= cost / size
        if raw.status.has_point:
            _complement(raw.s, raw.y, self._zero)
        return raw

    def _violates(self, raw: Raw) -> bool:
        equal = raw.s[: self._zero]
        return bool(np.minimum.reduce(raw.s[self._zero :], initial=0.0) < -_VIOLATED or equal.dot(equal) > _VIOLATED**2)

    def _units(self, raw: Raw, P: Floats, A: Floats, b: Floats) -> tuple[Floats, float] | None:
        """Norms of the rows and size of the cost, if a row may have been passed over for its units, else None."""
        size = np.sqrt(np.bincount(self.structure.A_rows, weights=A * A, minlength=len(b)))
        size[size == 0.0] = 1.0
        cost = float(np.abs(P).max(initial=0.0)) or 1.0
        if raw.status.has_point:
            s = np.concatenate([-np.abs(raw.s[: self._zero]), raw.s[self._zero :]])
            scale = size * (1.0 + np.abs(raw.x).max(initial=0.0)) + np.abs(b)
            passed = np.min(s / scale, initial=0.0) < -_VIOLATED
        else:
            passed = np.min(size, initial=1.0) ** 2 < _FAINT * cost
        return (size, cost) if passed else None

    def _solve_general(self, P: Floats, q: Floats, A: Floats, b: Floats, warm: Raw | None) -> Raw:
        zero, sense = self._zero, self._sense
        H, matrix = None if self._P is None else self._P(P), self._A(A)
        self._lower[:zero] = b[:zero]
        if warm is not None:
            sense = np.where(warm.y > 0.0, _ACTIVE_UPPER, 0).astype(np.intc)
            sense[:zero] = _EQUALITY
        x, y, status, message, iterations = self._call(H, q, matrix, b, sense)
        if not status.has_point:
            return self.failure(message, status)
        return Raw(x, b - matrix.dot(x), y, status, message, iterations)

    def _solve_bounded(self, P: Floats, q: Floats, A: Floats, b: Floats, warm: Raw | None) -> Raw:
        """The same with the bound rows first, as DAQP wants them."""
        zero, bounds, sense = self._zero, self._bounds, self._sense
        width, general, rows = bounds.width, bounds.general, bounds.rows
        limits = bounds.evaluate(A, b, width)
        if isinstance(limits, str):
            return self.failure(limits, Status.INFEASIBLE)
        H, matrix = None if self._P is None else self._P(P), self._A(A[self._kept])
        b_general = b[general]
        self._lower[:width] = limits.lower
        self._lower[width : width + zero] = b_general[:zero]
        if warm is not None:
            sense = np.zeros_like(sense)
            sense[width:][warm.y[general] > 0.0] = _ACTIVE_UPPER
            sense[width : width + zero] = _EQUALITY
            held = warm.y[rows] > 0.0
            if limits.binds is not None:
                held &= limits.binds
            sense[bounds.cols[held]] = np.where(limits.up[held], _ACTIVE_UPPER, _ACTIVE_LOWER)
        upper = np.concatenate((limits.upper, b_general))
        x, lam, status, message, iterations = self._call(H, q, matrix, upper, sense)
        if not status.has_point:
            return self.failure(message, status)
        y, s = np.empty(len(b)), np.empty(len(b))
        y[general] = lam[width:]
        y[rows] = bounds.multipliers(limits, -lam[:width], lam[:width])
        s[general] = b_general - matrix.dot(x)
        s[rows] = b[rows] - A[bounds.entries] * x[bounds.cols]
        return Raw(x, s, y, status, message, iterations)

    def _call(
        self, H: Floats | None, q: Floats, matrix: Floats, upper: Floats, sense: NDArray[np.intc]
    ) -> tuple[Floats, Floats, Status, str, int]:
        """DAQP's x, λ, status, words and iterations; it wants arrays that it could write to."""
        if H is not None and not H.flags.writeable:
            H = H.copy()
        if not q.flags.writeable:
            q = q.copy()
        if not matrix.flags.writeable:
            matrix = matrix.copy()
        if not upper.flags.writeable:
            upper = upper.copy()
        x, value, flag, info = daqp.solve(H, q, matrix, upper, self._lower, sense, **self.options)
        status, message = _EXITS.get(flag) or (Status.FAILED, f"exit flag {flag}")
        if self._verbose:
            _tell(message, value, info)
        return x, info["lam"], status, message, info["iterations"]


def _tell(message: str, value: float, info: Mapping[str, Any]) -> None:
    print(f"DAQP: {message}; {info['iterations']} iterations, objective {value:.6e}.")


def _complement(s: Floats, y: Floats, zero: int) -> None:
    """Make s and y, shape (..., m), exactly complementary members: rounding must not blur an exact active set."""
    slack, multiplier = s[..., zero:], y[..., zero:]
    s[..., :zero] = 0.0
    np.maximum(multiplier, 0.0, out=multiplier)
    np.maximum(slack, 0.0, out=slack)
    np.multiply(slack, multiplier == 0.0, out=slack)
