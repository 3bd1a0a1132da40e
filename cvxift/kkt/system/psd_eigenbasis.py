"""The reduced KKT system of a program with matrix variables, in the eigenvectors of its semidefinite cones.

Where every row of a cone holds one variable of its own (X ≽ 0 for a matrix variable X), A_R = diag(a) on the columns C,
the variables turn with the cone: u_C = diag(1/a) Q ũ gives Q_rᵀ A u = ũ_r, and with D = Q diag(d) Qᵀ

    d = 0        ũ_i = ρ_i := (Qᵀh)_i is fixed
    0 < d < 1    w_i = (1 − d)/d (ũ_i − ρ_i),   a curvature on ũ_i
    d = 1        w_i = 0.

So the cone's rows leave with their multipliers, which the columns give back: w_R = (g − P u − A_oᵀ w_o)_C / a. There
stays, with Z = diag(1/a) Q_free ⊕ I and the other rows A_o,

    [ Zᵀ P Z + diag((1 − d)/d)   Zᵀ A_oᵀ ;  A_o Z   −H_o ],

dense, of order 242 instead of 960 for a correlation matrix of order 30 and rank 8. Where P_CC = c diag(a²) with c > 0,
as in a distance of matrices, its first block is diagonal, ZᵀPZ = cI, and leaves as well: −H_o − A_o Z (…)⁻¹ Zᵀ A_oᵀ, of
order 30 (the dual Newton method of Qi & Sun 2006 for the nearest correlation matrix solves with the same matrix).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import scipy.sparse as sp

from cvxift._types import EPS, cached_property
from cvxift.cones.base import Group
from cvxift.kkt.instance import DENSE_LIMIT, Instance
from cvxift.kkt.system.cone_basis import Rotation
from cvxift.kkt.system.factor import Certificate
from cvxift.program.products import apply, dense
from cvxift.program.structure import Floats

LEAST_DIM = 6  # rows of a cone from which turning its variables pays
LARGEST_BASIS = 16_000_000  # numbers of Z up to which it is formed


class Turned:
    """The system in turned variables.

    Args:
        instance: the program's matrices.
        rotation: the kept directions.
        groups: the groups of cones whose variables turn; every row of theirs holds one variable of its own.

    Attributes:
        rows: rows of these cones, shape (c,).
        columns: their variables, shape (c,).
        a: the rows' entries, shape (c,).
        free: positions among `rows`, turned, where d > 0, shape (f,).
        rest: the kept directions of the other rows.
        others: the other columns.
    """

    def __init__(self, instance: Instance, rotation: Rotation, groups: list[Group]) -> None:
        assert instance.matrices.single is not None and instance.matrices.single_values is not None
        self.instance, self.groups = instance, groups
        self.n, self.m = instance.structure.n, instance.structure.m
        self.rest = rotation.without(groups)
        self.rows = np.concatenate([group.rows.ravel() for group in groups])
        self.columns, self.a = instance.matrices.single[self.rows], instance.matrices.single_values[self.rows]
        other = np.ones(self.n, dtype=bool)
        other[self.columns] = False
        self.others = np.flatnonzero(other)
        d = np.concatenate([group.d.ravel() for group in groups])
        complement = np.concatenate([group.complement.ravel() for group in groups])
        self.free = np.flatnonzero(d > 0.0)
        self._tight = d == 0.0
        self._curvature = complement[self.free] / d[self.free]

    @classmethod
    def of(cls, instance: Instance, rotation: Rotation) -> Turned | None:
        """The system in turned variables, where there are matrix variables of some size and what stays is not large."""
        spectrum, single, values = rotation.spectrum, instance.matrices.single, instance.matrices.single_values
        if spectrum is None or single is None or values is None or not spectrum.cones.psd:
            return None
        groups = [
            group
            for group in spectrum.groups
            if group.kind == "psd"
            and group.dim >= LEAST_DIM
            and bool((single[group.rows] >= 0).all())
            and bool((values[group.rows] != 0.0).all())
        ]
        if not groups:
            return None
        columns = single[np.concatenate([group.rows.ravel() for group in groups])]
        if len(np.unique(columns)) < len(columns):
            return None
        out = cls(instance, rotation, groups)
        size, stays = len(out.others) + out.rest.size, len(out.free)
        if out.pivots is None and len(out.columns) * stays > LARGEST_BASIS:
            return None
        return out if size + (stays if out.pivots is None else 0) <= DENSE_LIMIT else None

    @property
    def first_block(self) -> int:
        """Number of columns among the unknowns of `K`, which come first."""
        return len(self.others) + (len(self.free) if self.pivots is None else 0)

    @cached_property
    def _diagonal(self) -> Floats | None:
        """P's diagonal where it has no other entries: then no part of it needs to be cut out, which takes long."""
        structure, P = self.instance.structure, cast(Any, self.instance.P)
        return P.diagonal() if np.array_equal(structure.P_rows, structure.P_cols) else None

    @cached_property
    def _weight(self) -> float | None:
        """c where P_CC = c diag(a²), else None."""
        if self._diagonal is not None:
            diagonal = self._diagonal[self.columns]
        else:
            P_CC: Any = self.instance.P[self.columns][:, self.columns]
            if sp.issparse(P_CC):
                diagonal, entries = P_CC.diagonal(), P_CC.count_nonzero()
            else:
                diagonal, entries = np.diagonal(P_CC), np.count_nonzero(P_CC)
            if entries > np.count_nonzero(diagonal):
                return None
        ratio = diagonal / self.a**2
        c = float(ratio[0])
        return c if bool((np.abs(ratio - c) <= 4.0 * EPS * abs(c)).all()) else None

    @cached_property
    def pivots(self) -> Floats | None:
        """Diagonal of the first block where that is diagonal, positive and by itself, so that it leaves; else None."""
        weight = self._weight
        if weight is None or not weight > 0.0:
            return None
        if self._diagonal is not None:
            return self._curvature + weight
        coupled: Any = self.instance.P[self.others][:, self.columns]
        alone = (coupled.count_nonzero() if sp.issparse(coupled) else np.count_nonzero(coupled)) == 0
        return self._curvature + weight if alone else None

    @cached_property
    def A_Z(self) -> Floats:
        """A_o Z, shape (r, f)."""
        return self._turn(dense(self.A_o[:, self.columns]))

    @cached_property
    def Z(self) -> Floats:
        """diag(1/a) Q_free, shape (c, f)."""
        out = np.zeros((len(self.columns), len(self.free)))
        row = column = 0
        for group in self.groups:
            for k in range(group.count):
                free = group.d[k] > 0.0
                count = int(free.sum())
                out[row : row + group.dim, column : column + count] = group.columns(k, free)
                row, column = row + group.dim, column + count
        out /= self.a[:, None]
        return out

    @cached_property
    def A_o(self) -> Any:
        """The kept directions of the other rows, shape (r, n): dense array or CSR."""
        return self.rest.rotated(self.instance.rows)

    @cached_property
    def K(self) -> Floats:
        """The matrix that stays, in the order free (where they stay), other columns, other rows."""
        C, O, diag = self.columns, self.others, self._diagonal
        P: Any = self.instance.P
        f, o, r = self.first_block - len(O), len(O), self.rest.size
        K = np.zeros((f + o + r, f + o + r))
        diagonal = K.reshape(-1)[:: f + o + r + 1]
        if f:
            # Z has orthonormal columns but for 1/a, so that P_CC = c diag(a²) becomes c I.
            if self._weight is None:
                K[:f, :f] = self.Z.T @ (P[C][:, C] @ self.Z if diag is None else diag[C, None] * self.Z)
            diagonal[:f] += self._curvature + (self._weight or 0.0)
            if diag is None:
                K[f : f + o, :f] = self._turn(dense(P[O][:, C]))
            K[f + o :, :f] = self.A_Z
        if diag is None:
            K[f : f + o, f : f + o] = dense(P[O][:, O])
        else:
            diagonal[f : f + o] += diag[O]
        K[f + o :, f : f + o] = dense(self.A_o[:, O])
        if self.pivots is not None:
            K[f + o :, f + o :] = -(self.A_Z / self.pivots) @ self.A_Z.T
        if self.rest.h is not None:
            diagonal[len(diagonal) - len(self.rest.h) :] -= self.rest.h
        K[:f, f:] = K[f:, :f].T
        K[f : f + o, f + o :] = K[f + o :, f : f + o].T
        return K

    def _turn(self, value: Floats) -> Floats:
        """Zᵀ value for values on the cones' columns, (..., c) to (..., f)."""
        return self._rotate(value / self.a, inverse=False)[..., self.free]

    def _turn_back(self, value: Floats) -> Floats:
        """Z value, (..., f) to (..., c)."""
        whole = np.zeros((*value.shape[:-1], len(self.columns)))
        whole[..., self.free] = value
        return self._rotate(whole, inverse=True) / self.a

    def _rotate(self, value: Floats, inverse: bool) -> Floats:
        """Qᵀ value, or Q value, on the cones' rows, shape (..., c)."""
        out, first = np.empty_like(value), 0
        for group in self.groups:
            length = group.count * group.dim
            part = value[..., first : first + length].reshape(*value.shape[:-1], group.count, group.dim)
            turned = group.restore(part) if inverse else group.rotate(part)
            out[..., first : first + length] = turned.reshape(*value.shape[:-1], length)
            first += length
        return out

    def solve(
        self, inner: Callable[[Floats], tuple[Floats, Certificate]], g: Floats, h: Floats | None
    ) -> tuple[Floats, Floats, Certificate]:
        """Solve as `ReducedSystem.solve`.

        Args:
            inner: solves with `K` for one right-hand side (N,) or several (N, k), and certifies.
            g: right-hand side on columns, shape (n,) or (k, n).
            h: right-hand side on rows, shape (m,) or (k, m); None for zero.
        """
        P: Any = self.instance.P
        C, O, o, pivots = self.columns, self.others, len(self.others), self.pivots
        u = np.zeros_like(g)
        moved, curved, rows = g, 0.0, np.zeros((*g.shape[:-1], self.rest.size))
        if h is not None:
            rho = self._rotate(h[..., self.rows], inverse=False)
            u[..., C] = self._rotate(np.where(self._tight, rho, 0.0), inverse=True) / self.a
            moved = g - apply(P, u)
            curved = self._curvature * rho[..., self.free]
            rows = self.rest.reduce(h) - apply(self.A_o, u)
        free = self._turn(moved[..., C]) + curved
        if pivots is None:
            right = np.concatenate([free, moved[..., O], rows], axis=-1)
        else:
            right = np.concatenate([moved[..., O], rows - apply(self.A_Z, free / pivots)], axis=-1)
        solution, certificate = inner(right if g.ndim == 1 else right.T)
        solution = solution.T
        f = self.first_block - o
        w_o = solution[..., f + o :]
        turned = solution[..., :f] if pivots is None else (free - apply(self.A_Z.T, w_o)) / pivots
        u[..., C] += self._turn_back(turned)
        u[..., O] = solution[..., f : f + o]
        w = self.rest.restore(w_o, self.m)
        w[..., self.rows] = (g - apply(P, u) - apply(self.A_o.T, w_o))[..., C] / self.a
        return u, w, certificate
