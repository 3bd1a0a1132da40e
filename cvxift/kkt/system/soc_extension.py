"""The reduced KKT system with large second-order cones lifted, so that none of them fills a block of its own.

At its curved boundary a cone has D = c I + (1 − c) p pᵀ − c n nᵀ, whose kept directions, those orthogonal to p, have no
sparse basis. Their equations, w ⊥ p and A u − h = η (w − n nᵀw) + αp with η = c/(1 − c), are sparse in the rows
themselves with two unknowns more, α and ν = √η nᵀw:

    A u − p α + √η n ν − η w = h,        −pᵀw = 0,        √η nᵀw − ν = 0,

symmetric, and quasidefinite with (u, α) on the one side and (ν, w) on the other: −[ 1  −√η nᵀ ; −√η n  ηI ] ≼ 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp

from cvxift._types import cached_property
from cvxift.cones.soc import SocGroup
from cvxift.kkt.instance import Instance
from cvxift.kkt.system.assembly import kkt_matrix
from cvxift.kkt.system.cone_basis import Rotation
from cvxift.kkt.system.factor import Certificate
from cvxift.program.structure import Floats

LARGE_CONE = 200  # rows from which a cone is lifted


class Lifted:
    """The system with some cones lifted.

    Args:
        instance: the program's matrices.
        rotation: the kept directions.
        groups: the groups of cones that are lifted where they are curved.

    Attributes:
        rest: the kept directions of the other rows.
        rows: rows of the lifted cones, shape (l,).
        directions: the columns (−p, √η n) of all of them on those rows, shape (l, 2L), all p first.
        eta: η of each of the rows, shape (l,).
    """

    def __init__(self, instance: Instance, rotation: Rotation, groups: list[SocGroup]) -> None:
        self.instance, self.n, self.m = instance, instance.structure.n, instance.structure.m
        self.rest = rotation.without(groups, [group.rows[group.regime < 0].ravel() for group in groups])
        rows, eta, p, n = [], [], [], []
        for group in groups:
            curved = np.flatnonzero(group.regime == 0)
            ratio = group.d[curved, 1] / group.complement[curved, 1]
            rows.append(group.rows[curved].ravel())
            eta.append(np.repeat(ratio, group.dim))
            assert group.p is not None and group.n is not None
            p.append(-group.p[curved])
            n.append(np.sqrt(ratio)[:, None] * group.n[curved])
        self.rows, self.eta = np.concatenate(rows), np.concatenate(eta)
        dims = np.concatenate([np.full(len(part), part.shape[1]) for part in p])
        self.count = len(dims)
        starts = np.concatenate([[0], np.cumsum(dims)])
        entries = np.concatenate([part.ravel() for part in (*p, *n)])
        indices = np.tile(np.arange(len(self.rows)), 2)
        indptr = np.concatenate([starts, starts[1:] + len(self.rows)])
        self.directions = sp.csc_array((entries, indices, indptr), shape=(len(self.rows), 2 * self.count))

    @classmethod
    def of(cls, instance: Instance, rotation: Rotation) -> Lifted | None:
        """The lifted system, where there are large second-order cones at their curved boundary."""
        spectrum = rotation.spectrum
        if spectrum is None or max(spectrum.cones.soc, default=0) < LARGE_CONE:
            return None
        groups = [g for g in spectrum.groups if isinstance(g, SocGroup) and g.dim >= LARGE_CONE and bool(g.mixed.any())]
        return cls(instance, rotation, groups) if groups else None

    @property
    def first_block(self) -> int:
        """Number of unknowns (u, α), which come first."""
        return self.n + self.count

    @cached_property
    def A_r(self) -> Any:
        """The kept directions of the other rows and the lifted rows, shape (r + l, n): dense array or CSR."""
        A = self.instance.rows
        other, own = self.rest.rotated(A), A[self.rows]
        if isinstance(other, np.ndarray):
            return np.concatenate([other, own])
        return sp.csr_array(sp.vstack([other, own], format="csr"))

    @cached_property
    def K(self) -> Any:
        """The matrix, in the order u, α, ν, kept directions of the other rows, w: dense array or CSC."""
        A_r, n, L, r = self.A_r, self.n, self.count, self.rest.size
        P: Any = self.instance.P
        first = n + 2 * L
        size = first + r + len(self.rows)
        diagonal = np.zeros(size)
        diagonal[n + L : first] = -1.0
        if self.rest.h is not None:
            diagonal[first + r - len(self.rest.h) : first + r] = -self.rest.h
        diagonal[first + r :] = -self.eta
        if isinstance(A_r, np.ndarray):
            K = np.zeros((size, size))
            K[:n, :n] = P
            K[first:, :n] = A_r
            K[first + r :, n:first] = self.directions.toarray()
            K[:first, first:] = K[first:, :first].T
            K.reshape(-1)[:: size + 1] += diagonal
            return K
        padded = sp.csc_array(
            (P.data, P.indices, np.concatenate([P.indptr, np.full(2 * L, P.indptr[-1])])), shape=(first, first)
        )
        below = sp.csr_array((r, 2 * L))
        extra = sp.vstack([below, self.directions], format="csr")
        return kkt_matrix(padded, sp.csr_array(sp.hstack([A_r, extra], format="csr")), diagonal)

    def solve(
        self, inner: Callable[[Floats], tuple[Floats, Certificate]], g: Floats, h: Floats | None
    ) -> tuple[Floats, Floats, Certificate]:
        """Solve as `ReducedSystem.solve`.

        Args:
            inner: solves with `K` for one right-hand side (N,) or several (N, k), and certifies.
            g: right-hand side on columns, shape (n,) or (k, n).
            h: right-hand side on rows, shape (m,) or (k, m); None for zero.
        """
        first, r = self.n + 2 * self.count, self.rest.size
        f = np.zeros((*g.shape[:-1], first + r + len(self.rows)))
        f[..., : self.n] = g
        if h is not None:
            f[..., first : first + r] = self.rest.reduce(h)
            f[..., first + r :] = h[..., self.rows]
        solution, certificate = inner(f if g.ndim == 1 else f.T)
        solution = solution.T
        w = self.rest.restore(solution[..., first : first + r], self.m)
        w[..., self.rows] = solution[..., first + r :]
        return solution[..., : self.n], w, certificate
