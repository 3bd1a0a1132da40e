"""Factorizations of a sparse KKT matrix; see `cvxift.kkt.system.factor`.

LDLᵀ (QDLDL) of the quasidefinite K + δ·diag(I, −I), equilibrated first, and LU (SuperLU) where that cannot be had.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import qdldl
import scipy.sparse as sp
import scipy.sparse.linalg as sla

from cvxift._types import cached_property
from cvxift.kkt.system.assembly import entry_columns, equilibrate, scale_symmetric
from cvxift.kkt.system.factor import REFINE_GOAL, SHIFTED_STEPS, Factor, column_size, relative_size
from cvxift.program.structure import Floats

_linear_operator: Any = sla.LinearOperator  # its __new__ dispatches, unseen by type checkers

SPARSE_DELTA = 1e-9  # quasidefinite shift, relative to the equilibrated K
KEPT_PATTERNS = 8  # patterns of which workspaces are kept, two each: those of a call and of its derivatives
KEPT_WORKSPACES = 2
KEPT_ENTRIES = 200_000  # entries of K up to which they are, for the memory of all of them; larger ones are seldom small
NULL_MOVED = 1e-10  # part of a vector by which K moves its null part, and up to which the rest is solved for
NULL_SETTLED = (
    1e-6  # part of it by which another power of T may change the null part: singular values are under 1e-6 δ there
)
NEARLY = 2  # steps, and factors 1 − T of each, for an approximate solution
NEARLY_DELTA = 1e-6  # the shift for those, above singular values that are of no use to steps
MOST_POWERS = 8  # of T, at most: each divides what is not null by σ/δ, so that σ must be over 5 δ
LU_DELTA = 1e-10  # the same for the LU, whose pivoting bears a smaller one


class _Pattern:
    """A sparse K's pattern, and workspaces of QDLDL that know its elimination order: finding that takes most time.

    The order depends on the pattern alone, so that a workspace gives the same numbers as a new one.

    Args:
        K: CSC matrix with this pattern, shape (N, N).

    Attributes:
        columns: the column of each entry, shape (nnz,).
        diagonal: which entries are on the diagonal, shape (nnz,).
    """

    _known: tuple[_Pattern, ...] = ()  # the last ones; replaced as a whole: threads read it as it is

    def __init__(self, K: sp.csc_array) -> None:
        self._indptr, self._indices, self._shape = K.indptr, K.indices, K.shape
        self.columns = entry_columns(K)
        self.diagonal, self._upper = K.indices == self.columns, K.indices <= self.columns
        counts = np.bincount(self.columns[self._upper], minlength=len(K.indptr) - 1)
        self._triangle = K.indices[self._upper], np.concatenate([[0], np.cumsum(counts)])
        self._idle: list[qdldl.Solver] = []

    @classmethod
    def of(cls, K: sp.csc_array) -> _Pattern:
        """The pattern of K; small ones are kept."""
        for known in cls._known:
            same = len(known._indices) == len(K.indices) and np.array_equal(known._indptr, K.indptr)
            if same and np.array_equal(known._indices, K.indices):
                return known
        made = cls(K)
        if len(K.indices) <= KEPT_ENTRIES:
            cls._known = (made, *cls._known[: KEPT_PATTERNS - 1])
        return made

    def factorized(self, values: Floats) -> qdldl.Solver:
        """A workspace with the factors of the matrix with these entries; QDLDL's RuntimeError where there are none."""
        triangle = sp.csc_array((values[self._upper], *self._triangle), shape=self._shape)
        try:
            workspace = self._idle.pop()
        except IndexError:
            return qdldl.Solver(triangle, upper=True)
        workspace.update(triangle, upper=True)
        if not workspace.factors()[1].all():  # it stops at a zero pivot without a word
            self._idle.append(workspace)
            raise RuntimeError("a pivot is zero")
        return workspace

    def give_back(self, workspace: qdldl.Solver) -> None:
        """Keep a workspace that nobody uses any more for the next factorization."""
        if len(self._idle) < KEPT_WORKSPACES and len(self._indices) <= KEPT_ENTRIES:
            self._idle.append(workspace)


class SparseFactor(Factor):
    """LDLᵀ of the equilibrated sparse K, shifted to quasidefinite; refinement removes the shift.

    Args:
        K: symmetric CSC matrix, shape (N, N), which stores its whole diagonal (see `kkt_matrix`).
        n: size of the first block, which is shifted upwards; the rest is shifted downwards.
        delta: the shift, relative to the equilibrated K; raised where it is too small for K's rounding errors.
    """

    method = "sparse LDLᵀ"

    def __init__(self, K: sp.csc_array, n: int, delta: float = SPARSE_DELTA) -> None:
        self.K, self._n = K, n
        self.scale = equilibrate(K)
        pattern = self._pattern = _Pattern.of(K)
        scaled = K.data * self.scale[K.indices] * self.scale[pattern.columns]
        while True:
            data = scaled.copy()
            self._delta = np.where(np.arange(len(self.scale)) < n, delta, -delta)
            data[pattern.diagonal] += self._delta
            try:
                self._ldl = pattern.factorized(data)
                break
            except RuntimeError:  # rounding has turned a pivot's sign: K is nearly singular and wants a larger shift
                if delta > 1e-3:
                    raise
                delta *= 100.0
        self._shifted = sp.csc_array((data, K.indices, K.indptr), shape=K.shape)

    def __del__(self) -> None:
        if hasattr(self, "_ldl"):
            self._pattern.give_back(self._ldl)

    def apply_inverse(self, f: Floats) -> Floats:
        """One solve with the factors."""
        scale = self.scale if f.ndim == 1 else self.scale[:, None]
        return scale * self._apply(scale * f)

    @cached_property
    def growth(self) -> float:
        """Of the equilibrated, shifted K; near 1/δ where K is singular."""
        return _growth(len(self.scale), self._ldl.solve)

    def least_norm(self, f: Floats) -> tuple[Floats, float, int] | None:
        """The least-squares solution of least norm (in the equilibrated scale), with the factors that there are.

        With J = diag(I, −I), T = (K + δJ)⁻¹δJ is the identity on the null space of K, which J maps to itself, and
        O(δ/σ) across it: powers of T split the null part off f, and off what rounding has put into the solution.

        Args:
            f: right-hand side, shape (N,) or (N, k).

        Returns:
            As `solve`; None where K has singular values so near to δ that the null part is no clear one.
        """
        c = self.scale if f.ndim == 1 else self.scale[:, None]
        K, reached = self._equilibrated, self._across(c * f)
        if reached is None:
            return None
        z, rest, size = np.zeros_like(f), reached, column_size(reached)
        left, steps = relative_size(rest, size), 0
        while left > REFINE_GOAL and steps < SHIFTED_STEPS:
            trial = z + self._apply(rest)
            trial_rest = reached - K @ trial
            steps += 1
            now = relative_size(trial_rest, size)
            if not now < left:
                break
            stalled, z, rest, left = now > 0.9 * left, trial, trial_rest, now
            if stalled:
                break
        z = self._across(z) if left <= NULL_MOVED else None
        return None if z is None else (c * z, relative_size(f - self.K @ (c * z), column_size(f)), steps)

    def nearly(self, f: Floats) -> tuple[Floats, float]:
        """A solution as far as f can be reached by singular values that are clearly not zero: one for steps.

        Args:
            f: right-hand side, shape (N,).

        Returns:
            The solution and the relative residual.
        """
        coarse, z, rest = SparseFactor(self.K, self._n, NEARLY_DELTA), np.zeros_like(f), self.scale * f
        for _ in range(NEARLY):
            step = coarse._apply(rest)
            for _ in range(NEARLY):
                step -= coarse._apply(coarse._delta * step)
            z += step
            rest = self.scale * f - self._equilibrated @ z
        z *= self.scale
        return z, relative_size(f - self.K @ z, column_size(f))

    def _across(self, z: Floats) -> Floats | None:
        """z without its part in the null space of the equilibrated K; None where powers of T have no clear limit."""
        shift = self._delta if z.ndim == 1 else self._delta[:, None]
        size = float(np.abs(z).max(initial=0.0))
        for _ in range(2):  # K's rounding errors over δ turn null vectors into each other; of what is left, nothing
            part = z
            for _ in range(MOST_POWERS):
                f, before = shift * part, part
                part = self._apply(f)
                part += self._apply(f - self._shifted @ part)  # the factors' own rounding is not small beside δ
                still = float(np.abs(part - before).max(initial=0.0)) <= NULL_SETTLED * size
                if still and float(np.abs(self._equilibrated @ part).max(initial=0.0)) <= NULL_MOVED * size:
                    break
            else:
                return None
            z = z - part
        return z

    def _apply(self, f: Floats) -> Floats:
        """(K + δJ)⁻¹ f by the factors of the equilibrated K, f of shape (N,) or (N, k)."""
        if f.ndim == 1:
            return self._ldl.solve(f)
        return np.stack([self._ldl.solve(np.ascontiguousarray(column)) for column in f.T], axis=1)

    @cached_property
    def _equilibrated(self) -> sp.csc_array:
        return scale_symmetric(self.K, self.scale)

    @property
    def negative(self) -> int:
        """Number of negative pivots, which is that of K's negative eigenvalues (Sylvester's law of inertia)."""
        return int(np.count_nonzero(self._ldl.factors()[1] < 0.0))

    def estimate(self) -> float:
        """1-norm condition estimate of the equilibrated, shifted K, at most about 1/δ."""
        return _condition(self._shifted, self._ldl.solve)


class LuFactor(Factor):
    """LU with partial pivoting (SuperLU) of the equilibrated sparse K, for systems that `SparseFactor` cannot take.

    With a shift δ, refinement is the proximal method of multipliers: with J = diag(I, −I), JK is monotone, so that each
    step u ← u + (K + δJ)⁻¹(f − K u) brings u nearer to a solution, at the rate δ/(δ + σ); from u = 0 to that of least
    norm in the equilibrated scale, up to rounding errors over δ along K's null vectors. K may be singular then.

    Args:
        K: symmetric CSC matrix, shape (N, N).
        n: size of the first block, which is shifted upwards; the rest is shifted downwards.
        delta: the shift, relative to the equilibrated K.

    Raises:
        RuntimeError: the matrix to factorize is exactly singular.

    Source: Rockafellar 1976, "Augmented Lagrangians and applications of the proximal point algorithm".
    """

    method = "sparse LU"

    def __init__(self, K: sp.csc_array, n: int = 0, delta: float = 0.0) -> None:
        self.K = K
        self.scale = equilibrate(K)
        self._scaled = scale_symmetric(K, self.scale)
        if delta:
            size = len(self.scale)
            self._scaled = sp.csc_array(self._scaled + sp.diags_array(np.where(np.arange(size) < n, delta, -delta)))
            self.method, self.steps, self.stall = "shifted sparse LU", SHIFTED_STEPS, 0.9
        self._lu = sla.splu(self._scaled)

    def apply_inverse(self, f: Floats) -> Floats:
        """One solve with the factors."""
        scale = self.scale if f.ndim == 1 else self.scale[:, None]
        return scale * self._lu.solve(scale * f)

    def estimate(self) -> float:
        """1-norm condition estimate of the equilibrated K, shifted where it is."""
        return _condition(self._scaled, self._lu.solve)


def _condition(K: sp.csc_array, solve: Any) -> float:
    """1-norm condition estimate of a symmetric K from solves with it (Higham & Tisseur 2000)."""
    size = len(K.indptr) - 1
    if size <= 4:
        return float(np.linalg.cond(K.toarray(), 1)) if size else 1.0
    inverse = _linear_operator((size, size), matvec=solve, rmatvec=solve, dtype=float)
    inverse_norm: Any = sla.onenormest(inverse)
    # Its vectors of equal entries miss a small block among many rows.
    return float(max(inverse_norm, _growth(size, solve)) * sla.norm(K, 1))


def _growth(size: int, solve: Any) -> float:
    """Largest entry of K⁻¹r for a fixed r of entries near ±1: at most the 1-norm of the inverse of a symmetric K.

    The entries are of different size: those of a null vector such as (1, 1) would cancel against equal ones.
    """
    rng = np.random.default_rng(0)
    r = rng.uniform(0.5, 1.0, size) * rng.choice((-1.0, 1.0), size)
    return float(np.abs(solve(r)).max(initial=0.0))
