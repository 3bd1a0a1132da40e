"""Type aliases of every room, and `override`; below all rooms, as `errors` is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]
Indices = NDArray[np.integer[Any]]
Array = Any  # an array of some namespace of the array API standard, which has no type of its own

if TYPE_CHECKING:
    from typing_extensions import override
else:  # in `typing` from Python 3.12 on; a dependency is not worth a mark that only type checkers read
    Method = TypeVar("Method")

    def override(method: Method) -> Method:
        """Mark a method that overrides one of a base class, whose docstring is then its own too."""
        return method


__all__ = ["Array", "Floats", "Indices", "Ints", "override"]
