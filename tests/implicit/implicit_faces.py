"""One description of test problems for both frameworks: `Face` hides the names that differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest


@dataclass(frozen=True)
class Face:
    """A framework."""

    name: str
    xp: Any
    implicit: Any
    array: Callable[[Any], Any]
    iterate: Callable[[Callable[[Any], Any], Any, int], Any]  # (step, start, count)
    jacrev: Any
    jacfwd: Any
    hessian: Any
    grad: Any
    vmap: Any


def torch_face() -> Face:
    torch = pytest.importorskip("torch")
    from cvxift.torch import implicit

    def iterate(step: Any, x: Any, count: int) -> Any:
        for _ in range(count):
            x = step(x)
        return x

    return Face(
        "torch", torch, implicit, lambda a: torch.tensor(np.asarray(a), dtype=torch.float64), iterate,
        torch.func.jacrev, torch.func.jacfwd, torch.func.hessian, torch.func.grad, torch.func.vmap,
    )  # fmt: skip


def jax_face() -> Face:
    jax = pytest.importorskip("jax")
    import jax.numpy as jnp

    from cvxift.jax import implicit

    def iterate(step: Any, x: Any, count: int) -> Any:
        return jax.lax.scan(lambda x, _: (step(x), None), x, None, length=count)[0]

    return Face(
        "jax", jnp, implicit, lambda a: jnp.asarray(a, dtype=jnp.float64), iterate,
        jax.jacrev, jax.jacfwd, jax.hessian, jax.grad, jax.vmap,
    )  # fmt: skip


FACES = {"torch": torch_face, "jax": jax_face}


def fixed_point(face: Face) -> tuple[Any, Any, Any, Any]:
    """A contraction: implicit function, unrolled function, W and b."""
    rng = np.random.default_rng(0)
    W, b = face.array(0.15 * rng.standard_normal((4, 4))), face.array(rng.standard_normal(4))

    def T(x: Any, W: Any, b: Any) -> Any:
        return face.xp.tanh(W @ x + b)

    def unrolled(W: Any, b: Any) -> Any:
        return face.iterate(lambda x: T(x, W, b), b * 0.0, 60)

    return face.implicit.implicit_fixed_point(T, unrolled), unrolled, W, b
