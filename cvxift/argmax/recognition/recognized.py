"""What a closed form must give to stand in for a program's solver and its KKT system."""

from __future__ import annotations

import abc
from typing import Generic, TypeVar

from cvxift.program.structure import Data, Floats

State = TypeVar("State")
Point = tuple[Floats, Floats, Floats]


class Recognized(abc.ABC, Generic[State]):
    """A program's outputs in closed form, as a function of θ that is twice differentiable almost everywhere.

    Every θ has shape (*batch, N), tangents and cotangents have leading dimensions that broadcast against the batch,
    outputs have shape (*batch, K) in the order that they were asked for.

    Attributes:
        name: what users know the map as.
    """

    name: str

    @abc.abstractmethod
    def solve(self, theta: Floats) -> State | None:
        """The solved batch; None if an instance is out of the form's range (an empty set, no curvature, overflow)."""

    @abc.abstractmethod
    def outputs(self, state: State) -> Floats:
        """The outputs."""

    @abc.abstractmethod
    def vjp(self, state: State, bar: Floats) -> Floats:
        """The cotangent of θ for one of the outputs."""

    @abc.abstractmethod
    def jvp(self, state: State, theta_dot: Floats) -> Floats:
        """The tangent of the outputs for one of θ."""

    @abc.abstractmethod
    def second(self, state: State, bar: Floats, theta_dot: Floats) -> Floats:
        """How the cotangent of θ moves with θ."""

    @abc.abstractmethod
    def second_tangent(self, state: State, theta_dot: Floats, other: Floats) -> Floats:
        """How the tangent of the outputs moves with θ, in another direction."""

    @abc.abstractmethod
    def canonical(self, data: Data, state: State) -> Point:
        """The program's whole optimal point (x, s, y); one instance."""

    @abc.abstractmethod
    def margins(self, state: State) -> Floats:
        """Smallest distance to a kink of each instance, relative to slacks and multipliers, shape (*batch)."""
