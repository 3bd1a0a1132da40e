"""Arrays of other libraries as JAX arrays, when a call asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from cvxift.layers import interop
from cvxift.layers.core import LayerCore

OWN = (jax.Array, np.ndarray, np.generic, int, float)  # what JAX itself takes


def taken_over(core: LayerCore, params: Sequence[Any]) -> tuple[Any, ...]:
    """Arrays of other libraries as JAX arrays, by DLPack; see `cvxift.layers.interop.converted`.

    In float32 where JAX has no double precision (``jax_enable_x64``), as it reads NumPy's arrays.
    """
    names = [parameter.name() for parameter in core.parameters]
    return tuple(interop.converted(names, params, lambda p: isinstance(p, OWN), jax.dlpack.from_dlpack))
