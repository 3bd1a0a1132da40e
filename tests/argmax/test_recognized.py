"""What holds of every closed form, over the tables of problems that are recognized and of those that are not.

Both paths are compared in value and in derivatives of first and second order, and derivatives with differences; the
modules that the tables are in have what is particular to one form.
"""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import cvxift
from cvxift import argmax
from cvxift.argmax.closed_form.closed_map import GENERIC, ClosedMap, ClosedSolved
from cvxift.errors import ProgramError
from tests.argmax import test_recognition as separable
from tests.argmax import test_recognized_chain as chain
from tests.argmax import test_recognized_permutahedron as permutahedron
from tests.argmax import test_recognized_plans as plans
from tests.argmax import test_recognized_segments as segments
from tests.argmax.agreement import (
    Array,
    agree,
    both,
    core_of,
    draw,
    jax_layers_agree,
    optimal,
    point,
    torch_layers_agree,
)

TABLES = {"separable": separable, "segments": segments, "plan": plans, "permutahedron": permutahedron, "chain": chain}
RECOGNIZED = {f"{form}: {name}": build for form, table in TABLES.items() for name, build in table.SPELLINGS.items()}
SIMILAR = [(form, name) for form, table in TABLES.items() for name in getattr(table, "LOOKALIKES", ())]
POWERS = {"builder entmax_1.5", "builder entmax_1.2", "builder entmax_3", "powers", "powers_by_second_order_cones"}
POWERS |= {"cubes", "fourth_powers", "powers_of_columns_below_an_epigraph"}
SLOW = {f"separable: {name}" for name in POWERS}  # power cones, whose second derivatives take long
CHOSEN = (
    "separable: builder budget_2",
    "separable: builder constrained_softmax",
    "separable: projection_onto_a_budget",
    "segments: softmax",
    "segments: sparsemax",
    "segments: budgets",
    "segments: cubes",
    "plan: rows_after_columns_with_a_temperature",
    "plan: builder_quadratic",
    "plan: builder_prior",
    "permutahedron: values_that_move",
    "permutahedron: entropies_and_values_that_move",
    "permutahedron: sums_of_the_smallest",
    "chain: from_the_middle",
    "chain: builder with a temperature",
)


def maps(name: str) -> tuple[ClosedMap, ClosedMap, str]:
    """A problem's map with its closed form and without, and the path that the first must take."""
    problem, path, *outputs = RECOGNIZED[name]()
    return *both(problem, outputs[0] if outputs else [v for v in problem.variables() if v.ndim]), path


@pytest.mark.parametrize("name", RECOGNIZED)
def test_it_is_recognized_agrees_and_its_canonical_point_is_optimal(name: str) -> None:
    closed, generic, path = maps(name)
    assert closed.path == path and generic.path == GENERIC
    rng = np.random.default_rng(7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where rows are redundant, their multipliers are not unique
        for batch in ((), (2,)):
            agree(closed, generic, point(closed.parameters, rng, batch), rng, second=not batch or name not in SLOW)
    rng = np.random.default_rng(11)
    for _ in range(3):
        optimal(closed, point(closed.parameters, rng))


@pytest.mark.parametrize(("form", "name"), SIMILAR)
def test_what_is_similar_is_not_recognized(form: str, name: str) -> None:
    problem = TABLES[form].LOOKALIKES[name]()
    mapping = ClosedMap(problem, None, problem.variables()[:1])
    assert mapping.form is None and mapping.path == GENERIC


@pytest.mark.parametrize("name", CHOSEN)
def test_derivatives_against_differences(name: str) -> None:
    closed, _, _ = maps(name)
    rng = np.random.default_rng(5)
    theta, h = point(closed.parameters, rng), 1e-4
    dot, other = 1e-1 * rng.standard_normal((2, closed.theta_size))
    bar = rng.standard_normal(closed.output_size)

    def difference(f: Callable[[Array], Array], along: Array) -> Array:
        near, far = ((f(theta + s * along) - f(theta - s * along)) / (2 * s) for s in (h, 2 * h))
        return (4 * near - far) / 3

    solved = closed.solve(theta)
    assert isinstance(solved, ClosedSolved)
    np.testing.assert_allclose(closed.jvp(solved, dot), difference(lambda t: closed.solve(t).outputs, dot), atol=1e-8)
    expected = difference(lambda t: closed.vjp(closed.solve(t), bar), other)
    np.testing.assert_allclose(closed.derivative(solved, (other,), bar), expected, atol=1e-7)
    expected = difference(lambda t: closed.jvp(closed.solve(t), dot), other)
    np.testing.assert_allclose(closed.derivative(solved, (dot, other)), expected, atol=1e-7)


@pytest.mark.parametrize("name", CHOSEN)
def test_many_vectors_with_each_instance(name: str) -> None:
    closed, _, _ = maps(name)
    rng = np.random.default_rng(8)
    theta = point(closed.parameters, rng, (2,))
    solved = closed.solve(theta)
    bars, dots = rng.standard_normal((4, 2, closed.output_size)), rng.standard_normal((4, 2, closed.theta_size))
    products = closed.vjp(solved, bars), closed.jvp(solved, dots), closed.derivative(solved, (dots,), bars)
    for k in range(4):
        single = (
            closed.vjp(solved, bars[k]),
            closed.jvp(solved, dots[k]),
            closed.derivative(solved, (dots[k],), bars[k]),
        )
        for left, right in zip(products, single, strict=True):
            np.testing.assert_allclose(left[k], right, atol=1e-13)
    one = closed.solve(theta[1])
    jacobian = closed.jvp(one, np.eye(closed.theta_size)).T
    np.testing.assert_allclose(closed.jacobian_of(one, slice(2, 7)), jacobian[:, 2:7], atol=1e-13)


HARD = {
    "permutahedron": (lambda: argmax.permutahedron(4), 300.0, 1e4),
    "entropic permutahedron": (lambda: argmax.permutahedron(4, regularizer="entropic"), 300.0, 1e4),
    # Masses in general position, so that the quadratic plans are differentiable where few entries are positive.
    "plan": (lambda: argmax.transport(plans.A, np.array([0.11, 0.41, 0.26, 0.22])), 30.0, 1e4),
    "quadratic plan": (lambda: argmax.transport(plans.A, np.array([0.11, 0.41, 0.26, 0.22]), "quadratic"), 30.0, 1e4),
    "chain": (lambda: argmax.linear_chain(3, 3), None, 1e3),
}


@pytest.mark.parametrize("scores", ["equal", "ties", "tiny", "large", "shifted"])
@pytest.mark.parametrize("name", HARD)
def test_hard_scores(name: str, scores: str) -> None:
    build, large, shift = HARD[name]
    problem = build()
    closed, generic = both(problem, problem.variables())
    normal = np.random.default_rng(1).standard_normal(closed.theta_size)
    theta = {"equal": 0.0 * normal, "ties": np.round(normal), "tiny": 1e-9 * normal, "shifted": shift + normal}
    if large is not None:  # beyond what the solvers resolve for chains, see `by_all_paths`
        theta["large"] = large * normal
    if scores in theta:
        agree(closed, generic, theta[scores], np.random.default_rng(6), second="plan" not in name or scores != "large")


@pytest.mark.parametrize(
    "name",
    [
        "separable: projection_under_caps",
        "separable: builder box",
        *CHOSEN[1:2],
        *CHOSEN[7:8],
        *CHOSEN[10:12],
        *CHOSEN[-1:],
    ],
)
def test_torch_layer(name: str) -> None:
    torch = pytest.importorskip("torch")
    problem, path, *_ = RECOGNIZED[name]()
    layer, tensors = torch_layers_agree(problem, draw(problem.parameters(), np.random.default_rng(21), (2,)), path)
    if not name.startswith("plan"):  # masses that do not agree have no plan
        assert torch.autograd.gradcheck(layer, tensors) and torch.autograd.gradgradcheck(layer, tensors)


@pytest.mark.parametrize(
    "name",
    [
        "separable: projection_under_caps",
        "separable: builder softmax",
        "permutahedron: builder entropic numbers",
        "chain: builder",
    ],
)
def test_jax_layer(name: str) -> None:
    problem, path, *_ = RECOGNIZED[name]()
    jax_layers_agree(problem, draw(problem.parameters(), np.random.default_rng(22), (3,)), path)


BUILT = {
    "softmax": lambda: argmax.softmax(4),
    "permutahedron": lambda: argmax.permutahedron(4),
    "linear chain": lambda: argmax.linear_chain(3, 2),
}


@pytest.mark.parametrize("name", BUILT)
def test_reports_copies_and_other_paths(name: str) -> None:
    problem, path = BUILT[name](), f"closed form ({name})"
    core, rng = core_of(problem), np.random.default_rng(4)
    values = [rng.standard_normal((5, *p.shape)) for p in problem.parameters()]
    _, outputs = core.solve(values, None, False)
    report = core.last_report
    assert report is not None and f"path: {path}" in str(report) and report.instances == 5 and report.failed == 0
    assert report.residual <= 1e-12 and report.weak == 0
    assert path in str(cvxift.diagnose(core, *(value[0] for value in values)))
    theta = np.concatenate([value[0].ravel() for value in values])
    for clone in (pickle.loads(pickle.dumps(core.map)), copy.deepcopy(core.map)):
        assert clone.path == path and clone.violation(theta) <= 1e-12
        np.testing.assert_array_equal(clone.solve(theta).outputs, np.concatenate([z[0].ravel() for z in outputs]))
    dual = problem.constraints[0].dual_variables[0]
    assert ClosedMap(problem, None, [*problem.variables(), dual]).path == GENERIC
    assert ClosedMap(problem, None, problem.variables(), solver="clarabel").path == GENERIC
    if name != "permutahedron":  # a QP has derivatives of every order
        with pytest.raises(ProgramError, match="order 3"):
            core.map.derivative(core.map.solve(theta), [np.ones((1, theta.size))] * 3)


@pytest.mark.parametrize("name", BUILT)
def test_sensitivity(name: str) -> None:
    problem, rng = BUILT[name](), np.random.default_rng(6)
    values = [rng.standard_normal(p.shape) for p in problem.parameters()]
    z, theta = argmax.variable(problem), argmax.parameter(problem)
    bar, found = rng.standard_normal(z.shape), []
    for closed_form in ("auto", "never"):
        for p, value in zip(problem.parameters(), values, strict=True):
            p.value = value
        for v in problem.variables():
            v.value = None
        s = cvxift.differentiate(problem, closed_form=closed_form)
        assert s.path == (f"closed form ({name})" if closed_form == "auto" else GENERIC) and s.report.ok
        assert f"path: {s.path}" in str(s.report)
        dual = problem.constraints[0].dual_variables[0]
        rates: list[Any] = [s.jacobian(of, theta) for of in (*problem.variables(), problem.objective, dual)]
        products = s.vjp({z: bar})[theta], s.jvp({theta: bar})[z]
        found.append([z.value, problem.constraints[0].dual_value, s.value(problem.objective), *rates, *products])
    for left, right in zip(*found, strict=True):
        np.testing.assert_allclose(left, right, atol=1e-8)
