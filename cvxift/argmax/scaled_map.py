"""Closed forms z = g(x, w) of scores x = a/c + log p and further inputs w, all of a, c, p, w affine in θ.

A subclass knows g and its derivatives at a solved point; here are θ's part of them. With ẋ from `scores` and ẇ linear,

    ż = Dg[ẋ, ẇ],     (x̄, w̄) = Dgᵀ z̄,     z̈ = D²g[(ẋ, ẇ), (ẋ′, ẇ′)] + Dg[ẍ, 0],

and how (x̄, w̄) moves for a fixed z̄ is the product of D²g with z̄ and (ẋ, ẇ), here `bend`.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import scipy.sparse as sp

from cvxift.argmax.form import Affine
from cvxift.argmax.recognized import Recognized
from cvxift.argmax.scores import Scores
from cvxift.program.affine import AffineMap
from cvxift.program.structure import Floats

Inner = TypeVar("Inner")


class AffineInputs:
    """Named inputs that are affine in θ: those that move in one product, the others as they are.

    Args:
        pieces: the inputs.
        columns: for each entry of θ, its place in the program's.

    Attributes:
        constant: the inputs that do not depend on θ.
        moving: where each other one stands among those that do.
    """

    def __init__(self, pieces: Mapping[str, Affine], columns: np.ndarray) -> None:
        place = np.argsort(columns)  # from the program's θ to this map's
        self.constant = {name: piece.constant for name, piece in pieces.items() if not piece.varies}
        moving = {name: piece for name, piece in pieces.items() if piece.varies}
        ends = np.cumsum([0, *(len(piece.constant) for piece in moving.values())])
        self.moving = {name: slice(int(ends[k]), int(ends[k + 1])) for k, name in enumerate(moving)}
        self._rows = int(ends[-1])
        none = np.zeros(0, dtype=np.intp)
        counts = np.concatenate([none, *(piece.counts for piece in moving.values())])
        indices = place[np.concatenate([none, *(piece.indices for piece in moving.values())])]
        values = np.concatenate([np.zeros(0), *(piece.data for piece in moving.values())])
        constant = np.concatenate([np.zeros(0), *(piece.constant for piece in moving.values())])
        row = np.repeat(np.arange(self._rows), counts)
        size = len(columns)
        self._map = AffineMap(sp.csr_array((values, (row, indices)), shape=(self._rows, size)), constant)
        self._adjoint = AffineMap(sp.csr_array((values, (indices, row)), shape=(size, self._rows)))

    def values(self, theta: Floats) -> dict[str, Floats]:
        """Every input at θ, shapes (*batch, rows) or, where it is constant, (rows,)."""
        return {**self.constant, **self._split(self._map(theta))}

    def tangent(self, theta_dot: Floats) -> dict[str, Floats]:
        """Tangents of the inputs that move."""
        return self._split(self._map.linear(theta_dot))

    def pull(self, bars: Mapping[str, Floats]) -> Floats:
        """Cotangent of θ; inputs not named, and those that do not move, count as zero."""
        used = [name for name in self.moving if name in bars]
        lead = np.broadcast_shapes(*(bars[name].shape[:-1] for name in (used or bars)))
        stacked = np.zeros((*lead, self._rows))
        for name in used:
            stacked[..., self.moving[name]] = bars[name]
        return self._adjoint(stacked)

    def _split(self, stacked: Floats) -> dict[str, Floats]:
        return {name: stacked[..., part] for name, part in self.moving.items()}


@dataclass(frozen=True, eq=False)
class Scored(Generic[Inner]):
    """A solved batch.

    Attributes:
        scores: x and what it is made of, shapes (*batch, n), c (*batch, 1).
        inner: what g's derivatives need.
    """

    scores: Scores
    inner: Inner


class ScaledMap(Recognized[Scored[Inner]], Generic[Inner]):
    """A closed form of scores over a temperature; see the module.

    Args:
        pieces: affine inputs named score (n rows), stiffness (1 row), prior (n rows) if there is one, and others.
        columns: for each entry of θ, its place in the program's.
    """

    def __init__(self, pieces: Mapping[str, Affine], columns: np.ndarray) -> None:
        self.inputs = AffineInputs(pieces, columns)
        self._divides = "stiffness" in self.inputs.moving

    @abc.abstractmethod
    def at(self, x: Floats, values: Mapping[str, Floats]) -> Inner | None:
        """g at scores x, shape (*batch, n); None out of its range."""

    @abc.abstractmethod
    def value(self, inner: Inner) -> Floats:
        """The outputs z."""

    @abc.abstractmethod
    def push(self, inner: Inner, x: Floats, moved: Mapping[str, Floats]) -> Floats:
        """Dg[ẋ, ẇ]; inputs that `moved` does not name stand still."""

    @abc.abstractmethod
    def pull(self, inner: Inner, bar: Floats) -> tuple[Floats, dict[str, Floats]]:
        """x̄ and the cotangents of the other inputs."""

    @abc.abstractmethod
    def bend(
        self, inner: Inner, bar: Floats, x: Floats, moved: Mapping[str, Floats]
    ) -> tuple[Floats, dict[str, Floats]] | None:
        """How `pull` of a fixed cotangent moves; None where it does not."""

    @abc.abstractmethod
    def twist(
        self, inner: Inner, x: Floats, moved: Mapping[str, Floats], y: Floats, along: Mapping[str, Floats]
    ) -> Floats | None:
        """D²g[(ẋ, ẇ), (ẋ′, ẇ′)]; None where it is zero."""

    def solve(self, theta: Floats) -> Scored[Inner] | None:
        """See `Recognized`."""
        values = self.inputs.values(theta)
        stiffness, prior = values["stiffness"], values.get("prior")
        if not (stiffness > 0).all() or (prior is not None and not (prior > 0).all()):
            return None
        with np.errstate(over="ignore"):
            ratio = values["score"] / stiffness
        moves = "prior" in self.inputs.moving
        scores = Scores(ratio, stiffness, self._divides, prior if moves else None)
        x = scores.x if moves or prior is None else scores.x + np.log(prior)
        if not np.isfinite(x).all():
            return None
        inner = self.at(np.broadcast_to(x, (*theta.shape[:-1], x.shape[-1])), values)
        return None if inner is None else Scored(scores, inner)

    def outputs(self, state: Scored[Inner]) -> Floats:
        """See `Recognized`."""
        return self.value(state.inner)

    def _score_tangent(self, state: Scored[Inner], moved: dict[str, Floats]) -> Floats:
        if "score" not in moved:
            lead = next(iter(moved.values())).shape[:-1] if moved else ()
            moved["score"] = np.zeros((*lead, state.scores.ratio.shape[-1]))
        if self._divides:
            return state.scores.tangent(moved)
        # `Scores` takes a constant c to be divided out of the scores beforehand.
        return state.scores.tangent({**moved, "score": moved["score"] / state.scores.stiffness})

    def _score_bars(self, state: Scored[Inner], x_bar: Floats) -> dict[str, Floats]:
        bars = state.scores.pull(x_bar)
        return bars if self._divides else {**bars, "score": bars["score"] / state.scores.stiffness}

    def vjp(self, state: Scored[Inner], bar: Floats) -> Floats:
        """See `Recognized`."""
        x_bar, others = self.pull(state.inner, bar)
        return self.inputs.pull({**self._score_bars(state, x_bar), **others})

    def jvp(self, state: Scored[Inner], theta_dot: Floats) -> Floats:
        """See `Recognized`."""
        moved = self.inputs.tangent(theta_dot)
        return self.push(state.inner, self._score_tangent(state, moved), moved)

    def second(self, state: Scored[Inner], bar: Floats, theta_dot: Floats) -> Floats:
        """See `Recognized`."""
        moved = self.inputs.tangent(theta_dot)
        bent = self.bend(state.inner, bar, self._score_tangent(state, moved), moved)
        x_bar, _ = self.pull(state.inner, bar)
        direct = state.scores.bend(x_bar, moved)
        lead = np.broadcast_shapes(bar.shape[:-1], theta_dot.shape[:-1], x_bar.shape[:-1])
        out = np.zeros((*lead, theta_dot.shape[-1]))
        if bent is not None:
            out = out + self.inputs.pull({**self._score_bars(state, bent[0]), **bent[1]})
        return out + self.inputs.pull(direct) if direct else out

    def second_tangent(self, state: Scored[Inner], theta_dot: Floats, other: Floats) -> Floats:
        """See `Recognized`."""
        moved, along = self.inputs.tangent(theta_dot), self.inputs.tangent(other)
        x, y = self._score_tangent(state, moved), self._score_tangent(state, along)
        out = self.twist(state.inner, x, moved, y, along)
        turned = state.scores.twist(moved, along)
        if turned is not None:
            second = self.push(state.inner, turned, {})
            out = second if out is None else out + second
        if out is not None:
            return out
        lead = np.broadcast_shapes(theta_dot.shape[:-1], other.shape[:-1], self.value(state.inner).shape[:-1])
        return np.zeros((*lead, self.value(state.inner).shape[-1]))
