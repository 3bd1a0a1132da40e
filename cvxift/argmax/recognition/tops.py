"""Bounds on the sum of the k largest entries as a canonical program has them, and what they have at an optimal point.

Each stands for Σ of the k largest of z ≤ W with a multiplier λ ≥ 0, whose gradient in z is λ on the k largest entries.
One on the n − k smallest instead, coefficients α < 0, has that gradient less λ on all entries. Where λ = 0 auxiliary
columns are not unique: they are put in the middle of what is left, so that no row holds that need not.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass

import numpy as np

from cvxift.argmax.recognition.form import Indices
from cvxift.program.structure import Floats


@dataclass(frozen=True, eq=False)
class Top(abc.ABC):
    """One bound, on z by coefficients α.

    Attributes:
        size: k.
        alpha: the coefficient of z's entries.
        head: the row whose b bounds.
        scale: b · scale/|α| bounds the sum of the k largest, or minus the sum of the n − k smallest.
        compared: rows of the entries, in the entries' order.
    """

    size: int
    alpha: float
    head: int
    scale: float
    compared: Indices

    @property
    @abc.abstractmethod
    def columns(self) -> Indices:
        """The columns of its own."""

    @property
    @abc.abstractmethod
    def rows(self) -> int:
        """Number of rows."""

    @abc.abstractmethod
    def place(self, z: Floats, order: Indices, weight: float, b: Floats, x: Floats, y: Floats) -> None:
        """Its columns and multipliers at the optimal z.

        Args:
            z: shape (n,).
            order: z's entries from the largest on.
            weight: λ.
            b: the program's right-hand side.
            x: columns, filled in.
            y: multipliers, filled in.
        """

    def counted(self, order: Indices) -> Indices:
        """The entries whose sum is bounded."""
        return order[: self.size] if self.alpha > 0 else order[self.size :]

    def level(self, z: Floats, order: Indices) -> float:
        """Halfway between the smallest of αz that counts and the largest that does not."""
        return 0.5 * self.alpha * float(z[order[self.size - 1]] + z[order[self.size]])


@dataclass(frozen=True, eq=False)
class SumTop(Top):
    """α z_i ≤ β t_i + γ q,  δ t_i ≥ 0,  η Σ t + κ q ≤ b.

    Attributes:
        q: the column.
        t: the columns, in the entries' order.
        signs: rows of t's signs.
        beta: β.
        gamma: γ.
        delta: δ.
        eta: η.
        kappa: κ.
    """

    q: int
    t: Indices
    signs: Indices
    beta: float
    gamma: float
    delta: float
    eta: float
    kappa: float

    @property
    def columns(self) -> Indices:
        """See `Top`."""
        return np.append(self.t, self.q)

    @property
    def rows(self) -> int:
        """See `Top`."""
        return 2 * len(self.t) + 1

    def place(self, z: Floats, order: Indices, weight: float, b: Floats, x: Floats, y: Floats) -> None:
        """See `Top`."""
        level = self.level(z, order)
        x[self.q] = level / self.gamma
        t = np.maximum(self.alpha * z - level, 0.0) / self.beta
        if weight == 0.0:
            slack = b[self.head] - self.eta * t.sum() - self.kappa * x[self.q]
            x[self.t] = t + max(slack, 0.0) / (2.0 * self.eta * len(t))
            return
        x[self.t] = t
        # Stationarity of t_i: η y_head = β y_i + δ u_i; of z_i: α y_i = ±λ where counted.
        y[self.head] = weight * self.scale / abs(self.alpha)
        y[self.signs] = weight * self.beta / (self.delta * abs(self.alpha))
        counted = self.counted(order)
        y[self.compared[counted]] = weight / abs(self.alpha)
        y[self.signs[counted]] = 0.0


@dataclass(frozen=True, eq=False)
class MaxTop(Top):
    """α z_i ≤ γ q,  κ q ≤ b.

    Attributes:
        q: the column.
        gamma: γ.
        kappa: κ.
    """

    q: int
    gamma: float
    kappa: float

    @property
    def columns(self) -> Indices:
        """See `Top`."""
        return np.array([self.q])

    @property
    def rows(self) -> int:
        """See `Top`."""
        return len(self.compared) + 1

    def place(self, z: Floats, order: Indices, weight: float, b: Floats, x: Floats, y: Floats) -> None:
        """See `Top`."""
        highest = float((self.alpha * z).max())
        if weight == 0.0:
            x[self.q] = 0.5 * (highest + b[self.head] * self.scale) / self.gamma
            return
        x[self.q] = highest / self.gamma
        y[self.head] = weight * self.scale / abs(self.alpha)
        y[self.compared[self.counted(order)]] = weight / abs(self.alpha)


@dataclass(frozen=True, eq=False)
class Bounds(Top):
    """α z_i ≤ b, the same for all entries, or for one of them.

    Attributes:
        entry: the entries of the rows.
    """

    entry: Indices

    @property
    def columns(self) -> Indices:
        """See `Top`."""
        return np.zeros(0, dtype=np.intp)

    @property
    def rows(self) -> int:
        """See `Top`."""
        return len(self.compared)

    def place(self, z: Floats, order: Indices, weight: float, b: Floats, x: Floats, y: Floats) -> None:
        """See `Top`."""
        if weight > 0.0:
            y[self.compared[self.counted(order)]] = weight / abs(self.alpha)
