"""Separable allocations as closed forms: θ to the inputs by affine maps, derivatives through one multiplier a group."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cvxift.argmax.form import Form
from cvxift.argmax.inputs import InputMaps
from cvxift.argmax.multipliers import canonical_point
from cvxift.argmax.recognized import Point, Recognized
from cvxift.argmax.scores import Scores
from cvxift.argmax.separable import Allocation
from cvxift.program.structure import Data, Floats, Structure


@dataclass(frozen=True, eq=False)
class Allocated:
    """A solved batch.

    Attributes:
        found: the allocations, shapes (*batch, G, n).
        scores: the scores that they belong to.
    """

    found: Allocation
    scores: Scores


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
        return canonical_point(self._structure, self.form, data, state.found, float(state.scores.stiffness.flat[0]))

    def margins(self, state: Allocated) -> Floats:
        """See `Recognized`."""
        form, groups = self.form, self.form.layout.groups
        least, most = state.found.margins(state.scores.stiffness, form.gain_lower[groups], form.gain_upper[groups])
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
        found, bars = state.found, state.scores.pull(x_bar)
        bars["total"] = m
        for name, mask in (("lower", found.at_lower), ("upper", found.at_upper)):
            if name in self._inputs.moving:
                bars[name] = np.where(mask, beta, 0.0)  # type: ignore[arg-type]  # a bound that moves has its mask
        return self._inputs.pull(bars)

    def jvp(self, state: Allocated, theta_dot: Floats) -> Floats:
        """See `Recognized`."""
        moved = self._inputs.tangent(theta_dot)
        x = state.scores.tangent(moved)
        z, _ = state.found.push(x, moved.get("total"), moved.get("lower"), moved.get("upper"))
        return self._flat(z)

    def second(self, state: Allocated, bar: Floats, theta_dot: Floats) -> Floats:
        """See `Recognized`."""
        found, moved = state.found, self._inputs.tangent(theta_dot)
        x = state.scores.tangent(moved)
        _, relative = found.push(x, moved.get("total"), moved.get("lower"), moved.get("upper"))
        weight, beta, _ = found.pull(self._grouped(bar))
        curved = found.curve(beta, relative)
        shape = np.broadcast_shapes(weight.shape, x.shape)
        out = self._pull_inputs(state, *(np.broadcast_to(part, (*shape[:-1], part.shape[-1])) for part in curved))
        direct = state.scores.bend(np.broadcast_to(weight, shape), moved)
        return out + self._inputs.pull(direct) if direct else out

    def second_tangent(self, state: Allocated, theta_dot: Floats, other: Floats) -> Floats:
        """See `Recognized`."""
        found = state.found
        moved, along = self._inputs.tangent(theta_dot), self._inputs.tangent(other)
        x, y = state.scores.tangent(moved), state.scores.tangent(along)
        _, first = found.push(x, moved.get("total"), moved.get("lower"), moved.get("upper"))
        _, second = found.push(y, along.get("total"), along.get("lower"), along.get("upper"))
        # z̈ = e(ẋ − τ̇)(ẋ′ − τ̇′) + s(ẍ − τ̈), and Σ z̈ = 0
        bend = np.zeros_like(found.z) if found.bend is None else found.bend
        twist = bend * first * second
        direct = state.scores.twist(moved, along)
        if direct is not None:
            twist = twist + found.slope * direct
        return self._flat(found.centre(twist)[0])
