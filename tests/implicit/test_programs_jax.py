"""JAX: equal programs are compiled once, and what F closes over is never that of an earlier call."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402  # after the skip

from cvxift.jax import implicit_root  # noqa: E402
from cvxift.jax.implicit_traced import same  # noqa: E402


class Scaled:
    """F closes over an object whose array changes."""

    def __init__(self) -> None:
        self.w: Any = jnp.array([2.0, 4.0])
        self.power = 1

    def __call__(self, x: Any, t: Any) -> Any:
        return self.w * x**self.power - t


def count(solve: Any) -> int:
    return sum(len(programs) for programs in solve._programs._kept.values())


def test_arrays_that_change_need_no_new_program() -> None:
    F = Scaled()
    solve = implicit_root(F, lambda t: (t / F.w) ** (1.0 / F.power), check="raise")
    derive = jax.jacrev(solve)
    t = jnp.array([1.0, 1.0])
    assert np.allclose(derive(t), np.diag([0.5, 0.25]))
    F.w = jnp.array([5.0, 10.0])
    assert np.allclose(derive(t), np.diag([0.2, 0.1])) and count(solve) == 1
    F.w = np.array([1.0, 2.0])
    assert np.allclose(derive(t), np.diag([1.0, 0.5]))
    F.power = 2
    assert np.allclose(derive(t), np.diag([0.5, 0.5 / 2.0**0.5])) and count(solve) > 1


def test_numbers_inside_f_make_another_program() -> None:
    scale = [2.0]
    solve = implicit_root(lambda x, t: scale[0] * x - t, lambda t: t / scale[0], check="raise")
    assert float(jax.grad(solve)(1.0)) == 0.5
    scale[0] = 4.0
    assert float(jax.grad(solve)(1.0)) == 0.25 and count(solve) == 2


def test_branches_do_not_fill_memory() -> None:
    scale = [1.0]
    solve = implicit_root(lambda x, t: scale[0] * x - t, lambda t: t / scale[0])
    for value in range(1, 30):
        scale[0] = float(value)
        solve(jnp.array(1.0))
    assert count(solve) <= 8


FUNCTIONS = {
    "plain": lambda x, t: jnp.tanh(x) * t - x,
    "inner jit": lambda x, t: jax.jit(lambda x: x * x)(x) - t,
    "custom rule": lambda x, t: jax.nn.relu(x) - t,
    "loop": lambda x, t: jax.lax.fori_loop(0, 3, lambda i, y: y * x, t),
    "constants": lambda x, t: x * jnp.array([1.0, 2.0]) - t,
    "other constants": lambda x, t: x * 3.0 - t,
    "order": lambda x, t: t - x * 3.0,
    "axis": lambda x, t: jax.lax.cumsum(x, reverse=True) - t,
    "other axis": lambda x, t: jax.lax.cumsum(x) - t,
}


def test_programs_are_equal_to_themselves_alone() -> None:
    x = jnp.ones(2)
    programs = {name: [jax.make_jaxpr(f)(x, x).jaxpr for _ in range(2)] for name, f in FUNCTIONS.items()}
    for name, (one, _) in programs.items():
        for other, (_, two) in programs.items():
            assert same(one, two) == (name == other)
    assert not same(programs["plain"][0], jax.make_jaxpr(FUNCTIONS["plain"])(jnp.ones(3), jnp.ones(3)).jaxpr)
