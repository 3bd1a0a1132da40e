"""Canonical programs built around a chosen point (x, s, y), so that the answer is known exactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cvxift.program.structure import Structure


@dataclass
class Planted:
    """An instance and the point it was built around."""

    structure: Structure
    P: np.ndarray
    q: np.ndarray
    A: np.ndarray
    b: np.ndarray
    x: np.ndarray
    s: np.ndarray
    y: np.ndarray

    @property
    def numbers(self):
        return self.P, self.q, self.A, self.b


def structure_of(P, A, cones, *, everywhere=False):
    """Structure and values of two matrices: their nonzeros, or every entry."""

    def entries(matrix):
        mask = np.ones(matrix.shape, bool) if everywhere else matrix != 0
        cols, rows = np.nonzero(mask.T)
        return (rows, cols), matrix[rows, cols].astype(float)

    P_pattern, P_values = entries(np.asarray(P, float))
    A_pattern, A_values = entries(np.asarray(A, float))
    return Structure.from_patterns(len(P), cones, P_pattern, A_pattern), P_values, A_values


def residuals(structure, P, q, A, b, raw):
    """Primal, dual and complementarity residual of a point, relative to the size of their terms."""
    Pm, Am = structure.P_matrix(P), structure.A_matrix(A)
    Px, Aty, Ax = Pm @ raw.x, Am.T @ raw.y, Am @ raw.x

    def size(*terms):
        return 1.0 + max((np.abs(term).max(initial=0.0) for term in terms), default=0.0)

    primal = np.abs(Ax + raw.s - b).max(initial=0.0) / size(Ax, raw.s, b)
    dual = np.abs(Px + q + Aty).max(initial=0.0) / size(Px, q, Aty)
    gap = abs(raw.x @ Px + q @ raw.x + b @ raw.y) / (1.0 + max(abs(raw.x @ Px), abs(q @ raw.x), abs(b @ raw.y)))
    return primal, dual, gap


def svec(matrix):
    """Upper triangle column by column, off-diagonals times √2."""
    out = []
    for col in range(len(matrix)):
        for row in range(col + 1):
            out.append(matrix[row, col] * (1.0 if row == col else np.sqrt(2.0)))
    return np.array(out)


def complementary_pair(kind, param, rng, where="boundary"):
    """s ∈ K and y ∈ K* with sᵀy = 0: on the boundary, in the interior ("slack"), or s at the apex ("apex")."""
    if kind == "soc":
        if where == "boundary" and param == 1:
            where = rng.choice(["slack", "apex"])
        if where == "slack":
            u = rng.standard_normal(param - 1)
            return np.concatenate([[np.linalg.norm(u) + 1.0], u]), np.zeros(param)
        if where == "apex":
            s, y = complementary_pair(kind, param, rng, "slack")
            return y, s
        u = rng.standard_normal(param - 1)
        u /= np.linalg.norm(u)
        t, r = rng.uniform(0.5, 2.0, 2)
        return t * np.concatenate([[1.0], u]), r * np.concatenate([[1.0], -u])
    if kind == "psd":
        Q = np.linalg.qr(rng.standard_normal((param, param)))[0]
        rank = {"boundary": (param + 1) // 2, "slack": param, "apex": 0}[where]
        w = rng.uniform(0.5, 2.0, param)
        up = np.where(np.arange(param) < rank, w, 0.0)
        return svec(Q @ np.diag(up) @ Q.T), svec(Q @ np.diag(w - up) @ Q.T)
    if kind == "exp":
        x, y = rng.standard_normal(), rng.uniform(0.5, 2.0)
        z = y * np.exp(x / y)
        if where == "slack":
            return np.array([x, y, z + 1.0]), np.zeros(3)
        e = np.exp(x / y)
        dual = rng.uniform(0.5, 2.0) * np.array([-e, -e * (1.0 - x / y), 1.0])
        return (np.array([x, y, z]), dual) if where == "boundary" else (np.zeros(3), dual + np.array([0.0, 0.5, 0.5]))
    if kind == "pow":
        x, y = rng.uniform(0.5, 2.0, 2)
        radius = x**param * y ** (1.0 - param)
        if where == "slack":
            return np.array([x, y, 0.5 * radius]), np.zeros(3)
        sign = rng.choice([-1.0, 1.0])
        dual = rng.uniform(0.5, 2.0) * np.array(
            [param * x ** (param - 1) * y ** (1 - param), (1 - param) * x**param * y ** (-param), -sign]
        )
        return (
            (np.array([x, y, sign * radius]), dual)
            if where == "boundary"
            else (np.zeros(3), dual + np.array([0.5, 0.5, 0.0]))
        )
    raise ValueError(kind)


def plant(cones, n, seed, *, where="boundary", quadratic=True, density=1.0, everywhere=False, singletons=0):
    """A random program with these cones whose solution (x, s, y) is known; unique when `quadratic`.

    Args:
        singletons: so many of the first nonneg rows have a single entry.
    """
    rng = np.random.default_rng(seed)
    s, y = np.zeros(cones.m), np.zeros(cones.m)
    for block in cones.blocks():
        rows = slice(block.start, block.stop)
        if block.kind == "zero":
            y[rows] = rng.standard_normal(block.stop - block.start)
        elif block.kind == "nonneg":
            tight = rng.random(block.stop - block.start) < 0.4
            size = rng.uniform(0.5, 2.0, block.stop - block.start)
            y[rows], s[rows] = np.where(tight, size, 0.0), np.where(tight, 0.0, size)
        else:
            s[rows], y[rows] = complementary_pair(block.kind, block.param or block.stop - block.start, rng, where)
    A = rng.standard_normal((cones.m, n)) * (rng.random((cones.m, n)) < density)
    for row in range(cones.zero, cones.zero + singletons):
        A[row] = 0.0
        A[row, rng.integers(n)] = rng.choice([-1.0, 1.0]) * rng.uniform(0.5, 2.0)
    root = rng.standard_normal((n, n)) * (rng.random((n, n)) < density)
    P = root @ root.T / n + np.eye(n) if quadratic else np.zeros((n, n))
    x = rng.standard_normal(n)
    structure, P_values, A_values = structure_of(P, A, cones, everywhere=everywhere)
    return Planted(structure, P_values, -P @ x - A.T @ y, A_values, A @ x + s, x, s, y)
