"""Bad input is refused by name, or told, before a wrong number is returned."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from implicit_faces import Face

from cvxift.errors import ApplicabilityError, ApplicabilityWarning, ProgramError, SolveError
from cvxift.implicit.options import GMRES


def test_a_solver_that_stops_early_is_told_whatever_the_units(face: Face) -> None:
    for unit in (1.0, 1e-9, 1e9):

        def solve(check: str, off: float, unit: float = unit) -> Any:
            return face.implicit.implicit_root(
                lambda x, p: unit * (x - p), lambda p: p * face.array([1.0, 1.0 + off]), check=check
            )

        t = face.array([2.0, 3.0])
        with pytest.warns(ApplicabilityWarning, match=r"no solution: the equation of x\[1\]"):
            solve("warn", 1e-4)(t)
        with pytest.raises(ApplicabilityError, match=r"x\[1\]"):
            solve("raise", 1e-4)(t)
        with warnings.catch_warnings():
            warnings.simplefilter("error", ApplicabilityWarning)
            solve("warn", 1e-9)(t)
            solve("off", 1e-1)(t)


@pytest.mark.parametrize("unit", [1e-12, 1e-9, 1e-3, 1e9])
def test_unknowns_in_small_units_are_checked_like_others(face: Face, unit: float) -> None:
    for off, told in ((1e-4, True), (1e-9, False)):
        solve = face.implicit.implicit_root(lambda x, t: x**3 - t, lambda t, off=off: t ** (1 / 3) * (1.0 + off))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ApplicabilityWarning)
            report = solve.diagnose(face.array([2.0, 3.0]) * unit**3)
            solve(face.array([2.0, 3.0]) * unit**3)
        assert any("no solution" in str(w.message) for w in caught) == told
        assert report.ok != told


@pytest.mark.parametrize("units", [(1e-6, 1.0, 1e6), (1e-9, 1e9, 1.0), (1e6, 1e-6, 1e-6)])
def test_unknowns_of_very_different_units_are_checked_each(face: Face, units: tuple[float, ...]) -> None:
    B = np.array([[3.0, 1.0, 0.5], [-1.0, 4.0, 0.3], [0.2, 0.7, 3.0]])
    z = np.array([0.9, -0.7, 0.8])
    t, u, matrix = face.array(B @ z + z**3), face.array(units), face.array(B)

    def residual(x: Any, t: Any) -> Any:
        return matrix @ (x / u) + (x / u) ** 3 - t

    for off, told in ((1e-3, True), (1e-9, False)):
        for which in range(3):
            wrong = (1.0 + off * np.eye(3)[which]) * z * np.array(units)
            solve = face.implicit.implicit_root(residual, lambda t, wrong=wrong: wrong)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", ApplicabilityWarning)
                solve(t)
                report = solve.diagnose(t)
            assert any("no solution" in str(w.message) for w in caught) == told
            assert report.ok != told
    expected = np.diag(units) @ np.linalg.inv(B + np.diag(3.0 * z**2))
    found = np.asarray(face.jacrev(face.implicit.implicit_root(residual, lambda t: z * np.array(units)))(t))
    assert np.allclose(found / np.array(units)[:, None], expected / np.array(units)[:, None], rtol=1e-9, atol=1e-12)


def test_leaves_have_units_of_their_own(face: Face) -> None:
    for off, told in ((1e-3, True), (1e-9, False)):
        solve = face.implicit.implicit_root(
            lambda x, t: {"small": x["small"] - 1e-9 * t, "large": x["large"] - 1e9 * t},
            lambda t, off=off: {"small": 1e-9 * (1.0 + off) * t, "large": 1e9 * t},
        )
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ApplicabilityWarning)
            solve(face.array([2.0, 3.0]))
        assert any("x['small']" in str(w.message) for w in caught) == told


@pytest.mark.parametrize("noise", [1e-14, 1e-13, -1e-10, 1e-7])
def test_a_small_entry_of_a_smooth_function_is_no_false_alarm(face: Face, noise: float) -> None:
    # x₁ is off by as much as it is small; F is straight there, so that its derivative is right to 1e-7.
    solve = face.implicit.implicit_root(
        lambda x, t: 0.5 * face.xp.tanh(x) + x + x.sum() - t,
        lambda t: face.array([0.3, 3.0 * noise]),
    )
    x = np.array([0.3, 2.0 * noise])
    with warnings.catch_warnings():
        warnings.simplefilter("error", ApplicabilityWarning)
        solve(face.array(0.5 * np.tanh(x) + x + x.sum()))


@pytest.mark.parametrize("noise", [1e-14, -1e-10, 1e-7])
def test_a_solution_of_zero_is_no_false_alarm(face: Face, noise: float) -> None:
    solve = face.implicit.implicit_fixed_point(
        lambda x, t: 0.5 * face.xp.tanh(x) + t, lambda t: 2.0 * t + noise * face.array([0.0, 1.0])
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", ApplicabilityWarning)
        for first in (0.0, 3e-12):  # beside an unknown that is zero too, or small
            solve(face.array([first, 0.0]))


def test_zeros_that_solve_nothing_are_told(face: Face) -> None:
    for returned in (0.0, 1e-14):
        solve = face.implicit.implicit_root(lambda x, t: 3.0 * x - t, lambda t, returned=returned: t * 0.0 + returned)
        with pytest.warns(ApplicabilityWarning, match="no solution"):
            solve(face.array([1e-9, 2e-9]))


def test_half_precision_is_refused(face: Face) -> None:
    half = face.array([1.0, 2.0])
    half = half.astype("bfloat16") if face.name == "jax" else half.bfloat16()
    with pytest.raises(ProgramError, match=r"x is .*bfloat16: derivatives need float32"):
        face.implicit.implicit_root(lambda x, t: x - t, lambda t: t * 1.0)(half)


def test_nan_is_refused_by_entry(face: Face) -> None:
    solve = face.implicit.implicit_root(lambda x, t: x["w"] - t, lambda t: {"w": t * face.array([1.0, np.nan])})
    with pytest.raises((SolveError, ProgramError), match=r"x\['w'\]\[1\]|another structure"):
        solve(face.array([1.0, 1.0]))
    good = face.implicit.implicit_root(lambda x, t: {"w": x["w"] - t}, lambda t: {"w": t * face.array([1.0, np.nan])})
    with pytest.raises(SolveError, match=r"x\['w'\]\[1\]"):
        good(face.array([1.0, 1.0]))


def test_structures_and_shapes(face: Face) -> None:
    t = face.array([1.0, 2.0])
    cases = [
        (lambda x, t: (x, x), lambda t: t * 1.0, "another structure"),
        (lambda x, t: x.sum(), lambda t: t * 1.0, r"shape \(\) where x has shape \(2,\)"),
        (lambda x, t: x[None], lambda t: t * 1.0, r"shape \(1, 2\)"),
    ]
    for F, solver, message in cases:
        with pytest.raises(ProgramError, match=message):
            face.implicit.implicit_root(F, solver)(t)
    with pytest.raises(ProgramError, match="one real number"):
        face.implicit.implicit_argmin(lambda x, t: (x - t) ** 2, lambda t: t * 1.0)(t)
    with pytest.raises(ProgramError, match=r"must return a pair \(x, aux\)"):
        face.implicit.implicit_root(lambda x, t: x - t, lambda t: t * 1.0, has_aux=True)(t)
    with pytest.raises(ProgramError, match="init"):
        face.implicit.implicit_root(lambda x, t: x - t, lambda t: t * 1.0)(t, init=t)


def test_complex_leaves_are_refused(face: Face) -> None:
    z = np.array([1.0 + 2.0j])
    z = face.xp.tensor(z) if face.name == "torch" else face.xp.asarray(z)
    with pytest.raises(ProgramError, match=r"theta.*complex.*Split it"):
        face.implicit.implicit_root(lambda x, t: x - t, lambda t: t)(z)
    with pytest.raises(ProgramError, match=r"x is complex.*Split it"):
        face.implicit.implicit_root(lambda x, t: x - t, lambda t: z)(face.array([1.0]))
    with pytest.raises(ProgramError, match=r"returned is complex at x.*real and imaginary parts"):
        face.implicit.implicit_root(lambda x, t: (x - t) * (1.0 + 1.0j), lambda t: t)(face.array([1.0]))


def test_integer_parameters_and_leaves_pass(face: Face) -> None:
    k = face.xp.tensor([2, 3]) if face.name == "torch" else face.xp.asarray([2, 3])

    def solver(t: Any, k: Any) -> Any:
        return {"v": t * k, "k": k}

    solve = face.implicit.implicit_root(
        lambda x, t, k: {"v": x["v"] - t * k, "k": None if face.name == "torch" else k}, solver
    )
    J = face.jacrev(lambda t: solve(t, k)["v"])(face.array([1.0, 2.0]))
    assert np.allclose(np.asarray(J), np.diag([2.0, 3.0]))
    assert np.asarray(solve(face.array([1.0, 2.0]), k)["k"]).tolist() == [2, 3]


def test_a_parameter_that_nothing_uses_has_derivative_zero(face: Face) -> None:
    solve = face.implicit.implicit_root(lambda x, t, s: x - t, lambda t, s: t * 1.0)
    J = face.jacrev(solve, 1)(face.array([1.0]), face.array([5.0]))
    assert np.allclose(np.asarray(J), 0.0)


def test_arguments_are_checked_when_the_function_is_made(face: Face) -> None:
    make = face.implicit.implicit_root
    for options, message in (
        ({"check": "loud"}, "check"),
        ({"damping": -1.0}, "damping"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"inequality": 3}, "inequality"),
        ({"has_multipliers": True}, "has_multipliers"),
    ):
        with pytest.raises(ProgramError, match=message):
            make(abs, abs, **options)
    with pytest.raises(ProgramError, match="solver must be callable"):
        make(abs, 3)


@pytest.mark.parametrize("answer", [2, None, "two", np.array([1, 2]), {"n": 3, "k": None}])
def test_a_solver_without_a_floating_leaf_is_refused(face: Face, answer: Any) -> None:
    solve = face.implicit.implicit_root(lambda x, t: x, lambda t: answer)
    with pytest.raises(ProgramError, match="no floating"):
        solve(face.array([1.0, 2.0]))


def test_a_function_with_integer_values_is_refused(face: Face) -> None:
    solve = face.implicit.implicit_root(lambda x, t: (x - t) * 0.0 > 1.0, lambda t: t * 1.0, check="off")
    with pytest.raises(ProgramError, match=r"dtype .*bool at x, which has no derivative"):
        solve(face.array([1.0, 2.0]))


def test_single_precision_answers_keep_their_dtype(face: Face) -> None:
    solve = face.implicit.implicit_root(lambda x, t: x - t, lambda t: face.xp.asarray(t, dtype=face.xp.float32))
    t = face.array([1.5, 2.0])
    assert "float32" in str(solve(t).dtype)
    assert np.allclose(np.asarray(face.jacrev(solve)(t)), np.eye(2))


def test_constraints_of_no_rows_and_of_none(face: Face) -> None:
    def solve(**sides: Any) -> Any:
        return face.implicit.implicit_argmin(lambda x, t: ((x - t) ** 2).sum(), lambda t: t * 1.0, **sides)

    t = face.array([1.0, 2.0])
    for name in ("equality", "inequality"):
        assert np.allclose(np.asarray(face.jacrev(solve(**{name: lambda x, t: []}))(t)), np.eye(2))
        with pytest.raises(ProgramError, match="must be made of floating"):
            solve(**{name: lambda x, t: None})(t)
        with pytest.raises(ProgramError, match="must be made of floating"):
            solve(**{name: lambda x, t: x > t})(t)


def test_multipliers_are_a_pair_of_the_constraints_sizes(face: Face) -> None:
    def solve(given: Any) -> Any:
        return face.implicit.implicit_argmin(
            lambda x, t: 0.5 * (x**2).sum(), lambda t: (t * 1.0, given(t)), equality=lambda x, t: x - t,
            has_multipliers=True,
        )  # fmt: skip

    t = face.array([1.0, 2.0])
    assert np.allclose(np.asarray(face.jacrev(solve(lambda t: (-t, ())))(t)), np.eye(2))
    with pytest.raises(ProgramError, match=r"pair \(nu, lambda\)"):
        solve(lambda t: -t)(t)
    with pytest.raises(ProgramError, match="2 multipliers lambda; expected 0"):
        solve(lambda t: (-t, t))(t)
    with pytest.raises(SolveError, match=r"equality\[0\]"):
        solve(lambda t: (t * np.nan, ()))(t)


def test_unknown_options_list_the_known(face: Face) -> None:
    with pytest.raises(ProgramError, match=r"dampng is no option of implicit_root; choose from linear_solver"):
        face.implicit.implicit_root(abs, abs, dampng=1.0)
    with pytest.raises(ProgramError, match="equality is no option of implicit_fixed_point"):
        face.implicit.implicit_fixed_point(abs, abs, equality=abs)
    with pytest.raises(ProgramError, match="damping = 'much'"):
        face.implicit.implicit_root(abs, abs, damping="much")
    with pytest.raises(ProgramError, match="restart = 0"):
        GMRES(restart=0)


def test_by_products_are_not_differentiated(face: Face) -> None:
    def solver(t: Any) -> Any:
        return t * 1.0, {"sum": t.sum(), "nothing": None, "word": "k"}

    solve = face.implicit.implicit_root(lambda x, t: x - t, solver, has_aux=True)
    t = face.array([1.0, 2.0])
    aux = solve(t)[1]
    assert float(aux["sum"]) == 3.0 and aux["nothing"] is None and aux["word"] == "k"
    assert np.allclose(np.asarray(face.jacrev(lambda t: solve(t)[1]["sum"])(t)), 0.0)
    assert np.allclose(np.asarray(face.jacrev(lambda t: solve(t)[0])(t)), np.eye(2))


def test_a_function_that_is_nan_at_the_point_is_told(face: Face) -> None:
    solve = face.implicit.implicit_root(lambda x, t: x - t + face.xp.sqrt(-1.0 - x * x), lambda t: t * 1.0)
    with pytest.warns(ApplicabilityWarning, match="no solution"):
        solve(face.array([1.0]))


def test_the_solver_runs_once_a_call(face: Face) -> None:
    calls = []

    def solver(t: Any) -> Any:
        calls.append(1)
        return np.sqrt(np.asarray(t))

    solve = face.implicit.implicit_root(lambda x, t: x * x - t, solver)
    t = face.array([4.0, 9.0])
    solve(t)
    face.jacrev(solve)(t)
    face.hessian(lambda t: solve(t).sum())(t)
    assert len(calls) <= 3 + (face.name == "jax")  # forward-over-reverse maps in JAX: a trial call is none of these
