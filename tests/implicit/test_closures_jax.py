"""JAX: closures over tracers and modules, and solvers that are no JAX code under jit and vmap."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cvxift.errors import ProgramError, SolveError

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402  # after the skip

from cvxift.jax import implicit_fixed_point, implicit_root  # noqa: E402


def newton(w: Any, t: Any) -> Any:
    return jax.lax.fori_loop(0, 50, lambda i, x: x - (w * x**3 + x - t) / (3 * w * x**2 + 1), jnp.ones_like(t))


def closing(w: Any) -> Any:
    """x of w x³ + x = 2, where F and the solver close over w."""
    return implicit_root(lambda x, t: w * x**3 + x - t, lambda t: newton(w, t))(jnp.array(2.0))


def test_closures_over_tracers() -> None:
    w = 0.7
    x = float(newton(w, jnp.array(2.0)))
    slope = -(x**3) / (3 * w * x**2 + 1)
    for derive in (jax.grad, lambda f: jax.jit(jax.jacfwd(f)), lambda f: jax.grad(jax.jit(f))):
        assert abs(float(derive(closing)(w)) - slope) < 1e-12
    h = 1e-4
    mapped = jax.vmap(jax.grad(closing))(jnp.array([w, w + h, w - h]))
    assert abs(float(mapped[0]) - slope) < 1e-12
    difference = float(mapped[1] - mapped[2]) / (2 * h)
    assert abs(float(jax.jit(jax.grad(jax.grad(closing)))(w)) - difference) < 1e-6


def test_a_solver_without_jax_that_closes_over_a_tracer() -> None:
    def slope(w: Any) -> Any:
        return implicit_root(lambda x, t: w * x - t, lambda t: np.asarray(t) / np.asarray(w))(jnp.array(2.0))

    with pytest.raises(SolveError, match="none of its arguments"):
        jax.grad(slope)(0.7)


def test_equinox_modules() -> None:
    eqx = pytest.importorskip("equinox")
    net = eqx.nn.MLP(3, 3, 5, 1, activation=jnp.tanh, key=jax.random.PRNGKey(0), dtype=jnp.float64)

    def iterate(net: Any) -> Any:
        return jax.lax.scan(lambda z, _: (0.2 * net(z) + 1.0, None), jnp.zeros(3), None, length=60)[0]

    expected = eqx.filter_grad(lambda net: iterate(net).sum())(net)
    argument = implicit_fixed_point(lambda z, net: 0.2 * net(z) + 1.0, iterate)
    ways = (
        lambda net: argument(net).sum(),
        lambda net: implicit_fixed_point(lambda z: 0.2 * net(z) + 1.0, lambda: iterate(net))().sum(),
    )
    for way in ways:
        found = eqx.filter_grad(way)(net)
        for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
            if eqx.is_array(one):
                assert np.allclose(one, other, rtol=1e-10, atol=1e-12)


def numpy_solver(t: Any) -> Any:
    t = np.asarray(t)
    if not (t > 0).all():
        raise ValueError("positive parameters only")
    return {"root": np.sqrt(t), "count": 3}


def test_host_solvers_under_jit_and_vmap() -> None:
    solve = implicit_root(lambda x, t: {"root": x["root"] ** 2 - t, "count": None}, numpy_solver)
    with pytest.raises(ProgramError, match="another structure"):
        solve(jnp.array([4.0]))
    solve = implicit_root(lambda x, t: {"root": x["root"] ** 2 - t, "count": 0}, numpy_solver)
    t = jnp.array([4.0, 9.0])
    expected = np.diag(0.5 / np.sqrt(np.asarray(t)))

    def root(t: Any) -> Any:
        return solve(t)["root"]

    for transform in (jax.jacrev, jax.jacfwd, lambda f: jax.jit(jax.jacrev(f)), lambda f: jax.jacrev(jax.jit(f))):
        assert np.allclose(transform(root)(t), expected, atol=1e-13)
    assert np.allclose(jax.jit(jax.vmap(jax.jacrev(root)))(jnp.stack([t, t]))[1], expected, atol=1e-13)


def test_a_trial_call_that_fails_asks_for_an_example() -> None:
    def solver(t: Any) -> Any:
        if np.asarray(t).sum() < 10.0:
            raise ValueError("too small")
        return np.sqrt(np.asarray(t))

    t = jnp.array([4.0, 9.0])
    with pytest.raises(ProgramError, match="like="):
        jax.jit(implicit_root(lambda x, t: x**2 - t, solver))(t)
    given = implicit_root(lambda x, t: x**2 - t, solver, like=np.zeros(2))
    assert np.allclose(jax.jit(given)(t), [2.0, 3.0])
    seen = implicit_root(lambda x, t: x**2 - t, solver)
    seen(t)
    assert np.allclose(jax.jit(seen)(t), [2.0, 3.0])


def test_solvers_without_jax_outside_of_transforms_run_once() -> None:
    calls = []

    def solver(t: Any) -> Any:
        calls.append(1)
        return np.asarray(t)

    jax.grad(lambda t: implicit_root(lambda x, t: x - t, solver)(t).sum())(jnp.array([1.0]))
    assert len(calls) == 1
