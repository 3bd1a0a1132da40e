"""What traced and transformed calls compute on the host, in NumPy alone.

A framework's tracer may drop, repeat, reorder or batch the calls that it makes of a solve and its derivatives, which
share θ and nothing else. Each call therefore carries θ, and the last solved points are kept under θ's own bytes, so
that a derivative finds the point and the factorization that the solve left. One that is no longer kept is solved again.
No call here may use the framework, which may be waiting for the very call.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cvxift.kkt.solution_map import Solved
from cvxift.layers.core import LayerCore
from cvxift.program.structure import Floats

KEPT_NUMBERS = 32_000_000  # numbers (256 MB), on the host or a device, that kept points may hold together
KEPT_LEAST = 4  # calls that are kept whatever their size


@dataclass
class _Entry:
    """A place for a solved call; its lock lets one thread work on it at a time."""

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
        args = dict(solver_args or {})
        return cls(args, warm_start, tuple(sorted((name, repr(value)) for name, value in args.items())))


class Host:
    """Solutions and derivatives of a layer, of any order, by θ.

    Args:
        core: the layer without its framework.
    """

    def __init__(self, core: LayerCore) -> None:
        self.core = core
        self._numbers = self._kept_numbers(core)
        self._start()

    @staticmethod
    def _kept_numbers(core: LayerCore) -> int:
        """How many numbers a kept instance holds."""
        if core.map.form is not None:
            return 8 * (core.map.theta_size + core.map.output_size)  # its inputs, and some arrays of its entries
        structure = core.map.program.structure
        # A kept instance holds its data, its point, and its factors: dense where the layout is, else as sparse as K.
        size = structure.n + structure.m
        entries = structure.nnzP + 2 * structure.nnzA + size
        return 2 * entries + (2 * size * size if core.map.engine.layout.dense else 10 * entries)

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[Any, _Entry] = OrderedDict()
        self._held = 0

    def check_order(self, order: int) -> None:
        """Refuse an order of differentiation that is not supported; see `Derivatives.check_order`."""
        self.core.map.check_order(order)

    def solution(self, theta: np.ndarray, options: Options) -> Floats:
        """The outputs side by side, shape (*lead, K), at θ of shape (*lead, N)."""
        solved = self._entry(_double(theta), options).solved
        assert solved is not None
        self.core.remember(solved)
        return solved.outputs.reshape(*theta.shape[:-1], self.core.map.output_size)

    def derivative(
        self, theta: np.ndarray, tangents: Sequence[np.ndarray], bar: np.ndarray | None, options: Options
    ) -> Floats:
        """`Derivatives.derivative` for leading dimensions that broadcast.

        Args:
            theta: shape (*lead, N).
            tangents: shapes (*lead, N).
            bar: shape (*lead, K) for the adjoint form, None for the forward form.
            options: of the call.

        Returns:
            Shape (*lead, K) or, for the adjoint form, (*lead, N), over the broadcast of all leading dimensions.
        """
        mapping = self.core.map
        theta = _double(theta)
        vectors = [_double(v) for v in (tangents if bar is None else (*tangents, bar))]
        lead = np.broadcast_shapes(theta.shape[:-1], *(v.shape[:-1] for v in vectors))
        width = mapping.output_size if bar is None else mapping.theta_size
        if 0 in lead:
            return np.zeros((*lead, width))
        if len(vectors) == 1 and vectors[0].shape[:-1] == theta.shape[:-1]:  # first order, one right-hand side each
            entry = self._entry(theta, options)
            solved = entry.solved
            assert solved is not None
            product = mapping.jvp if bar is None else mapping.vjp
            with entry.lock:
                return product(solved, vectors[0].reshape(*solved.batch_shape, -1)).reshape(*lead, width)
        # Axes along which θ varies number the instances; along the others an instance has several right-hand sides.
        own = [axis for axis, length in enumerate(theta.shape[:-1]) if length > 1]
        several = [axis for axis in range(len(lead)) if axis not in own]
        entry = self._entry(theta, options)
        solved = entry.solved
        assert solved is not None
        stacks = [_stacked(v, lead, own, several).reshape(-1, *solved.batch_shape, v.shape[-1]) for v in vectors]
        with entry.lock:
            out = mapping.derivative(solved, stacks[: len(tangents)], None if bar is None else stacks[-1])
        shared = len(out) == 1  # no vector varies along `several`
        out = out.reshape(*(1 if shared else lead[axis] for axis in several), *(lead[axis] for axis in own), width)
        return np.broadcast_to(out.transpose(*np.argsort([*several, *own]), -1), (*lead, width))

    def _entry(self, theta: Floats, options: Options) -> _Entry:
        """The place of θ, with its solution; solved now if it is not kept.

        Raises:
            ProgramError: a value is not finite, or contradicts a parameter's attributes.
            SolveError: an instance could not be solved.
        """
        rows = math.prod(theta.shape[:-1])
        key = (theta.tobytes(), rows, options)
        with self._lock:
            entry = self._kept.pop(key, None) or _Entry()
            self._kept[key] = entry
        try:
            with entry.lock:
                if entry.solved is None:
                    entry.solved = self._solve(theta.reshape(-1) if rows == 1 else theta, options)
                    self._account(key, rows)
        finally:
            if entry.solved is None:
                with self._lock:
                    self._kept.pop(key, None)
        return entry

    def keep(self, theta: Floats, options: Options, solved: Solved) -> None:
        """Keep a call that was solved elsewhere, so that derivatives asked for by θ find it.

        Args:
            theta: shape (*lead, N).
            options: of the call.
            solved: the call.
        """
        theta = _double(theta)
        rows = math.prod(theta.shape[:-1])
        key = (theta.tobytes(), rows, options)
        with self._lock:
            if key in self._kept:
                return
            self._kept[key] = _Entry(solved=solved)
        self._account(key, rows)

    def _solve(self, theta: Floats, options: Options) -> Solved:
        core = self.core
        mask = core.map.log_mask
        if mask is not None and any(core.logs):
            core.map.check(np.where(mask, np.exp(np.where(mask, theta, 0.0)), theta))
        return core.solve_flat(theta, options.solver_args, options.warm_start)

    def _account(self, key: Any, rows: int) -> None:
        """Count a new entry of so many instances, and let the oldest go."""
        with self._lock:
            if key in self._kept:
                self._held += rows * self._numbers
            while self._held > KEPT_NUMBERS and len(self._kept) > KEPT_LEAST:
                (_, count, _), oldest = self._kept.popitem(last=False)
                if oldest.solved is not None:
                    self._held -= count * self._numbers

    def __getstate__(self) -> dict[str, Any]:
        return {"core": self.core, "_numbers": self._numbers}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()


def _double(array: Any) -> Floats:
    """Values in double precision, contiguous."""
    return np.ascontiguousarray(array, dtype=np.float64)


def _stacked(v: Floats, lead: tuple[int, ...], own: Sequence[int], several: Sequence[int]) -> Floats:
    """v, which broadcasts to (*lead, ·), with the axes `several` before `own`; of length 1 where it does not vary."""
    shared = all(v.shape[axis] == 1 for axis in several)
    shape = [1 if shared and axis in several else length for axis, length in enumerate(lead)]
    return np.broadcast_to(v, (*shape, v.shape[-1])).transpose(*several, *own, -1)
