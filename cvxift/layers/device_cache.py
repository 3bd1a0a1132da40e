"""A layer's calls and derivatives on the device of its parameters: `solve_cache.Host` for arrays that stay there.

A framework's autodiff asks for the solution and for derivatives of any order in calls that share θ alone. The last
solved points are kept with their θ, on the device, so that a derivative finds the factorization that the solve left.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cvxift.kkt.backend import Array, Arrays
from cvxift.kkt.device import DeviceMap, reason
from cvxift.kkt.solution_map import Solved
from cvxift.layers.core import LayerCore
from cvxift.layers.solve_cache import KEPT_LEAST, KEPT_NUMBERS, Options


@dataclass(frozen=True, eq=False)
class _Kept:
    """A solved call; holds θ, so that its memory is not given to another array."""

    theta: Array
    solved: Solved
    numbers: int


class DeviceHost:
    """Solutions and derivatives of a layer on arrays of one place.

    Args:
        core: the layer without its framework.
        place: where its arrays live.

    Raises:
        ProgramError: the problem has no batched dense path; `supports` says why.
    """

    def __init__(self, core: LayerCore, place: Arrays) -> None:
        self.core, self.place = core, place
        self.map = DeviceMap(core.map, place)
        structure = core.map.engine.condensation.structure
        self._numbers = 3 * (structure.n + structure.m) ** 2
        self._lock = threading.RLock()
        self._kept: OrderedDict[Any, _Kept] = OrderedDict()

    @staticmethod
    def supports(core: LayerCore) -> str | None:
        """Why a layer's problem is not solved on its parameters' device; None if it can be."""
        return reason(core.map)

    def check_order(self, order: int) -> None:
        """Refuse an order of differentiation that is not supported; see `Derivatives.check_order`."""
        self.map.check_order(order)

    def solution(self, theta: Array, options: Options) -> Array:
        """The outputs side by side, shape (*lead, K), at θ of shape (*lead, N), in float64 on the device."""
        solved = self._solved(theta, options)
        self.core.remember(solved)
        return self.place.xp.reshape(solved.outputs, (*theta.shape[:-1], self.core.map.output_size))

    def derivative(self, theta: Array, tangents: Sequence[Array], bar: Array | None, options: Options) -> Array:
        """`Derivatives.derivative` for leading dimensions that broadcast.

        Args:
            theta: shape (*lead, N).
            tangents: shapes (*lead, N).
            bar: shape (*lead, K) for the adjoint form, None for the forward form.
            options: of the call.

        Returns:
            Shape (*lead, K) or, for the adjoint form, (*lead, N), over the broadcast of all leading dimensions.
        """
        xp, vectors = self.place.xp, list(tangents if bar is None else (*tangents, bar))
        lead = np.broadcast_shapes(*(tuple(v.shape[:-1]) for v in (theta, *vectors)))
        width = self.core.map.output_size if bar is None else self.core.map.theta_size
        if 0 in lead:
            return self.place.zeros(*lead, width)
        # Axes along which θ varies number the instances; along the others an instance has several right-hand sides.
        own = [axis for axis, length in enumerate(theta.shape[:-1]) if length > 1]
        several = [axis for axis in range(len(lead)) if axis not in own]
        solved = self._solved(theta, options)
        rows = len(solved.solutions)
        shared = all(v.shape[axis] == 1 for v in vectors for axis in several)
        shape = [1 if shared and axis in several else length for axis, length in enumerate(lead)]
        order, count = (*several, *own), math.prod(shape[axis] for axis in several)
        stacks = []
        for v in vectors:
            whole = xp.broadcast_to(self._double(v), (*shape, v.shape[-1]))
            stacks.append(xp.reshape(xp.permute_dims(whole, (*order, len(lead))), (count, rows, v.shape[-1])))
        out = self.map.derivative(solved, stacks[: len(tangents)], None if bar is None else stacks[-1])
        out = xp.reshape(out, (*(shape[axis] for axis in order), width))
        out = xp.permute_dims(out, (*map(int, np.argsort(order)), len(lead)))
        return xp.broadcast_to(out, (*lead, width))

    def _solved(self, theta: Array, options: Options) -> Solved:
        """The solved call of θ, with batch shape (rows,)."""
        rows = math.prod(theta.shape[:-1])
        with self._lock:
            key = (self.place.token(theta), rows, options)
            kept = self._kept.pop(key, None)
            if kept is None:
                flat = self.place.xp.reshape(self._double(theta), (rows, theta.shape[-1]))
                solved = self.core.solve_flat(flat, options.solver_args, options.warm_start, self.map)
                kept = _Kept(theta, solved, rows * self._numbers)
            self._kept[key] = kept
            while len(self._kept) > KEPT_LEAST and sum(k.numbers for k in self._kept.values()) > KEPT_NUMBERS:
                self._kept.popitem(last=False)
            return kept.solved

    def _double(self, array: Array) -> Array:
        xp = self.place.xp
        return array if array.dtype == xp.float64 else xp.astype(array, xp.float64)
