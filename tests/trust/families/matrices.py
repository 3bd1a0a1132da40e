"""Semidefinite problems: rank drops, repeated eigenvalues, repeated blocks, LMIs written twice; matrix attributes."""

from __future__ import annotations

import cvxpy as cp
import numpy as np

from ..kit import Kit
from . import family


def _turned(k: Kit, eigenvalues: list[float]) -> np.ndarray:
    Q = np.linalg.qr(k.data(len(eigenvalues), len(eigenvalues)))[0] if k.flip() else np.eye(len(eigenvalues))
    return (Q * np.array(eigenvalues)) @ Q.T


def _symmetric(k: Kit, n: int) -> np.ndarray:
    drawn = k.data(n, n)
    return drawn + drawn.T


@family
def nearest_psd(k: Kit) -> None:
    """The nearest semidefinite matrix: mixed signs, a zero eigenvalue, repeated ones."""
    choices = ([1.0, -1.0], [1.0, 0.0], [2.0, 2.0], [0.0, 0.0], [1.0, -1.0, -1.0], [1.0, 1.0, -2.0], [1.0, 0.0, -1.0])
    target = _turned(k, k.pick(*choices)) if k.degenerate else _symmetric(k, k.size(2, 3))
    n = len(target)
    way = k.pick("attribute", "constraint", "blocks", "twice")
    C = k.parameter("C", target, symmetric=True)
    if way == "attribute":
        X = k.variable("X", (n, n), PSD=True)
    else:
        X = k.variable("X", (n, n), symmetric=True)
        Z = np.zeros((n, n))
        k.psd(cp.bmat([[X, Z], [Z, X]]) if way == "blocks" else X)
        if way == "twice":
            k.psd(2 * X)
    k.minimize(cp.sum_squares(X - C))


@family
def correlation(k: Kit) -> None:
    """The nearest correlation matrix."""
    n = k.size(2, 3)
    target = np.ones((n, n)) if k.degenerate else np.eye(n) + 0.7 * (lambda a: a + a.T)(np.triu(k.data(n, n), 1))
    X, C = k.variable("X", (n, n), PSD=True), k.parameter("C", target, symmetric=True)
    k.minimize(cp.sum_squares(X - C))
    k.eq(cp.diag(X), 1)


@family
def lmi_disc(k: Kit) -> None:
    """The unit disc as an LMI, once or twice in a block, or beside itself."""
    x = k.variable("x", 2)
    c = k.pick(np.array([-2.0, -2.0]), np.array([0.6, 0.8]), np.array([1.0, 0.0])) if k.degenerate else 1.5 * k.data(2)
    L = np.eye(2) + x[0] * np.diag([1.0, -1]) + x[1] * np.array([[0.0, 1], [1, 0]])
    Z = np.zeros((2, 2))
    k.minimize(cp.sum_squares(x - k.parameter("c", c)))
    k.psd(cp.bmat([[L, Z], [Z, L]]) if k.flip() else L)
    if k.flip(0.3):
        k.le(cp.norm(x), 1)


@family
def lmi_dependent(k: Kit) -> None:
    """The least shift that makes a matrix semidefinite: a multiple smallest eigenvalue is a kink."""
    x, n = k.variable("x"), k.pick(2, 3)
    base = np.ones((n, n)) - np.eye(n) if k.degenerate else _symmetric(k, n)
    D = k.parameter("D", np.zeros((n, n)), symmetric=True)
    k.minimize(x)
    k.psd(x * np.eye(n) + base + D)


@family
def spectraplex(k: Kit) -> None:
    """A linear or regularized cost over matrices of trace one."""
    n = k.size(2, 3)
    cost = np.diag([1.0, 1.0, 2.0][:n]) if k.degenerate else _symmetric(k, n)
    X, C = k.variable("X", (n, n), PSD=True), k.parameter("C", cost, symmetric=True)
    k.minimize(cp.trace(C @ X) + k.pick(0.0, 0.5) * cp.sum_squares(X))
    k.eq(cp.trace(X), 1)


@family
def eigenvalue(k: Kit) -> None:
    """Largest eigenvalue, nuclear or spectral norm of an affine map, with a ridge."""
    x = k.variable("x", 2)
    A = [np.diag([1.0, -1.0]), np.array([[0.0, 1.0], [1.0, 0.0]])] if k.flip() else [_symmetric(k, 2) for _ in range(2)]
    M = k.parameter("M", np.zeros((2, 2)) if k.degenerate else _symmetric(k, 2), symmetric=True)
    kind = k.pick(cp.lambda_max, cp.sigma_max, cp.normNuc, lambda X: cp.lambda_sum_largest(X, 1))
    k.minimize(kind(M + x[0] * A[0] + x[1] * A[1]) + 0.5 * cp.sum_squares(x - k.parameter("c", k.round(2))))


@family
def matrix_attributes(k: Kit) -> None:
    """Symmetric, diagonal, nonnegative and semidefinite variables in one least-squares cost."""
    n = 2
    attribute = k.pick("symmetric", "diag", "nonneg", "PSD", "NSD", "nonpos", "pos")
    X = k.variable("X", (n, n), **{attribute: True})
    C = k.round(n, n)
    k.minimize(cp.sum_squares(X - k.parameter("C", C)) + 0.3 * cp.square(cp.sum(X)))
    if k.flip(0.5):
        k.le(cp.sum(X), k.parameter("t", 0.5))


@family
def logdet(k: Kit) -> None:
    """Gaussian covariance selection: log det with a trace and an ℓ1 or bound."""
    n = 2
    root = k.data(n, n)
    S = np.eye(n) if k.degenerate else root @ root.T + 0.5 * np.eye(n)
    X = k.variable("X", (n, n), symmetric=True)
    k.minimize(cp.trace(k.parameter("S", S, symmetric=True) @ X) - cp.log_det(X) + k.pick(0.0, 0.3) * cp.sum(cp.abs(X)))
