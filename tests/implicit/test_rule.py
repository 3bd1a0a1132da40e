"""The rule against closed forms and against unrolled iterations that converged, in every mode and order."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from implicit_faces import FACES, Face, fixed_point


def unrolled_in(face: Face) -> Face:
    """The framework that differentiates unrolled iterations: PyTorch for JAX too, which would compile them long."""
    return FACES["torch"]() if importlib.util.find_spec("torch") else face


def close(a: Any, b: Any, tolerance: float = 1e-11) -> bool:
    return bool(np.max(np.abs(np.asarray(a) - np.asarray(b))) <= tolerance * max(1.0, np.max(np.abs(np.asarray(b)))))


def test_unit_circle_to_third_order(face: Face) -> None:
    solve = face.implicit.implicit_root(lambda x, t: t**2 + x**2 - 1.0, lambda t: face.xp.sqrt(1.0 - t**2))
    t, x = 0.6, 0.8
    expected = (-t / x, -1.0 / x**3, -3.0 * t / x**5)
    for derive, orders in ((face.grad, 3), (face.jacfwd, 3 if face.name == "torch" else 2)):  # JAX compiles them long
        function = solve
        for value in expected[:orders]:
            function = derive(function)
            assert abs(float(function(face.array(t))) - value) < 1e-12 * abs(value)


def test_lower_branch_is_the_solvers_choice(face: Face) -> None:
    solve = face.implicit.implicit_root(lambda x, t: t**2 + x**2 - 1.0, lambda t: -face.xp.sqrt(1.0 - t**2))
    assert abs(float(face.grad(solve)(face.array(0.6))) - 0.75) < 1e-12


MODES = ["rev", "fwd", "fwd of rev", "rev of fwd", "rev of rev", "fwd of fwd"]


# JAX compiles second orders long, and one argument's show the same as the other's.
@pytest.mark.parametrize(
    ("framework", "mode", "argument"),
    [(name, mode, k) for name in sorted(FACES) for mode in MODES for k in (0, 1)
     if name == "torch" or k or " of " not in mode],
)  # fmt: skip
def test_modes_and_orders(framework: str, mode: str, argument: int) -> None:
    face = FACES[framework]()
    results = []
    for kind, own in enumerate((face, unrolled_in(face))):
        *functions, W, b = fixed_point(own)
        function = functions[kind]
        for name in reversed(mode.split(" of ")):
            function = {"rev": own.jacrev, "fwd": own.jacfwd}[name](function, argument)
        results.append(function(W, b))
    assert close(*results)


def test_mixed_second_order(face: Face) -> None:
    implicit, _, W, b = fixed_point(face)
    other = unrolled_in(face)
    _, unrolled, V, c = fixed_point(other)
    assert close(face.jacfwd(face.jacrev(implicit, 0), 1)(W, b), other.jacfwd(other.jacrev(unrolled, 0), 1)(V, c))


@pytest.mark.parametrize("axes", [(None, 0), (0, None), (0, 0)])
def test_batches(face: Face, axes: tuple[Any, Any]) -> None:
    def compared(derive: Callable[[Face, Any], Callable[[Any, Any], Any]]) -> bool:
        results = []
        for kind, own in enumerate((face, unrolled_in(face))):
            *functions, W, b = fixed_point(own)
            stacked = [own.xp.stack([s * v for s in (1.0, 0.5, -0.7)]) for v in (W, b)]
            given = [v if axis is None else many for v, many, axis in zip((W, b), stacked, axes)]
            results.append(derive(own, functions[kind])(*given))
        return close(*results)

    assert compared(lambda own, f: own.vmap(f, axes))
    assert compared(lambda own, f: own.vmap(own.grad(lambda W, b: (f(W, b) ** 2).sum(), 0), axes))
    if face.name == "jax" and None in axes:
        return  # what follows compiles long; both mapped shows the same
    assert compared(lambda own, f: own.vmap(own.hessian(f, 1), axes))
    assert compared(lambda own, f: own.jacrev(own.vmap(f, axes), 0))


def test_vmap_of_jacfwd_with_a_differentiated_matrix(face: Face) -> None:
    # The case in which torch.linalg.solve of 2.13 is wrong: A x = b, derivative in A.
    rng = np.random.default_rng(1)
    A = face.array(rng.standard_normal((3, 4, 4)) + 4.0 * np.eye(4))
    b = face.array(rng.standard_normal(4))
    solve = face.implicit.implicit_root(lambda x, A: A @ x - b, lambda A: face.xp.linalg.solve(A, b))
    found = np.asarray(face.vmap(face.jacfwd(solve))(A))
    inverse = np.linalg.inv(np.asarray(A))
    x = inverse @ np.asarray(b)
    assert close(found, -np.einsum("kij,kl->kijl", inverse, x))


def test_second_order_against_differences(face: Face) -> None:
    # E = Σ cosh(x − t) + t₀ Σ x⁴ has no closed form; its minimizer is found to rounding by Newton's method.
    def newton(t: np.ndarray) -> np.ndarray:
        x = np.zeros(3)
        for _ in range(60):
            x = x - (np.sinh(x - t) + 4 * t[0] * x**3) / (np.cosh(x - t) + 12 * t[0] * x**2)
        return x

    solve = face.implicit.implicit_argmin(
        lambda x, t: face.xp.cosh(x - t).sum() + t[0] * (x**4).sum(), lambda t: newton(np.asarray(t))
    )
    t = np.array([0.7, -0.4, 1.1])
    J, H = np.asarray(face.jacrev(solve)(face.array(t))), np.asarray(face.hessian(solve)(face.array(t)))
    for k, e in enumerate(np.eye(3)):
        h = 1e-4
        first = (8 * (newton(t + h * e) - newton(t - h * e)) - (newton(t + 2 * h * e) - newton(t - 2 * h * e))) / (
            12 * h
        )
        assert np.allclose(J[:, k], first, rtol=1e-9, atol=1e-10)
        second = (newton(t + h * e) - 2 * newton(t) + newton(t - h * e)) / h**2
        assert np.allclose(H[:, k, k], second, rtol=1e-6, atol=1e-6)


def test_the_frameworks_agree() -> None:
    found = []
    for make in FACES.values():
        face = make()
        implicit, _, W, b = fixed_point(face)
        found.append((np.asarray(face.jacrev(implicit)(W, b)), np.asarray(face.hessian(implicit, 1)(W, b))))
    for one, other in zip(*found):
        assert np.max(np.abs(one - other)) < 1e-10


def test_trees_auxiliaries_and_constants(face: Face) -> None:
    def E(x: Any, theta: Any) -> Any:
        return ((x["a"] - theta["c"]) ** 2).sum() + (x["b"][0] - 2.0 * x["a"].sum()) ** 2

    def solver(theta: Any) -> Any:
        a = theta["c"] * 1.0
        return {"a": a, "b": (2.0 * a.sum(), None, 3)}, {"steps": 7}

    solve = face.implicit.implicit_argmin(E, has_aux=True)(solver)  # as a decorator
    x, aux = solve({"c": face.array([1.0, 2.0]), "name": "kept"})
    assert aux == {"steps": 7} and x["b"][1] is None and x["b"][2] == 3
    J = face.jacrev(lambda c: solve({"c": c})[0]["b"][0])(face.array([1.0, 2.0]))
    assert close(J, [2.0, 2.0])


def test_warm_start_reaches_the_solver_once(face: Face) -> None:
    calls = []

    def solver(t: Any, init: Any = None) -> Any:
        calls.append(init)
        return t * 1.0

    solve = face.implicit.implicit_root(lambda x, t: x - t, solver)
    t = face.array([1.0])
    solve(t, init=t)
    assert len(calls) == 1 and calls[0] is not None
    solve(t)
    assert len(calls) == 2 and calls[1] is None


def test_float32_stays(face: Face) -> None:
    t = face.array([0.5, 0.25])
    t = t.astype(np.float32) if face.name == "jax" else t.float()
    solve = face.implicit.implicit_argmin(
        lambda x, t: ((x - t) ** 2).sum() + (x**4).sum(), lambda t: cubic(np.asarray(t, dtype=float))
    )
    J = face.jacrev(solve)(t)
    assert str(J.dtype).endswith("float32")
    x = cubic(np.array([0.5, 0.25]))
    assert close(np.asarray(J), np.diag(2.0 / (2.0 + 12.0 * x**2)), 1e-5)


def cubic(t: np.ndarray) -> np.ndarray:
    x = np.array(t)
    for _ in range(60):
        x = x - (2 * (x - t) + 4 * x**3) / (2 + 12 * x**2)
    return x


def test_a_function_that_ran_can_be_copied(face: Face) -> None:
    solve = face.implicit.implicit_root(lambda x, t: x**3 + x - t, lambda t: t * 0.0 + 1.0)
    t = face.array([2.0, 2.0])
    slopes = np.asarray(face.jacrev(solve)(t))
    twin = copy.deepcopy(solve)
    assert np.array_equal(np.asarray(face.jacrev(twin)(t)), slopes) and np.allclose(slopes, np.eye(2) / 4.0)
