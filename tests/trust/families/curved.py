"""Second-order, power and exponential cones: balls, cones at apex and boundary, norms, means, powers."""

from __future__ import annotations

import cvxpy as cp
import numpy as np

from ..kit import Kit
from . import family


def _target(k: Kit, n: int, degenerate: np.ndarray) -> object:
    return k.parameter("c", degenerate if k.degenerate else k.data(n) * 1.5)


@family
def ball(k: Kit) -> None:
    """Projection onto a ball: inside, on the sphere, outside; radius as a parameter."""
    x = k.variable("x", 2)
    c = _target(k, 2, k.pick(np.array([0.6, 0.8]), np.array([3.0, 4.0]), np.zeros(2), np.array([1.0, 0.0])))
    k.minimize(cp.sum_squares(x - c))
    k.le(cp.norm(x), k.parameter("r", k.pick(1.0, 1.0, 0.0) if k.degenerate else 1.0, nonneg=True))


@family
def cone_projection(k: Kit) -> None:
    """Projection onto a second-order cone: apex, boundary, interior."""
    x, t = k.variable("x", 2), k.variable("t")
    c = k.parameter(
        "c",
        k.pick(np.array([1.0, 0.0, -1.0]), np.array([0.6, 0.8, 1.0]), np.array([0.3, 0.0, -1.0]), np.zeros(3))
        if k.degenerate
        else k.data(3),
    )
    k.minimize(cp.sum_squares(x - c[:2]) + cp.square(t - c[2]))
    k.le(cp.norm(x), t)


@family
def cone_twice(k: Kit) -> None:
    """The same ball or cone written twice, or inside another one."""
    x, c = k.variable("x", 2), k.parameter("c", np.array([2.0, 1.0]) + 0.3 * k.data(2))
    r = k.parameter("r", 1.0)
    k.minimize(cp.sum_squares(x - c))
    k.le(cp.norm(x), r)
    kind = k.pick("same", "multiple", "own radius", "inside", "square")
    if kind == "same":
        k.le(cp.norm(x), r)
    elif kind == "multiple":
        k.le(2 * cp.norm(x), 2 * r)
    elif kind == "own radius":
        k.le(cp.norm(x), k.parameter("r2", 1.0 if k.degenerate else 1.2))
    elif kind == "square":
        k.le(cp.sum_squares(x), 1.0)
    else:
        k.le(cp.norm(x), r + 1)


@family
def balls(k: Kit) -> None:
    """Two balls or a ball and a half-space that touch or cut."""
    x = k.variable("x", 2)
    k.minimize(cp.sum_squares(x - k.parameter("c", k.round(2, step=1.0))))
    k.le(cp.norm(x), 1)
    if k.flip():
        k.le(cp.norm(x - np.array([1.0, 0.0])), k.parameter("r", 1.0))
    else:
        k.le(x[0], k.parameter("h", k.pick(0.0, 0.5)))


@family
def linear_on_ball(k: Kit) -> None:
    """A linear cost over a ball or an ellipsoid: the constraint alone gives curvature."""
    n = k.size(2, 3)
    x, c = k.variable("x", n), k.parameter("c", k.round(n, step=1.0))
    k.minimize(c @ x)
    k.le(cp.norm((np.eye(n) + 0.2 * k.data(n, n)) @ x), k.parameter("r", 1.0))


@family
def norm_penalty(k: Kit) -> None:
    """Sums of norms of affine maps: apexes where several vanish."""
    x = k.variable("x", 2)
    c = k.round(3, 2)
    k.minimize(sum(cp.norm(x - k.parameter(f"c{i}", c[i])) for i in range(3)) + 0.2 * cp.sum_squares(x))


@family
def quad_over_lin(k: Kit) -> None:
    """Perspectives of squares, in cost or constraint."""
    x, t = k.variable("x", 2), k.variable("t")
    c = k.parameter("c", k.round(2, step=1.0) + 0.5)
    k.minimize(cp.quad_over_lin(x - c, t) + k.pick(0.5, 1.0) * t)
    k.ge(t, k.parameter("low", k.pick(0.5, 1.0)))
    k.le(cp.sum(x), 1)


@family
def geometric_mean(k: Kit) -> None:
    """geo_mean, harmonic and inverse products: active, weakly active, slack."""
    x = k.variable("x", 2)
    c = k.parameter(
        "c", k.pick(np.array([1.0, 1.0]), np.array([0.5, 2.0])) if k.degenerate else np.abs(k.data(2)) + 0.2
    )
    k.minimize(cp.sum_squares(x - c))
    kind = k.pick(cp.geo_mean, cp.harmonic_mean, lambda z: cp.geo_mean(z, [1, 2]))
    k.ge(kind(x), k.parameter("t", 1.0))


@family
def power(k: Kit) -> None:
    """Powers other than two, in cost and constraint, at zero and elsewhere."""
    n, p = 2, k.pick(1.5, 3, 4, 2.5)
    x, c = k.variable("x", n), k.parameter("c", k.round(n))
    kind = k.pick("cost", "alone", "constraint", "pnorm")
    if kind == "alone":
        k.minimize(cp.sum(cp.power(cp.abs(x - c), p)))
    elif kind == "cost":
        k.minimize(cp.sum(cp.power(cp.abs(x), p)) + 0.5 * cp.sum_squares(x - c))
    elif kind == "constraint":
        k.minimize(cp.sum_squares(x - c))
        k.le(cp.sum(cp.power(cp.abs(x), p)), k.parameter("t", 1.0))
    else:
        k.minimize(cp.sum_squares(x - c))
        k.le(cp.pnorm(x, p), k.parameter("t", 1.0))


@family
def exponentials(k: Kit) -> None:
    """exp, log, log-sum-exp, logistic constraints: active with and without a multiplier, slack."""
    n = 2
    x = k.variable("x", n)
    c = _target(k, n, k.pick(np.array([0.0, 0.4]), np.array([1.0, 0.0]), np.array([0.0, 0.0])))
    k.minimize(cp.sum_squares(x - c))
    kind = k.pick("exp", "log", "log_sum_exp", "logistic")
    if kind == "exp":
        k.le(cp.exp(x[0]), k.parameter("t", 1.0))
    elif kind == "log":
        k.ge(cp.sum(cp.log(x + 1.0)), k.parameter("t", 0.0))
    elif kind == "log_sum_exp":
        k.le(cp.log_sum_exp(x), k.parameter("t", float(np.log(2.0))))
    else:
        k.le(cp.sum(cp.logistic(x)), k.parameter("t", 2 * float(np.log(2.0))))


@family
def power_cone(k: Kit) -> None:
    """A power cone written out, repeated or not."""
    x, c = k.variable("x", 3), k.parameter("c", k.round(3) + np.array([0.5, 0.5, 1.0]))
    k.minimize(cp.sum_squares(x - c))
    for _ in range(2 if k.degenerate and k.flip() else 1):
        k.add(cp.PowCone3D(x[0], x[1], x[2], k.pick(0.5, 0.3)))


@family
def log_utility(k: Kit) -> None:
    """Logarithmic utilities under budgets; one budget may be repeated."""
    n = k.size(2, 4)
    x, w = k.variable("x", n), k.parameter("w", np.ones(n) if k.degenerate else 0.5 + k.rng.random(n), nonneg=True)
    budget = k.parameter("budget", 1.0)
    k.maximize(w @ cp.log(x))
    k.le(cp.sum(x), budget)
    if k.flip(0.4):
        k.le(2 * cp.sum(x), 2 * budget)
    if k.flip(0.4):
        k.le(x[0], k.parameter("cap", 1.0 / n if k.degenerate else 0.5 / n))


@family
def geometric_program(k: Kit) -> None:
    """A box of least surface, or the like, as a geometric program."""
    x, y = k.variable("x", pos=True), k.variable("y", pos=True)
    a = k.parameter("a", 2.0 if k.degenerate else float(k.rng.uniform(1.0, 3.0)), pos=True)
    k.minimize(x * y + a / x + a / y)
    k.gp = True
    kind = k.pick("free", "bound", "posynomial", "monomial")
    b = k.parameter("b", 1.0, pos=True) if kind != "free" else None
    if kind == "bound":
        k.le(x, b)
    elif kind == "posynomial":
        k.le(x + 0.5 * y, b)
    elif kind == "monomial":
        k.eq(x * y, b)
