"""Separable allocations as closed forms of programs: derivatives through one multiplier a group, see `separable`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cvxift.argmax.recognition.form import Form
from cvxift.argmax.recognition.inputs import InputMaps
from cvxift.argmax.recognition.multipliers import canonical_point
from cvxift.argmax.recognition.recognized import Point
from cvxift.argmax.recognition.scaled_map import ScaledMap, Scored
from cvxift.argmax.recognition.separable import Allocation
from cvxift.program.structure import Data, Floats, Structure


class SeparableMap(ScaledMap[Allocation]):
    """θ ↦ the entries of a recognized allocation.

    Args:
        structure: the program's structure.
        form: the program's form.
        columns: for each entry of θ, its place in the program's.

    Attributes:
        form: the program's form.
    """

    def __init__(self, structure: Structure, form: Form, columns: np.ndarray) -> None:
        inputs = InputMaps(form, columns)
        super().__init__(inputs)
        self._structure, self.form, self.name = structure, form, form.name
        groups = form.layout.groups.ravel()
        self._place = None if np.array_equal(groups, np.arange(len(groups))) else np.argsort(groups)
        self._order = None if self._place is None else groups
        self._limits = None
        if not {"total", "lower", "upper"} & inputs.moving:
            fixed = inputs.constant
            self._limits = form.kind.limits(fixed["total"], fixed["lower"], fixed["upper"], form.layout.groups.shape[1])

    def _flat(self, z: Floats) -> Floats:
        """(…, G, n) to the outputs' order, (…, K)."""
        flat = z.reshape(*z.shape[:-2], z.shape[-2] * z.shape[-1])
        return flat if self._place is None else flat[..., self._place]

    def _grouped(self, flat: Floats) -> Floats:
        """The inverse of `_flat`."""
        flat = flat if self._order is None else flat[..., self._order]
        return flat.reshape(*flat.shape[:-1], *self.form.layout.groups.shape)

    def at(self, x: Floats, values: Mapping[str, Floats | None]) -> Allocation | None:
        """See `ScaledMap`."""
        kind, limits = self.form.kind, self._limits
        if limits is None:
            limits = kind.limits(values["total"], values["lower"], values["upper"], x.shape[-1])
        found = None if limits is None else kind.solve(x, limits)
        # Where sums or bounds move, but bounds hold every entry of a group, they cannot all move as they please.
        moves = not {"total", "lower", "upper"}.isdisjoint(self.inputs.moving)
        return None if found is None or (moves and found.pinned) else found

    def value(self, inner: Allocation) -> Floats:
        """See `ScaledMap`."""
        return self._flat(inner.z)

    def push(self, inner: Allocation, x: Floats, moved: Mapping[str, Floats]) -> Floats:
        """See `ScaledMap`."""
        return self._flat(self._pushed(inner, x, moved)[0])

    @staticmethod
    def _pushed(inner: Allocation, x: Floats, moved: Mapping[str, Floats]) -> tuple[Floats, Floats]:
        return inner.push(x, moved.get("total"), moved.get("lower"), moved.get("upper"))

    def pull(self, inner: Allocation, bar: Floats) -> tuple[Floats, dict[str, Floats]]:
        """See `ScaledMap`."""
        return self._bars(inner, *inner.pull(self._grouped(bar)))

    def _bars(self, inner: Allocation, x_bar: Floats, beta: Floats, m: Floats) -> tuple[Floats, dict[str, Floats]]:
        """x̄ and the cotangents of the sums, and of the bounds where they hold."""
        bars = {"total": m}
        for name, mask in (("lower", inner.at_lower), ("upper", inner.at_upper)):
            if name in self.inputs.moving:
                bars[name] = np.where(mask, beta, 0.0)  # type: ignore[arg-type]  # a bound that moves has its mask
        return x_bar, bars

    def bend(
        self, inner: Allocation, bar: Floats, x: Floats, moved: Mapping[str, Floats]
    ) -> tuple[Floats, dict[str, Floats]] | None:
        """See `ScaledMap`."""
        if inner.bend is None:
            return None
        _, weight, _ = inner.pull(self._grouped(bar))
        x_bar, beta, share = inner.curve(weight, self._pushed(inner, x, moved)[1])
        return self._bars(inner, x_bar, beta, np.broadcast_to(share, (*x_bar.shape[:-1], share.shape[-1])))

    def twist(
        self, inner: Allocation, x: Floats, moved: Mapping[str, Floats], y: Floats, along: Mapping[str, Floats]
    ) -> Floats | None:
        """See `ScaledMap`."""
        if inner.bend is None:
            return None
        # z̈ = e(ẋ − τ̇)(ẋ′ − τ̇′) + s(ẍ − τ̈), and Σ z̈ = 0
        turned = inner.bend * self._pushed(inner, x, moved)[1] * self._pushed(inner, y, along)[1]
        return self._flat(inner.centre(turned)[0])

    def canonical(self, data: Data, state: Scored[Allocation]) -> Point:
        """See `Recognized`."""
        stiffness = float(state.scores.stiffness.flat[0])
        return canonical_point(self._structure, self.form, data, state.inner, stiffness)

    def margins(self, state: Scored[Allocation]) -> Floats:
        """See `Recognized`."""
        form, groups = self.form, self.form.layout.groups
        least, most = state.inner.margins(state.scores.stiffness, form.gain_lower[groups], form.gain_upper[groups])
        return least / (1.0 + most)
