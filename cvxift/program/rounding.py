"""Coefficients that are only the rounding error of what they were summed from count as zero.

K + Kᵀ − (K + Kᵀ)ᵀ is zero; a backend that sums its terms in another order for each half returns entries of 10⁻¹⁷, and
the equality that CVXPY adds for a symmetric matrix then says something about x. Such an entry is told by the magnitudes
that were summed: the tensors are built a second time from absolute values, every constant replaced by its modulus and
every difference by a sum. With t the entry and T ≥ |t| the same entry of the second tensor, the rounding error of t is
at most a small multiple of ε T (N. Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1; the
multiple grows like the number of summands in the worst case, and stays of order one for errors of random sign).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from cvxpy.cvxcore.python import canonInterface
from cvxpy.lin_ops import lin_op as lo

from cvxift._types import EPS

COEFFICIENT_ROUNDING = 32 * EPS  # relative to the magnitudes summed: 7e-15
SUSPECT = 1e-6  # an entry this small beside the largest may be rounding; others are not looked at
LARGE_CONSTANT = 1e3  # constants from which products of two may hide rounding errors above `SUSPECT`


def without_rounding(tensor: Any, expressions: list[Any], extractor: Any) -> sp.csc_array:
    """A tensor of affine expressions without the entries that are rounding errors.

    Args:
        tensor: coefficients of the expressions' entries, shape (rows · (columns + 1), parameters + 1).
        expressions: affine CVXPY expressions.
        extractor: CVXPY's extractor of coefficients, which made the tensor.

    Returns:
        The tensor; entries at rounding level are gone.
    """
    tensor = sp.csc_array(tensor)
    tensor.eliminate_zeros()
    operators = [expression.canonical_form[0] for expression in expressions]
    size = np.abs(tensor.data)
    largest = max(size.max(initial=0.0), 1.0)
    if not np.any(size < SUSPECT * largest) and _largest_constant(operators) < LARGE_CONSTANT:
        return tensor
    magnitudes = canonInterface.get_problem_matrix(
        _Magnitudes()(operators),
        extractor.x_length,
        extractor.id_map,
        extractor.param_to_size,
        extractor.param_id_map,
        sum(expression.size for expression in expressions),
        extractor.canon_backend,
    )
    magnitudes = sp.csc_array(magnitudes)
    kept = sp.coo_array(tensor)
    summed = np.asarray(magnitudes[kept.coords]).ravel()
    # An infinite bound has no rounding error, and its magnitude may be NaN (0 · ∞).
    real = ~(np.abs(kept.data) <= COEFFICIENT_ROUNDING * summed) | ~np.isfinite(kept.data)
    coords = tuple(index[real] for index in kept.coords)
    return sp.csc_array((kept.data[real], coords), shape=tensor.shape)


def definite_without_rounding(tensor: Any, n: int) -> sp.csc_array:
    """A tensor of the objective's matrix P without off-diagonal entries that are rounding errors.

    A sum of positive semidefinite matrices Pₖ has Σₖ |(Pₖ)ᵢⱼ| ≤ (PᵢᵢPⱼⱼ)^½ by Cauchy's inequality, so P itself bounds
    the magnitudes that were summed. P that depends on parameters is left as it is: its entries may be anything later.

    Args:
        tensor: coefficients of P's entries, column by column, shape (n², parameters + 1).
        n: order of P.

    Returns:
        The tensor; entries at rounding level are gone.
    """
    tensor = sp.csc_array(tensor)
    entries = sp.coo_array(tensor)
    place, parameter = (np.asarray(index, dtype=np.int64) for index in entries.coords)
    if not len(place) or np.any(parameter < tensor.shape[1] - 1):
        return tensor
    row, column = place % n, place // n
    on = row == column
    diagonal = np.bincount(row[on], np.abs(entries.data[on]), minlength=n)
    tiny = np.abs(entries.data) <= COEFFICIENT_ROUNDING * np.sqrt(diagonal[row] * diagonal[column])
    if not tiny.any():
        return tensor
    kept = ~tiny
    return sp.csc_array((entries.data[kept], (place[kept], parameter[kept])), shape=tensor.shape)


class _Magnitudes:
    """Trees of linear operators with every constant replaced by its modulus and every negation left out."""

    def __init__(self) -> None:
        self._made: dict[int, Any] = {}

    def __call__(self, operators: list[Any]) -> list[Any]:
        return [self._of(operator) for operator in operators]

    def _of(self, operator: Any) -> Any:
        if id(operator) not in self._made:
            self._made[id(operator)] = self._make(operator)
        return self._made[id(operator)]

    def _make(self, operator: Any) -> Any:
        if operator.type in _CONSTANTS:
            return lo.LinOp(operator.type, operator.shape, operator.args, abs(operator.data))
        kind = lo.SUM if operator.type == lo.NEG else operator.type
        data = self._of(operator.data) if isinstance(operator.data, lo.LinOp) else operator.data
        return lo.LinOp(kind, operator.shape, [self._of(arg) for arg in operator.args], data)


_CONSTANTS = (lo.SCALAR_CONST, lo.DENSE_CONST, lo.SPARSE_CONST)


def _largest_constant(operators: list[Any]) -> float:
    """The largest modulus of a finite constant in trees of linear operators."""
    stack, seen, largest = list(operators), set(), 0.0
    while stack:
        operator = stack.pop()
        if id(operator) in seen:
            continue
        seen.add(id(operator))
        if operator.type in _CONSTANTS:
            data = operator.data.data if hasattr(operator.data, "tocsc") else np.asarray(operator.data)
            largest = max(largest, float(np.abs(data[np.isfinite(data)]).max(initial=0.0)))
        else:
            stack += operator.args
            if isinstance(operator.data, lo.LinOp):
                stack.append(operator.data)
    return largest
