"""The spectrum D = DΠ_K(v) = Q diag(d) Qᵀ of the whole product cone, put together from the groups of equal cones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp

from cvxift.cones.base import Floats, Group
from cvxift.cones.spec import Cones
from cvxift.errors import ProgramError


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Eigenvalues and orthonormal eigenvectors of D = DΠ_K(v); symmetric, 0 ≼ D ≼ I.

    Args:
        cones: the product cone.
        batch: leading batch dimensions of v.
        groups: spectrum of each group of equal cones, by their first rows.

    Example:
        >>> import numpy as np
        >>> from cvxift.cones import Cones, spectrum
        >>> found = spectrum(Cones(zero=1, nonneg=2, soc=(3,)), np.array([1.0, 2.0, -3.0, 0.0, 3.0, 4.0]))
        >>> found.d
        array([0. , 1. , 0. , 1. , 0.5, 0. ])
        >>> found.apply(np.ones(6)).round(2)
        array([0. , 1. , 0. , 1.2, 0.8, 0.9])
    """

    cones: Cones
    batch: tuple[int, ...]
    groups: tuple[Group, ...]

    @cached_property
    def s(self) -> Floats:
        """The projection Π_K(v), shape (..., m); it comes with the spectrum at no cost."""
        return self._assemble([group.s for group in self.groups], self.batch)

    @cached_property
    def d(self) -> Floats:
        """Eigenvalues in row order, shape (..., m); exactly 0.0 (tight) or 1.0 (slack) where theory says so."""
        return self._assemble([group.d for group in self.groups], self.batch)

    @cached_property
    def complement(self) -> Floats:
        """1 − d without cancellation, shape (..., m)."""
        return self._assemble([group.complement for group in self.groups], self.batch)

    def apply(self, w: Floats) -> Floats:
        """Product Dw for w of shape (..., m), whose leading dimensions broadcast with the batch."""
        return self._each(w, lambda group, part: group.apply(part))

    def rotate(self, w: Floats) -> Floats:
        """Product Qᵀw for w of shape (..., m)."""
        return self._each(w, lambda group, part: group.rotate(part))

    def restore(self, w: Floats) -> Floats:
        """Product Qw for w of shape (..., m)."""
        return self._each(w, lambda group, part: group.restore(part))

    def basis(self) -> sp.csr_array:
        """The orthogonal block-diagonal Q, shape (m, m); an identity block wherever D is 0 or I.

        Raises:
            ProgramError: if the spectrum is batched.
        """
        if self.batch:
            raise ProgramError(f"basis() is for one point; the batch has shape {self.batch}. Use rotate and restore.")
        m = self.cones.m
        plain = np.ones(m, dtype=bool)
        rows, cols, values = [], [], []
        for group in self.groups:
            if group.dim == 1 or not group.mixed.any():
                continue
            index, dim = group.rows[group.mixed], group.dim
            plain[index] = False
            rows.append(np.repeat(index, dim, axis=-1).ravel())
            cols.append(np.tile(index, (1, dim)).ravel())
            values.append(group.eigenvectors(group.mixed).ravel())
        same = np.flatnonzero(plain)
        entries = np.concatenate([np.ones(len(same)), *values])
        where = (np.concatenate([same, *rows]), np.concatenate([same, *cols]))
        out = sp.csr_array(sp.coo_array((entries, where), shape=(m, m)))
        out.eliminate_zeros()
        return out

    def _each(self, w: Floats, product: Callable[[Group, Floats], Floats]) -> Floats:
        w = np.asarray(w, dtype=np.float64)
        if w.shape[-1:] != (self.cones.m,):
            raise ProgramError(f"w has shape {w.shape}; expected (..., {self.cones.m}), one entry for each row of K.")
        values = [product(group, group.part.take(w)) for group in self.groups]
        return self._assemble(values, np.broadcast_shapes(self.batch, w.shape[:-1]))

    def _assemble(self, values: list[Floats], batch: tuple[int, ...]) -> Floats:
        out = np.empty((*batch, self.cones.m))
        for group, value in zip(self.groups, values, strict=True):
            group.part.put(out, np.broadcast_to(value, (*batch, *value.shape[-2:])))
        return out
