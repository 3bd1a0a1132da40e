"""The program's data as a function of θ, its tangent and cotangent: the stacked affine map cut into its five pieces.

Pieces that do not depend on θ are kept aside as read-only arrays, so that only the others cost anything. A nonneg row
aᵀx ≤ b whose b is +∞ at some θ binds nothing; there it is replaced by 0ᵀx ≤ 1, so that the slack stays finite, the
multiplier zero and the structure the same. Likewise a curved cone that such a bound was put into: A is zero there and b
a point inside the cone.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from cvxift.program.affine import Adjoint, AffineMap
from cvxift.program.structure import Data, Floats, Structure, frozen
from cvxift.program.tensors import PIECES, Stack


class Maps:
    """θ ↦ (P, q, A, b, d) and its transpose.

    Args:
        structure: the patterns that the values are aligned with.
        stacked: the affine map of all pieces.
        weights: of bounds that were put into rows of curved cones (`epigraphs.Eliminated`), zero in other rows.

    Attributes:
        A_varies: entries of A that depend on θ, shape (nnzA,).
        P_varies: whether an entry of P does.
        may_be_infinite: entries of θ for which +∞ means "no bound", and those for which −∞ does; masks of shape (N,).
        may_release: whether there is one.
        limits: for each row the infinite b with which it binds nothing; NaN for none.
        inside: b of a cone that binds nothing, by its rows.
    """

    def __init__(self, structure: Structure, stacked: Stack, weights: Floats) -> None:
        self._structure = structure
        cones = structure.cones
        self.inside = cones.inside
        opens = np.sign(weights)
        opens[cones.zero : cones.zero + cones.nonneg] = 1.0
        self.limits = np.select([opens > 0.0, opens < 0.0], [np.inf, -np.inf], np.nan)
        self.may_be_infinite = _no_bound(opens, stacked)
        self.may_release = bool(any(mask.any() for mask in self.may_be_infinite))
        self._theta_size = stacked.theta_size
        where = stacked.slices
        entries = np.diff(stacked.matrix.indptr)
        self.A_varies = entries[where["A"]] > 0
        self.P_varies = bool(entries[where["P"]].any())
        varying = [name for name in PIECES if entries[where[name]].any()]
        sizes = {name: piece.stop - piece.start for name, piece in where.items()}
        selected = np.concatenate([np.zeros(0, dtype=np.int64)] + [np.r_[where[name]] for name in varying])
        matrix = stacked.matrix[selected]
        ends = np.cumsum([0] + [sizes[name] for name in varying])
        self._varying = {name: slice(int(i), int(j)) for name, i, j in zip(varying, ends[:-1], ends[1:], strict=True)}
        others = [name for name in PIECES if name not in varying]
        zeros, values = [np.zeros(sizes[name]) for name in others], [stacked.constant[where[name]] for name in others]
        self._zeros = dict(zip(others, map(frozen, zeros), strict=True))
        self._constants = dict(zip(others, map(frozen, values), strict=True))
        self._map = AffineMap(matrix, stacked.constant[selected])
        self._adjoint = Adjoint(matrix)

    def affine(self) -> dict[str, tuple[sp.csr_array, Floats]]:
        """Each piece as (M, c): its values are c + Mθ; rows released by b = +∞ are not."""
        matrix, constant = self._map.parts()
        pieces = {}
        for name in PIECES:
            where = self._varying.get(name)
            if where is None:
                c = self._constants[name]
                pieces[name] = sp.csr_array((len(c), self._theta_size)), c
            else:
                pieces[name] = sp.csr_array(matrix[where]), constant[where]
        return pieces

    def evaluate(self, theta: Floats) -> Data:
        """The data at θ, shape (..., N)."""
        if theta.ndim > 1:
            data = self._cut(self._map(theta), theta.shape[:-1], self._constants)
        else:
            values, pieces = self._map(theta), dict(self._constants)
            for name, where in self._varying.items():
                pieces[name] = values[where]
            data = Data(pieces["P"], pieces["q"], pieces["A"], pieces["b"], pieces["d"][0])
        if self.may_release and not np.isfinite(data.b).all():
            return self._release(data)
        return data

    def jvp(self, dtheta: Floats) -> Data:
        """The linear part at dθ, shape (..., N)."""
        return self._cut(self._map.linear(dtheta), dtheta.shape[:-1], self._zeros)

    def vjp(self, bar: Data) -> Floats:
        """The transpose of the linear part; a field that is None counts as zero."""
        batch, stacked = None, []
        for name, where in self._varying.items():
            piece = getattr(bar, name)
            if piece is None:
                batch = _batch_of(bar) if batch is None else batch
                piece = np.zeros((*batch, where.stop - where.start))
            elif name == "d":
                piece = np.asarray(piece)[..., None]
            stacked.append(piece)
        if not stacked:
            return np.zeros((*_batch_of(bar), self._theta_size))
        return self._adjoint(stacked[0] if len(stacked) == 1 else np.concatenate(stacked, axis=-1))

    def _cut(self, stacked: Floats, batch: tuple[int, ...], constants: dict[str, Floats]) -> Data:
        pieces = []
        for name in PIECES:
            where = self._varying.get(name)
            if where is not None:
                piece = stacked[..., where]
            else:
                piece = constants[name]
                if batch:  # the view that `numpy.broadcast_to` takes three times as long for
                    strides = (*(0,) * len(batch), *piece.strides)
                    piece = np.ndarray((*batch, len(piece)), piece.dtype, piece, 0, strides)
            pieces.append(piece)
        P, q, A, b, d = pieces
        return Data(P, q, A, b, d[..., 0])

    def _release(self, data: Data) -> Data:
        free = data.b == self.limits
        cones = self._structure.cones
        if not cones.polyhedral:
            free = np.logical_or.reduceat(free, cones.unit_starts, axis=-1)[..., cones.unit_of_row]
        A = np.where(free[..., self._structure.A_rows], 0.0, data.A)
        return Data(data.P, data.q, A, np.where(free, self.inside, data.b), data.d)


def _batch_of(bar: Data) -> tuple[int, ...]:
    """The leading dimensions of a cotangent, some of whose fields may be None."""
    for name in PIECES:
        piece = getattr(bar, name)
        if piece is not None:
            return np.shape(piece)[: np.ndim(piece) - (name != "d")]
    return ()


def _no_bound(opens: Floats, stacked: Stack) -> tuple[np.ndarray, np.ndarray]:
    """Entries of θ that, at +∞ (at −∞), make right-hand sides infinite with the sign that binds nothing, alone."""
    where, matrix, size = stacked.slices, sp.coo_array(stacked.matrix), stacked.theta_size
    signs = np.zeros(len(stacked.constant))
    signs[where["b"]] = opens
    rows, theta = matrix.coords
    pull = matrix.data * signs[rows]
    used = np.zeros(size, dtype=bool)
    used[theta] = True
    masks = []
    for sign in (1.0, -1.0):
        blocked = np.zeros(size, dtype=bool)
        blocked[theta[sign * pull <= 0]] = True
        masks.append(used & ~blocked)
    return masks[0], masks[1]
