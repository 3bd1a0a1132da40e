"""The terms of structured problems that `cvxift.argmax` makes itself, which are then not read from their expressions.

CVXPY takes seconds for the rows of a large permutahedron or of a long chain; their terms are a few arrays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import cvxpy as cp
import numpy as np
import scipy.sparse as sp

from cvxift._types import override
from cvxift.argmax.closed_form.affine import Coefficients, Rows, gathered
from cvxift.argmax.closed_form.terms import Problem, Terms, Tops
from cvxift.program.attributes import fortran_order
from cvxift.program.structure import Floats

ATTRIBUTE = "_cvxift_terms"  # of a cp.Problem


class Carried(Protocol):
    """What a problem carries: its terms for parameters in some order."""

    def __call__(self, offsets: Mapping[cp.Parameter, slice]) -> Problem:
        """The terms; `offsets` says where each parameter stands in θ."""
        ...


def carry(problem: cp.Problem, terms: Carried) -> cp.Problem:
    """Let a problem carry its terms, and return it. A problem made from it by CVXPY carries none."""
    setattr(problem, ATTRIBUTE, terms)
    return problem


def carries(problem: Any) -> bool:
    """Whether a problem carries its terms; such a problem is convex and DPP."""
    return hasattr(problem, ATTRIBUTE)


def carried(problem: cp.Problem, parameters: Sequence[cp.Parameter]) -> Problem | None:
    """The terms that a problem carries, if it does, for its parameters in the order of θ."""
    terms: Carried | None = getattr(problem, ATTRIBUTE, None)
    if terms is None:
        return None
    ends = np.cumsum([p.size for p in parameters], dtype=int)
    return terms({p: slice(int(end) - p.size, int(end)) for p, end in zip(parameters, ends, strict=True)})


def _rows(value: Any, offsets: Mapping[cp.Parameter, slice]) -> Rows:
    """Numbers, or an expression affine in parameters, entry by entry in C order."""
    N = sum(p.size for p in offsets)
    if not isinstance(value, cp.Expression):
        return Rows.fixed(np.ravel(value), N)
    back = np.argsort(fortran_order(value.shape))
    return Coefficients([value], [], offsets).offset(slice(0, value.size))[back]


def _terms(weight: Rows, entry: np.ndarray, base: Floats, base_entry: np.ndarray) -> Terms:
    """Terms of entries themselves."""
    none, N = np.zeros(len(entry)), weight.M.shape[1]
    above = (base_entry >= 0).astype(float)
    return Terms(weight, entry, none + 1.0, Rows.fixed(none, N), none, Rows.fixed(base, N), base_entry, above)


def _no_terms(N: int) -> Terms:
    nothing = np.zeros(0, dtype=int)
    return _terms(Rows.fixed(np.zeros(0), N), nothing, np.zeros(0), nothing)


@dataclass(frozen=True, eq=False)
class CarriedPermutahedron(Carried):
    """The projection of θ over a temperature onto a permutahedron.

    Attributes:
        z: the variable, (n,).
        theta: the scores.
        values: w, decreasing.
        temperature: of the regularizer.
        entropic: whether that is Σ z log z, or ½‖z‖².
    """

    z: cp.Variable
    theta: cp.Parameter
    values: Any
    temperature: Any
    entropic: bool

    @override
    def __call__(self, offsets: Mapping[cp.Parameter, slice]) -> Problem:
        n, every = self.z.size, np.arange(self.z.size)
        score = _rows(self.theta, offsets)
        N = score.M.shape[1]
        k, i = np.tril_indices(n)
        heads = gathered(n, N, [(k, _rows(self.values, offsets)[i])])
        weight = _rows(self.temperature, offsets)[np.zeros(n, dtype=int)].times(1.0 if self.entropic else 0.5)
        terms, none = _terms(weight, every, np.ones(n), np.full(n, -1)), _no_terms(N)
        return Problem(
            n,
            N,
            (self.z,),
            score.times(-1.0),
            none if self.entropic else terms,
            none,
            terms if self.entropic else none,
            sp.csr_array(np.ones((1, n))),
            heads[n - 1 :],
            sp.csr_array((0, n)),
            heads[:0],
            Tops(every[1:], heads[: n - 1], np.zeros(n - 1, dtype=bool)),
        )


@dataclass(frozen=True, eq=False)
class CarriedChain(Carried):
    """The marginals of a linear chain.

    Attributes:
        z: the marginals of positions, (T, S).
        pairs: those of neighbours, (S, S) each.
        theta: scores of z.
        pairwise: scores of the pairs.
        temperature: of the entropy.
    """

    z: cp.Variable
    pairs: tuple[cp.Variable, ...]
    theta: cp.Parameter
    pairwise: tuple[cp.Parameter, ...]
    temperature: Any

    @override
    def __call__(self, offsets: Mapping[cp.Parameter, slice]) -> Problem:
        T, S = self.z.shape
        nodes, joint = np.arange(T * S).reshape(T, S), T * S + np.arange((T - 1) * S * S).reshape(T - 1, S, S)
        n, c = nodes.size + joint.size, _rows(self.temperature, offsets)
        N, count = c.M.shape[1], S + joint.size
        place = np.concatenate([np.arange(offsets[p].start, offsets[p].stop) for p in (self.theta, *self.pairwise)])
        score = Rows(sp.csr_array((np.full(n, -1.0), (np.arange(n), place)), shape=(n, N)), np.zeros(n))
        above = np.broadcast_to(nodes[:-1, :, None], joint.shape).ravel()
        entropies = _terms(
            c[np.zeros(count, dtype=int)],
            np.concatenate([nodes[0], joint.ravel()]),
            np.concatenate([np.ones(S), np.zeros(joint.size)]),
            np.concatenate([np.full(S, -1), above]),
        )
        # One row for the sum of the first position, then the pairs' sums by row and by column less their positions.
        row = 1 + np.arange(2 * (T - 1) * S).reshape(2, T - 1, S)
        ends = np.concatenate([nodes[:-1].ravel(), nodes[1:].ravel()])
        rows = [np.zeros(S, dtype=int), row.ravel()]
        rows += [np.broadcast_to(row[0][:, :, None], joint.shape).ravel()]
        rows += [np.broadcast_to(row[1][:, None, :], joint.shape).ravel()]
        columns = np.concatenate([nodes[0], ends, joint.ravel(), joint.ravel()])
        values = np.concatenate([np.ones(S), -np.ones(len(ends)), np.ones(2 * joint.size)])
        E = sp.csr_array((values, (np.concatenate(rows), columns)), shape=(row.size + 1, n))
        none, no_rows = _no_terms(N), Rows.fixed(np.zeros(0), N)
        tops = Tops(np.zeros(0, dtype=int), no_rows, np.zeros(0, dtype=bool))
        b = Rows.fixed(np.append(1.0, np.zeros(row.size)), N)
        variables = (self.z, *self.pairs)
        return Problem(n, N, variables, score, none, none, entropies, E, b, sp.csr_array((0, n)), no_rows, tops)
