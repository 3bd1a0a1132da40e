"""Separable allocations as closed forms: θ to the inputs by affine maps, derivatives through one multiplier a group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cvxift.argmax.form import Form
from cvxift.argmax.inputs import InputMaps
from cvxift.argmax.multipliers import canonical_point
from cvxift.argmax.recognized import Point, Recognized
from cvxift.argmax.separable import Allocation
from cvxift.program.structure import Data, Floats, Structure


@dataclass(frozen=True, eq=False)
class Allocated:
    """A solved batch.

    Attributes:
        found: the allocations, shapes (*batch, G, n).
        stiffness: c, broadcasts to (*batch, G, 1).
    """

    found: Allocation
    stiffness: Floats


class SeparableMap(Recognized[Allocated]):
    """θ ↦ the entries of a recognized allocation; see `separable` for the formulas.

    Args:
        structure: the program's structure.
        form: the program's form.
        columns: for each entry of θ, its place in the program's.

    Attributes:
        form: the program's form.
    """

    def __init__(self, structure: Structure, form: Form, columns: np.ndarray) -> None:
        self._structure, self.form, self.name = structure, form, form.name
        self._inputs = InputMaps(form, columns)
        groups = form.layout.groups.ravel()
        self._place = None if np.array_equal(groups, np.arange(len(groups))) else np.argsort(groups)
        self._order = None if self._place is None else groups

    def solve(self, theta: Floats) -> Allocated | None:
        """See `Recognized`."""
        allocated = self._inputs.allocate(theta)
        return None if allocated is None else Allocated(*allocated)

    def outputs(self, state: Allocated) -> Floats:
        """See `Recognized`."""
        return self._flat(state.found.z)

    def canonical(self, data: Data, state: Allocated) -> Point:
        """See `Recognized`."""
        return canonical_point(self._structure, self.form, data, state.found)

    def margins(self, state: Allocated) -> Floats:
        """See `Recognized`."""
        form, groups = self.form, self.form.layout.groups
        least, most = state.found.margins(state.stiffness, form.gain_lower[groups], form.gain_upper[groups])
        return least / (1.0 + most)

    def _flat(self, z: Floats) -> Floats:
        """(…, G, n) to the outputs' order, (…, K)."""
        flat = z.reshape(*z.shape[:-2], z.shape[-2] * z.shape[-1])
        return flat if self._place is None else flat[..., self._place]

    def _grouped(self, flat: Floats) -> Floats:
        """The inverse of `_flat`."""
        flat = flat if self._order is None else flat[..., self._order]
        return flat.reshape(*flat.shape[:-1], *self.form.layout.groups.shape)

    def vjp(self, state: Allocated, bar: Floats) -> Floats:
        """See `Recognized`."""
        return self._pull_inputs(state, *state.found.pull(self._grouped(bar)))

    def _pull_inputs(self, state: Allocated, x_bar: Floats, beta: Floats, m: Floats) -> Floats:
        """Cotangent of θ from those of x, of the bounds where they hold, and of the sums."""
        found = state.found
        bars: dict[str, Floats] = {"score": x_bar}
        if self._inputs.divides:
            # x = a/c
            bars["score"] = x_bar / state.stiffness
            bars["stiffness"] = -(bars["score"] * found.x).sum(axis=-1, keepdims=True)
        bars["total"] = m
        for name, mask in (("lower", found.at_lower), ("upper", found.at_upper)):
            if name in self._inputs.moving:
                bars[name] = np.where(mask, beta, 0.0)  # type: ignore[arg-type]  # a bound that moves has its mask
        return self._inputs.pull(bars)

    def _score_tangent(self, state: Allocated, moved: Mapping[str, Floats]) -> Floats:
        """ẋ = (ȧ − x ċ)/c."""
        if not self._inputs.divides:
            return moved["score"]
        return (moved["score"] - state.found.x * moved["stiffness"]) / state.stiffness

    def jvp(self, state: Allocated, theta_dot: Floats) -> Floats:
        """See `Recognized`."""
        moved = self._inputs.tangent(theta_dot)
        x = self._score_tangent(state, moved)
        z, _ = state.found.push(x, moved.get("total"), moved.get("lower"), moved.get("upper"))
        return self._flat(z)

    def second(self, state: Allocated, bar: Floats, theta_dot: Floats) -> Floats:
        """See `Recognized`."""
        found, moved = state.found, self._inputs.tangent(theta_dot)
        x = self._score_tangent(state, moved)
        _, relative = found.push(x, moved.get("total"), moved.get("lower"), moved.get("upper"))
        weight, beta, _ = found.pull(self._grouped(bar))
        x_bar, share = found.curve(beta, relative)
        shape = np.broadcast_shapes(x_bar.shape, weight.shape, x.shape)
        x_bar, share = np.broadcast_to(x_bar, shape), np.broadcast_to(share, (*shape[:-1], 1))
        if not self._inputs.divides:
            return self._pull_inputs(state, x_bar, np.broadcast_to(-share, shape), share)
        # ẋ = (ȧ − x ċ)/c moves with x and with c as well.
        c = state.stiffness
        out = self._pull_inputs(state, x_bar - weight * moved["stiffness"] / c, np.broadcast_to(-share, shape), share)
        direct = -(weight * x).sum(axis=-1, keepdims=True) / c
        return out + self._inputs.pull({"stiffness": np.broadcast_to(direct, (*shape[:-1], 1))})

    def second_tangent(self, state: Allocated, theta_dot: Floats, other: Floats) -> Floats:
        """See `Recognized`."""
        found = state.found
        moved, along = self._inputs.tangent(theta_dot), self._inputs.tangent(other)
        x, y = self._score_tangent(state, moved), self._score_tangent(state, along)
        _, first = found.push(x, moved.get("total"), moved.get("lower"), moved.get("upper"))
        _, second = found.push(y, along.get("total"), along.get("lower"), along.get("upper"))
        # z̈ = e(ẋ − τ̇)(ẋ′ − τ̇′) + s(ẍ − τ̈), and Σ z̈ = 0
        bend = np.zeros_like(found.z) if found.bend is None else found.bend
        twist = bend * first * second
        if self._inputs.divides:
            twist = twist - found.slope * (y * moved["stiffness"] + x * along["stiffness"]) / state.stiffness
        if found.limits.k is not None:
            twist = twist - found.slope * (twist.sum(axis=-1, keepdims=True) * found.inverse_sum)
        return self._flat(twist)
