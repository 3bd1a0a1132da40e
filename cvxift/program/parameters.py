"""The parameter vector θ: packing the user's arrays and checking that they are what their parameters declare.

θ holds every parameter in the order of `problem.parameters()`, each raveled in C order. Batch dimensions lead and
must agree (`batch_of`): a parameter of shape (p, q) takes values of shape (..., p, q).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp

from cvxift.errors import ProgramError
from cvxift.program.attributes import SYMMETRIC, free_entry
from cvxift.program.structure import Floats

SIGN = 1e-10  # a sign or bound may be missed by this much, as CVXPY allows
PATTERN = (
    1e-4  # asymmetry, or size of entries off the pattern, relative to the largest entry: they are averaged or ignored
)
DEFINITE = 1e-6  # smallest eigenvalue of the wrong sign, relative to the largest entry


def side_by_side(leaves: Sequence[Any]) -> dict[Any, slice]:
    """Where each parameter, or variable, lies in a vector that holds all of them one after the other.

    Example:
        >>> a, b = cp.Parameter(2), cp.Parameter((2, 2))
        >>> list(side_by_side([a, b]).values())
        [slice(0, 2, None), slice(2, 6, None)]
    """
    ends = np.cumsum([leaf.size for leaf in leaves], dtype=int).tolist()
    return {leaf: slice(end - leaf.size, end) for leaf, end in zip(leaves, ends, strict=True)}


def pack(
    parameters: Sequence[cp.Parameter],
    offsets: Mapping[cp.Parameter, slice],
    values: Mapping[cp.Parameter, Any],
    size: int,
) -> Floats:
    """Concatenate parameter values into θ.

    Args:
        parameters: the problem's parameters in θ's order.
        offsets: where each stands in θ.
        values: values by parameter, shape (..., *parameter.shape); one that is not named takes `parameter.value`.
        size: N, the length of θ.

    Returns:
        θ of shape (..., N).

    Raises:
        ProgramError: for an unknown parameter, a missing value, a wrong shape, or values that are no real numbers.
    """
    for key in values:
        if not isinstance(key, cp.Parameter):
            raise ProgramError(
                f"Parameter values must be keyed by cp.Parameter objects; got a key of type {type(key).__name__}."
            )
        if key not in offsets:
            known = ", ".join(parameter.name() for parameter in parameters) or "none"
            raise ProgramError(f"Parameter '{key.name()}' is not in the problem. The problem's parameters: {known}.")
    arrays = [as_array(parameter, values.get(parameter)) for parameter in parameters]
    batches = [array.shape[: array.ndim - parameter.ndim] for parameter, array in zip(parameters, arrays, strict=True)]
    if not any(batches):
        theta = np.empty(size)
        for parameter, array in zip(parameters, arrays, strict=True):
            theta[offsets[parameter]] = array.ravel()
        return theta
    batch = batch_of(parameters, batches)
    theta = np.empty((*batch, size))
    for parameter, array, own in zip(parameters, arrays, batches, strict=True):
        theta[..., offsets[parameter]] = array.reshape((*own, parameter.size))
    return theta


def batch_of(parameters: Sequence[cp.Parameter], leads: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The batch shape of values whose leading dimensions are given.

    A parameter without leading dimensions is shared by the batch. All others have the same leading dimensions; where
    there are two or more, a length of 1 stands for values that are shared along that dimension. Leading dimensions of
    different number are refused: NumPy would broadcast (4, 3) for a vector and (4, 1) for a scalar to 16 instances,
    where 4 are meant.

    Args:
        parameters: the parameters.
        leads: leading dimensions of each one's value.

    Returns:
        The batch shape.

    Raises:
        ProgramError: names the parameters and their leading dimensions, and the likely remedy.

    Example:
        >>> t, w = cp.Parameter(3, name="t"), cp.Parameter(name="w")
        >>> batch_of([t, w], [(4,), ()]), batch_of([t, w], [(4, 5), (4, 1)])
        ((4,), (4, 5))
    """
    own = [tuple(lead) for lead in leads if lead]
    first = own[0] if own else ()
    if all(lead == first for lead in own):
        return first
    if len(first) > 1 and all(len(lead) == len(first) for lead in own):
        longest = tuple(map(max, zip(*own, strict=True)))
        if all(n in (1, m) for lead in own for n, m in zip(lead, longest, strict=True)):
            return longest
    found = ", ".join(dict.fromkeys(f"'{called(p)}' {tuple(lead)}" for p, lead in zip(parameters, leads, strict=True)))
    remedy = "Give all of them the same leading dimensions, or none to those that the batch shares."
    for parameter, lead in zip(parameters, leads, strict=True):
        if lead and lead[-1] == 1 and tuple(lead[:-1]) in own:
            shape = (*lead[:-1], *parameter.shape)
            axis = len(lead) - 1
            remedy = f"For one value of '{called(parameter)}' an instance, give it the shape {shape}: .squeeze({axis})."
            break
    raise ProgramError(
        f"Inconsistent batch sizes: the parameters' batch dimensions do not broadcast together: {found}. {remedy}"
    )


def logged(theta: Floats, mask: np.ndarray | None) -> Floats:
    """θ as the program takes it, shape (..., N): the logarithm of entries in a mask; θ itself without a mask."""
    return theta if mask is None else np.where(mask, np.log(np.where(mask, theta, 1.0)), theta)


def in_callers_order(
    parameters: Sequence[cp.Parameter] | None, own: Sequence[cp.Parameter]
) -> tuple[cp.Parameter, ...]:
    """The parameters in the caller's order; `own` are the problem's.

    Raises:
        ProgramError: they are not the same; says which differ.
    """
    known = {p.id: p for p in own}
    if parameters is None:
        return tuple(own)
    given = [p.id for p in parameters]
    foreign = [p.name() for p in parameters if p.id not in known]
    missing = [p.name() for key, p in known.items() if key not in given]
    twice = sorted({p.name() for p in parameters if given.count(p.id) > 1})
    if foreign or missing or twice:
        raise ProgramError(
            "parameters must exactly match problem.parameters(), each once, in the order of the layer's tensors; "
            f"got {[p.name() for p in parameters]}, expected {[p.name() for p in known.values()]}"
            + (f"; not in the problem: {foreign}" if foreign else "")
            + (f"; missing: {missing}" if missing else "")
            + (f"; more than once: {twice}" if twice else "")
            + "."
        )
    return tuple(known[key] for key in given)


def as_array(parameter: cp.Parameter, value: Any) -> Floats:
    """One parameter's value as a float64 array with its shape at the end.

    Args:
        parameter: the parameter.
        value: array-like of shape (..., *parameter.shape); None takes `parameter.value`.

    Returns:
        The array.

    Raises:
        ProgramError: for a missing value, a wrong shape, or values that are no real numbers.
    """
    if value is None:
        value = parameter.value_sparse if parameter.attributes["sparsity"] else parameter.value
        if value is None:
            raise ProgramError(f"Parameter '{parameter.name()}' has no value. Give one, or set parameter.value.")
    if sp.issparse(value):
        value = value.toarray()
    array = np.asarray(value)
    if array.dtype != np.float64:
        if array.dtype.kind not in "fiub":
            raise ProgramError(
                f"Parameter '{parameter.name()}' has values of type {array.dtype}; expected real numbers."
            )
        array = array.astype(np.float64)
    shape = parameter.shape
    if array.shape[array.ndim - len(shape) :] != shape or array.ndim < len(shape):
        raise wrong_shape(parameter, array.shape)
    return array


def called(parameter: cp.Parameter) -> str:
    """The user's name of a parameter: for a part of a complex one, that one's (see `program.leaf_parts`)."""
    return getattr(parameter, "part_of", parameter).name()


def wrong_count(parameters: Sequence[cp.Parameter], count: int) -> ProgramError:
    """The error of a call with another number of tensors than parameters.

    Args:
        parameters: the user's, in the order of the tensors.
        count: how many tensors were given.
    """
    names = ", ".join(f"'{p.name()}' {p.shape}" for p in parameters)
    return ProgramError(
        f"A tensor must be provided for each CVXPY parameter: got {count}, expected {len(parameters)} ({names})."
    )


def wrong_shape(parameter: cp.Parameter, shape: tuple[int, ...], ordered: Sequence[cp.Parameter] = ()) -> ProgramError:
    """The error of a value that has another shape than its parameter: says which, what was expected, and the remedy.

    Args:
        parameter: which.
        shape: the value's.
        ordered: the parameters in the order of a layer's tensors, where it may have been missed.
    """
    own = parameter.shape
    expected = f"{own} or (batch…, {', '.join(map(str, own))})" if own else "() or (batch…)"
    remedy = ""
    if len(own) == 2 and shape[-2:] == own[::-1]:
        remedy = f" Transpose it, or declare cp.Parameter({shape[-2:]})."
    elif int(np.prod(shape)) == parameter.size:
        remedy = f" Reshape it to {own}."
    elif any(other.shape == shape for other in ordered):
        remedy = f" The order of the tensors is {', '.join(repr(other.name()) for other in ordered)}."
    found = f"'{parameter.name()}' has shape {shape}; expected {expected}.{remedy}"
    return ProgramError(f"Invalid parameter shape: {found}")


def check(
    parameters: Sequence[cp.Parameter],
    offsets: Mapping[cp.Parameter, slice],
    theta: Floats,
    no_bound: tuple[np.ndarray, np.ndarray],
    log_mask: np.ndarray | None,
) -> None:
    """Check θ against NaN, infinities and the parameters' attributes.

    Args:
        parameters: the problem's parameters in θ's order.
        offsets: where each stands in θ.
        theta: in the user's units, shape (..., N).
        no_bound: two masks of shape (N,): entries for which +∞, and −∞, mean "no bound".
        log_mask: entries whose logarithm is taken, shape (N,), or None.

    Raises:
        ProgramError: naming the parameter and the entry.
    """
    if not np.isfinite(theta).all():
        _check_finite(parameters, offsets, theta, no_bound)
    for parameter in parameters:
        if log_mask is not None and log_mask[offsets[parameter]].any():
            value = theta[..., offsets[parameter]].reshape((*theta.shape[:-1], *parameter.shape))
            _refuse(parameter, value, value <= 0, "enters a geometric program, but is not positive")
        if parameter.num_attributes:
            _check_attributes(parameter, theta[..., offsets[parameter]].reshape((*theta.shape[:-1], *parameter.shape)))
    _check_hermitian(parameters, offsets, theta)


def _check_finite(parameters, offsets, theta, no_bound) -> None:
    plus, minus = no_bound
    bad = np.isnan(theta) | (np.isposinf(theta) & ~plus) | (np.isneginf(theta) & ~minus)
    for parameter in parameters:
        found = bad[..., offsets[parameter]].reshape((*theta.shape[:-1], *parameter.shape))
        if found.any():
            values = theta[..., offsets[parameter]].reshape(found.shape)
            first = np.unravel_index(int(np.argmax(found)), found.shape)
            raise ProgramError(
                f"Parameter '{called(parameter)}' has the value {values[first]}{_where(parameter, first)}. "
                "Infinite values are possible only as bounds that bind nothing; give finite values elsewhere."
            )


def _check_attributes(parameter: cp.Parameter, value: Floats) -> None:
    attributes = parameter.attributes
    for name in ("nonneg", "pos"):  # zero is a value of both to CVXPY; geometric programs refuse it themselves
        if attributes[name]:
            _refuse(parameter, value, value < -SIGN, f"is declared {name}=True, but is negative")
    for name in ("nonpos", "neg"):
        if attributes[name]:
            _refuse(parameter, value, value > SIGN, f"is declared {name}=True, but is positive")
    if attributes["boolean"]:
        _refuse(parameter, value, (value != 0) & (value != 1), "is declared boolean, but is neither 0 nor 1")
    if attributes["integer"]:
        _refuse(parameter, value, value != np.round(value), "is declared integer, but is not whole")
    if attributes["bounds"] is not None:
        low, high = (bound.toarray() if sp.issparse(bound) else np.asarray(bound) for bound in attributes["bounds"])
        _refuse(parameter, value, (value < low - SIGN) | (value > high + SIGN), "is outside its bounds")
    patterned = bool(attributes["diag"] or attributes["sparsity"])
    if patterned:  # counting is the quickest look at entries that are many, and zero almost everywhere
        entries: Any = np.diag_indices(parameter.shape[0]) if attributes["diag"] else parameter.sparse_idx
        patterned = np.count_nonzero(value) > np.count_nonzero(value[(..., *entries)])
    kind = next((name for name in SYMMETRIC if attributes[name]), None)
    if value.size == 0 or not (patterned or kind):
        return
    size = np.abs(value).max(axis=tuple(range(-parameter.ndim, 0)), keepdims=True) if parameter.ndim else np.abs(value)
    if patterned:
        off = free_entry(parameter) < 0
        _refuse(
            parameter,
            value,
            off & (np.abs(value) > PATTERN * size),
            "must be zero there (diag or sparsity), but is not",
        )
    if kind is not None and not hasattr(parameter, "part_of"):
        other = np.swapaxes(value, -1, -2)
        what = f"is declared {kind}=True, but is not symmetric"
        _refuse(parameter, value, np.abs(value - other) > PATTERN * size, what, "(P + P.T) / 2")
        if kind != "symmetric":
            sign = 1.0 if kind == "PSD" else -1.0
            lowest = np.linalg.eigvalsh(sign * (value + other) / 2)[..., 0]
            bad = lowest < -DEFINITE * size[..., 0, 0]
            if bad.any():
                first = np.unravel_index(int(np.argmax(bad)), bad.shape)
                where = f" at batch entry {tuple(int(k) for k in first)}" if first else ""
                raise ProgramError(
                    f"Parameter '{parameter.name()}' is declared {kind}=True, but has an eigenvalue "
                    f"{sign * lowest[first]:.3g}{where}."
                )


def _check_hermitian(parameters: Sequence[cp.Parameter], offsets: Mapping[cp.Parameter, slice], theta: Floats) -> None:
    """Judges the real and the imaginary part of each together: one of the two may be rounding alone."""
    matrices: dict[cp.Parameter, np.ndarray] = {}
    for parameter in parameters:
        whole = getattr(parameter, "part_of", None)
        if whole is not None and whole.is_hermitian():
            part = theta[..., offsets[parameter]].reshape((*theta.shape[:-1], *whole.shape))
            matrices[whole] = matrices.get(whole, 0.0) + (part if parameter.attributes["symmetric"] else 1j * part)
    for whole, H in matrices.items():
        size = np.abs(H).max(axis=(-2, -1), keepdims=True)
        bad = np.abs(H - np.swapaxes(H, -1, -2).conj()) > PATTERN * size
        _refuse(whole, H, bad, "is declared hermitian=True, but is not Hermitian", "(H + H.conj().T) / 2")


def _refuse(parameter: cp.Parameter, value: np.ndarray, bad: np.ndarray, what: str, instead: str = "") -> None:
    if bad.any():
        bad = np.broadcast_to(bad, value.shape)
        first = np.unravel_index(int(np.argmax(bad)), bad.shape)
        where = _where(parameter, first)
        remedy = f" Give {instead}, or declare the parameter without that attribute." if instead else ""
        raise ProgramError(f"Parameter '{called(parameter)}' {what}: {value[first]:.6g}{where}.{remedy}")


def _where(parameter: cp.Parameter, index: tuple[Any, ...]) -> str:
    """Wording of an entry and of its place in the batch."""
    index = tuple(int(k) for k in index)
    batch, own = index[: len(index) - parameter.ndim], index[len(index) - parameter.ndim :]
    return (f" at entry {own}" if own else "") + (f" of batch entry {batch}" if batch else "")
