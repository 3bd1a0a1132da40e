"""Entropies with redundant and with active bounds; small entries, right relative to themselves."""

from __future__ import annotations

import cvxpy as cp
import numpy as np

from ..kit import Kit
from . import family


def _softmax(scores: np.ndarray) -> np.ndarray:
    weights = np.exp(scores - scores.max())
    return weights / weights.sum()


@family
def softmax(k: Kit) -> None:
    """The entropic argmax, with z >= 0 and other bounds that never bind; entries down to 1e-12."""
    n = k.size(2, 5)
    scores = k.round(n)
    scores[0] -= k.pick(0.0, 5.0, 12.0, 20.0, 27.0)
    z, c = k.variable("z", n, nonneg=k.flip(0.2), unit=False), k.parameter("c", scores)
    temperature = k.pick(1.0, 1.0, 0.5)
    k.maximize(c @ z + temperature * cp.sum(cp.entr(z)))
    k.eq(cp.sum(z), 1)
    if k.flip(0.7):
        k.ge(z, 0)
    if k.flip(0.4):
        k.le(np.arange(n) / n @ z, 2)  # never binds
    k.truth = lambda values: {"z": _softmax(values["c"] / temperature)}
    k.entrywise = True


@family
def entropy_capped(k: Kit) -> None:
    """An entropy under caps that bind or just bind."""
    n = k.size(3, 5)
    z, c = k.variable("z", n), k.parameter("c", k.round(n))
    k.maximize(c @ z + cp.sum(cp.entr(z)))
    k.eq(cp.sum(z), 1)
    k.le(z, k.parameter("cap", k.pick(0.5, 1.0 / n + 0.1)))
    if k.flip():
        k.ge(z, 0)


@family
def entropic_flow(k: Kit) -> None:
    """Flows through a grid with an entropy at a low temperature, and f >= 0 or not."""
    side = k.pick(2, 3)
    arcs = [(i * side + j, i * side + j + 1) for i in range(side) for j in range(side - 1)]
    arcs += [(i * side + j, i * side + side + j) for i in range(side - 1) for j in range(side)]
    M = np.zeros((side * side, len(arcs)))
    for arc, (a, b) in enumerate(arcs):
        M[a, arc], M[b, arc] = -1.0, 1.0
    inflow = np.zeros(side * side)
    inflow[0], inflow[-1] = -1.0, 1.0
    f, t = k.variable("f", len(arcs), unit=False), k.parameter("t", k.rng.uniform(0.5, 3, len(arcs)))
    k.minimize(t @ f - k.pick(0.1, 0.5) * cp.sum(cp.entr(f)))
    k.eq(M[:-1] @ f, inflow[:-1])
    if k.flip():
        k.ge(f, 0)


@family
def relative_entropy(k: Kit) -> None:
    """kl_div or rel_entr to a prior under moment rows, some of them repeated."""
    n = k.size(3, 5)
    z, prior = (
        k.variable("z", n),
        k.parameter("p", np.full(n, 1.0 / n) if k.degenerate else k.rng.dirichlet(np.ones(n))),
    )
    k.minimize(cp.sum((cp.kl_div if k.flip() else cp.rel_entr)(z, prior)))
    k.eq(cp.sum(z), 1)
    moment = k.parameter("m", k.pick((n - 1) / 2, (n - 1) / 2 + 0.3))
    k.ge(np.arange(n) @ z, moment)
    if k.flip(0.3):
        k.ge(2 * np.arange(n) @ z, 2 * moment)


@family
def sinkhorn(k: Kit) -> None:
    """Entropic transport with a redundant marginal and redundant bounds."""
    n = k.size(2, 3)
    P, C = k.variable("P", (n, n), unit=False), k.parameter("C", np.abs(k.round(n, n)))
    k.minimize(cp.sum(cp.multiply(C, P)) - k.pick(0.3, 1.0) * cp.sum(cp.entr(P)))
    k.eq(cp.sum(P, axis=1), np.full(n, 1.0 / n))
    k.eq(cp.sum(P, axis=0), np.full(n, 1.0 / n))
    if k.flip():
        k.ge(P, 0)


@family
def barrier(k: Kit) -> None:
    """A logarithmic barrier beside the bounds it implies, and the analytic center."""
    n = 2
    x, c = k.variable("x", n), k.parameter("c", k.round(n))
    k.minimize(c @ x - k.pick(0.5, 1.0) * (cp.sum(cp.log(x)) + cp.sum(cp.log(2 - x))))
    if k.flip():
        k.ge(x, 0)
    if k.flip():
        k.le(x, 2)
