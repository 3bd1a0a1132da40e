"""Type aliases of every room, `EPS`, `namespace`, `override` and `cached_property`; below all rooms, as `errors` is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import array_api_compat
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]
Indices = NDArray[np.integer[Any]]
EPS = float(np.finfo(np.float64).eps)  # distance from 1 to the next number
Array = Any  # an array of some namespace of the array API standard, which has no type of its own


def namespace(*arrays: Array) -> Any:
    """The arrays' namespace; of NumPy's, NumPy itself, whose functions `array_api_compat` wraps at a cost."""
    if all(type(array) is np.ndarray for array in arrays):
        return np
    return array_api_compat.array_namespace(*arrays)


if TYPE_CHECKING:
    from typing_extensions import override
else:  # in `typing` from Python 3.12 on; a dependency is not worth a mark that only type checkers read
    Method = TypeVar("Method")

    def override(method: Method) -> Method:
        """Mark a method that overrides one of a base class, whose docstring is then its own too."""
        return method


if TYPE_CHECKING or sys.version_info >= (3, 12):
    from functools import cached_property
else:

    class cached_property:  # stands for that of functools, which takes a lock before Python 3.12
        """A property that is computed when it is first read, and an attribute of the instance from then on.

        A call of a small layer reads some twenty for the first time, and the lock costs more than most of them.
        """

        def __init__(self, make: Callable[[Any], Any]) -> None:
            self._make, self.__doc__ = make, make.__doc__

        def __set_name__(self, owner: type, name: str) -> None:
            self._name = name

        def __get__(self, instance: Any, owner: type | None = None) -> Any:
            if instance is None:
                return self
            value = instance.__dict__[self._name] = self._make(instance)
            return value


__all__ = ["EPS", "Array", "Floats", "Indices", "Ints", "cached_property", "override"]
