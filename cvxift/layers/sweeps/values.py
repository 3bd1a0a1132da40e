"""The parameter values of a sweep as blocks of θ: from whole arrays, or from a stream of blocks of any length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

import cvxpy as cp
import numpy as np

from cvxift.errors import ProgramError
from cvxift.program.structure import Floats

Whole = Mapping[cp.Parameter, Any]
Values = Whole | Iterable[Whole]


def counted(parameters: tuple[cp.Parameter, ...], values: Whole, where: str = "") -> int:
    """Number of instances that whole arrays hold.

    Args:
        parameters: all parameters of the problem.
        values: an array for each, of its shape with the number of instances before it, or shared.
        where: words for messages.

    Returns:
        The number.

    Raises:
        ProgramError: a parameter is missing or unknown, a shape or a type is wrong, or the numbers differ; says which.
    """
    if not isinstance(values, Mapping):
        raise ProgramError(f"values{where} must map each cp.Parameter to an array; got {type(values).__name__}.")
    known_ids = {id(p) for p in parameters}  # `in` would compare by ==, which makes constraints
    strange = [key for key in values if id(key) not in known_ids]
    if strange:
        first = strange[0]
        name = f"Parameter '{first.name()}'" if isinstance(first, cp.Parameter) else f"The key {first!r}"
        known = ", ".join(f"'{p.name()}'" for p in parameters) or "none"
        raise ProgramError(f"{name} of values{where} is no parameter of the problem; its parameters: {known}.")
    numbers = {}
    for p in parameters:
        if p not in values:
            raise ProgramError(
                f"values{where} lacks parameter '{p.name()}': give an array of shape {_numbered(p)}, or of shape "
                f"{p.shape} for a value that all instances share."
            )
        shape, kind = np.shape(values[p]), getattr(values[p], "dtype", np.asarray(values[p]).dtype)
        if np.dtype(kind).kind not in "fiub":
            raise ProgramError(f"Parameter '{p.name()}' has values of type {kind}{where}; expected real numbers.")
        if shape == p.shape:
            continue
        if len(shape) != len(p.shape) + 1 or shape[1:] != p.shape:
            raise ProgramError(
                f"Parameter '{p.name()}' has values of shape {shape}{where}; expected {_numbered(p)}, one for each "
                f"of n instances, or {p.shape} for one that all share."
            )
        numbers[p.name()] = shape[0]
    if not numbers:
        raise ProgramError(f"No parameter of values{where} has a dimension that numbers the instances.")
    if len(set(numbers.values())) > 1:
        raise ProgramError(f"The parameters' numbers of instances differ{where}: {numbers}.")
    return next(iter(numbers.values()))


def theta_blocks(parameters: tuple[cp.Parameter, ...], values: Values, size: int) -> Iterator[Floats]:
    """θ in blocks, each of `size` instances but the last.

    Args:
        parameters: in the order of θ.
        values: whole arrays, of which a part is read at a time, or a stream of mappings as `counted` takes.
        size: instances a block.

    Yields:
        θ of shape (size, N).

    Raises:
        ProgramError: as `counted`; of a stream it says which element.
    """
    if isinstance(values, Mapping):
        whole = cast(Whole, values)
        count = counted(parameters, whole)
        yield from (_theta(parameters, whole, start, min(start + size, count)) for start in range(0, count, size))
        return
    held: list[Floats] = []
    waiting = 0
    for number, element in enumerate(values):
        count = counted(parameters, element, f", element {number} of the stream")
        start = 0
        while start < count:
            stop = min(count, start + size - waiting)
            held.append(_theta(parameters, element, start, stop))
            waiting, start = waiting + stop - start, stop
            if waiting == size:
                yield np.concatenate(held)
                held, waiting = [], 0
    if held:
        yield np.concatenate(held)


def _theta(parameters: tuple[cp.Parameter, ...], values: Whole, start: int, stop: int) -> Floats:
    """The parameters of some instances side by side; memory maps are read there alone."""
    theta = np.empty((stop - start, sum(p.size for p in parameters)))
    first = 0
    for p in parameters:
        shared = np.shape(values[p]) == p.shape
        part = np.asarray(values[p] if shared else values[p][start:stop], dtype=np.float64)
        theta[:, first : first + p.size] = part.reshape((-1, p.size))
        first += p.size
    return theta


def _numbered(parameter: cp.Parameter) -> str:
    """The shape of n values of a parameter, in words."""
    return f"({', '.join(['n', *map(str, parameter.shape)])}{'' if parameter.shape else ','})"
