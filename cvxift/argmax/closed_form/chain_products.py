"""A linear chain's marginals with products of their first and second derivatives, on the host.

The recursions are those of `chain`, with as little as can be inside of the loops over time: there they are sums of
exponentials once, and then products of S numbers with B_t(i|j), S × S. With the marginals μ_t of positions and
p_t(i, j) = B_t(i|j) μ_{t+1}(j) of pairs, along a direction (u̇, ė)

    α̇_{t+1}(j) = u̇_{t+1}(j) + Σ_i B_t(i|j) (α̇_t(i) + ė_t(i, j)),
    R_t = α̇_t + ė_t − Σ_i B_t (α̇_t + ė_t),   Ḃ_t = B_t R_t,
    μ̇_{T−1} = μ_{T−1} (α̇_{T−1} − Σ μ α̇),   ṗ_t = Ḃ_t μ_{t+1} + B_t μ̇_{t+1},   μ̇_t = Σ_j ṗ_t,

and once more along ȧ′: α̈ obeys the recursion of α̇ with R_t R′_t for ė, R̈ = α̈ + R R′ less its mean under B, B̈ = B R̈,
p̈ = B̈ μ + Ḃ μ̇′ + Ḃ′ μ̇ + B μ̈.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cvxift._types import override
from cvxift.argmax.closed_form.derivative import Moved, Products
from cvxift.program.structure import Floats


@dataclass(frozen=True, eq=False)
class Direction:
    """A first derivative: R, the centered α̇ at the end, Ḃ, μ̇ and ṗ."""

    R: Floats
    end: Floats
    back: Floats
    nodes: Floats
    pairs: Floats


class ChainProducts(Products):
    """The marginals of a batch of chains, and products of their derivatives.

    Args:
        u: finite scores of states, shape (*batch, T, S), T ≥ 2.
        e: finite scores of transitions, shape (*batch, T − 1, S, S).

    Attributes:
        z: the marginals, positions first, shape (*batch, 1, T S + (T − 1) S²).

    All marginals are the gradient of log Z: products with the Jacobian and with its transpose are the same, and so are
    the two of second order.

    Example:
        >>> ChainProducts(np.log([[1.0, 1.0], [1.0, 3.0]]), np.zeros((1, 2, 2))).z[0, :4].round(6).tolist()
        [0.5, 0.5, 0.25, 0.75]
    """

    def __init__(self, u: Floats, e: Floats) -> None:
        self.T, self.S = u.shape[-2:]
        past, reached = np.empty(u.shape), np.empty((*u.shape[:-2], self.T - 1, self.S))
        now = past[..., 0, :] = u[..., 0, :]
        for t in range(1, self.T):
            new = np.logaddexp.reduce(now[..., :, None] + e[..., t - 1, :, :], axis=-2)
            reached[..., t - 1, :] = new
            new = new + u[..., t, :]
            # Near zero: otherwise rounding, relative to a sum over the whole past, would get into B.
            now = past[..., t, :] = new - new.max(axis=-1, keepdims=True)
        B = np.exp(past[..., :-1, :, None] + e - reached[..., None, :])
        self._B = B / B.sum(axis=-2, keepdims=True)
        weights = np.exp(now - now.max(axis=-1, keepdims=True))
        last = weights / weights.sum(axis=-1, keepdims=True)
        self._mu, pairs = self._backward(last, np.zeros_like(e))
        self._below = self._mu[..., 1:, None, :]
        self.z = self._joined(self._mu, pairs)

    @override
    def push(self, x: Floats, moved: Moved) -> Floats:
        first = self._first(x)
        return self._joined(first.nodes, first.pairs)

    @override
    def pull(self, bar: Floats) -> tuple[Floats, dict[str, Floats]]:
        return self.push(bar, {}), {}

    @override
    def pull_tangent(self, bar: Floats, x: Floats, moved: Moved) -> tuple[Floats, dict[str, Floats]]:
        return self.second(bar, {}, x, moved), {}

    @override
    def second(self, x: Floats, moved: Moved, y: Floats, along: Moved) -> Floats:
        a, b = self._first(x), self._first(y)
        bend = a.R * b.R
        gains = (self._B * bend).sum(axis=-2)
        alpha = self._forward(np.concatenate([np.zeros_like(gains[..., :1, :]), gains], axis=-2))
        R, end = self._centered(bend, alpha, a.end * b.end)
        known = self._B * R * self._below
        known = known + a.back * b.nodes[..., 1:, None, :] + b.back * a.nodes[..., 1:, None, :]
        return self._joined(*self._backward(self._mu[..., -1, :] * end, known))

    def _first(self, direction: Floats) -> Direction:
        u, e = self._parted(direction)
        alpha = self._forward(np.concatenate([u[..., :1, :], u[..., 1:, :] + (self._B * e).sum(axis=-2)], axis=-2))
        R, end = self._centered(e, alpha, 0.0)
        back = self._B * R
        nodes, pairs = self._backward(self._mu[..., -1, :] * end, back * self._below)
        return Direction(R, end, back, nodes, pairs)

    def _forward(self, gains: Floats) -> Floats:
        """α̇ from what each step adds, (…, T, S), without its last position's centering."""
        out = np.empty(gains.shape)
        now = out[..., 0, :] = gains[..., 0, :]
        for t in range(1, self.T):
            now = (now[..., None, :] @ self._B[..., t - 1, :, :])[..., 0, :] + gains[..., t, :]
            now = now - now[..., :1]  # a common shift has no effect, and would grow with time
            out[..., t, :] = now
        return out

    def _centered(self, e: Floats, alpha: Floats, end: Floats | float) -> tuple[Floats, Floats]:
        """R, and the end's α̇ with what is added to it less its mean."""
        raised = alpha[..., :-1, :, None] + e
        last = alpha[..., -1, :] + end
        mean = (self._mu[..., -1, :] * last).sum(axis=-1, keepdims=True)
        return raised - (self._B * raised).sum(axis=-2, keepdims=True), last - mean

    def _backward(self, last: Floats, known: Floats) -> tuple[Floats, Floats]:
        """μ̇ and ṗ from the last position's μ̇ and from the parts of ṗ that do not come from a later μ̇."""
        gains = known.sum(axis=-1)
        out = np.empty((*gains.shape[:-2], self.T, self.S))
        now = out[..., -1, :] = last
        for t in range(self.T - 2, -1, -1):
            now = (self._B[..., t, :, :] @ now[..., :, None])[..., 0] + gains[..., t, :]
            out[..., t, :] = now
        return out, known + self._B * out[..., 1:, None, :]

    def _parted(self, flat: Floats) -> tuple[Floats, Floats]:
        flat = np.broadcast_to(flat, np.broadcast_shapes(flat.shape, self.z.shape))
        return parted(flat, self.T, self.S)

    def _joined(self, nodes: Floats, pairs: Floats) -> Floats:
        lead = nodes.shape[:-2]
        return np.concatenate([nodes.reshape(*lead, -1), pairs.reshape(*lead, -1)], axis=-1)[..., None, :]


def parted(flat: Floats, T: int, S: int) -> tuple[Floats, Floats]:
    """What belongs to states, (…, T, S), and to transitions, (…, T − 1, S, S), of (…, 1, T S + (T − 1) S²)."""
    lead = flat.shape[:-2]
    return flat[..., 0, : T * S].reshape(*lead, T, S), flat[..., 0, T * S :].reshape(*lead, T - 1, S, S)
