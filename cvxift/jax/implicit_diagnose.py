"""A function of arrays at a point, for the diagnosis, which is NumPy."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from cvxift.errors import ProgramError
from cvxift.implicit.oracle import Oracle, Supplied, oracle_of
from cvxift.jax.arrays import visible
from cvxift.jax.implicit_rule import BACKEND, Product

Array = Any


def oracle(function: Any, prepared: Any) -> Oracle:
    """The oracle of an implicit function at a prepared point.

    Args:
        function: the `ImplicitFunction`.
        prepared: the point.

    Raises:
        ProgramError: inside a transformation, where there are no values to look at.
    """
    settings, w = function.settings, prepared.w
    if not visible(w, *prepared.operands):
        raise ProgramError("diagnose looks at values: call it outside of jit, vmap and grad.")

    def at_point(point: Array) -> Array:
        return prepared.function(point, *prepared.operands)

    product = jax.jit(lambda v: jax.jvp(at_point, (w,), (v,))[1])
    rule = function._rule(prepared)
    supplied = Supplied(
        BACKEND,
        lambda array: np.asarray(array).astype(float),
        w,
        prepared.operands,
        int(settings.constrained),  # the mask of active rows goes first
        0,
        prepared.function,
        lambda function, at, dots: jax.jvp(function, at, dots)[1],
        jax.jit,
        product,
        jax.jit(lambda v: jax.vjp(at_point, w)[1](v)[0]),
        Product(product, w, False, None).dense,
        lambda b: rule.solve((lambda v: product(v) + settings.damping * v) if settings.damping else product, b),
    )
    return oracle_of(function, prepared, supplied)
