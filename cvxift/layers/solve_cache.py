"""What traced and transformed calls compute, on the host or on the device of their arrays.

A framework's tracer may drop, repeat, reorder or batch the calls that it makes of a solve and its derivatives, which
share θ and nothing else. Each call therefore carries θ, and the last solved points are kept under what tells θ's values
from others', so that a derivative finds the point and the factorization that the solve left. One that is no longer kept
is solved again. On the host no call may use the framework, which may be waiting for the very call.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cvxift.kkt.backend import HOST, Array, Arrays
from cvxift.kkt.batch.device import DeviceMap
from cvxift.kkt.policy import options_of
from cvxift.kkt.solution_map import Solved
from cvxift.layers.core import LayerCore

KEPT_NUMBERS = 32_000_000  # numbers (256 MB), on the host or a device, that kept points may hold together
KEPT_LEAST = 4  # calls that are kept whatever their size


@dataclass
class _Entry:
    """A place for a solved call; its lock lets one thread work on it at a time.

    It holds θ, so that the memory of a device's array, by which it is known, is not given to another.
    """

    theta: Array = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    solved: Solved | None = None


@dataclass(frozen=True)
class Options:
    """What a call fixes beside its arrays; hashable, as a static argument of a compiled function must be.

    Attributes:
        solver_args: options for the solver over those of the layer.
        warm_start: start from the previous call's solutions.
        key: tells options apart.
    """

    solver_args: Mapping[str, Any] = field(default_factory=dict, compare=False)
    warm_start: bool = False
    key: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, solver_args: Mapping[str, Any] | None, warm_start: bool) -> Options:
        """Options of a call."""
        args = options_of(solver_args)
        return cls(args, warm_start, tuple(sorted((name, repr(value)) for name, value in args.items())))


class Host:
    """Solutions and derivatives of a layer, of any order, by θ.

    Args:
        core: the layer without its framework.
        place: where its arrays live.

    Raises:
        ProgramError: the problem has no batched dense path in that place; `cvxift.kkt.batch.device.reason` says why.

    Attributes:
        residence: an adapter's, which of the layer's calls are computed where their arrays live; None for none.
    """

    residence: Any = None

    def __init__(self, core: LayerCore, place: Arrays = HOST) -> None:
        self.core, self.place = core, place
        self._there = None if place is HOST else DeviceMap(core.map, place)
        self._numbers = self._kept_numbers()
        self._lock = threading.Lock()
        self._kept: OrderedDict[Any, _Entry] = OrderedDict()
        self._held = 0

    @property
    def map(self) -> Any:
        """The solution map of this place."""
        return self.core.map if self._there is None else self._there

    def _kept_numbers(self) -> int:
        """How many numbers a kept instance holds."""
        mapping = self.core.map
        if mapping.form is not None and self._there is None:
            return 8 * (mapping.theta_size + mapping.output_size)  # its inputs, and some arrays of its entries
        if self._there is not None:
            structure = mapping.engine.condensation.structure
            return 3 * (structure.n + structure.m) ** 2
        structure = mapping.program.structure
        # A kept instance holds its data, its point, and its factors: dense where the layout is, else as sparse as K.
        size = structure.n + structure.m
        entries = structure.nnzP + 2 * structure.nnzA + size
        return 2 * entries + (2 * size * size if mapping.engine.layout.dense else 10 * entries)

    def check_order(self, order: int) -> None:
        """Refuse an order of differentiation that is not supported; see `Derivatives.check_order`."""
        self.map.check_order(order)

    def solution(self, theta: Array, options: Options) -> Array:
        """The outputs side by side, shape (*lead, K), at θ of shape (*lead, N), in double precision."""
        entry = self._entry(theta, options)
        solved = entry.solved
        assert solved is not None
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
        xp, own_lead = self.place.xp, tuple(theta.shape[:-1])
        vectors = [self._double(v) for v in (tangents if bar is None else (*tangents, bar))]
        lead = np.broadcast_shapes(own_lead, *(tuple(v.shape[:-1]) for v in vectors))
        width = self.core.map.output_size if bar is None else self.core.map.theta_size
        if 0 in lead:
            return self.place.zeros(*lead, width)
        entry, count = self._entry(theta, options), len(tangents)
        solved = entry.solved
        assert solved is not None

        def found(stacks: list[Array]) -> Array:
            with entry.lock:
                solved.forget_words()  # each call is told of its point, if it is an old one
                return self.map.derivative(solved, stacks[:count], None if bar is None else stacks[-1])

        if all(v.shape[:-1] == theta.shape[:-1] for v in vectors):  # one right-hand side an instance
            out = found([xp.reshape(v, (*solved.batch_shape, v.shape[-1])) for v in vectors])
            return xp.reshape(out, (*lead, width))
        # Axes along which θ varies number the instances; along the others an instance has several right-hand sides.
        own = [axis for axis, length in enumerate(own_lead) if length > 1]
        several = [axis for axis in range(len(lead)) if axis not in own]
        batch, order = solved.batch_shape, (*several, *own)
        # Along `several` axes of one length 1 where no vector varies there.
        shared = all(v.shape[axis] == 1 for v in vectors for axis in several)
        shape = [1 if shared and axis in several else length for axis, length in enumerate(lead)]
        sides = () if own_lead == lead and not several else (math.prod(shape[axis] for axis in several),)
        stacks = []
        for v in vectors:
            whole = xp.broadcast_to(v, (*shape, v.shape[-1]))
            stacks.append(xp.reshape(xp.permute_dims(whole, (*order, len(lead))), (*sides, *batch, v.shape[-1])))
        out = xp.reshape(found(stacks), (*(shape[axis] for axis in order), width))
        out = xp.permute_dims(out, (*map(int, np.argsort(order)), len(lead)))
        return xp.broadcast_to(out, (*lead, width))

    def _entry(self, theta: Array, options: Options) -> _Entry:
        """The place of θ, with its solution; solved now if it is not kept.

        Raises:
            ProgramError: a value is not finite, or contradicts a parameter's attributes.
            SolveError: an instance could not be solved.
        """
        rows = math.prod(theta.shape[:-1])
        key = (self.place.token(theta), rows, options)
        with self._lock:
            entry = self._kept.pop(key, None) or self._place_of(theta)
            self._kept[key] = entry
        try:
            with entry.lock:
                if entry.solved is None:
                    entry.solved = self._solve(self._double(theta), rows, options)
                    self._account(key, rows)
        finally:
            if entry.solved is None:
                with self._lock:
                    self._kept.pop(key, None)
        return entry

    def _place_of(self, theta: Array, solved: Solved | None = None) -> _Entry:
        return _Entry(None if self._there is None else theta, solved=solved)

    def keep(self, theta: Array, options: Options, solved: Solved) -> None:
        """Keep a call that was solved elsewhere, so that derivatives asked for by θ find it.

        Args:
            theta: shape (*lead, N).
            options: of the call.
            solved: the call.
        """
        rows = math.prod(theta.shape[:-1])
        key = (self.place.token(theta), rows, options)
        with self._lock:
            if key in self._kept:
                return
            self._kept[key] = self._place_of(theta, solved)
        self._account(key, rows)

    def _solve(self, theta: Array, rows: int, options: Options) -> Solved:
        core = self.core
        if self._there is not None:
            theta = self.place.xp.reshape(theta, (rows, theta.shape[-1]))
            return core.solve_flat(theta, options.solver_args, options.warm_start, self._there)
        mask = core.map.log_mask
        if mask is not None and core.logged:
            core.map.check(np.where(mask, np.exp(np.where(mask, theta, 0.0)), theta))
        return core.solve_flat(theta.reshape(-1) if rows == 1 else theta, options.solver_args, options.warm_start)

    def _account(self, key: Any, rows: int) -> None:
        """Count a new entry of so many instances, and let the oldest go."""
        with self._lock:
            if key in self._kept:
                self._held += rows * self._numbers
            while self._held > KEPT_NUMBERS and len(self._kept) > KEPT_LEAST:
                (_, count, _), oldest = self._kept.popitem(last=False)
                if oldest.solved is not None:
                    self._held -= count * self._numbers

    def _double(self, array: Any) -> Array:
        """Values in double precision; on the host contiguous."""
        if self._there is None:
            return np.ascontiguousarray(array, dtype=np.float64)
        xp = self.place.xp
        return array if array.dtype == xp.float64 else xp.astype(array, xp.float64)

    def __reduce__(self) -> tuple[Any, ...]:
        """What is kept is not copied."""
        return type(self), (self.core, self.place)
