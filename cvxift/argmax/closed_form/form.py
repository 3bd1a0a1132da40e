"""A closed form: the entries that a problem is solved for, as a function of θ with its first two derivatives."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from cvxift.argmax.closed_form.affine import Rows
from cvxift.argmax.closed_form.derivative import Products
from cvxift.argmax.closed_form.inputs import Entries, Inputs, Scores, Shape
from cvxift.program.structure import Floats

Inner = TypeVar("Inner", bound=Products)
Pieces = Mapping[str, tuple[Rows, Shape]]


@dataclass(frozen=True, eq=False)
class Solved(Generic[Inner]):
    """A solved batch.

    Attributes:
        scores: x and what it is made of.
        inner: z and its derivatives.
    """

    scores: Scores
    inner: Inner


class Form(abc.ABC, Generic[Inner]):
    """A closed form of scores over a temperature, x = a/c + log p, and of further inputs, all affine in θ.

    θ has shape (*batch, N), tangents and cotangents have leading dimensions that broadcast against the batch.

    Args:
        name: what users know the map as.
        pieces: the inputs, rows and shape (G, n): "score", "stiffness", perhaps "prior", and those of the form.
        entry: for each entry z, counted through, its place among the problem's entries.

    Attributes:
        name: as given.
        inputs: θ ↦ the inputs.
        entry: as given.
    """

    def __init__(self, name: str, pieces: Pieces, entry: np.ndarray) -> None:
        self.name, self.inputs, self.entry = name, Inputs(pieces), entry
        self.shape = pieces["score"][1]

    @abc.abstractmethod
    def at(self, x: Floats, values: Mapping[str, Floats]) -> Inner | None:
        """z at scores x, shape (*batch, G, n); None where an instance is out of the form's range."""

    def margins(self, state: Solved[Inner]) -> Floats:
        """Smallest distance to a kink of each instance, relative to slacks and multipliers, shape (*batch)."""
        return np.full(state.inner.z.shape[:-2], np.inf)

    def shifts(self, state: Solved[Inner]) -> Floats | None:
        """x − φ⁻¹(z) with what a bound presses: Bᵀτ, (*batch, G, n); None where entries alone tell the multipliers."""
        return None

    def solve(self, theta: Floats) -> Solved[Inner] | None:
        """The solved batch; None if an instance is out of the form's range (an empty set, no curvature, overflow)."""
        values = self.inputs.values(theta)
        scores = Scores.of(values, self.inputs.divides)
        if scores is None:
            return None
        x = scores.x
        if not np.isfinite(x.sum()):
            return None
        inner = self.at(x, values)
        return None if inner is None else Solved(scores, inner)


@dataclass(frozen=True, eq=False)
class Outputs:
    """Some of a form's entries as the outputs of a solution map, (*batch, K).

    Attributes:
        form: the form.
        entries: which of its entries.
    """

    form: Form
    entries: Entries

    def value(self, state: Solved) -> Floats:
        """The outputs."""
        return self.entries.take(state.inner.z)

    def vjp(self, state: Solved, bar: Floats) -> Floats:
        """The cotangent of θ for one of the outputs."""
        x_bar, others = state.inner.pull(self.entries.put(bar))
        return self.form.inputs.pull({**others, **state.scores.pull(x_bar)})

    def jvp(self, state: Solved, theta_dot: Floats) -> Floats:
        """The tangent of the outputs for one of θ."""
        moved = self.form.inputs.tangent(theta_dot)
        return self.entries.take(state.inner.push(state.scores.tangent(moved), moved))

    def second(self, state: Solved, bar: Floats, theta_dot: Floats) -> Floats:
        """How the cotangent of θ moves with θ."""
        moved, scores, bar = self.form.inputs.tangent(theta_dot), state.scores, self.entries.put(bar)
        bent = state.inner.pull_tangent(bar, scores.tangent(moved), moved)
        direct = scores.pull_tangent(state.inner.pull(bar)[0], moved)
        lead = np.broadcast_shapes(bar.shape[:-2], theta_dot.shape[:-1])
        out = np.zeros((*lead, theta_dot.shape[-1]))
        if bent is not None:
            out = out + self.form.inputs.pull({**bent[1], **scores.pull(bent[0])})
        return out + self.form.inputs.pull(direct) if direct else out

    def second_tangent(self, state: Solved, theta_dot: Floats, other: Floats) -> Floats:
        """How the tangent of the outputs moves with θ, in another direction."""
        moved, along = self.form.inputs.tangent(theta_dot), self.form.inputs.tangent(other)
        scores, inner = state.scores, state.inner
        out = inner.second(scores.tangent(moved), moved, scores.tangent(along), along)
        turned = scores.second(moved, along)
        if turned is not None:
            pushed = inner.push(turned, {})
            out = pushed if out is None else out + pushed
        if out is None:
            lead = np.broadcast_shapes(theta_dot.shape[:-1], other.shape[:-1], inner.z.shape[:-2])
            out = np.zeros((*lead, *inner.z.shape[-2:]))
        return self.entries.take(out)
