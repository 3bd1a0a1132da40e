"""Closed forms z = g(x, w) of scores x = a/c + log p and further inputs w, all of a, c, p, w affine in θ.

A subclass knows g and its derivatives at a solved point; here are θ's part of them. With ẋ from `scores` and ẇ linear,

    ż = Dg[ẋ, ẇ],     (x̄, w̄) = Dgᵀ z̄,     z̈ = D²g[(ẋ, ẇ), (ẋ′, ẇ′)] + Dg[ẍ, 0],

and how (x̄, w̄) moves for a fixed z̄ is the product of D²g with z̄ and (ẋ, ẇ), here `bend`.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
import scipy.sparse as sp

from cvxift.argmax.recognition.form import Affine
from cvxift.argmax.recognition.recognized import Recognized
from cvxift.argmax.recognition.scores import Scores
from cvxift.program.affine import AffineMap
from cvxift.program.structure import Floats

Inner = TypeVar("Inner")


class Inputs(Protocol):
    """The inputs as functions of θ, by name; where c is constant, the scores are divided by it already.

    Attributes:
        divides: whether c depends on θ.
    """

    divides: bool

    @property
    def moving(self) -> Set[str]:
        """Names of the inputs that depend on θ."""
        ...

    def values(self, theta: Floats) -> Mapping[str, Floats | None]:
        """Every input at θ, scores of shape (*batch, …), others broadcast against them; None where there is none."""
        ...

    def tangent(self, theta_dot: Floats) -> Mapping[str, Floats]:
        """Tangents of the inputs that depend on θ, and of the scores."""
        ...

    def pull(self, bars: Mapping[str, Floats]) -> Floats:
        """Cotangent of θ; inputs not named, and those that do not depend on it, count as zero."""
        ...


class AffineInputs:
    """Inputs that are affine in θ: those that move in one product, the others as they are.

    Args:
        pieces: the inputs; score and stiffness are among them.
        columns: for each entry of θ, its place in the program's.

    Attributes:
        constant: the inputs that do not depend on θ.
        divides: see `Inputs`.
    """

    def __init__(self, pieces: Mapping[str, Affine], columns: np.ndarray) -> None:
        place = np.argsort(columns)  # from the program's θ to this map's
        score, stiffness = pieces["score"], pieces["stiffness"]
        self.divides = stiffness.varies
        if not self.divides:
            c = float(stiffness.constant[0])
            score = Affine(score.indptr, score.indices, score.data / c, score.constant / c)
        pieces = {**pieces, "score": score}
        self.constant = {name: piece.constant for name, piece in pieces.items() if not piece.varies}
        moving = {name: piece for name, piece in pieces.items() if piece.varies}
        ends = np.cumsum([0, *(len(piece.constant) for piece in moving.values())])
        self._where = {name: slice(int(ends[k]), int(ends[k + 1])) for k, name in enumerate(moving)}
        self._rows, self._scores = int(ends[-1]), len(score.constant)
        none = np.zeros(0, dtype=np.intp)
        counts = np.concatenate([none, *(piece.counts for piece in moving.values())])
        indices = place[np.concatenate([none, *(piece.indices for piece in moving.values())])]
        values = np.concatenate([np.zeros(0), *(piece.data for piece in moving.values())])
        constant = np.concatenate([np.zeros(0), *(piece.constant for piece in moving.values())])
        row = np.repeat(np.arange(self._rows), counts)
        size = len(columns)
        self._map = AffineMap(sp.csr_array((values, (row, indices)), shape=(self._rows, size)), constant)
        self._adjoint = AffineMap(sp.csr_array((values, (indices, row)), shape=(size, self._rows)))

    @property
    def moving(self) -> Set[str]:
        """See `Inputs`."""
        return self._where.keys()

    def values(self, theta: Floats) -> dict[str, Floats]:
        """See `Inputs`; shapes (*batch, rows) or, where it is constant, (rows,)."""
        out = {**self.constant, **self._split(self._map(theta))}
        out["score"] = np.broadcast_to(out["score"], (*theta.shape[:-1], self._scores))
        return out

    def tangent(self, theta_dot: Floats) -> dict[str, Floats]:
        """See `Inputs`."""
        out = self._split(self._map.linear(theta_dot))
        if "score" not in out:
            out["score"] = np.zeros((*theta_dot.shape[:-1], self._scores))
        return out

    def pull(self, bars: Mapping[str, Floats]) -> Floats:
        """See `Inputs`."""
        used = [name for name in self._where if name in bars]
        lead = np.broadcast_shapes(*(bars[name].shape[:-1] for name in (used or bars)))
        stacked = np.zeros((*lead, self._rows))
        for name in used:
            stacked[..., self._where[name]] = bars[name]
        return self._adjoint(stacked)

    def _split(self, stacked: Floats) -> dict[str, Floats]:
        return {name: stacked[..., part] for name, part in self._where.items()}


@dataclass(frozen=True, eq=False)
class Scored(Generic[Inner]):
    """A solved batch.

    Attributes:
        scores: x and what it is made of.
        inner: what g's derivatives need.
    """

    scores: Scores
    inner: Inner


class ScaledMap(Recognized[Scored[Inner]], Generic[Inner]):
    """A closed form of scores over a temperature; see the module.

    Args:
        inputs: named score, stiffness, prior if there is one that depends on θ, and others that the form has.
    """

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs

    @abc.abstractmethod
    def at(self, x: Floats, values: Mapping[str, Floats | None]) -> Inner | None:
        """g at scores x, of their inputs' shape; None out of its range."""

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
        ratio, stiffness, prior = values["score"], values["stiffness"], values.get("prior")
        assert ratio is not None and stiffness is not None
        if self.inputs.divides:
            if not (stiffness > 0).all():
                return None
            with np.errstate(over="ignore"):
                ratio = ratio / stiffness
        if prior is not None and not (prior > 0).all():
            return None
        scores = Scores(ratio, stiffness, self.inputs.divides, prior)
        x = scores.x
        if not np.isfinite(x.sum()):
            return None
        inner = self.at(x, values)
        return None if inner is None else Scored(scores, inner)

    def outputs(self, state: Scored[Inner]) -> Floats:
        """See `Recognized`."""
        return self.value(state.inner)

    def vjp(self, state: Scored[Inner], bar: Floats) -> Floats:
        """See `Recognized`."""
        x_bar, others = self.pull(state.inner, bar)
        return self.inputs.pull({**state.scores.pull(x_bar), **others})

    def jvp(self, state: Scored[Inner], theta_dot: Floats) -> Floats:
        """See `Recognized`."""
        moved = self.inputs.tangent(theta_dot)
        return self.push(state.inner, state.scores.tangent(moved), moved)

    def second(self, state: Scored[Inner], bar: Floats, theta_dot: Floats) -> Floats:
        """See `Recognized`."""
        moved = self.inputs.tangent(theta_dot)
        bent = self.bend(state.inner, bar, state.scores.tangent(moved), moved)
        x_bar, _ = self.pull(state.inner, bar)
        direct = state.scores.bend(x_bar, moved)
        out = np.zeros((*np.broadcast_shapes(bar.shape[:-1], theta_dot.shape[:-1]), theta_dot.shape[-1]))
        if bent is not None:
            out = out + self.inputs.pull({**state.scores.pull(bent[0]), **bent[1]})
        return out + self.inputs.pull(direct) if direct else out

    def second_tangent(self, state: Scored[Inner], theta_dot: Floats, other: Floats) -> Floats:
        """See `Recognized`."""
        moved, along = self.inputs.tangent(theta_dot), self.inputs.tangent(other)
        x, y = state.scores.tangent(moved), state.scores.tangent(along)
        out = self.twist(state.inner, x, moved, y, along)
        turned = state.scores.twist(moved, along)
        if turned is not None:
            second = self.push(state.inner, turned, {})
            out = second if out is None else out + second
        if out is not None:
            return out
        lead = np.broadcast_shapes(theta_dot.shape[:-1], other.shape[:-1], self.value(state.inner).shape[:-1])
        return np.zeros((*lead, self.value(state.inner).shape[-1]))
