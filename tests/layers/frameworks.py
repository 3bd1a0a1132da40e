"""One description of a layer's calls for both frameworks: `Framework` hides the names that differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from cvxift import SolveError
from tests import layer_problems


@dataclass(frozen=True)
class Framework:
    """A framework.

    Attributes:
        layer: its layer of a problem, parameters and outputs.
        array: a float64 array of it.
        wrong: arrays of it with no dtype that a layer takes.
        other: an array of another float dtype than `array`'s.
        compiled: the ways of compiling a function.
        raised: what a failed solve raises, from compiled functions too.
    """

    name: str
    layer: Any
    array: Callable[[Any], Any]
    wrong: tuple[Any, ...]
    other: Callable[[Any], Any]
    grad: Any
    hessian: Any
    vmap: Any
    compiled: tuple[Callable[[Any], Any], ...]
    raised: tuple[type[Exception], ...]

    def of(self, name: str, *size: int, **options: Any) -> Any:
        """A layer of one of `layer_problems`."""
        return self.layer(*getattr(layer_problems, name)(*size), **options)


def torch_framework() -> Framework:
    torch = pytest.importorskip("torch")
    from cvxift.torch import CvxpyLayer

    def array(value: Any) -> Any:
        return torch.tensor(np.asarray(value), dtype=torch.float64)

    return Framework(
        "torch", CvxpyLayer, array, (torch.arange(3), torch.ones(3, dtype=torch.complex64)), lambda v: array(v).float(),
        torch.func.grad, torch.func.hessian, torch.func.vmap, (), (SolveError,),
    )  # fmt: skip


def jax_framework() -> Framework:
    jax = pytest.importorskip("jax")
    jnp = jax.numpy
    from cvxift.jax import CvxpyLayer

    def ready(f: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *v: jax.block_until_ready(f(*v))

    return Framework(
        "jax", CvxpyLayer, lambda v: jnp.asarray(v, dtype=float), (jnp.arange(3), jnp.ones(3, dtype=jnp.complex64)),
        lambda v: jnp.asarray(v, dtype=jnp.float32), jax.grad, jax.hessian, jax.vmap,
        (lambda f: ready(jax.jit(f)), lambda f: ready(jax.jit(jax.vmap(f))), lambda f: ready(jax.vmap(jax.jit(f)))),
        (SolveError, jax.errors.JaxRuntimeError),
    )  # fmt: skip


FRAMEWORKS = {"torch": torch_framework, "jax": jax_framework}
