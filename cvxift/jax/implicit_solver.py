"""The user's solver: traced where it is JAX code, called on the host where it is not.

Outside of transformations the solver gets the values themselves. Inside `jax.jit` or `jax.vmap` it is traced; if it
asks for values, as NumPy and SciPy code does, it becomes a call of the host, once for every instance of a batch. A host
call must know the structure of what the solver returns before: from ``like``, from a call outside of transformations,
or from one trial call on ones while tracing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray
from jax.dtypes import canonicalize_dtype

from cvxift.errors import ProgramError, SolveError
from cvxift.jax.arrays import visible
from cvxift.jax.host_call import constant
from cvxift.jax.trees import flatten, floating, is_array, unflatten

Array = Any
ASKS_FOR_VALUES = (
    jax.errors.TracerArrayConversionError,
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerIntegerConversionError,
)


@dataclass(frozen=True, eq=False)
class HostCall:
    """A solver for the host.

    Attributes:
        call: arrays of θ ↦ what the solver returns.
        ranks: numbers of dimensions of θ's arrays, for one instance.
        shapes: of the array leaves that it returns.
        dtypes: of these.
    """

    call: Callable[[Sequence[np.ndarray]], Any]
    ranks: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[np.dtype, ...]

    @property
    def counts(self) -> list[int]:
        """Bytes of each leaf."""
        return [int(np.prod(shape)) * dtype.itemsize for shape, dtype in zip(self.shapes, self.dtypes)]

    def one(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """All leaves of one instance as bytes."""
        _, leaves, _ = flatten("x", self.call(arrays))
        leaves = [leaf for leaf in leaves if is_array(leaf)]
        if [np.shape(leaf) for leaf in leaves] != list(self.shapes):
            got = [np.shape(leaf) for leaf in leaves]
            raise ProgramError(f"The solver returned arrays of shapes {got}; expected {list(self.shapes)}.")
        parts = [np.ascontiguousarray(leaf, dtype=dtype).reshape(-1) for leaf, dtype in zip(leaves, self.dtypes)]
        return np.concatenate([part.view(np.uint8) for part in parts])


def _call(*operands: np.ndarray, host: HostCall) -> np.ndarray:
    lead = operands[0].shape[: operands[0].ndim - host.ranks[0]]
    out = np.empty((*lead, sum(host.counts)), np.uint8)
    for index in np.ndindex(*lead):
        out[index] = host.one([operand[index] for operand in operands])
    return out


def _result(*operands: ShapedArray, host: HostCall) -> ShapedArray:
    lead = operands[0].shape[: len(operands[0].shape) - host.ranks[0]]
    return operands[0].update(shape=(*lead, sum(host.counts)), dtype=np.dtype(np.uint8), weak_type=False)


_on_host = constant("cvxift_implicit_solver", _call, _result)


class Runner:
    """A solver with what is known of the structure that it returns.

    Args:
        solver: (*theta, [init=]) ↦ anything.
        like: an example of what it returns, arrays or `jax.ShapeDtypeStruct`; None if unknown.
    """

    def __init__(self, solver: Callable[..., Any], like: Any) -> None:
        self.solver, self.like = solver, like
        self._seen: dict[Any, tuple[list[Any], Any]] = {}

    def __call__(
        self, rebuild: Callable[[Sequence[Array]], tuple[Any, ...]], arrays: Sequence[Array], init: Any
    ) -> Any:
        """Run the solver untracked; the answer's leaves are JAX arrays, or what is no array."""
        arrays = [jax.lax.stop_gradient(array) for array in arrays]
        options = {} if init is None else {"init": jax.tree_util.tree_map(_stopped, init)}
        key = tuple((jnp.shape(array), str(jnp.result_type(array))) for array in arrays)
        floats = [jnp.result_type(array) for array in filter(floating, arrays)]
        kind = jnp.result_type(*floats) if floats else canonicalize_dtype(float)
        if visible(*arrays, *jax.tree_util.tree_leaves(options)):
            try:
                answer = self._converted(self.solver(*rebuild(arrays), **options), kind)
            except ASKS_FOR_VALUES as error:
                raise SolveError(
                    "The solver asks for the value of a traced array that is none of its arguments. Pass it as an "
                    "argument."
                ) from error
            if key not in self._seen:
                self._seen[key] = _described(answer)
            return answer
        try:
            return self._converted(self.solver(*rebuild(arrays), **options), kind)
        except (*ASKS_FOR_VALUES, TypeError, ValueError, RuntimeError) as error:
            if not _asked_for_values(error):
                raise
            return self._hosted(rebuild, arrays, init, key, kind)

    def _converted(self, answer: Any, kind: Any) -> Any:
        def convert(leaf: Any) -> Any:
            if isinstance(leaf, jax.Array):
                return jax.lax.stop_gradient(leaf)
            if not is_array(leaf):
                return leaf
            own = np.asarray(leaf).dtype
            return jnp.asarray(leaf, dtype=kind if np.issubdtype(own, np.floating) else None)

        return jax.tree_util.tree_map(convert, answer)

    def _hosted(self, rebuild: Any, arrays: Sequence[Array], init: Any, key: Any, kind: Any) -> Any:
        inits, inits_def = jax.tree_util.tree_flatten(init)
        operands = [*arrays, *map(jnp.asarray, inits)]
        count = len(arrays)

        def call(values: Sequence[np.ndarray]) -> Any:
            options = {} if init is None else {"init": jax.tree_util.tree_unflatten(inits_def, values[count:])}
            return self.solver(*rebuild(values[:count]), **options)

        if key not in self._seen:
            self._seen[key] = self._shapes(call, operands, kind)
        leaves, treedef = self._seen[key]
        known = [leaf for leaf in leaves if isinstance(leaf, jax.ShapeDtypeStruct)]
        host = HostCall(
            call,
            tuple(operand.ndim for operand in operands),
            tuple(tuple(leaf.shape) for leaf in known),
            tuple(np.dtype(leaf.dtype) for leaf in known),
        )
        flat = _on_host(*operands, host=host)
        found, start = [], 0
        for leaf, length in zip(known, host.counts):
            found.append(_from_bytes(flat[start : start + length], tuple(leaf.shape), np.dtype(leaf.dtype)))
            start += length
        rest = iter(found)
        out = [next(rest) if isinstance(leaf, jax.ShapeDtypeStruct) else leaf for leaf in leaves]
        return unflatten(out, treedef)

    def _shapes(self, call: Any, operands: Sequence[Array], kind: Any) -> tuple[list[Any], Any]:
        if self.like is not None:
            return _described(self.like)
        ones = [np.ones(operand.shape, operand.dtype) for operand in operands]
        with jax.ensure_compile_time_eval():
            try:
                return _described(self._converted(call(ones), kind))
            except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
                raise ProgramError(
                    "The solver is no JAX code, and a trial call with all parameters 1 failed, so that the structure "
                    f"of x is unknown inside jit or vmap ({type(error).__name__}: {error}). Give like=, an example of "
                    "what the solver returns, or call it once outside of jit with parameters of these shapes."
                ) from error


def _asked_for_values(error: BaseException | None) -> bool:
    """Whether an error, or one that it arose from, is JAX's on code that needs values."""
    while error is not None:
        if isinstance(error, ASKS_FOR_VALUES):
            return True
        error = error.__cause__ or error.__context__
    return False


def _stopped(leaf: Any) -> Any:
    return jax.lax.stop_gradient(leaf) if isinstance(leaf, jax.Array) else leaf


def _described(answer: Any) -> tuple[list[Any], Any]:
    _, leaves, treedef = flatten("x", answer)
    shapes = [
        jax.ShapeDtypeStruct(jnp.shape(leaf), canonicalize_dtype(jnp.result_type(leaf)))
        if is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)
        else leaf
        for leaf in leaves
    ]
    return shapes, treedef


def _from_bytes(flat: Array, shape: tuple[int, ...], dtype: np.dtype) -> Array:
    if dtype == np.bool_:
        return flat.reshape(shape) != 0
    if dtype.itemsize == 1:
        return jax.lax.bitcast_convert_type(flat.reshape(shape), dtype)
    return jax.lax.bitcast_convert_type(flat.reshape((*shape, dtype.itemsize)), dtype)
