"""Certified solution and gradient of a QP from its active set.

At a solution with strict complementarity and independent active rows, the solution solves, near the data, the linear
system K [x; y_a] = [−q; b_a] with K = [P, A_aᵀ; A_a, 0]. Its differential is

    K [dx; dy_a] = [−dq − dP x − dA_aᵀ y_a; db_a − dA_a x].

With K [w; v] = [dz; 0] the vector-Jacobian products are therefore

    q̄ = −w,   P̄ = −w xᵀ (to be symmetrized),   Ā_a = −(y_a wᵀ + v xᵀ),   b̄_a = v.

Where active rows depend on each other the multipliers are not unique and K is singular, but as long as P is positive
definite on the null space of A_a and some multipliers are strictly complementary, x is still a differentiable function
of q (of b only in directions that keep the rows consistent). There K is factorized with −δI in its corner and the
consistent systems are solved by refinement, which converges to a solution of the unshifted system.

The active set comes from a tight interior-point solution and is then corrected until the signs certify it: multipliers
of the right sign and inactive rows slack. Nothing here depends on which solver supplied the start.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import scipy.linalg as la
import scipy.sparse as sp
import scipy.sparse.linalg as spla

from ..bare import Call, SolverFailed, ready_clarabel, ready_daqp, ready_piqp
from ..model import QP, Array, ReferenceFailed

SHIFT = 1e-8  # δ for dependent rows; refinement contracts by δ / (δ + σ²), σ the smallest non-zero singular value


class LinearSystem:
    """Factorized symmetric K; solutions are refined with residuals in extended precision.

    Args:
        K: symmetric.
        corner: number of last rows whose diagonal is shifted by −shift in the factorized (not in the solved) matrix.
        shift: δ ≥ 0 relative to the scaled matrix.
    """

    def __init__(self, K: sp.csr_array, corner: int = 0, shift: float = 0.0):
        """Scale K symmetrically to unit row maxima and factorize it, dense where it is dense."""
        self.K = sp.csr_array(K)
        self.shift = shift
        size = abs(self.K).max(axis=1).toarray().ravel() if self.K.shape[0] else np.zeros(0)
        self.scale = 1 / np.sqrt(np.where(size > 0, size, 1.0))
        scaled = sp.csc_matrix(sp.diags_array(self.scale) @ self.K @ sp.diags_array(self.scale))
        if shift:
            low = np.arange(self.K.shape[0]) >= self.K.shape[0] - corner
            scaled = sp.csc_matrix(scaled - sp.diags_array(np.where(low, shift, 0.0)))
        if self.K.nnz > 0.2 * self.K.shape[0] ** 2 or self.K.shape[0] < 200:
            factor = la.lu_factor(scaled.toarray(), check_finite=False)
            self._solve = lambda r, trans=0: la.lu_solve(factor, r, trans=trans, check_finite=False)
        else:
            lu = spla.splu(scaled)
            self._solve = lambda r, trans=0: lu.solve(r, "T" if trans else "N")
        self._scaled = scaled
        self._long = self.K.data.astype(np.longdouble)

    def multiply(self, x: Array) -> Array:
        """K x in extended precision."""
        products = self._long * x[self.K.indices]
        out = np.zeros(self.K.shape[0], np.longdouble)
        rows = np.flatnonzero(np.diff(self.K.indptr))
        if rows.size:
            out[rows] = np.add.reduceat(products, self.K.indptr[rows])
        return out

    def solve(self, rhs: Array, start: Array | None = None) -> Array:
        """A solution of K x = rhs near ``start``, iteratively refined; raises where there is none."""
        rhs = np.asarray(rhs, np.longdouble)
        x = np.zeros_like(rhs) if start is None else np.asarray(start, np.longdouble)
        last, stall = np.inf, 0.95 if self.shift else 0.5
        for _ in range(300 if self.shift else 8):
            residual = rhs - self.multiply(x)
            step = self.scale * self._solve((self.scale * residual).astype(float))
            if not np.all(np.isfinite(step)):
                raise ReferenceFailed("the reduced KKT system is singular")
            x = x + step
            size = float(np.linalg.norm(step / self.scale))
            if size <= 1e-17 * float(np.linalg.norm((x / self.scale).astype(float))) or size > stall * last:
                break
            last = size
        residual = self.scale * (rhs - self.multiply(x)).astype(float)
        size = 1 + float(
            np.linalg.norm((x / self.scale).astype(float)) + np.linalg.norm((self.scale * rhs).astype(float))
        )
        if self.shift and float(np.linalg.norm(residual)) > 1e-13 * size:
            raise ReferenceFailed("the shifted KKT system does not converge to the singular one")
        return x

    def condition(self) -> float:
        """Estimate of the 1-norm condition number of the scaled matrix."""
        size = self._scaled.shape[0]
        if size == 0:
            return 1.0
        operator = spla.LinearOperator(
            (size, size),
            matvec=lambda r: self._solve(r.ravel()),
            rmatvec=lambda r: self._solve(r.ravel(), 1),
            dtype=float,
        )
        with np.errstate(all="ignore"):
            inverse = spla.onenormest(operator) if size > 4 else la.norm(np.linalg.pinv(self._scaled.toarray()), 1)
        return float(inverse * abs(self._scaled).sum(axis=0).max())


@dataclass
class ActiveSet:
    """A certified point: x, multipliers y, active rows with their side (+1 at u, −1 at l, 0 equality), and K."""

    qp: QP
    x: Array
    y: Array
    rows: Array
    side: Array
    system: LinearSystem
    margin: float  # smallest of |y_i| on active inequality rows and slack on inactive ones, relative
    violation: float  # largest of wrong-signed multipliers and violated rows, relative
    _condition: float | None = field(default=None)

    @property
    def independent(self) -> bool:
        """Whether the active rows were taken to be independent, so that derivatives with respect to b exist."""
        return self.system.shift == 0

    @property
    def condition(self) -> float:
        """Condition estimate of the reduced KKT matrix, with −I in its corner where rows depend on each other.

        [P, A_aᵀ; A_a, −I] is nonsingular if and only if P is definite on the null space of A_a, dependent rows or not.
        """
        if self._condition is None:
            system = self.system
            if not self.independent:
                system = LinearSystem(system.K, self.rows.size, 1.0)
            self._condition = system.condition()
        return self._condition

    def vjp(self, dz: Array) -> tuple[Array, Array]:
        """(w, v): K [w; v_a] = [dz; 0], v scattered to all rows (zero on inactive ones)."""
        n = self.x.size
        solution = self.system.solve(np.concatenate([np.asarray(dz).ravel(), np.zeros(self.rows.size)]))
        v = np.zeros(self.y.size)
        v[self.rows] = solution[n:].astype(float)
        return solution[:n].astype(float), v

    def jvp(self, dq: Array, db: Array) -> tuple[Array, Array]:
        """(dx, dy) for a change dq of q and db of the active bounds (dense over rows)."""
        n = self.x.size
        solution = self.system.solve(np.concatenate([-dq, db[self.rows]]))
        dy = np.zeros(self.y.size)
        dy[self.rows] = solution[n:].astype(float)
        return solution[:n].astype(float), dy


def tight(qp: QP) -> tuple[Array, Array]:
    """The best primal-dual pair that the bare solvers find at tight tolerances, by its largest residual.

    They are asked in turn until one is below 1e-10; the dense solver only where it is affordable.
    """
    attempts: list[Callable[[], Call]] = []
    for tolerance in (1e-12, 1e-10, None):
        attempts += [partial(ready_piqp, qp, tolerance), partial(ready_clarabel, qp, tolerance)]
    if max(qp.A.shape) <= 2500:
        attempts.insert(2, partial(ready_daqp, qp))
    best, least, reasons = None, np.inf, []
    for attempt in attempts:
        try:
            pair = attempt()()
        except SolverFailed as failure:
            reasons.append(str(failure))
            continue
        worst = max(residuals(qp, *pair))
        if worst < least:
            best, least = pair, worst
        if least <= 1e-10:
            break
    if best is None or least > 1e-6:
        raise ReferenceFailed(f"no solver reached a solution (best residual {least:.1e}): " + "; ".join(reasons))
    return best


def _point(qp: QP, rows: Array, side: Array, near: tuple[Array, Array] | None) -> ActiveSet:
    A = qp.A.tocsr()
    n, m = qp.q.size, qp.l.size
    bound = np.where(side < 0, qp.l[rows], qp.u[rows])
    Aa = A[rows]
    corner = sp.csr_array((rows.size, rows.size))
    try:
        K = sp.csr_array(sp.vstack([sp.hstack([qp.P, Aa.T]), sp.hstack([Aa, corner])]))
        system = LinearSystem(K) if near is None else LinearSystem(K, rows.size, SHIFT)
        start = None if near is None else np.concatenate([near[0], near[1][rows]])
        solution = system.solve(np.concatenate([-qp.q, bound]), start).astype(float)
    except RuntimeError as failure:
        raise ReferenceFailed(f"the reduced KKT system is singular ({failure})") from None
    x, y = solution[:n], np.zeros(m)
    y[rows] = solution[n:]
    slack, wanted = _slack(qp, x), np.zeros(m)
    wanted[rows] = side
    inactive = np.ones(m, bool)
    inactive[rows] = False
    y_size, s_size = _sizes(qp, x, y)
    pressed = (wanted * y / y_size)[wanted != 0]
    free = (slack / s_size)[inactive]
    everything = np.concatenate([pressed, free])
    finite = everything[np.isfinite(everything)]
    margin = float(finite.min(initial=np.inf))
    return ActiveSet(qp, x, y, rows, side, system, margin, max(-margin, 0.0))


def _slack(qp: QP, x: Array) -> Array:
    value = qp.A @ x
    return np.minimum(qp.u - value, value - qp.l)


def _sizes(qp: QP, x: Array, y: Array) -> tuple[float, Array]:
    bound = np.where(np.isfinite(qp.u), np.abs(qp.u), 0.0)
    bound = np.maximum(bound, np.where(np.isfinite(qp.l), np.abs(qp.l), 0.0))
    return 1 + float(np.abs(y).max(initial=0.0)), 1 + np.minimum(bound, np.abs(qp.A) @ np.abs(x))


def pressing(qp: QP, x: Array, y: Array) -> Array:
    """Multipliers of an approximate solution, zero on inequality rows where the slack outweighs the multiplier."""
    y_size, s_size = _sizes(qp, x, y)
    value = qp.A @ x
    up = (y > 0) & (y / y_size > (qp.u - value) / s_size)
    down = (y < 0) & (-y / y_size > (value - qp.l) / s_size)
    return np.where(up | down | (qp.l == qp.u), y, 0.0)


def certified(qp: QP, start: tuple[Array, Array] | None = None, rounds: int = 30, dependent: bool = False) -> ActiveSet:
    """The solution of a QP with its certified active set.

    Args:
        qp: data; a solution must exist.
        start: approximate (x, y); solved for tightly when missing.
        rounds: corrections of the active set that are tried.
        dependent: let active rows depend on each other; the multipliers stay near those of the start.

    Raises:
        ReferenceFailed: no active set with nonsingular KKT system is certified by its signs, which is what happens at
            degenerate points.
    """
    x, y = tight(qp) if start is None else start
    equal = qp.l == qp.u
    side = np.sign(pressing(qp, x, y))
    side[equal] = 0
    best: ActiveSet | None = None
    for _ in range(rounds):
        rows = np.flatnonzero(equal | (side != 0))
        point = _point(qp, rows, side[rows], (x, y) if dependent else None)
        if best is None or point.violation < best.violation:
            best = point
        if point.violation == 0:
            return point
        # A primal-dual active-set step: wrong-signed multipliers leave, violated rows enter.
        value = qp.A @ point.x
        new = side.copy()
        new[(side * point.y < 0)] = 0
        new[(side == 0) & (value > qp.u)] = 1
        new[(side == 0) & (value < qp.l)] = -1
        new[equal] = 0
        if np.array_equal(new, side):
            break
        side = new
    assert best is not None
    if best.violation > 1e-13:
        raise ReferenceFailed(f"no certified active set: signs are violated by {best.violation:.1e}")
    return best


def residuals(qp: QP, x: Array, y: Array) -> tuple[float, float, float]:
    """Relative primal, dual and gap residuals of a primal-dual pair, as QP solvers define them.

    Returns:
        ‖dist(Ax, [l, u])‖∞ / max(1, ‖Ax‖∞, ‖Π(Ax)‖∞),  ‖Px + q + Aᵀy‖∞ / max(1, ‖Px‖∞, ‖q‖∞, ‖Aᵀy‖∞),
        |xᵀPx + qᵀx + uᵀy₊ − lᵀy₋| / max(1, |xᵀPx|, |qᵀx|, |uᵀy₊ − lᵀy₋|); infinite where y presses on no bound.
    """
    value, Px, ATy = qp.A @ x, qp.P @ x, qp.A.T @ y
    nearest = np.clip(value, qp.l, qp.u)
    top = lambda *arrays: max([1.0, *(float(np.abs(a).max(initial=0.0)) for a in arrays)])  # noqa: E731
    primal = float(np.abs(value - nearest).max(initial=0.0)) / top(value, nearest)
    dual = float(np.abs(Px + qp.q + ATy).max(initial=0.0)) / top(Px, qp.q, ATy)
    up, down = y > 0, y < 0
    with np.errstate(invalid="ignore"):
        support = float(qp.u[up] @ y[up] - qp.l[down] @ -y[down])
    if not np.isfinite(support):
        return primal, dual, float("inf")
    quadratic, linear = float(x @ Px), float(qp.q @ x)
    gap = abs(quadratic + linear + support) / max(1.0, abs(quadratic), abs(linear), abs(support))
    return primal, dual, gap
