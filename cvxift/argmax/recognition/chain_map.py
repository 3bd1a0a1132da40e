"""The marginals of a linear chain as a closed form of a program: values, derivatives, the canonical point.

All marginals are the gradient of log Z, so that their derivatives are symmetric: products with the Jacobian and with
its transpose are the same, and so are the two of second order. Outputs may be any of them.

The canonical point needs logarithms of the marginals, which may be rounded to zero themselves; they come from messages
in both directions. Multipliers of the consistency rows follow from the last position back to the first, column by
column, with that of one sum to one at the first position; it is then carried to where that sum really is.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cvxift.argmax.chain import POSSIBLE
from cvxift.argmax.recognition.chain_products import ChainProducts
from cvxift.argmax.recognition.entropy_points import place_entropies
from cvxift.argmax.recognition.read_chain import ChainForm
from cvxift.argmax.recognition.recognized import Point
from cvxift.argmax.recognition.scaled_map import AffineInputs, ScaledMap, Scored
from cvxift.program.structure import Data, Floats, Structure


class ChainMap(ScaledMap[ChainProducts]):
    """θ ↦ some marginals of a recognized chain.

    Args:
        structure: the program's structure.
        form: the program's form.
        columns: for each entry of θ, its place in the program's.
    """

    def __init__(self, structure: Structure, form: ChainForm, columns: np.ndarray) -> None:
        super().__init__(AffineInputs(form.pieces, columns))
        self._structure, self.form, self.name = structure, form, form.name

    def _parted(self, x: Floats) -> tuple[Floats, Floats]:
        """Scores of positions (…, T, S) and of pairs (…, T − 1, S, S)."""
        T, S = self.form.nodes.shape
        lead = x.shape[:-1]
        return x[..., : T * S].reshape(*lead, T, S), x[..., T * S :].reshape(*lead, T - 1, S, S)

    def at(self, x: Floats, values: Mapping[str, Floats | None]) -> ChainProducts | None:
        """See `ScaledMap`."""
        if x.min() < POSSIBLE:
            return None  # elsewhere such scores forbid
        return ChainProducts(*self._parted(x))

    def _taken(self, flat: Floats) -> Floats:
        """The outputs among all marginals."""
        return flat[..., self.form.outputs]

    def _put(self, bar: Floats) -> Floats:
        """A cotangent of the outputs as one of all marginals."""
        out = np.zeros((*bar.shape[:-1], self.form.nodes.size + self.form.pairs.size))
        out[..., self.form.outputs] = bar
        return out

    def value(self, inner: ChainProducts) -> Floats:
        """See `ScaledMap`."""
        return self._taken(inner.flat)

    def push(self, inner: ChainProducts, x: Floats, moved: Mapping[str, Floats]) -> Floats:
        """See `ScaledMap`."""
        return self._taken(inner.tangent(x))

    def pull(self, inner: ChainProducts, bar: Floats) -> tuple[Floats, dict[str, Floats]]:
        """See `ScaledMap`."""
        return inner.tangent(self._put(bar)), {}

    def bend(
        self, inner: ChainProducts, bar: Floats, x: Floats, moved: Mapping[str, Floats]
    ) -> tuple[Floats, dict[str, Floats]]:
        """See `ScaledMap`."""
        return inner.twist(self._put(bar), x), {}

    def twist(
        self, inner: ChainProducts, x: Floats, moved: Mapping[str, Floats], y: Floats, along: Mapping[str, Floats]
    ) -> Floats:
        """See `ScaledMap`."""
        return self._taken(inner.twist(x, y))

    def margins(self, state: Scored[ChainProducts]) -> Floats:
        """No kinks."""
        return np.full(state.inner.flat.shape[:-1], np.inf)

    def canonical(self, data: Data, state: Scored[ChainProducts]) -> Point:
        """See `Recognized`."""
        form, structure = self.form, self._structure
        x, y = np.zeros(structure.n), np.zeros(structure.m)
        own = np.concatenate([form.nodes.ravel(), form.pairs.ravel()])
        x[own] = state.inner.flat
        A = structure.A_matrix(data.A)
        s = data.b - A @ x
        log_nodes, log_pairs = log_marginals(*self._parted(np.ravel(state.scores.ratio)))
        logs = np.concatenate([log_nodes.ravel(), log_pairs.ravel()])
        above = np.where(form.parent >= 0, logs[form.parent], 0.0)
        place_entropies(structure, form.epigraphs, data, x, s, y, form.log_ratio + above - logs[form.of_cone])
        gradient = data.q + A.T @ y
        left, right, total = self._multipliers(gradient, log_nodes[0], log_pairs)
        y[form.rows[0]], y[form.rows[1]] = left / form.gains[0], right / form.gains[1]
        y[form.total[0]] = total / form.total[1]
        s[: structure.cones.zero] = 0.0
        return x, s, y

    def _multipliers(self, gradient: Floats, first: Floats, log_pairs: Floats) -> tuple[Floats, Floats, float]:
        """Of the consistency rows at both ends of each edge, shapes (T − 1, S), and of the sum to one."""
        form = self.form
        own, joint = gradient[form.nodes], gradient[form.pairs]
        T, S = own.shape
        left, right = np.empty((T - 1, S)), np.empty((T - 1, S))
        best = np.argmax(log_pairs, axis=-1)
        states = np.arange(S)
        later = np.zeros(S)
        # columns of pairs:  joint + left_i + right_j = 0;  of positions:  own − left − (right before) [+ total] = 0
        for t in range(T - 2, -1, -1):
            right[t] = own[t + 1] - later
            left[t] = later = -(joint[t, states, best[t]] + right[t, best[t]])
        at = int(np.argmax(first))
        total = float(later[at] - own[0, at])
        _, _, place = form.total
        left[:place] -= total
        right[:place] += total
        if form.total_of_pairs:
            left[place] -= total
        return left, right, total


def log_marginals(u: Floats, e: Floats) -> tuple[Floats, Floats]:
    """Logarithms of the marginals of one chain, finite where the marginals are rounded to zero.

    Args:
        u: scores of states, (T, S).
        e: scores of transitions, (T − 1, S, S).

    Returns:
        Logarithms of μ (T, S) and of p (T − 1, S, S).

    Example:
        >>> nodes, _ = log_marginals(np.array([[0.0, -1000.0], [0.0, 0.0]]), np.zeros((1, 2, 2)))
        >>> nodes[0].tolist()
        [0.0, -1000.0]
    """
    T, S = u.shape
    past, rest = np.empty((T, S)), np.empty((T, S))
    past[0], rest[-1] = u[0], 0.0
    for t in range(1, T):
        past[t] = u[t] + _log_sum(past[t - 1][:, None] + e[t - 1], 0)
        past[t] -= past[t].max()
    for t in range(T - 2, -1, -1):
        rest[t] = _log_sum(e[t] + (u[t + 1] + rest[t + 1]), 1)
        rest[t] -= rest[t].max()
    nodes = past + rest
    nodes -= _log_sum(nodes, 1)[:, None]
    pairs = past[:-1, :, None] + e + (u[1:] + rest[1:])[:, None, :]
    return nodes, pairs - _log_sum(pairs.reshape(T - 1, S * S), 1)[:, None, None]


def _log_sum(x: Floats, axis: int) -> Floats:
    """log Σ exp along an axis."""
    top = x.max(axis=axis, keepdims=True)
    return np.log(np.exp(x - top).sum(axis=axis)) + np.squeeze(top, axis)
