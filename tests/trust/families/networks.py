"""Flows, transport, assignment, shortest paths, schedules: zero demands, ties, redundant equalities."""

from __future__ import annotations

import cvxpy as cp
import numpy as np

from ..kit import Kit, Values
from . import family


def _graph(k: Kit, nodes: int, arcs: int) -> np.ndarray:
    """Incidence of a random connected digraph: a ring and chords."""
    ends = [(i, (i + 1) % nodes) for i in range(nodes)]
    while len(ends) < arcs:
        a, b = k.rng.choice(nodes, 2, replace=False)
        ends.append((int(a), int(b)))
    matrix = np.zeros((nodes, len(ends)))
    for arc, (a, b) in enumerate(ends):
        matrix[a, arc] -= 1.0
        matrix[b, arc] += 1.0
    return matrix


@family
def flow(k: Kit) -> None:
    """Quadratic min-cost flow; demands of zero, nodes balanced so that one equality is redundant or left out."""
    nodes = k.size(3, 5)
    M = _graph(k, nodes, nodes + k.size(1, 4))
    demand = k.round(nodes)
    demand[-1] -= demand.sum()
    f, cost = k.variable("f", M.shape[1]), k.parameter("cost", 1.0 + np.abs(k.round(M.shape[1])))
    d = k.parameter("d", demand[:-1])
    k.minimize(cost @ f + k.pick(0.05, 0.5) * cp.sum_squares(f))
    k.eq(M[:-1] @ f, d)
    if k.flip(0.3):
        k.eq(M[-1] @ f, -cp.sum(d))  # redundant whatever d is
    k.ge(f, 0)
    if k.flip(0.4):
        k.le(f, k.parameter("capacity", np.full(M.shape[1], 4.0)))


@family
def flow_all_demands(k: Kit) -> None:
    """Every node's demand is a parameter: their sum must stay zero, which no change of one entry keeps."""
    nodes = k.size(3, 4)
    M = _graph(k, nodes, nodes + 2)
    f = k.variable("f", M.shape[1])
    k.minimize((1.0 + np.abs(k.data(M.shape[1]))) @ f + 0.5 * cp.sum_squares(f))
    demand = k.round(nodes)
    demand[-1] -= demand.sum()
    k.eq(M @ f, k.parameter("d", demand))
    k.ge(f, 0)


@family
def detour(k: Kit) -> None:
    """Many copies of a direct way and a detour with demands of zero at the node between: dependent active rows."""
    n = k.pick(2, 5, 20)
    x = k.variable("x", (n, 3))
    demand = np.where(k.rng.random(n) < (0.5 if k.degenerate else 0.0), 0.0, k.data(n) * 0.3)
    d = k.parameter("d", demand)
    k.minimize(cp.sum(x @ np.array([1.0, 5.0, 5.0])) + 0.05 * cp.sum_squares(x))
    k.eq(x[:, 1] - x[:, 2], d)
    k.eq(x[:, 0] + x[:, 2], 1)
    k.ge(x, 0)


@family
def transport(k: Kit) -> None:
    """Quadratically regularized transport; both marginals as equalities, one of them redundant."""
    n, m = k.size(2, 3), k.size(2, 3)
    P, C = k.variable("P", (n, m)), k.parameter("C", np.abs(k.round(n, m)) + 0.5)
    k.minimize(cp.sum(cp.multiply(C, P)) + k.pick(0.1, 1.0) * cp.sum_squares(P))
    rows = k.pick(np.full(n, 1.0 / n), np.arange(1.0, n + 1) / np.arange(1.0, n + 1).sum())
    k.eq(cp.sum(P, axis=1), rows)
    k.eq(cp.sum(P, axis=0), np.full(m, 1.0 / m))
    k.ge(P, 0)


@family
def transport_supply(k: Kit) -> None:
    """Transport with supplies as parameters, at most what there is; total supply may equal total demand."""
    n, m = k.size(2, 3), k.size(2, 3)
    P = k.variable("P", (n, m))
    s = k.parameter("s", np.full(n, 1.0) if k.degenerate else 1.1 + np.abs(k.data(n)))
    k.minimize(cp.sum(cp.multiply(0.5 + np.abs(k.data(n, m)), P)) + 0.3 * cp.sum_squares(P))
    k.le(cp.sum(P, axis=1), s)
    k.eq(cp.sum(P, axis=0), np.full(m, n / m))
    k.ge(P, 0)


@family
def assignment(k: Kit) -> None:
    """The assignment LP: a vertex, tied or not, with degenerate rows in any case."""
    n = k.size(2, 4)
    P, C = k.variable("P", (n, n)), k.parameter("C", k.round(n, n, step=1.0))
    k.minimize(cp.sum(cp.multiply(C, P)))
    k.eq(cp.sum(P, axis=0), 1)
    k.eq(cp.sum(P, axis=1), 1)
    k.ge(P, 0)


@family
def shortest_path(k: Kit) -> None:
    """One unit from the first node to the last at least cost."""
    nodes = k.size(3, 5)
    M = _graph(k, nodes, nodes + k.size(2, 4))
    f, c = k.variable("f", M.shape[1]), k.parameter("c", 1.0 + np.abs(k.round(M.shape[1])))
    inflow = np.zeros(nodes)
    inflow[0], inflow[-2] = -1.0, 1.0
    k.minimize(c @ f + k.pick(0.0, 0.0, 0.2) * cp.sum_squares(f))
    k.eq((M @ f)[:-1], inflow[:-1])
    k.ge(f, 0)


@family
def schedule(k: Kit) -> None:
    """Earliest start times of jobs in a chain: an LP whose solution is known."""
    n = k.size(2, 4)
    s, end = k.variable("s", n), k.variable("end")
    durations = np.abs(k.round(n, step=1.0)) + 1.0
    release = np.abs(k.round(n, step=1.0))
    d, r = k.parameter("d", durations), k.parameter("r", release)
    k.minimize(end + 0.1 * cp.sum(s))
    k.ge(s, r)
    k.ge(s[1:], s[:-1] + d[:-1])
    k.ge(end, s + d)

    def truth(values: Values) -> Values:
        start = values["r"].copy()
        for i in range(1, n):
            start[i] = max(start[i], start[i - 1] + values["d"][i - 1])
        return {"s": start, "end": np.asarray(np.max(start + values["d"]))}

    k.truth = truth
