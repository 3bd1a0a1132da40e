"""Regression, classification, isotonic and fused fits, portfolios: kinks of hinges, ℓ1, Huber, total variation."""

from __future__ import annotations

import cvxpy as cp
import numpy as np

from ..kit import Kit, Values
from . import family


@family
def svm(k: Kit) -> None:
    """A soft-margin classifier; some points on the margin."""
    n, m = 2, k.size(3, 6)
    X, y = k.round(m, n, step=1.0, most=2), np.where(np.arange(m) % 2, 1.0, -1.0)
    w, b = k.variable("w", n), k.variable("b")
    weight = k.pick(0.5, 1.0, 2.0)
    data, C = (k.parameter("X", X), weight) if k.flip() else (X, k.parameter("C", weight, nonneg=True))
    hinge = cp.sum(cp.pos(1 - cp.multiply(y, data @ w + b)))
    k.minimize(0.5 * cp.sum_squares(w) + 0.05 * cp.square(b) + C * hinge)


@family
def svm_dual(k: Kit) -> None:
    """The dual with box constraints: multipliers at 0 and C."""
    m = k.size(3, 6)
    X, y = k.round(m, 2, step=1.0, most=2), np.where(np.arange(m) % 2, 1.0, -1.0)
    a, q = k.variable("a", m), k.parameter("q", np.ones(m))
    k.minimize(0.5 * cp.sum_squares((X * y[:, None]).T @ a) + 0.05 * cp.sum_squares(a) - q @ a)
    k.eq(y @ a, 0)
    k.ge(a, 0)
    k.le(a, k.parameter("C", k.pick(0.5, 1.0)))


@family
def portfolio(k: Kit) -> None:
    """Long-only weights that sum to one under caps; risk by factors, by a parameter P, or plain."""
    n = k.size(3, 6)
    w, mu = k.variable("w", n), k.parameter("mu", k.round(n, step=0.1))
    kind = k.pick("plain", "factors", "P")
    F = k.data(n, 2)
    if kind == "P":
        risk = cp.quad_form(w, k.parameter("P", F @ F.T + 0.5 * np.eye(n), PSD=True))
    elif kind == "factors":
        risk = cp.sum_squares(k.parameter("F", F).T @ w) + 0.1 * cp.sum_squares(w)
    else:
        risk = cp.sum_squares(w)
    k.minimize(k.pick(0.5, 1.0) * risk - mu @ w)
    k.eq(cp.sum(w), 1)
    k.ge(w, 0)
    if k.flip():
        k.le(w, k.parameter("cap", 0.5))


@family
def turnover(k: Kit) -> None:
    """Trades against holdings under an ℓ1 cost: no trade is a kink."""
    n = k.size(2, 4)
    held, fee = np.full(n, 1.0 / n), 0.25
    held, fee = (k.parameter("held", held), fee) if k.flip() else (held, k.parameter("fee", fee, nonneg=True))
    w, mu = k.variable("w", n), k.parameter("mu", k.round(n, step=0.25))
    k.minimize(cp.sum_squares(w) - mu @ w + fee * cp.norm1(w - held))
    k.eq(cp.sum(w), 1)


def isotone(values: np.ndarray) -> np.ndarray:
    """Pool adjacent violators."""
    blocks: list[list[float]] = []
    for value in values:
        blocks.append([value, 1.0])
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            (b, wb), (a, wa) = blocks.pop(), blocks.pop()
            blocks.append([(a * wa + b * wb) / (wa + wb), wa + wb])
    return np.concatenate([np.full(int(w), v) for v, w in blocks])


@family
def isotonic(k: Kit) -> None:
    """The nearest monotone sequence: ties are kinks, pools are not."""
    n = k.size(3, 7)
    x, c = k.variable("x", n), k.parameter("c", k.round(n))
    k.minimize(cp.sum_squares(x - c))
    k.le(x[:-1], x[1:])

    def truth(values: Values) -> Values:
        return {"x": isotone(values["c"])}

    k.truth = truth


@family
def isotonic_bounded(k: Kit) -> None:
    """Monotone between two bounds."""
    n = k.size(3, 6)
    x, c = k.variable("x", n), k.parameter("c", k.round(n))
    k.minimize(cp.sum_squares(x - c))
    k.le(x[:-1], x[1:])
    k.ge(x[0], k.parameter("low", -1.0))
    k.le(x[-1], k.parameter("high", 1.0))

    def truth(values: Values) -> Values:
        return {"x": np.clip(isotone(values["c"]), values["low"], values["high"])}

    k.truth = truth


@family
def lasso(k: Kit) -> None:
    """ℓ1-penalized least squares, near the orthogonal design where the kinks are known."""
    n = k.size(2, 4)
    x, b = k.variable("x", n), k.parameter("b", k.round(n))
    design = np.eye(n) if k.flip(0.6) else np.eye(n) + 0.3 * k.data(n, n)
    weight = k.parameter("a", k.pick(0.5, 1.0), nonneg=True)
    k.minimize(0.5 * cp.sum_squares(design @ x - b) + weight * cp.norm1(x))


@family
def weight_zero(k: Kit) -> None:
    """A penalty whose weight is zero: the derivative in the weight exists on one side."""
    n = k.size(2, 3)
    x, c = k.variable("x", n), k.parameter("c", 1.0 + np.arange(n) + (0 if k.degenerate else 0.1 * k.data(n)))
    a = k.parameter("a", 0.0 if k.degenerate else float(k.rng.uniform(0.05, 0.3)), nonneg=True)
    penalty = k.pick(cp.norm1, cp.norm2, cp.sum_squares, cp.max, cp.tv if n > 1 else cp.norm1)
    k.minimize(cp.sum_squares(x - c) + a * penalty(x))


@family
def fused(k: Kit) -> None:
    """Total variation denoising; flat pieces merge at ties."""
    n = k.size(3, 6)
    x, y = k.variable("x", n), k.parameter("y", k.round(n))
    k.minimize(0.5 * cp.sum_squares(x - y) + k.parameter("a", k.pick(0.25, 0.5), nonneg=True) * cp.tv(x))


@family
def huber(k: Kit) -> None:
    """Huber residuals at their joints, with a ridge."""
    n = k.size(2, 4)
    x, y = k.variable("x", n), k.parameter("y", k.round(n, step=1.0))
    k.minimize(cp.sum(cp.huber(x - y, k.pick(0.5, 1.0))) + k.pick(0.5, 1.0) * cp.sum_squares(x))


@family
def robust(k: Kit) -> None:
    """Least absolute deviations, quantiles or the largest residual, with a ridge."""
    m, n = k.size(3, 5), 2
    A = k.round(m, n, step=1.0)
    x, b = k.variable("x", n), k.parameter("b", k.round(m, step=1.0))
    r = A @ x - b
    loss = k.pick(cp.norm1(r), cp.norm_inf(r), cp.sum(cp.maximum(0.3 * r, -0.7 * r)), cp.sum_largest(r, 2))
    k.minimize(loss + k.pick(0.1, 1.0) * cp.sum_squares(x))


@family
def logistic(k: Kit) -> None:
    """Logistic regression with a ridge or an ℓ1 penalty."""
    m, n = k.size(3, 5), 2
    X, y = k.data(m, n), np.where(np.arange(m) % 2, 1.0, -1.0)
    w = k.variable("w", n)
    X, a = (k.parameter("X", X), 0.5) if k.flip() else (X, k.parameter("a", 0.5, nonneg=True))
    penalty = cp.sum_squares(w) if k.flip(0.7) else 0.1 * cp.sum_squares(w) + 0.3 * cp.norm1(w)
    k.minimize(cp.sum(cp.logistic(-cp.multiply(y, X @ w))) + a * penalty)


@family
def group(k: Kit) -> None:
    """Group soft thresholding, on the sphere where a group vanishes."""
    x = k.variable("x", (2, 2))
    c = np.array([[0.6, 0.8], [1.2, -1.6]]) if k.degenerate else k.data(2, 2) * 1.5
    k.minimize(0.5 * cp.sum_squares(x - k.parameter("c", c)) + cp.sum(cp.norm(x, axis=1)))
