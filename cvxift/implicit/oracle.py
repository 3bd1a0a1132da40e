"""What the diagnosis needs to know of a function at a point, in NumPy, from what each framework supplies."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg as sl
import scipy.sparse.linalg as sla

from cvxift.implicit.backend import Backend
from cvxift.implicit.residual import tolerance_of
from cvxift.implicit.settings import Settings
from cvxift.implicit.trees import entry_of

Vector = np.ndarray
EXACT = 500  # unknowns up to which the matrix is formed
_linear_operator: Any = sla.LinearOperator  # its __new__ dispatches, unseen by type checkers


@dataclass(frozen=True, eq=False)
class Oracle:
    """F(w, θ) at a point; w is x, or (x, ν, λ) of a constrained minimizer.

    Attributes:
        settings: what the function is made of.
        w: the point, shape (N,).
        theta: the floating entries of the arguments θ, side by side, shape (M,).
        variables: number of entries of x, the first ones of w.
        parts: numbers of entries of x's leaves.
        sizes: numbers of entries of G and H.
        active: which rows of H are active, shape (m,).
        margins: how far each is from being tight without a multiplier, relative, shape (m,).
        eps: unit of rounding of the dtype in which F is computed.
        function: (w, θ) ↦ F.
        tangent: (w, θ, ẇ, θ̇) ↦ F_w ẇ + F_θ θ̇.
        matvec: v ↦ J v, J = F_w at the point.
        rmatvec: v ↦ Jᵀ v.
        matrix: J, shape (N, N); to be called for small N only.
        derivative: θ̇ ↦ ẋ by the rule, with the function's own linear solver.
        solver: θ ↦ x by the user's solver.
        entry: index of w ↦ name.
        theta_entry: index of θ ↦ name.
    """

    settings: Settings
    w: Vector
    theta: Vector
    variables: int
    parts: list[int]
    sizes: tuple[int, int]
    active: Vector
    margins: Vector
    eps: float
    function: Callable[[Vector, Vector], Vector]
    tangent: Callable[[Vector, Vector, Vector, Vector], Vector]
    matvec: Callable[[Vector], Vector]
    rmatvec: Callable[[Vector], Vector]
    matrix: Callable[[], Vector]
    derivative: Callable[[Vector], Vector]
    solver: Callable[[Vector], Vector]
    entry: Callable[[int], str]
    theta_entry: Callable[[int], str]

    @property
    def weak(self) -> Vector:
        """Which rows of H are tight without a multiplier, shape (m,)."""
        return self.margins <= (self.settings.tolerance or tolerance_of(self.eps))


@dataclass(frozen=True, eq=False)
class Supplied:
    """A function at a point, in a framework's own arrays, without derivatives.

    Attributes:
        backend: the framework's.
        host: array ↦ NumPy array.
        w: the point, shape (N,).
        operands: what the function depends on beside it.
        first: place of θ's arrays among the operands.
        active: place of the mask of active rows, where there are constraints.
        value: (w, *operands) ↦ F.
        push: (function, arguments, tangents) ↦ the function's derivative along the tangents.
        compiled: function ↦ the same, to be called often.
        matvec: v ↦ J v.
        rmatvec: v ↦ Jᵀ v.
        dense: J.
        solved: b ↦ J⁻¹b by the function's own linear solver, damped.
    """

    backend: Backend
    host: Callable[[Any], Vector]
    w: Any
    operands: list[Any]
    first: int
    active: int
    value: Callable[..., Any]
    push: Callable[..., Any]
    compiled: Callable[[Any], Any]
    matvec: Callable[[Any], Any]
    rmatvec: Callable[[Any], Any]
    dense: Callable[[], Any]
    solved: Callable[[Any], Any]


def oracle_of(function: Any, prepared: Any, supplied: Supplied) -> Oracle:
    """The oracle of an implicit function at a point.

    Args:
        function: the framework's `ImplicitFunction`.
        prepared: its point, with conditions, margins and the names of θ's arrays.
        supplied: by the framework.
    """
    settings, conditions, names = function.settings, prepared.conditions, prepared.names
    xp, host, w, operands = supplied.backend.xp, supplied.host, supplied.w, supplied.operands
    places = range(supplied.first, supplied.first + len(names))
    own = [i for i in places if xp.isdtype(operands[i].dtype, "real floating")]
    shapes = [tuple(operands[i].shape) for i in own]
    ends = np.cumsum([0, *(math.prod(shape) for shape in shapes)])

    def like_w(v: Vector) -> Any:
        return supplied.backend.asarray(v, w)

    def parts(theta: Vector) -> list[Any]:
        pieces = [theta[a:b].reshape(shape) for a, b, shape in zip(ends, ends[1:], shapes)]
        return [supplied.backend.asarray(piece, operands[i]) for i, piece in zip(own, pieces, strict=True)]

    def moved(values: Sequence[Any]) -> list[Any]:
        now = list(operands)
        for i, value in zip(own, values, strict=True):
            now[i] = value
        return now

    def of_both(v: Any, *values: Any) -> Any:
        return supplied.value(v, *moved(values))

    value = supplied.compiled(of_both)
    push = supplied.compiled(lambda at, dots: supplied.push(of_both, at, dots))

    def tangent(v: Vector, theta: Vector, v_dot: Vector, theta_dot: Vector) -> Vector:
        return host(push((like_w(v), *parts(theta)), (like_w(v_dot), *parts(theta_dot))))

    def derivative(theta_dot: Vector) -> Vector:
        b = tangent(point, theta, 0.0 * point, theta_dot)
        return host(supplied.solved(-like_w(b)))[: conditions.layout.size]

    def solve(theta: Vector) -> Vector:
        now = moved(parts(theta))
        x, _, _ = function._solve(conditions.rebuild, [now[i] for i in places], None)
        return host(conditions.layout.matching("What the solver returned", x))

    point = host(w)
    theta = np.concatenate([np.zeros(0), *(host(operands[i]).ravel() for i in own)])
    return Oracle(
        settings,
        point,
        theta,
        conditions.layout.size,
        conditions.layout.sizes,
        conditions.sizes,
        host(operands[supplied.active]) if settings.constrained else np.zeros(0),
        host(prepared.margins),
        float(xp.finfo(w.dtype).eps),
        lambda v, theta: host(value(like_w(v), *parts(theta))),
        tangent,
        lambda v: host(supplied.matvec(like_w(v))),
        lambda v: host(supplied.rmatvec(like_w(v))),
        lambda: host(supplied.dense()),
        derivative,
        solve,
        conditions.entry,
        lambda j: entry_of([names[i - supplied.first] for i in own], shapes, j),
    )


def newton(oracle: Oracle, theta: Vector, steps: int = 12) -> Vector:
    """x at parameters near the oracle's, by Newton's method with the Jacobian of the oracle's point.

    Its error falls by the parameters' relative change in each step.

    Args:
        oracle: F at a point.
        theta: the parameters, shape (M,).
        steps: how many.
    """
    w = oracle.w.copy()
    if len(w) <= EXACT:
        factors = sl.lu_factor(oracle.matrix(), check_finite=False)

        def step(residual: Vector) -> Vector:
            return sl.lu_solve(factors, residual, check_finite=False)
    else:
        operator: Any = _linear_operator((len(w), len(w)), matvec=lambda v: oracle.matvec(v.ravel()), dtype=float)

        def step(residual: Vector) -> Vector:
            return sla.gmres(operator, residual, rtol=1e-10, restart=50)[0]

    for _ in range(steps):
        w = w - step(oracle.function(w, theta))
    return w[: oracle.variables]
