"""Random and hard points for every kind of cone, with the sizes and exponents they belong to."""

from __future__ import annotations

import numpy as np

from cvxift.cones import Cones, project, spectrum

ALPHAS = (0.5, 1 / 3, 0.05, 0.9, 0.713)

ONE_OF_EACH = {
    "zero": Cones(zero=1),
    "nonneg": Cones(nonneg=1),
    "soc1": Cones(soc=(1,)),
    "soc2": Cones(soc=(2,)),
    "soc5": Cones(soc=(5,)),
    "psd1": Cones(psd=(1,)),
    "psd2": Cones(psd=(2,)),
    "psd4": Cones(psd=(4,)),
    "exp": Cones(exp=1),
    **{f"pow{alpha:.2f}": Cones(pow=(alpha,)) for alpha in ALPHAS},
}

EVERYTHING = Cones(zero=3, nonneg=4, soc=(3, 1, 5, 3, 2, 5), psd=(3, 1, 2, 3), exp=6, pow=(0.5, 0.2, 0.9, 1 / 3))

HARD_EXP = np.array(
    [
        [0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [-1, 0, 0], [0, -1, 0], [0, 0, -1],
        [-1, -1, 1], [-1, -1, -1], [-1, 0, -1], [-1, 0, 1], [0, -1, 1], [0, -1, -1], [0, 1, -1], [1, 0, 1], [1, 0, -1],
        [1, 1, np.e], [1, 1, -1], [-1, 1, -1], [1, -1, 1], [1, -1, -1], [-1, 1, 1e-3],
        [1, -1e8, 1], [1e-8, -1, 1], [1e-8, -1, 1e-8], [-1, 1e-8, -1e-8], [-1e8, 1, -1], [1, 1e-8, 1e-8], [1, 1e-8, 1],
        [1e-8, 1, -1], [1e-8, 1e-8, 1], [1e-8, 1e-8, -1], [1e8, 1, 1], [1, 1e8, 1], [1, 1, 1e8], [1, 1, -1e8],
        [-3, 0.004, -0.01], [-30, 1, -0.1], [-800, 1, -1e-3], [2, 0.0025, 5], [1, -900, 1], [1, -30, 2],
    ],
    dtype=float,
)  # fmt: skip

HARD_POW = np.array(
    [
        [0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [-1, 0, 0], [0, -1, 0], [0, 0, -1], [1, -1, 0], [-1, 1, 0],
        [-1, -1, 0], [1, -1, 1e-3], [-1, 1, -1e-3], [1, -1, 1e-12], [1, -1, 1], [-1, -1, 1], [-1, -1, 1e-3],
        [-1, -1, -3], [0, -1, 1], [-1, 0, 1], [0, 1, 1], [1, 0, 1e-8], [1, 1, 1 + 1e-9], [1, 1, -1], [1, 2, -30],
        [1e8, 1, -1], [1e-8, 1, 1], [1, 1e-8, 1], [-1, 1e-8, 1e-8], [-1e-8, 1, -1e-8], [-1e8, -1, 1e8],
        [1e-8, 1e-8, 1], [1, -1e-8, 1e-8],
    ],
    dtype=float,
)  # fmt: skip


def kind_of(cones):
    return cones.blocks()[0].kind


def rays(kind, rho, alpha):
    """Unit rays of the curved boundary of the cone and of its dual, orthogonal to each other."""
    if kind == "exp":
        P, N = np.array([rho, 1, np.exp(rho)]), np.array([-1, rho - 1, np.exp(-rho)])
    else:
        beta = 1 - alpha
        P = np.array([np.exp(beta * rho), np.exp(-alpha * rho), 1])
        N = np.array([alpha * np.exp(-beta * rho), beta * np.exp(alpha * rho), -1])
    return P / np.linalg.norm(P), N / np.linalg.norm(N)


def boundary_pair(kind, rng, dim, alpha=0.5):
    """Unit p in the cone's boundary and n in the dual cone's, orthogonal to each other, at random."""
    if kind == "soc":
        unit = rng.normal(size=dim - 1)
        unit *= np.sqrt(0.5) / np.linalg.norm(unit)
        return np.append(np.sqrt(0.5), unit), np.append(np.sqrt(0.5), -unit)
    p, n = rays(kind, rng.normal() * 10 ** rng.uniform(-1, 1), alpha)
    if kind == "pow" and rng.random() < 0.5:
        p[2], n[2] = -p[2], -n[2]
    return p, n


def sample(cones, rng):
    """One point of one cone: random, badly scaled, planted by its parts, or close to a face, at several scales."""
    block = cones.blocks()[0]
    kind, dim = block.kind, block.stop - block.start
    gauss = rng.normal(size=dim)
    family = rng.integers(5)
    if kind == "psd":
        return planted_matrix(block.param, rng, family)
    if family == 1:
        gauss *= 10 ** rng.uniform(-8, 8, dim)
    elif family == 2:
        gauss *= 10 ** rng.uniform(-2, 2, dim)
    elif family > 2 and dim > 1:
        p, n = boundary_pair(kind, rng, dim, block.param)
        if family == 3:
            return p * 10 ** rng.uniform(-8, 8) - n * 10 ** rng.uniform(-8, 8)
        small = 10 ** rng.uniform(-13, 0)
        return 10 ** rng.uniform(-8, 8) * ((p - small * n) if rng.random() < 0.5 else (small * p - n))
    return gauss


def planted_matrix(order, rng, family):
    """svec of a matrix with chosen eigenvalues: random, spread, tied, or close to zero."""
    U = np.linalg.qr(rng.normal(size=(order, order)))[0]
    values = rng.normal(size=order)
    if family == 1:
        values *= 10 ** rng.uniform(-6, 6, order)
    elif family == 2:
        values = np.sign(values)
    elif family == 3:
        values[0] *= 1e-10
    elif family == 4:
        values *= 10 ** rng.uniform(-8, 8)
    V = (U * values) @ U.T
    rows, cols = zip(*[(row, col) for col in range(order) for row in range(col + 1)])
    V = 0.5 * (V + V.T)
    return np.where(np.equal(rows, cols), 1.0, np.sqrt(2)) * V[rows, cols]


def second_derivative(cones, v, a, b):
    """D²Π_K(v)[a, b]."""
    return spectrum(cones, v).bend(a, b)


def distance_dual(cones, y):
    """Distance of y to the dual cone, ‖Π(−y)‖ by Moreau, for each unit."""
    squares = project(cones, -y) ** 2
    return np.sqrt(np.add.reduceat(squares, cones.unit_starts, axis=-1)) if cones.units else squares


def eigenvectors(found):
    """The orthogonal matrix Q of a spectrum at one point."""
    return found.restore(np.eye(found.cones.m)).T
