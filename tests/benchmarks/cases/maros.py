"""The Maros–Mészáros test set: one solve, then one VJP with respect to q and every bound.

Data are read in place (``MAROS_MESZAROS`` or ``../shared/data/maros_meszaros`` beside the repository); without them the
group is empty and the report says so.

A point is called regular when its active set is certified (``references.qp``), the reduced KKT matrix is well enough
conditioned, and a step long enough for a difference quotient keeps the active set. There the directional derivative
dz·Dx[d] is taken by central differences of the re-solved problem, and contenders' gradients are held against it. Where
active rows depend on each other but x is a differentiable function of q, only q moves, and only the gradient with
respect to q is judged.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.io
import scipy.sparse as sp

from ..model import QP, Array, Case, Formulation, Reference, ReferenceFailed
from ..references.qp import ActiveSet, certified, pressing, residuals, tight

NO_BOUND = 0.99e20
SOLVED = 1e-6  # relative KKT residual
AGREES = 1e-4  # relative deviation from the difference quotient
SHORTEST_STEP = 1e-9  # relative to the data; below it rounding drowns the difference
WORST_CONDITION = 1e12
GENERATED = "CVXQP2_L"  # 10 000 variables whose factors fill in


def folder() -> Path:
    """Where the problems lie."""
    beside = Path(__file__).resolve().parents[4] / "shared" / "data" / "maros_meszaros"
    return Path(os.environ.get("MAROS_MESZAROS", beside))


@lru_cache(maxsize=4)
def load(name: str) -> QP:
    """Read one problem; ±1e20, up to the rounding of the files, is no bound, and rows without bounds are dropped."""
    if name == GENERATED:
        return cvxqp(10_000, 2_500)
    data = scipy.io.loadmat(folder() / f"{name}.mat")
    l, u = data["l"].ravel().astype(float), data["u"].ravel().astype(float)
    l, u = np.where(l <= -NO_BOUND, -np.inf, l), np.where(u >= NO_BOUND, np.inf, u)
    keep = np.isfinite(l) | np.isfinite(u)
    P = sp.csc_array(data["P"].astype(float))
    P = sp.csc_array((P + P.T) / 2)
    P.eliminate_zeros()
    A = sp.csr_array(data["A"].astype(float))[keep]
    return QP(P, data["q"].ravel().astype(float), sp.csc_array(A), l[keep], u[keep])


def cvxqp(n: int, m: int) -> QP:
    """A problem of the family CVXQP by its definition: n variables in [0.1, 10], m equations.

    minimize Σᵢ i (xᵢ + x₍₂ᵢ₋₁₎ + x₍₃ᵢ₋₁₎)² / 2,  xᵢ + 2 x₍₄ᵢ₋₁₎ + 3 x₍₅ᵢ₋₁₎ = 6,  (k) standing for k mod n + 1.
    """
    i, j = np.arange(1, n + 1), np.arange(1, m + 1)
    sums = sp.csr_array(
        (np.ones(3 * n), (np.tile(i - 1, 3), np.concatenate([i - 1, (2 * i - 1) % n, (3 * i - 1) % n])))
    )
    at = np.concatenate([j - 1, (4 * j - 1) % n, (5 * j - 1) % n])
    equal = sp.csr_array((np.repeat([1.0, 2.0, 3.0], m), (np.tile(j - 1, 3), at)), shape=(m, n))
    A = sp.csc_array(sp.vstack([equal, sp.eye_array(n)]))
    P = sp.csc_array(sums.T @ sp.diags_array(i.astype(float)) @ sums)
    six = np.full(m, 6.0)
    return QP(P, np.zeros(n), A, np.concatenate([six, np.full(n, 0.1)]), np.concatenate([six, np.full(n, 10.0)]))


@dataclass(frozen=True)
class MarosMeszaros(Case):
    """min ½xᵀPx + qᵀx, l ≤ Ax ≤ u; parameters q, the equalities' b, and the finite one-sided bounds l and u."""

    problem: str = "HS21"

    draws = 2
    reference_draws = 1

    group = "Maros–Mészáros"
    floors = ("piqp", "clarabel")

    @property
    def name(self) -> str:
        return f"maros_{self.problem}"

    def sides(self) -> tuple[Array, Array, Array]:
        """Indices of the equality rows, of the rows bounded below and of those bounded above."""
        qp = load(self.problem)
        equal = qp.l == qp.u
        return (
            np.flatnonzero(equal),
            np.flatnonzero(np.isfinite(qp.l) & ~equal),
            np.flatnonzero(np.isfinite(qp.u) & ~equal),
        )

    @property
    def shape(self) -> tuple[int, ...]:
        return load(self.problem).q.shape

    def formulate(self, bounds_as_rows: bool = False) -> Formulation:
        qp = load(self.problem)
        x, q = cp.Variable(qp.q.size, name="x"), cp.Parameter(qp.q.size, name="q")
        objective = q @ x
        if qp.P.nnz:
            objective = objective + 0.5 * cp.quad_form(x, cp.psd_wrap(qp.P))
        parameters, constraints, A = [q], [], qp.A.tocsr()
        for rows, name in zip(self.sides(), ("b", "l", "u"), strict=True):
            if rows.size:
                bound = cp.Parameter(rows.size, name=name)
                value = A[rows] @ x
                parameters.append(bound)
                constraints.append({"b": value == bound, "l": value >= bound, "u": value <= bound}[name])
        return Formulation(cp.Problem(cp.Minimize(objective), constraints), tuple(parameters), x)

    def sample(self, rng: np.random.Generator) -> tuple[Array, ...]:
        qp = load(self.problem)
        equal, lower, upper = self.sides()
        # The second draw, which only keeps timing honest, moves q by one part in a million.
        wobble = 1 + 1e-6 * rng.standard_normal(qp.q.size)
        parts = [(qp.l, equal), (qp.l, lower), (qp.u, upper)]
        return (qp.q * wobble, *(bound[rows] for bound, rows in parts if rows.size))

    def values(self, draw: int) -> tuple[Array, ...]:
        values = super().values(draw)
        return (load(self.problem).q, *values[1:]) if draw == 0 else values

    def qp(self, values: tuple[Array, ...]) -> QP:
        qp = load(self.problem)
        return QP(qp.P, values[0], qp.A, qp.l, qp.u)

    def solve(self, values: tuple[Array, ...], cotangent: Array) -> Reference:
        """Certificate multipliers always; gradient and difference quotient where the point is regular."""
        qp = self.qp(values)
        x, y = tight(qp)
        reasons, multipliers = [], {"y": y, "y_pressing": pressing(qp, x, y)}
        for dependent in (False, True):
            try:
                point = certified(qp, (x, y), dependent=dependent)
                multipliers |= {"y_certified": point.y}
                if point.condition > WORST_CONDITION:
                    raise ReferenceFailed(f"condition {point.condition:.1e}")
                return self._at_certified(point, cotangent)
            except ReferenceFailed as failure:
                reasons.append(str(failure))
        note = f"{reasons[0]}; with dependent rows allowed: {reasons[1]}"
        return Reference(x=x, gradients=(), regular=False, note=note, extra=multipliers)

    def judge(self, reference: Reference, found: Mapping[str, Array]) -> dict[str, Any]:
        """KKT residual of the contender's x with the reference's multipliers, and its directional derivative.

        Primal-dual optimal pairs of a convex program are a product set, so the reference's multipliers certify any
        optimal x, unique or not. Where several forms of them are at hand (as the interior-point method left them, with
        small ones set to zero, recomputed from the active set), any one that certifies x does.
        """
        qp = load(self.problem)
        multipliers = [y for key, y in (reference.extra or {}).items() if key.startswith("y")]
        kkt = min(max(residuals(qp, found["x_0"], y)) for y in multipliers)
        verdict: dict[str, Any] = {"kkt_residual": kkt, "solved": kkt <= SOLVED}
        if not reference.regular or "g0_0" not in found:
            return verdict
        extra = reference.extra or {}
        there = [i for i, gradient in enumerate(reference.gradients) if not np.isnan(gradient).all()]
        slope = sum(float(found[f"g{i}_0"] @ extra[f"direction_{i}"]) for i in there)
        wanted = float(extra["derivative"])
        # Terms cancel in the directional derivative; their size, and not that of the sum, is what rounding scales with.
        terms = sum(float(np.abs(reference.gradients[i]) @ np.abs(extra[f"direction_{i}"])) for i in there)
        size = max(abs(wanted), 1e-3 * terms)
        error = abs(slope - wanted) / size if np.isfinite(slope) else float("inf")
        return verdict | {"difference_error": error, "agrees": error <= AGREES}

    def _at_certified(self, point: ActiveSet, dz: Array) -> Reference:
        qp = point.qp
        w, v = point.vjp(dz)
        pressed = np.zeros(qp.l.size)
        pressed[point.rows] = point.side
        sides = dict(zip(("b", "l", "u"), self.sides(), strict=True))
        sign = {"b": 0.0, "l": -1.0, "u": 1.0}
        gradients = [-w]
        gradients += [np.where(pressed[rows] == sign[k], v[rows], 0.0) for k, rows in sides.items() if rows.size]
        derivative, directions, step = self._difference(point, dz)
        predicted = sum(float(g @ d) for g, d in zip(gradients, directions, strict=True))
        if abs(derivative - predicted) > 1e-5 * max(abs(derivative), abs(predicted)):
            raise ReferenceFailed(f"difference quotient {derivative:.8e} and formula {predicted:.8e} disagree")
        found = {"y": point.y}
        found |= {f"direction_{i}": d for i, d in enumerate(directions)} | {"derivative": np.array(derivative)}
        note = f"margin {point.margin:.1e}, condition {point.condition:.1e}, step {step:.1e}"
        if not point.independent:
            gradients[1:] = [np.full_like(g, np.nan) for g in gradients[1:]]
            note += "; multipliers are not unique: derivative with respect to q only"
        return Reference(x=point.x, gradients=tuple(gradients), regular=True, note=note, extra=found)

    def _difference(self, point: ActiveSet, dz: Array) -> tuple[float, list[Array], float]:
        """Central difference of dz·x along a random direction, with re-solved and certified end points."""
        qp = point.qp
        rng = self._rng(7)
        dq = rng.standard_normal(qp.q.size) * (1 + np.abs(qp.q))
        size = lambda bound: np.where(np.isfinite(bound), 1 + np.abs(np.where(np.isfinite(bound), bound, 0)), 0)  # noqa: E731
        dl, du = rng.standard_normal(qp.l.size) * size(qp.l), rng.standard_normal(qp.l.size) * size(qp.u)
        # Two-sided rows move as one interval, so that the problem stays feasible where it is an equality.
        both = np.isfinite(qp.l) & np.isfinite(qp.u)
        dl[both] = du[both]
        if not point.independent:
            dl, du = 0 * dl, 0 * du
        pressed = np.zeros(qp.l.size)
        pressed[point.rows] = point.side
        dx, dy = point.jvp(dq, np.where(pressed < 0, dl, du))
        change = qp.A @ dx
        room = np.concatenate([(qp.u - qp.A @ point.x), (qp.A @ point.x - qp.l)])
        speed = np.concatenate([np.abs(du - change), np.abs(change - dl)])
        away = np.concatenate([pressed <= 0, pressed >= 0]) & np.tile(qp.l != qp.u, 2)
        side = pressed != 0
        room = np.concatenate([room[away], np.abs(point.y[side])])
        speed = np.concatenate([speed[away], np.abs(dy[side])])
        ratio = room[speed > 0] / speed[speed > 0]
        step = min(1e-3, 0.3 * float(ratio.min(initial=np.inf)))
        while step >= SHORTEST_STEP:
            ends = []
            for h in (step, -step):
                moved = QP(qp.P, qp.q + h * dq, qp.A, qp.l + h * dl, qp.u + h * du)
                try:
                    ends.append(certified(moved, (point.x + h * dx, point.y + h * dy), dependent=not point.independent))
                except ReferenceFailed:
                    break
            if len(ends) == 2 and all(np.array_equal(e.rows, point.rows) for e in ends):
                directions = [dq]
                for rows, d in zip(self.sides(), (dl, dl, du), strict=True):
                    if rows.size:
                        directions.append(d[rows])
                return float(dz @ ((ends[0].x - ends[1].x) / (2 * step))), directions, step
            step /= 10
        raise ReferenceFailed(f"no step of {SHORTEST_STEP:g} keeps the active set (margin {point.margin:.1e})")


def problems() -> list[str]:
    """Names of the problems that are there, smallest file first; the last one needs no file."""
    files = [path.stem for path in sorted(folder().glob("*.mat"), key=lambda path: path.stat().st_size)]
    return [*files, GENERATED] if files else []
