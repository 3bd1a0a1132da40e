"""Marginals of linear chains take forward–backward, in many spellings; lookalikes do not.

Both paths are compared in value and in derivatives of first and second order; where the solvers' own accuracy ends,
marginals are compared with sums over all paths.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
from numpy.typing import NDArray

from cvxift import argmax
from cvxift.argmax.closed_form.closed_map import ClosedMap, ClosedSolved
from tests.argmax.agreement import Builders, agree, both, point

Array = NDArray[np.float64]
CHAIN = "closed form (linear chain)"
T, S = 3, 2


def temperature() -> cp.Parameter:
    return cp.Parameter(nonneg=True, name="temperature")


def across(z: Any, states: int) -> Any:
    """z's entries along rows of a square matrix: its transpose has them along columns."""
    return cp.reshape(z, (states, 1), order="F") @ np.ones((1, states))


class Drawn:
    """A chain by hand: variables and scores of positions and edges, and its usual parts.

    Args:
        length: number of positions.
        states: of each.
        edges: neighbours; those of a chain if None.
        nonneg: whether the variables are.
    """

    def __init__(
        self,
        length: int = T,
        states: int = S,
        edges: Sequence[tuple[int, int]] | None = None,
        nonneg: bool = False,
    ) -> None:
        self.states = states
        self.edges = [(t, t + 1) for t in range(length - 1)] if edges is None else list(edges)
        self.z = [cp.Variable(states, nonneg=nonneg, name=f"z{t}") for t in range(length)]
        self.joint = [cp.Variable((states, states), nonneg=nonneg, name=f"p{k}") for k in range(len(self.edges))]
        self.theta = [cp.Parameter(states, name=f"theta{t}") for t in range(length)]
        self.pairwise = [cp.Parameter((states, states), name=f"pairwise{k}") for k in range(len(self.edges))]

    @property
    def variables(self) -> list[cp.Variable]:
        return [*self.z, *self.joint]

    def scores(self) -> Any:
        own: Any = sum(u @ z for u, z in zip(self.theta, self.z, strict=True))
        return own + sum(cp.sum(cp.multiply(e, p)) for e, p in zip(self.pairwise, self.joint, strict=True))

    def links(self, scale: float = 1.0) -> list[Any]:
        out = []
        for (i, j), p in zip(self.edges, self.joint, strict=True):
            out += [scale * cp.sum(p, axis=1) == scale * self.z[i], cp.sum(p, axis=0) == self.z[j]]
        return out

    def total(self, at: int = 0) -> list[Any]:
        return [cp.sum(self.z[at]) == 1]

    def conditional(self, k: int, given: int) -> Any:
        """Minus the entropy of edge k's pairs, given one of its positions."""
        origin = across(self.z[given], self.states)
        return cp.sum(cp.rel_entr(self.joint[k], origin if self.edges[k][0] == given else origin.T))

    def entropy(self, root: int = 0) -> Any:
        """Minus the chain's entropy from a root on."""
        edges = sum(self.conditional(k, i if i >= root else j) for k, (i, j) in enumerate(self.edges))
        return edges - cp.sum(cp.entr(self.z[root]))

    def problem(self, regularizer: Any, constraints: list[Any]) -> cp.Problem:
        return cp.Problem(cp.Maximize(self.scores() - regularizer), constraints)


Built = tuple[cp.Problem, list[cp.Variable]]


def with_path(problem: cp.Problem, outputs: list[cp.Variable]) -> tuple[cp.Problem, str, list[cp.Variable]]:
    return problem, CHAIN, outputs


def spellings() -> dict[str, Callable[[], Built]]:
    """By name, a chain and the outputs to ask for."""
    found = spelling = Builders[Built]()

    @spelling
    def by_hand():
        c = Drawn()
        return c.problem(c.entropy(), [*c.links(), *c.total()]), c.variables

    @spelling
    def minimized_with_a_temperature_and_scaled_rows():
        c = Drawn(nonneg=True)
        constraints = [*c.links(-2.0), -3 * cp.sum(c.z[0]) == -3]
        return cp.Problem(cp.Minimize(temperature() * c.entropy() - c.scores()), constraints), c.variables[::-1]

    @spelling
    def from_the_last_position_back():
        c = Drawn(4)
        return c.problem(c.entropy(3), [*c.total(2), *c.links()]), c.variables

    @spelling
    def from_the_middle():
        c = Drawn(5)
        return c.problem(c.entropy(2), [*c.links(), *c.total(4)]), [c.joint[2], c.z[0], c.joint[0]]

    @spelling
    def from_an_edge():
        c = Drawn(4)
        regularizer = c.conditional(0, 1) - cp.sum(cp.entr(c.joint[1])) + c.conditional(2, 2)
        return c.problem(temperature() * regularizer, [*c.links(), *c.total(3)]), c.variables

    @spelling
    def from_the_first_edge_of_three_states():
        c = Drawn(3, 3)
        regularizer = c.conditional(1, 1) - 0.5 * cp.sum(cp.entr(2 * c.joint[0]))
        return c.problem(regularizer, [*c.links(), *c.total()]), c.variables

    @spelling
    def one_edge():
        c = Drawn(2)
        return c.problem(-cp.sum(cp.entr(c.joint[0])), [*c.links(), cp.sum(c.joint[0]) == 1]), c.variables

    @spelling
    def every_sum_is_one_and_bounds():
        c = Drawn()
        bounds = [c.z[1] <= 1, c.joint[0] >= 0, 2 * c.joint[1] >= -1]
        sums = [cp.sum(p) == 1 for p in c.joint] + [cp.sum(z) == 1 for z in c.z]
        return c.problem(c.entropy(), [*sums, *bounds, *c.links()]), [c.z[1]]

    @spelling
    def the_sum_of_a_pair():
        c = Drawn(4)
        return c.problem(c.entropy(1), [cp.sum(c.joint[2]) == 1, *c.links()]), c.variables

    @spelling
    def divergences():
        c = Drawn()
        prior = np.array([0.3, 0.7])
        regularizer = sum(cp.sum(cp.kl_div(p, across(z, S))) for p, z in zip(c.joint, c.z, strict=False))
        return c.problem(regularizer + cp.sum(cp.kl_div(c.z[0], prior)), [*c.links(), *c.total()]), c.variables

    @spelling
    def transitions_of_a_markov_chain():
        c = Drawn(nonneg=True)
        matrix = np.array([[0.9, 0.1], [0.4, 0.6]])
        regularizer = cp.sum(cp.rel_entr(c.z[0], np.array([0.2, 0.8])))
        for p, z in zip(c.joint, c.z, strict=False):
            regularizer = regularizer + cp.sum(cp.rel_entr(3 * p, cp.multiply(matrix, across(z, S)))) / 3
        return c.problem(regularizer, [*c.links(), *c.total()]), c.variables

    @spelling
    def scores_that_edges_share():
        c = Drawn(4, 3)
        shared, weight = cp.Parameter((3, 3), name="shared"), cp.Parameter(2, name="weight")
        features = np.random.default_rng(3).standard_normal((4, 3, 2))
        objective = sum(cp.sum(cp.multiply(shared, p)) for p in c.joint)
        objective = objective + sum((features[t] @ weight) @ c.z[t] for t in range(4))
        return cp.Problem(cp.Maximize(objective - 0.5 * c.entropy()), [*c.links(), *c.total()]), c.z

    @spelling
    def one_variable_of_all_pairs():
        z, p = cp.Variable((T, S)), cp.Variable((T - 1, S, S))
        theta, pairwise = cp.Parameter((T, S), name="theta"), cp.Parameter((T - 1, S, S), name="pairwise")
        regularizer = -cp.sum(cp.entr(z[0]))
        constraints = [cp.sum(z, axis=1) == 1, p >= 0]
        for t in range(T - 1):
            regularizer = regularizer + cp.sum(cp.rel_entr(p[t], across(z[t], S)))
            constraints += [cp.sum(p[t], axis=1) == z[t], cp.sum(p[t], axis=0) == z[t + 1]]
        objective = cp.sum(cp.multiply(theta, z)) + cp.sum(cp.multiply(pairwise, p)) - regularizer
        return cp.Problem(cp.Maximize(objective), constraints), [p, z]

    @spelling
    def positions_in_any_order():
        c = Drawn(4, edges=[(2, 0), (3, 1), (0, 3)])  # the chain 2 – 0 – 3 – 1, rooted at 0
        regularizer = c.conditional(0, 0) + c.conditional(2, 0) + c.conditional(1, 3) - cp.sum(cp.entr(c.z[0]))
        return c.problem(regularizer, [*c.links(), *c.total(1)]), c.variables

    @spelling
    def a_renamed_next_state():
        c = Drawn()
        p = c.joint[1]  # of the first state the columns are the next states, of the second they are exchanged
        links = [*c.links()[:3], cp.hstack([p[0, 0] + p[1, 1], p[0, 1] + p[1, 0]]) == c.z[2]]
        return c.problem(c.entropy(), [*links, *c.total()]), c.variables

    def builder(length: int, states: int, t: Any = 1.0) -> Built:
        problem = argmax.linear_chain(length, states, t)
        return problem, problem.variables()

    found["builder"] = lambda: builder(3, 3)
    found["builder with a temperature"] = lambda: builder(2, 3, temperature())
    found["builder with one state"] = lambda: builder(3, 1, temperature())
    return found


SPELLINGS = {name: lambda build=build: with_path(*build()) for name, build in spellings().items()}


def by_all_paths(u: Array, e: Array) -> Array:
    """Marginals of positions by summing over every path."""
    out = np.zeros(u.shape)
    paths = list(itertools.product(range(u.shape[1]), repeat=len(u)))
    scores = np.array(
        [
            sum(u[t, i] for t, i in enumerate(path)) + sum(e[t, path[t], path[t + 1]] for t in range(len(u) - 1))
            for path in paths
        ]
    )
    for path, weight in zip(paths, np.exp(scores - scores.max()), strict=True):
        out[np.arange(len(u)), path] += weight
    return out / out.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 40.0, 1e3, 1e6])
def test_scores_of_any_size(scale: float) -> None:
    problem = argmax.linear_chain(4, 3)
    closed = ClosedMap(problem, None, [argmax.variable(problem)])
    assert closed.path == CHAIN
    rng = np.random.default_rng(2)
    u, e = scale * rng.standard_normal((4, 3)), scale * rng.standard_normal((3, 3, 3))
    values = {"theta": u, **{f"pairwise_{t}": e[t] for t in range(3)}}
    theta = np.concatenate([values[p.name()].ravel() for p in closed.parameters])
    solved = closed.solve(theta)
    np.testing.assert_allclose(solved.outputs.reshape(4, 3), by_all_paths(u, e), atol=1e-12)
    bar = rng.standard_normal(12)
    for product in (closed.vjp(solved, bar), closed.jvp(solved, theta), closed.derivative(solved, (theta,), bar)):
        assert np.isfinite(product).all()
    assert closed.violation(theta) <= 1e-11


def test_scores_that_would_pass_for_forbidden_are_left_to_the_solvers() -> None:
    closed, _ = both(*SPELLINGS["builder with a temperature"]()[::2])
    theta = point(closed.parameters, np.random.default_rng(0))
    assert isinstance(closed.solve(theta), ClosedSolved)
    assert closed.closed(np.where(theta == theta.min(), -1e30, theta)) is None
    names = [p.name() for p in closed.parameters]
    start = sum(p.size for p in closed.parameters[: names.index("temperature")])
    theta[start] = 0.0
    assert closed.closed(theta) is None


def lookalikes() -> dict[str, Callable[[], cp.Problem]]:
    """By name, a problem whose solution is no chain's marginals, though nearly."""
    Build = Callable[[Drawn], cp.Problem]

    def usual(c: Drawn, regularizer: Any = None, *more: Any, links: Any = None, total: Any = None) -> cp.Problem:
        constraints = [*(c.links() if links is None else links), *(c.total() if total is None else total), *more]
        return c.problem(c.entropy() if regularizer is None else regularizer, constraints)

    def of(build: Build, length: int = T, edges: Any = None) -> Callable[[], cp.Problem]:
        return lambda: build(Drawn(length, edges=edges))

    def entr(x: Any) -> Any:
        return cp.sum(cp.entr(x))

    def relative(c: Drawn, origin: Any) -> Any:
        return c.conditional(0, 0) + cp.sum(cp.rel_entr(c.joint[1], origin)) - entr(c.z[0])

    def last(c: Drawn, link: Any) -> cp.Problem:
        return usual(c, links=[*c.links()[:3], link])

    weights = np.array([[1.0, 1.0], [1.0, 1.0 + 1e-6]])
    ring = [(0, 1), (1, 2), (2, 0)]

    def one_entropy_weighted(c: Drawn) -> cp.Problem:
        edge = cp.sum(cp.multiply(weights, cp.rel_entr(c.joint[1], across(c.z[1], S))))
        return usual(c, c.conditional(0, 0) + edge - entr(c.z[0]))

    def entropies_of_pairs_of_two_edges(c: Drawn) -> cp.Problem:
        half = entr(c.joint[0][0]) + entr(c.joint[1][1])
        rest = cp.sum(cp.rel_entr(c.joint[0][1], c.z[1])) + cp.sum(cp.rel_entr(c.joint[1][0], c.z[1]))
        return usual(c, rest - half + c.conditional(2, 2))

    def a_further_variable(c: Drawn) -> cp.Problem:
        v = cp.Variable()
        return usual(c, c.entropy() + v, v >= c.z[0][0])

    def numbers_of_states_that_differ() -> cp.Problem:
        z, y, p = cp.Variable(2), cp.Variable(3), cp.Variable((2, 3))
        theta = cp.Parameter(2, name="theta")
        origin = cp.reshape(z, (2, 1), order="F") @ np.ones((1, 3))
        regularizer = cp.sum(cp.rel_entr(p, origin)) - entr(z)
        constraints: list[Any] = [cp.sum(z) == 1, cp.sum(p, axis=1) == z, cp.sum(p, axis=0) == y]
        return cp.Problem(cp.Maximize(theta @ z + y[0] - regularizer), constraints)

    return {
        "a weighted edge": of(lambda c: usual(c, c.entropy() + 0.1 * c.conditional(1, 1))),
        "a weighted root": of(lambda c: usual(c, c.entropy() - 0.1 * entr(c.z[0]))),
        "two temperatures": of(
            lambda c: usual(c, temperature() * c.conditional(0, 0) + c.conditional(1, 1) - entr(c.z[0]))
        ),
        "one entropy weighted": of(one_entropy_weighted),
        "entropies of two positions": of(lambda c: usual(c, c.entropy() - entr(c.z[2]))),
        "no entropy of a root": of(lambda c: usual(c, c.conditional(0, 0) + c.conditional(1, 1))),
        "the entropy of another root": of(lambda c: usual(c, c.conditional(0, 0) + c.conditional(1, 1) - entr(c.z[1]))),
        "given the wrong position": of(lambda c: usual(c, c.conditional(0, 0) + c.conditional(1, 2) - entr(c.z[0]))),
        "joint entropies of an edge": of(lambda c: usual(c, c.conditional(0, 0) - entr(c.joint[1]) - entr(c.z[0]))),
        "joint entropies of both edges": of(lambda c: usual(c, -entr(c.joint[0]) - entr(c.joint[1]))),
        "from an edge and back": of(
            lambda c: usual(c, c.conditional(0, 1) - entr(c.joint[1]) + c.conditional(2, 3)), 4
        ),
        "entropies of pairs of two edges": of(entropies_of_pairs_of_two_edges, 4),
        "an edge relative to a number": of(lambda c: usual(c, relative(c, 0.5))),
        "parents exchanged": of(lambda c: usual(c, relative(c, across(c.z[1][::-1], S)))),
        "one parent of another position": of(
            lambda c: usual(c, relative(c, across(cp.hstack([c.z[1][0], c.z[0][1]]), S)))
        ),
        "a sum of two": of(lambda c: usual(c, total=[cp.sum(c.z[0]) == 2])),
        "a sum that moves": of(lambda c: usual(c, total=[cp.sum(c.z[0]) == temperature()])),
        "no sum": of(lambda c: usual(c, total=[])),
        # Less than what rounding leaves would not be seen.
        "sums that disagree": of(lambda c: usual(c, total=[cp.sum(c.z[0]) == 1, cp.sum(c.z[2]) == 1.0 + 1e-9])),
        "a sum across positions": of(lambda c: usual(c, None, c.z[1][0] + c.z[2][1] == 1)),
        "a weighted sum": of(lambda c: usual(c, total=[np.array([1.0, 1.1]) @ c.z[0] == 1])),
        "a skip edge": of(
            lambda c: usual(c, c.conditional(0, 0) + c.conditional(1, 1) - entr(c.z[0])),
            edges=[(0, 1), (1, 2), (0, 2)],
        ),
        "a ring": of(lambda c: usual(c, sum(c.conditional(k, k) for k in range(3)) - entr(c.z[0])), edges=ring),
        "a star": of(
            lambda c: usual(c, sum(c.conditional(k, 0) for k in range(3)) - entr(c.z[0])),
            4,
            [(0, 1), (0, 2), (0, 3)],
        ),
        "a fork": of(
            lambda c: usual(c, sum(c.conditional(k, at) for k, at in enumerate((0, 1, 1))) - entr(c.z[0])),
            4,
            [(0, 1), (1, 2), (1, 3)],
        ),
        "two edges between the same": of(
            lambda c: usual(c, c.conditional(0, 0) + c.conditional(1, 0) - entr(c.z[0])), edges=[(0, 1), (0, 1)]
        ),
        "one-sided links": of(lambda c: usual(c, links=c.links()[:3])),
        "links that are inequalities": of(lambda c: last(c, cp.sum(c.joint[1], axis=0) <= c.z[2])),
        "a link weighted": of(
            lambda c: last(c, cp.sum(cp.multiply(np.array([[1.0, 1.0], [1.0, 1.1]]), c.joint[1]), axis=0) == c.z[2])
        ),
        "a link scaled": of(lambda c: last(c, cp.sum(c.joint[1], axis=0) == 1.1 * c.z[2])),
        "a link shifted": of(lambda c: last(c, cp.sum(c.joint[1], axis=0) == c.z[2] + np.array([0.1, -0.1]))),
        "a link across": of(lambda c: last(c, cp.sum(c.joint[1], axis=1) == c.z[2])),
        "a position fixed": of(lambda c: usual(c, None, c.z[1] == np.array([0.5, 0.5]))),
        "positions alike": of(lambda c: usual(c, None, c.z[0] == c.z[2])),
        "an upper bound": of(lambda c: usual(c, None, c.joint[0] <= 0.5)),
        "a lower bound": of(lambda c: usual(c, None, c.z[1] >= 0.01)),
        "a bound that moves": of(lambda c: usual(c, None, c.z[1] <= temperature())),
        "an inequality": of(lambda c: usual(c, None, c.z[0][0] <= c.z[1][0])),
        "squares besides": of(lambda c: usual(c, c.entropy() + 0.1 * cp.sum_squares(c.z[1]))),
        "a forbidden transition": of(
            lambda c: usual(c, relative(c, cp.multiply(np.array([[0.5, 0.0], [0.5, 1.0]]), across(c.z[1], S))))
        ),
        "a further variable": of(a_further_variable),
        "numbers of states that differ": numbers_of_states_that_differ,
    }


LOOKALIKES = lookalikes()


def test_trees_put_together_at_random_agree_wherever_they_are_recognized() -> None:
    rng = np.random.default_rng(77)
    recognized, refused = 0, 0
    for _ in range(30):
        length, states = int(rng.integers(2, 5)), int(rng.integers(1, 3))
        order = rng.permutation(length)
        near = [int(order[t - 1] if rng.random() < 0.85 else order[rng.integers(t)]) for t in range(1, length)]
        edges = [(a, int(b)) if rng.random() < 0.5 else (int(b), a) for a, b in zip(near, order[1:], strict=True)]
        c = Drawn(length, states, edges)
        root = int(order[0]) if rng.random() < 0.8 else int(rng.integers(length))
        given = [a if rng.random() < 0.9 else int(b) for a, b in zip(near, order[1:], strict=True)]
        regularizer = sum(c.conditional(k, at) for k, at in enumerate(given)) - cp.sum(cp.entr(c.z[root]))
        problem = c.problem(regularizer, [*c.links(float(rng.uniform(0.5, 2.0))), *c.total(int(rng.integers(length)))])
        variables = [c.variables[i] for i in rng.permutation(len(c.variables))]
        closed = ClosedMap(problem, None, variables)
        chain = root == order[0] and given == near and max(np.bincount(np.ravel(edges))) <= 2
        assert not chain or closed.path == CHAIN
        if closed.form is None:
            refused += 1
            continue
        recognized += 1
        generic = ClosedMap(problem, None, variables, closed_form="never", program=closed.program)
        agree(closed, generic, point(closed.parameters, rng, (2,)), rng, second=False)
    assert recognized >= 10 and refused >= 5


def test_long_chains_in_memory_linear_in_length() -> None:
    length, states = 150, 2
    problem = argmax.linear_chain(length, states)
    closed = ClosedMap(problem, None, [argmax.variable(problem)])
    assert closed.path == CHAIN
    theta = np.random.default_rng(1).standard_normal(closed.theta_size)
    solved = closed.solve(theta)
    assert isinstance(solved, ClosedSolved)
    assert solved.state.inner.z.size == length * states + (length - 1) * states**2
    assert closed.violation(theta) <= 1e-11
    bar = np.random.default_rng(2).standard_normal(solved.outputs.shape)
    dot = np.random.default_rng(3).standard_normal(theta.shape)
    assert closed.vjp(solved, bar) @ dot == pytest.approx(bar @ closed.jvp(solved, dot), rel=1e-10)


def test_layers_and_the_function_of_that_name_agree() -> None:
    torch = pytest.importorskip("torch")
    from cvxift.torch import CvxpyLayer, linear_chain

    problem = argmax.linear_chain(3, 2)
    rng = np.random.default_rng(21)
    tensors = [torch.tensor(rng.standard_normal((2, *p.shape))) for p in problem.parameters()]
    layer = CvxpyLayer(problem, problem.parameters(), [argmax.variable(problem)])
    by_name = dict(zip([p.name() for p in problem.parameters()], tensors, strict=True))
    pairwise = torch.stack([by_name["pairwise_0"], by_name["pairwise_1"]], dim=-3)
    states, _ = linear_chain(by_name["theta"], pairwise)
    torch.testing.assert_close(layer(*tensors)[0], states, atol=1e-12, rtol=1e-12)
