"""Constrained minimizers: the KKT system against closed forms, active sets, multipliers, points that are no minima."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from implicit_faces import Face

from cvxift.errors import ApplicabilityError, ApplicabilityWarning


def projection(t: Any) -> np.ndarray:
    """Onto the probability simplex (Held, Wolfe & Crowder 1974)."""
    t = np.asarray(t)
    u = np.sort(t)[::-1]
    offsets = (np.cumsum(u) - 1.0) / np.arange(1, len(t) + 1)
    return np.maximum(t - offsets[np.nonzero(u > offsets)[0][-1]], 0.0)


def simplex(face: Face, **options: Any) -> Any:
    return face.implicit.implicit_argmin(
        lambda x, t: 0.5 * ((x - t) ** 2).sum(),
        projection,
        equality=lambda x, t: x.sum() - 1.0,
        inequality=lambda x, t: -x,
        **options,
    )


def expected(support: list[int], n: int) -> np.ndarray:
    s = np.zeros(n)
    s[support] = 1.0
    return np.diag(s) - np.outer(s, s) / s.sum()


@pytest.mark.parametrize(("solver", "mode"), [("auto", "rev"), ("auto", "fwd"), ("gmres", "rev"), ("lsmr", "fwd")])
def test_projection_onto_the_simplex(face: Face, solver: str, mode: str) -> None:
    t, jacobian = face.array([0.3, 0.5, -1.0, 0.9]), face.jacrev if mode == "rev" else face.jacfwd
    found = np.asarray(jacobian(simplex(face, linear_solver=solver))(t))
    assert np.allclose(found, expected([0, 1, 3], 4), atol=1e-9)


def test_batches_have_an_active_set_each(face: Face) -> None:
    t = face.array([[0.3, 0.5, -1.0, 0.9], [0.0, 1.0, -2.0, 1.5]])
    found = np.asarray(face.vmap(face.jacrev(simplex(face)))(t))
    assert np.allclose(found[0], expected([0, 1, 3], 4)) and np.allclose(found[1], expected([1, 3], 4))


def test_second_order_of_softmax_by_its_kkt_system(face: Face) -> None:
    def softmax(t: Any) -> Any:
        e = np.exp(np.asarray(t) - np.max(np.asarray(t)))
        return e / e.sum()

    solve = face.implicit.implicit_argmin(
        lambda z, t: (z * face.xp.log(z)).sum() - (z * t).sum(), softmax, equality=lambda z, t: z.sum() - 1.0
    )
    t = np.array([0.3, -0.2, 1.0])
    z = softmax(t)
    J = np.diag(z) - np.outer(z, z)
    assert np.allclose(np.asarray(face.jacrev(solve)(face.array(t))), J, atol=1e-12)
    H = np.einsum("ij,ik->ijk", np.eye(3), J) - np.einsum("ik,j->ijk", J, z) - np.einsum("i,jk->ijk", z, J)
    assert np.allclose(np.asarray(face.hessian(solve)(face.array(t))), H, atol=1e-11)


def test_constraints_that_depend_on_parameters(face: Face) -> None:
    # min ½‖x‖² s.t. aᵀx = b:  x = a b/‖a‖²
    solve = face.implicit.implicit_argmin(
        lambda x, a, b: 0.5 * (x * x).sum(),
        lambda a, b: a * b / (a * a).sum(),
        equality=lambda x, a, b: (a * x).sum() - b,
    )
    a, b = np.array([1.0, 2.0]), 3.0
    J = np.asarray(face.jacrev(lambda a: solve(a, face.array(b)))(face.array(a)))
    s = a @ a
    assert np.allclose(J, b * (np.eye(2) / s - 2.0 * np.outer(a, a) / s**2))


def test_multipliers_returned_by_the_solver(face: Face) -> None:
    def solver(t: Any) -> Any:
        x = projection(t)
        nu = np.mean((np.asarray(t) - x)[x > 0])
        return x, (nu, np.maximum(nu - np.asarray(t) + x, 0.0))

    solve = face.implicit.implicit_argmin(
        lambda x, t: 0.5 * ((x - t) ** 2).sum(), solver,
        equality=lambda x, t: x.sum() - 1.0, inequality=lambda x, t: -x, has_multipliers=True,
    )  # fmt: skip
    assert np.allclose(np.asarray(face.jacrev(solve)(face.array([0.3, 0.5, -1.0, 0.9]))), expected([0, 1, 3], 4))


def test_a_weakly_active_row_is_told(face: Face) -> None:
    def solve(check: str) -> Any:
        return face.implicit.implicit_argmin(
            lambda x, t: ((x - t) ** 2).sum(), lambda t: np.maximum(np.asarray(t), 0.0),
            inequality=lambda x, t: -x, check=check,
        )  # fmt: skip

    t = face.array([0.0, 1.0])
    with pytest.warns(ApplicabilityWarning, match=r"inequality\[0\] is weakly active"):
        solve("warn")(t)
    with pytest.raises(ApplicabilityError, match="weakly active"):
        solve("raise")(t)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ApplicabilityWarning)
        solve("off")(t)
        solve("warn")(face.array([-1.0, 1.0]))


def bounded(face: Face, weights: list[float], solver: Any, **options: Any) -> Any:
    return face.implicit.implicit_argmin(
        lambda x, t: (face.array(weights) * (x - t) ** 2).sum(), solver, inequality=lambda x, t: -x, **options
    )


@pytest.mark.parametrize("noise", [1e-13, -1e-14])
def test_rounding_is_no_multiplier(face: Face, noise: float) -> None:
    # The gradient of a minimum that the bound does not push is rounding, and so is its multiplier.
    solve = bounded(face, [1.0], lambda t: np.maximum(np.asarray(t), 0.0) + noise)
    with pytest.warns(ApplicabilityWarning, match="is weakly active"):
        solve(face.array([0.0]))


@pytest.mark.parametrize("unit", [1e-15, 1e-9, 1e-6, 1e9])
@pytest.mark.parametrize("off", [0.0, 1e-9, 1e-3])
def test_constrained_unknowns_in_any_unit(face: Face, unit: float, off: float) -> None:
    solve = face.implicit.implicit_argmin(
        lambda x, t: (0.25 * ((x - t) / unit) ** 4 + 0.5 * ((x - t) / unit) ** 2).sum(),
        lambda t: np.maximum((1.0 + off) * np.asarray(t), 0.0),
        inequality=lambda x, t: -x,
    )
    t = unit * face.array([0.3, -0.2, 1.0])
    if off > 1e-6:
        with pytest.warns(ApplicabilityWarning, match="no solution"):
            solve(t)
        assert not solve.diagnose(t).ok
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error", ApplicabilityWarning)
        assert np.allclose(np.asarray(face.jacrev(solve)(t)), np.diag([1.0, 0.0, 1.0]), atol=1e-8)
        assert solve.diagnose(t).ok


@pytest.mark.parametrize("off", [1e-8, 1e-4])
def test_a_bound_at_zero_as_interior_point_methods_leave_it(face: Face, off: float) -> None:
    # The second variable costs little: its multiplier is small beside the first one's gradient, not in its own column.
    solve = bounded(face, [1.0, 1e-8], lambda t: np.maximum(np.asarray(t), off))
    t = face.array([0.5, -0.3])
    if off > 1e-6:
        with pytest.warns(ApplicabilityWarning, match="no solution"):
            solve(t)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error", ApplicabilityWarning)
        assert np.allclose(np.asarray(face.jacrev(solve)(t)), np.diag([1.0, 0.0]), atol=1e-9)


def test_an_infeasible_point_is_told(face: Face) -> None:
    solve = face.implicit.implicit_argmin(
        lambda x, t: ((x - t) ** 2).sum(), lambda t: t * 1.0, inequality=lambda x, t: x - 0.5
    )
    with pytest.warns(ApplicabilityWarning, match=r"inequality\[0\] is off|x\[0\] is off"):
        solve(face.array([1.0]))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_maximum_is_no_minimum(face: Face, sign: float) -> None:
    solve = face.implicit.implicit_argmin(lambda x, t: sign * ((x - t) ** 2).sum(), lambda t: t * 1.0)
    derive = face.jacrev(solve)
    if sign > 0:
        with warnings.catch_warnings():
            warnings.simplefilter("error", ApplicabilityWarning)
            derive(face.array([1.0, 2.0]))
    else:
        with pytest.warns(ApplicabilityWarning, match="no strict minimum"):
            derive(face.array([1.0, 2.0]))


def test_a_saddle_that_the_constraint_makes_a_minimum(face: Face) -> None:
    # x₀² − x₁² on x₁ = t has a minimum; on x₀ = t a maximum.
    def solve(which: int) -> Any:
        def solver(t: Any) -> Any:
            x = np.zeros(2)
            x[which] = float(t)
            return x

        return face.implicit.implicit_argmin(
            lambda x, t: x[0] ** 2 - x[1] ** 2, solver, equality=lambda x, t: x[which] - t
        )

    t = face.array(0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ApplicabilityWarning)
        assert np.allclose(np.asarray(face.jacrev(solve(1))(t)), [0.0, 1.0])
    with pytest.warns(ApplicabilityWarning, match="no strict minimum"):
        face.jacrev(solve(0))(t)
