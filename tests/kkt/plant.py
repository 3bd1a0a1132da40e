"""Programs with a planted solution: choose (x, s, y) on the faces wanted, then build data that has them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cvxift import cones as cone
from cvxift.cones import Cones
from cvxift.program.structure import Data, Structure


@dataclass
class Planted:
    """A program and the solution it was built to have."""

    structure: Structure
    data: Data
    x: np.ndarray
    s: np.ndarray
    y: np.ndarray


def plant(
    cones: Cones, n: int, rng: np.random.Generator, *, rank: int | None = None, density: float = 1.0, tight: float = 0.5
) -> Planted:
    """A program on `cones` with n columns whose solution is (x, s, y) = (random, Π_K(v), Π_K(v) − v).

    Args:
        cones: the product cone.
        n: number of columns.
        rng: source of randomness.
        rank: rank of P; full if None.
        density: share of the entries of A that are stored.
        tight: probability that a nonnegative row is active.
    """
    v = rng.standard_normal(cones.m)
    z, k = cones.zero, cones.nonneg
    v[z : z + k] = np.where(rng.random(k) < tight, -1.0, 1.0) * (0.5 + rng.random(k))
    s = cone.project(cones, v)
    y = s - v
    x = rng.standard_normal(n)
    root = rng.standard_normal((n, n if rank is None else rank))
    P = root @ root.T / n
    A = rng.standard_normal((cones.m, n))
    A[rng.random(A.shape) > density] = 0.0
    return assemble(cones, P, A, x, s, y)


def assemble(cones: Cones, P: np.ndarray, A: np.ndarray, x: np.ndarray, s: np.ndarray, y: np.ndarray) -> Planted:
    """The program with these matrices whose solution is (x, s, y)."""
    n = len(x)
    P_cols, P_rows = np.nonzero(P.T)
    A_cols, A_rows = np.nonzero(A.T)
    structure = Structure.from_patterns(n, cones, P=(P_rows, P_cols), A=(A_rows, A_cols))
    data = Data(P[P_rows, P_cols], -P @ x - A.T @ y, A[A_rows, A_cols], A @ x + s, np.zeros(()))
    return Planted(structure, data, x, s, y)


def tangent(structure: Structure, rng: np.random.Generator) -> Data:
    """A random tangent of the data; P's is symmetric."""
    dense = np.zeros((structure.n, structure.n))
    dense[structure.P_rows, structure.P_cols] = rng.standard_normal(structure.nnzP)
    dense = 0.5 * (dense + dense.T)
    return Data(
        dense[structure.P_rows, structure.P_cols],
        rng.standard_normal(structure.n),
        rng.standard_normal(structure.nnzA),
        rng.standard_normal(structure.m),
        np.zeros(()),
    )


def move(data: Data, dot: Data, step: float) -> Data:
    """data + step · dot."""
    return Data(
        data.P + step * dot.P,
        data.q + step * dot.q,
        data.A + step * dot.A,
        data.b + step * dot.b,
        data.d + step * dot.d,
    )


def inner(a: Data, b: Data) -> float:
    """The pairing of a cotangent and a tangent."""
    return float(a.P @ b.P + a.q @ b.q + a.A @ b.A + a.b @ b.b + a.d * b.d)
