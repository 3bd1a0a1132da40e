"""Arrays of other libraries: which are taken when a layer is asked to, and what is said otherwise.

Exchange is by DLPack (https://dmlc.github.io/dlpack), which NumPy, PyTorch, JAX and CuPy arrays speak: the memory is
shared where both libraries can use it, and copied only where they cannot. Conversion is the adapters'; what both must
say and decide is here. Gradients do not cross: a converted array is a constant of its new framework.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from cvxift.errors import ProgramError

T = TypeVar("T")


class Exchanged(Protocol):
    """An array of any library that speaks DLPack."""

    def __dlpack__(self, *args: Any, **kwargs: Any) -> Any:
        """The array's capsule."""
        ...


def is_foreign(value: Any) -> bool:
    """Whether a value is an array that DLPack can hand over.

    Example:
        >>> import numpy as np
        >>> is_foreign(np.zeros(2)), is_foreign([0.0, 0.0])
        (True, False)
    """
    return hasattr(value, "__dlpack__") and hasattr(value, "__dlpack_device__")


def number(value: Any) -> float | None:
    """A real Python number or 0-d NumPy array as a float; None for everything else, booleans too.

    Example:
        >>> number(np.array(2)), number(0.5), number(True), number(np.zeros(1))
        (2.0, 0.5, None, None)
    """
    if isinstance(value, (np.ndarray, np.generic)):
        return float(value) if value.ndim == 0 and value.dtype.kind in "fiu" else None
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def refused(name: str, value: Any, expected: str, convert: str) -> ProgramError:
    """The error for a parameter that is not an array of the layer's framework.

    Args:
        name: of the parameter.
        value: what was given.
        expected: the framework's array, with its article.
        convert: the framework's own conversion.

    Example:
        >>> import numpy as np
        >>> print(refused("A", np.zeros(2), "a torch.Tensor", "torch.as_tensor"))
        Parameter 'A' is a numpy.ndarray; expected a torch.Tensor. Pass from_dlpack=True to the call, or convert it with
        torch.as_tensor.
    """
    if value is None:
        return ProgramError(f"Parameter '{name}' is None; expected {expected}. Every parameter needs a value.")
    kind = f"{type(value).__module__.partition('.')[0]}.{type(value).__qualname__}"
    if type(value).__module__ == "builtins":
        kind = type(value).__qualname__
    offer = "Pass from_dlpack=True to the call, or convert" if is_foreign(value) else "Convert"
    return ProgramError(f"Parameter '{name}' is a {kind}; expected {expected}. {offer} it with {convert}.")


def wrong_dtype(name: str, dtype: Any, is_complex: bool, convert: str) -> ProgramError:
    """The error for an array of integers, booleans or complex numbers.

    Args:
        name: of the parameter.
        dtype: the array's.
        is_complex: whether that is complex.
        convert: the framework's own conversion of the others.
    """
    pair = "Give its .real and .imag to two parameters, or declare cp.Parameter(complex=True)."
    cure = pair if is_complex else f"Convert it with {convert}."
    return ProgramError(f"Parameter '{name}' has dtype {dtype}; expected a real floating dtype. {cure}")


def converted(
    names: Iterable[str], values: Sequence[Any], own: type | tuple[type, ...], convert: Callable[[Any], T]
) -> tuple[T, ...]:
    """Every value as an array of the layer's framework.

    Args:
        names: of the parameters.
        values: arrays of any library that speaks DLPack.
        own: what the framework takes as it is.
        convert: the framework's `from_dlpack`.

    Returns:
        The values; those of the framework itself untouched.

    Raises:
        ProgramError: a value is no array, or its library and the framework cannot agree (device, dtype); names the
            parameter and what was said.
    """
    out = []
    for name, value in zip(names, values, strict=False):
        if isinstance(value, own):
            out.append(value)
            continue
        if not is_foreign(value):
            raise ProgramError(
                f"Parameter '{name}' is a {type(value).__name__}; from_dlpack=True takes arrays that have __dlpack__ "
                "(NumPy, PyTorch, JAX, CuPy)."
            )
        try:
            out.append(convert(_exportable(value)))
        except (BufferError, RuntimeError, TypeError, ValueError) as error:
            raise ProgramError(
                f"Parameter '{name}' ({type(value).__name__}) could not be taken over by DLPack: {error}. Move it to a "
                "device that both libraries use, and detach it from any graph."
            ) from error
    return (*out, *values[len(out) :])  # what is too much is the caller's to refuse


def _exportable(value: Any) -> Any:
    """The array itself; a copy of a read-only or non-native NumPy array, whose memory must not be handed out."""
    if not isinstance(value, np.ndarray):
        return value
    if not value.dtype.isnative:
        value = value.astype(value.dtype.newbyteorder("="))
    return value if value.flags.writeable else value.copy()
