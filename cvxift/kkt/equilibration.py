"""The units in which a program is of moderate size: what solvers and residuals see of it.

Other units (`cvxift.kkt.units`) are the symmetric scaling by diag(√κ C, R/√κ, √κ) of

    M = [ P  Aᵀ  q ;  A  0  b ;  qᵀ  bᵀ  0 ]

so that scaling M gives all units at once. First those in which the logarithms of M's entries have least squares, which
are the same whatever units the program came in (Curtis & Reid 1972); then some passes of an equilibration, which brings
the largest entries of P and A in each row near 1 (Ruiz 2001). They are rounded to powers of two: scaling changes no
digit. A program whose rows of M, q and b are of moderate size stays as it is.

Of an entry only the nearest power of two is looked at, which most keep from one θ to the next: units are found once for
all programs with the same powers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from cvxift._types import EPS
from cvxift.kkt.turns import Boosted, Boosts, PowerRows, Shears, Turn, sheared
from cvxift.kkt.units import Units
from cvxift.program.structure import Data, Floats, Structure

LEAST, MOST = 1e-2, 1e2  # largest entries of M's rows, of q and of b, between which a program is left as it is
LEAST_TURNED = 1e-3  # of q's and b's entries beside cones that are turned, where its square is lost beside the largest
LIGHT = 0.1  # weight of q and b among the entries of M: they settle what P and A leave open
LOGARITHM_ACCURACY = 0.05  # accuracy of those, in powers of two; a unit is a matter of magnitude
TURNED_ACCURACY = 1e-3  # the same beside cones that may be turned, where light entries alone settle what is left open
NEGLIGIBLE_POWER = -26  # power of two under which an entry is counted as rounding that a cancellation left
PASSES = 3  # passes of the equilibration; each halves the logarithms of the rows' sizes
ROUNDED = 0.5**0.5  # times a number, whose exponent is then that of the nearest power of two, on a scale of logarithms
POWER_OF_ZERO = -(2**15)  # in place of the power of a zero
SCALING_STEPS = 60  # steps of conjugate gradients
KEPT_UNITS = 4  # programs of which the units are kept


class Equilibration:
    """Finds the units in which programs of one structure are of one size.

    Args:
        structure: the programs' structure.
        turns: whether rows of exponential, power and second-order cones may have units of their own.

    Source: Curtis & Reid 1972, "On the automatic scaling of matrices for Gaussian elimination"; Ruiz 2001, "A scaling
    algorithm to equilibrate both rows and columns norms in matrices".

    Example:
        >>> from cvxift.program.structure import Cones
        >>> find = Equilibration(Structure.from_patterns(1, Cones(nonneg=1), P=([0], [0]), A=([0], [0])))
        >>> one = np.ones(1)
        >>> find(Data(one, one, one, one, np.float64(0.0))) is None
        True
        >>> found = find(Data(1e12 * one, 1e6 * one, 1e6 * one, one, np.float64(0.0)))  # x in a unit of 1e-6
        >>> float(found.columns[0])
        9.5367431640625e-07
    """

    def __init__(self, structure: Structure, turns: bool = False) -> None:
        # Where the entries of M stand among the values P, A, Aᵀ, q, qᵀ, b, bᵀ, sorted by M's row.
        P_rows, P_cols, A_rows, A_cols = structure.places
        n, m = structure.n, structure.m
        columns, rows, last = np.arange(n), n + np.arange(m), n + m
        of = [P_cols, A_cols, n + A_rows, columns, np.full(n, last), rows, np.full(m, last)]
        other = [P_rows, n + A_rows, A_cols, np.full(n, last), columns, np.full(m, last), rows]
        order = np.argsort(np.concatenate(of), kind="stable")
        self._order, self._of, self._other = order, np.concatenate(of)[order], np.concatenate(other)[order]
        self._n, self._size = n, n + m + 1
        count = np.bincount(self._of, minlength=self._size)
        self._indptr = np.concatenate([[0], np.cumsum(count)])
        self._filled = np.flatnonzero(count)
        self._starts = self._indptr[self._filled]
        last_of_q = len(order) - m  # M's last row holds q, then b
        self._blocks = np.append(self._starts, last_of_q) if n and m else self._starts
        cones = structure.cones
        weight = np.concatenate([np.ones(len(P_cols) + 2 * len(A_rows)), np.full(2 * (n + m), LIGHT)])
        self._weight = weight[order]
        self._heavy, self._light = np.flatnonzero(self._weight == 1.0), np.flatnonzero(self._weight < 1.0)
        self._heavy_filled, self._heavy_starts = np.unique(self._of[self._heavy], return_index=True)
        self._kept: tuple[tuple[bytes, Units], ...] = ()  # replaced as a whole: threads read it as it is
        self._sheared = sheared(structure) if turns and cones.exp else np.zeros(0, dtype=np.int64)
        self._boosted = Boosted.of(structure) if turns and cones.soc else None
        self._powers = PowerRows.of(cones) if turns and cones.pow else None
        turned = self._turned = len(self._sheared) > 0 or self._boosted is not None or self._powers is not None
        self._accuracy = TURNED_ACCURACY if turned else LOGARITHM_ACCURACY
        starts = None if cones.polyhedral else np.append(cones.unit_starts, self._sheared + 2)
        if starts is not None and self._boosted is not None:
            starts = np.concatenate([starts, self._boosted.first + 1, self._boosted.first + 2])
        if starts is not None and self._powers is not None:
            starts = np.concatenate([starts, self._powers.first + 1, self._powers.first + 2])
        starts = None if starts is None else np.sort(starts)
        self._cone_starts = starts
        self._cone_sizes = None if starts is None else np.diff(np.append(starts, cones.m))

    def _values(self, data: Data) -> Floats:
        """The entries' magnitudes, shape (..., entries)."""
        parts = [data.P, data.A, data.A, data.q, data.q, data.b, data.b]
        return np.abs(np.concatenate(parts, axis=-1).take(self._order, axis=-1))

    def _sums(self, values: Floats) -> Floats:
        """The sum of each row's entries, shape (..., n + m + 1)."""
        if values.ndim == 1:
            bincount: Any = np.bincount  # its stub leaves the weights' dtype out
            return bincount(self._of, weights=values, minlength=self._size)
        out = np.zeros((*values.shape[:-1], self._size))
        out[..., self._filled] = np.add.reduceat(values, self._starts, axis=-1)
        return out

    def _largest(self, values: Floats) -> Floats:
        """The largest entry of P and A in each row, of a curved cone's rows the largest of all, (..., n + m + 1)."""
        out = np.zeros((*values.shape[:-1], self._size))
        if len(self._heavy):
            heavy = values.take(self._heavy, axis=-1)
            out[..., self._heavy_filled] = np.maximum.reduceat(heavy, self._heavy_starts, axis=-1)
        if self._cone_starts is not None and self._cone_sizes is not None:
            largest = np.maximum.reduceat(out[..., self._n : -1], self._cone_starts, axis=-1)
            out[..., self._n : -1] = np.repeat(largest, self._cone_sizes, axis=-1)
        return out

    def __call__(self, data: Data) -> Units | None:
        """The units of a program, or of each program of a batch.

        Args:
            data: the data, with any leading dimensions.

        Returns:
            The units; None where the program is of moderate size in its own, or not finite.
        """
        if not self._size - 1:
            return None
        values = self._values(data)
        largest = np.maximum.reduceat(values, self._blocks, axis=-1)
        # Zeros are no unit; the second look at the least is for them.
        if (
            np.maximum.reduce(largest, axis=None) <= MOST
            and (np.minimum.reduce(largest, axis=None) >= LEAST or _least(largest).min() >= LEAST)
            and not self._light_entries(values).any()
        ):
            return None
        if not np.isfinite(largest).all():
            return None
        if self._boosted is not None:
            A, b = self._boosted.rotated(data.A, data.b)
            values = self._values(replace(data, A=A, b=b))
        light = self._weight < 1.0  # q and b, which are no unit where all together are rounding beside P and A
        most = (np.where(part, values, 0.0).max(axis=-1, initial=0.0, keepdims=True) for part in (light, ~light))
        values = np.where(light & np.less_equal(next(most), EPS * next(most)), 0.0, values)
        largest = np.maximum.reduceat(values, self._blocks, axis=-1)
        moderate = (largest.max(axis=-1) <= MOST) & (_least(largest) >= LEAST) & ~self._light_entries(values)
        if moderate.all():
            return None
        powers = np.where(values > 0.0, np.frexp(ROUNDED * values)[1], POWER_OF_ZERO).astype(np.int16)
        if values.ndim == 1:
            return self._units_once(powers)
        scale = self._scale(powers)
        scale[moderate] = 1.0  # programs of a batch that are of moderate size stay in their own units
        return self._units(scale)

    def _units_once(self, powers: NDArray[np.int16]) -> Units:
        """The units of one program; those found last are kept, so that constants are the same arrays in them."""
        key = powers.tobytes()
        for known, units in self._kept:
            if known == key:
                return units
        units = self._units(self._scale(powers))
        for _, other in self._kept:
            if units.same(other):
                units = other
                break
        self._kept = ((key, units), *self._kept[: KEPT_UNITS - 1])
        return units

    def _units(self, scale: Floats) -> Units:
        """Powers of two near a scale of M's rows, shape (..., n + m + 1)."""
        n, last = self._n, scale[..., -1]
        rows = scale[..., n:-1] * last[..., None]
        turns: tuple[Turn, ...] = ()
        if self._boosted is not None:
            first = self._boosted.first
            u, w = rows[..., first].copy(), rows[..., first + 1].copy()
            rows[..., first] = rows[..., first + 1] = np.sqrt(u * w)
            turns = (Boosts.of(self._boosted, _power(np.sqrt(u / w)), rows.shape[-1]),)
        rows = _power(rows)
        if self._powers is not None:
            rows = self._powers.third(rows)
        if len(self._sheared):
            turns = (*turns, Shears.between(self._sheared, rows))
        return Units(rows, _power(scale[..., :n] / last[..., None]), _power(last * last), turns)

    def _scale(self, powers: NDArray[np.int16]) -> Floats:
        """The scale of M's rows for entries of these powers of two, shape (..., n + m + 1)."""
        positive = powers > POWER_OF_ZERO
        logarithms = np.where(positive, powers, 0).astype(float)
        centred = self._centred(logarithms, positive)
        small = positive & (self._spread(centred) + logarithms < NEGLIGIBLE_POWER)
        if small.any():  # rounding left of what cancelled says nothing of a unit
            centred = self._centred(logarithms, positive & ~small)
        scale, values = np.exp2(centred), np.where(positive, np.exp2(logarithms), 0.0)
        for _ in range(PASSES):
            largest = self._largest(values * np.exp2(self._spread(np.log2(scale))))
            scale /= np.sqrt(np.exp2(self._coupled(np.log2(np.where(largest > 0.0, largest, 1.0)))))
        return scale

    def _light_entries(self, values: Floats) -> Any:
        """Whether entries of q or b, more than rounding, are no unit of a cone that is turned, (...).

        An entry of ε leaves v = s − y of such a cone a relative accuracy of EPS/ε², 1e-10 at `LEAST_TURNED`; of a power
        cone, x^−a/(1−a) ≤ t, where x = ε has the multiplier ε^−1/(1−a), one of EPS/ε^(1 + 1/(1−a)).
        """
        if not self._turned:
            return np.False_
        own = values.take(self._light, axis=-1)
        rounding = EPS * own.max(axis=-1, initial=0.0, keepdims=True)
        least = LEAST_TURNED if self._powers is None else self._powers.least
        return ((own > rounding) & (own < least)).any(axis=-1)

    def of_matrices(self, data: Data) -> tuple[Floats, Floats]:
        """Units c of columns (n,) and rows (m,) in which P and A alone have entries near 1 in the geometric mean.

        diag(c) [ P  Aᵀ ; A  0 ] diag(c) moves with the units: columns in another one, x → Dx, have c → Dc, and nothing
        else changes. Columns and rows without entries have 1.

        Example:
            >>> from cvxift.program.structure import Cones
            >>> find = Equilibration(Structure.from_patterns(2, Cones(), P=([0, 1], [0, 1]), A=([], [])))
            >>> data = Data(np.array([2.0**-26, 1.0]), np.ones(2), np.zeros(0), np.zeros(0), np.float64(0.0))
            >>> find.of_matrices(data)[0]
            array([8.192e+03, 1.000e+00])
        """
        values = self._values(data)
        counts = (values > 0.0) & (self._weight == 1.0)
        c = np.exp2(self._centred(np.log2(np.where(counts, values, 1.0)), counts))
        return c[: self._n], c[self._n : -1]

    def _spread(self, rows: Floats) -> Floats:
        """The sum of the two rows' values at each entry, shape (..., entries)."""
        return rows.take(self._of, axis=-1) + rows.take(self._other, axis=-1)

    def _centred(self, logarithms: Floats, counts: NDArray[np.bool_]) -> Floats:
        """`_centred` for M's entries that count, the rows of a curved cone sharing a unit, shape (..., n + m + 1)."""
        weight = np.where(counts, self._weight, 0.0)
        total = self._sums(weight)
        if weight.ndim == 1:
            W = sp.csr_array((weight, self._other, self._indptr), shape=(self._size, self._size))
            image = lambda d: self._share(total * d + W @ d)  # noqa: E731
        else:
            image = lambda d: self._share(self._sums(weight * self._spread(d)))  # noqa: E731
        right = self._share(self._sums(weight * logarithms))
        return _centred(image, self._coupled, self._mean(total), right, self._accuracy)

    def _share(self, rows: Floats) -> Floats:
        """The nearest logarithms that units can have, shape (..., n + m + 1)."""
        return self._coupled(self._mean(rows))

    def _mean(self, rows: Floats) -> Floats:
        """The mean of a curved cone's rows in all of them, shape (..., n + m + 1)."""
        if self._cone_starts is not None and self._cone_sizes is not None:
            mean = np.add.reduceat(rows[..., self._n : -1], self._cone_starts, axis=-1) / self._cone_sizes
            rows = rows.copy()
            rows[..., self._n : -1] = np.repeat(mean, self._cone_sizes, axis=-1)
        return rows

    def _coupled(self, rows: Floats) -> Floats:
        """Logarithms that the units of boosted and of power cones can have, shape (..., n + m + 1)."""
        for cones in (self._boosted, self._powers):
            if cones is not None:
                own = cones.coupled(rows[..., self._n : -1])
                rows = np.concatenate([rows[..., : self._n], own, rows[..., -1:]], axis=-1)
        return rows


def _least(largest: Floats) -> Floats:
    """The least positive entry of each program's, shape (...); at most 1."""
    return np.where(largest > 0.0, largest, 1.0).min(axis=-1)


def _power(values: Floats) -> Floats:
    """The nearest powers of two."""
    return np.exp2(np.round(np.log2(values)))


def _centred(
    image: Callable[[Floats], Floats],
    admit: Callable[[Floats], Floats],
    total: Floats,
    logarithms: Floats,
    accuracy: float,
) -> Floats:
    """Logarithms d of a scale in which those of a symmetric matrix's entries have least squares, shape (..., rows).

    By conjugate gradients. Each row's equation, Σ_j (l_ij + d_i + d_j) = 0, moves with the units that the matrix came
    in, and so does its solution; the largest entries alone, where an equilibration starts, do not tell them.

    Args:
        image: from d to Σ_j (d_i + d_j), the sums over a row's entries by their weights.
        admit: from d to the nearest that units can have.
        total: the sum of each row's weights.
        logarithms: the sum of each row's l.
        accuracy: of d.
    """
    total = np.where(total > 0.0, total, 1.0)
    d = np.zeros_like(total)
    rest = -logarithms
    z = admit(rest / total)
    direction, size = z, np.vecdot(rest, z)[..., None]
    for _ in range(SCALING_STEPS):
        if np.max(np.abs(z), initial=0.0) <= accuracy:
            break
        moved = image(direction)
        curvature = np.vecdot(direction, moved)[..., None]
        step = size / np.where(curvature > 0.0, curvature, np.inf)
        d, rest = d + step * direction, rest - step * moved
        z = admit(rest / total)
        new = np.vecdot(rest, z)[..., None]
        direction, size = z + new / np.where(size > 0.0, size, np.inf) * direction, new
    return d
