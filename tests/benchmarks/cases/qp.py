"""Quadratic and linear programs: the dense layer, a linear program, a portfolio."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cvxpy as cp
import numpy as np
import scipy.sparse as sp

from ..model import QP, Array, Case, Formulation, Reference
from ..references.qp import ActiveSet, certified


def reference_of(point: ActiveSet, x: Array, gradients: tuple[Array, ...]) -> Reference:
    """Wrap gradients with the verdict on the point that they were taken at."""
    regular = point.margin > 1e-9 and point.condition < 1e13
    note = f"margin {point.margin:.1e}, condition {point.condition:.1e}"
    return Reference(x=x, gradients=gradients, regular=regular, note=note)


@dataclass(frozen=True)
class DenseQP(Case):
    """min ½‖Qx‖² + qᵀx subject to Gx ≤ h, Ax = b, all six matrices parameters.

    With `tied`, a variable that an equality holds at h stands in its place.
    """

    n: int = 10
    inequalities: int = 10
    equalities: int = 5
    tied: bool = False

    group = "Dense QP"
    floors = ("daqp", "piqp", "clarabel")

    @property
    def name(self) -> str:
        return self.sized(f"qp_{self.n}_{self.inequalities}_{self.equalities}" + "_tied" * self.tied)

    def formulate(self, bounds_as_rows: bool = False) -> Formulation:
        n, m, p = self.n, self.inequalities, self.equalities
        x = cp.Variable(n, name="x")
        Q, q = cp.Parameter((n, n), name="Q"), cp.Parameter(n, name="q")
        G, h = cp.Parameter((m, n), name="G"), cp.Parameter(m, name="h")
        A, b = cp.Parameter((p, n), name="A"), cp.Parameter(p, name="b")
        above = cp.Variable(m, name="w") if self.tied else h
        tie = [above == h] if self.tied else []
        problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(Q @ x) + q @ x), [G @ x <= above, A @ x == b, *tie])
        return Formulation(problem, (Q, q, G, h, A, b), x)

    def sample(self, rng: np.random.Generator) -> tuple[Array, ...]:
        n, m, p = self.n, self.inequalities, self.equalities
        Q = rng.standard_normal((n, n)) / np.sqrt(n) + np.eye(n)
        x = rng.standard_normal(n)
        G, A = rng.standard_normal((m, n)), rng.standard_normal((p, n))
        return Q, rng.standard_normal(n), G, G @ x + rng.random(m), A, A @ x

    def qp(self, values: tuple[Array, ...]) -> QP:
        Q, q, G, h, A, b = values
        rows = sp.csc_array(np.vstack([G, A]))
        return QP(sp.csc_array(Q.T @ Q), q, rows, np.concatenate([np.full(h.size, -np.inf), b]), np.concatenate([h, b]))

    def solve(self, values: tuple[Array, ...], cotangent: Array) -> Reference:
        Q, _, _, h, _, _ = values
        point = certified(self.qp(values))
        w, v = point.vjp(cotangent)
        x, m = point.x, h.size
        rows = -(np.outer(point.y, w) + np.outer(v, x))
        # P = QᵀQ, so Q̄ = 2 Q P̄ with P̄ = −½(w xᵀ + x wᵀ).
        gradient = -Q @ (np.outer(w, x) + np.outer(x, w))
        return reference_of(point, x, (gradient, -w, rows[:m], v[:m], rows[m:], v[m:]))


@dataclass(frozen=True)
class LinearProgram(Case):
    """min cᵀx subject to Gx ≤ h, Ax = b at a planted nondegenerate vertex, where dx/dc = 0."""

    n: int = 50
    inequalities: int = 100
    equalities: int = 10

    group = "Linear program"
    floors = ("daqp", "piqp", "clarabel")

    @property
    def name(self) -> str:
        return f"lp_{self.n}_{self.inequalities}_{self.equalities}"

    def formulate(self, bounds_as_rows: bool = False) -> Formulation:
        n, m, p = self.n, self.inequalities, self.equalities
        x = cp.Variable(n, name="x")
        c = cp.Parameter(n, name="c")
        G, h = cp.Parameter((m, n), name="G"), cp.Parameter(m, name="h")
        A, b = cp.Parameter((p, n), name="A"), cp.Parameter(p, name="b")
        return Formulation(cp.Problem(cp.Minimize(c @ x), [G @ x <= h, A @ x == b]), (c, G, h, A, b), x)

    def sample(self, rng: np.random.Generator) -> tuple[Array, ...]:
        n, m, p = self.n, self.inequalities, self.equalities
        x = rng.standard_normal(n)
        G, A = rng.standard_normal((m, n)), rng.standard_normal((p, n))
        tight = np.arange(m) < n - p
        slack = np.where(tight, 0.0, 0.1 + rng.random(m))
        press = np.where(tight, 0.1 + rng.random(m), 0.0)
        return -G.T @ press - A.T @ rng.standard_normal(p), G, G @ x + slack, A, A @ x

    def qp(self, values: tuple[Array, ...]) -> QP:
        c, G, h, A, b = values
        lower = np.concatenate([np.full(h.size, -np.inf), b])
        return QP(sp.csc_array((c.size, c.size)), c, sp.csc_array(np.vstack([G, A])), lower, np.concatenate([h, b]))

    def solve(self, values: tuple[Array, ...], cotangent: Array) -> Reference:
        point = certified(self.qp(values))
        w, v = point.vjp(cotangent)
        m = self.inequalities
        # At a vertex the active rows determine x: w = 0 exactly, and rounding must not pretend otherwise.
        gradient = np.zeros(self.n) if point.rows.size == self.n else -w
        rows = -np.outer(v, point.x)
        return reference_of(point, point.x, (gradient, rows[:m], v[:m], rows[m:], v[m:]))


@dataclass(frozen=True)
class Portfolio(Case):
    """max μᵀw − γ(‖Fw‖² + ‖d ∘ w‖²) subject to Σw = 1, w ≥ 0, with γ = 5; μ, the factor loadings F and d parameters."""

    assets: int = 1000
    factors: int = 20
    gamma: float = 5.0

    group = "Portfolio"
    floors = ("piqp", "clarabel", "daqp")

    @property
    def name(self) -> str:
        return f"portfolio_{self.assets}_{self.factors}"

    def formulate(self, bounds_as_rows: bool = False) -> Formulation:
        n, k = self.assets, self.factors
        w = cp.Variable(n, name="w")
        mu, F, d = cp.Parameter(n, name="mu"), cp.Parameter((k, n), name="F"), cp.Parameter(n, name="d")
        risk = cp.sum_squares(F @ w) + cp.sum_squares(cp.multiply(d, w))
        bound = 2 * w >= 0 if bounds_as_rows else w >= 0
        return Formulation(cp.Problem(cp.Maximize(mu @ w - self.gamma * risk), [cp.sum(w) == 1, bound]), (mu, F, d), w)

    def sample(self, rng: np.random.Generator) -> tuple[Array, ...]:
        n, k = self.assets, self.factors
        return 0.05 + 0.1 * rng.random(n), rng.standard_normal((k, n)) * 0.2, 0.1 + 0.3 * rng.random(n)

    def qp(self, values: tuple[Array, ...]) -> QP:
        """With factor exposures f = Fw as variables, so that the data stay sparse."""
        mu, F, d = values
        k, n = F.shape
        P = sp.diags_array(2 * self.gamma * np.concatenate([d**2, np.ones(k)]), format="csc")
        A = sp.block_array([[np.ones((1, n)), None], [F, -sp.eye_array(k)], [sp.eye_array(n), None]], format="csc")
        zeros = np.zeros(k)
        lower = np.concatenate([[1.0], zeros, np.zeros(n)])
        upper = np.concatenate([[1.0], zeros, np.full(n, np.inf)])
        return QP(sp.csc_array(P), np.concatenate([-mu, zeros]), sp.csc_array(A), lower, upper)

    def solve(self, values: tuple[Array, ...], cotangent: Array) -> Reference:
        _, F, d = values
        k, n = F.shape
        point = certified(self.qp(values))
        w, v = point.vjp(np.concatenate([cotangent, np.zeros(k)]))
        x, y = point.x, point.y
        rows = -(np.outer(y[1 : k + 1], w[:n]) + np.outer(v[1 : k + 1], x[:n]))
        # P_ii = 2γ d_i², so d̄ = 4γ d ∘ P̄_ii with P̄_ii = −w_i x_i; the objective is minimized as −μᵀw.
        return reference_of(point, x[:n], (w[:n], rows, -4 * self.gamma * d * w[:n] * x[:n]))


@dataclass(frozen=True)
class RandomFlow(Case):
    """Minimum-cost flow with a quadratic cost on a random graph, whose KKT factor fills in; costs and supplies vary."""

    arcs: int = 2000

    group = "Network flow"
    floors = ("piqp", "clarabel")

    @property
    def name(self) -> str:
        return f"flow_{self.arcs}"

    @cached_property
    def graph(self) -> tuple[sp.csr_array, Array]:
        """Node-arc incidence, and the arcs' capacities; five arcs a node, the first of them a ring."""
        rng = np.random.default_rng(self.arcs)
        nodes = self.arcs // 5
        tail = np.concatenate([np.arange(nodes), rng.integers(0, nodes, self.arcs - nodes)])
        step = np.concatenate([np.ones(nodes, dtype=int), rng.integers(1, nodes, self.arcs - nodes)])
        at = np.concatenate([tail, (tail + step) % nodes]), np.tile(np.arange(self.arcs), 2)
        values = np.repeat([-1.0, 1.0], self.arcs)
        return sp.csr_array((values, at), shape=(nodes, self.arcs)), 0.5 + rng.random(self.arcs)

    def formulate(self, bounds_as_rows: bool = False) -> Formulation:
        incidence, capacity = self.graph
        f = cp.Variable(self.arcs, name="f")
        cost, supply = cp.Parameter(self.arcs, name="cost"), cp.Parameter(incidence.shape[0] - 1, name="supply")
        bounds = [2 * f >= 0, 2 * f <= 2 * capacity] if bounds_as_rows else [f >= 0, f <= capacity]
        objective = cp.Minimize(cost @ f + 0.05 * cp.sum_squares(f))
        return Formulation(cp.Problem(objective, [incidence[:-1] @ f == supply, *bounds]), (cost, supply), f)

    def sample(self, rng: np.random.Generator) -> tuple[Array, ...]:
        incidence, capacity = self.graph
        return rng.random(self.arcs), incidence[:-1] @ (0.5 * capacity * rng.random(self.arcs))

    def qp(self, values: tuple[Array, ...]) -> QP:
        cost, supply = values
        incidence, capacity = self.graph
        rows = sp.csc_array(sp.vstack([incidence[:-1], sp.eye_array(self.arcs)]))
        low, high = np.concatenate([supply, np.zeros(self.arcs)]), np.concatenate([supply, capacity])
        return QP(sp.csc_array(0.1 * sp.eye_array(self.arcs)), cost, rows, low, high)

    def solve(self, values: tuple[Array, ...], cotangent: Array) -> Reference:
        point = certified(self.qp(values))
        w, v = point.vjp(cotangent)
        return reference_of(point, point.x, (-w, v[: values[1].size]))


@dataclass(frozen=True)
class SparseParameter(Case):
    """argmin ½‖x − b‖² subject to Ax ≤ 1 for a square A whose three entries a row are parameters; b is one too."""

    n: int = 4000

    group = "Sparse parameters"
    floors = ("piqp", "clarabel")
    draws = 2
    reference_draws = 1

    @property
    def name(self) -> str:
        return f"sparse_parameter_{self.n}"

    @cached_property
    def entries(self) -> tuple[Array, Array]:
        """Rows and columns of A's entries, in C order."""
        rng = np.random.default_rng(self.n)
        columns = np.sort([rng.choice(self.n, 3, replace=False) for _ in range(self.n)], axis=1)
        return np.repeat(np.arange(self.n), 3), columns.ravel()

    def formulate(self, bounds_as_rows: bool = False) -> Formulation:
        x, b = cp.Variable(self.n, name="x"), cp.Parameter(self.n, name="b")
        A = cp.Parameter((self.n, self.n), sparsity=self.entries, name="A")
        return Formulation(cp.Problem(cp.Minimize(0.5 * cp.sum_squares(x - b)), [A @ x <= 1]), (A, b), x)

    def sample(self, rng: np.random.Generator) -> tuple[Array, ...]:
        A = np.zeros((self.n, self.n))
        A[self.entries] = rng.standard_normal(3 * self.n)
        return A, 2.0 * rng.standard_normal(self.n)

    def qp(self, values: tuple[Array, ...]) -> QP:
        A, b = values
        rows = sp.csc_array((A[self.entries], self.entries), shape=A.shape)
        return QP(sp.eye_array(self.n, format="csc"), -b, rows, np.full(self.n, -np.inf), np.ones(self.n))

    def solve(self, values: tuple[Array, ...], cotangent: Array) -> Reference:
        point, (i, j) = certified(self.qp(values)), self.entries
        w, v = point.vjp(cotangent)
        A = np.zeros((self.n, self.n))
        A[i, j] = -(point.y[i] * w[j] + v[i] * point.x[j])
        return reference_of(point, point.x, (A, w))
