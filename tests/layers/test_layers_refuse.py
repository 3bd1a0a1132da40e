"""What layers of both frameworks refuse before anything is solved, with the parameter's name and the remedy."""

from __future__ import annotations

import re

import cvxpy as cp
import numpy as np
import pytest
from frameworks import Framework

from cvxift import ProgramError

TARGET = np.array([0.5, 0.4, -1.0])


def test_number_and_shapes(framework: Framework) -> None:
    layer, array = framework.of("simplex"), framework.array
    for given, words in (
        ([np.ones(3)], "got 1, expected 2"),
        ([np.ones(3), 1.0, 1.0], "got 3, expected 2"),
        ([np.ones(4), 1.0], r"'target' has shape \(4,\); expected \(3,\)"),
        ([np.ones((2, 3)), np.ones(5)], r"do not broadcast.*'target' \(2,\), 'total' \(5,\)"),
    ):
        with pytest.raises(ProgramError, match=words):
            layer(*map(array, given))
    matrices = [np.ones(shape) for shape in ((4, 4), 4, (4, 3), 3, (2, 4), 2)]
    with pytest.raises(ProgramError, match=r"'G' has shape \(4, 3\); expected \(3, 4\).*Transpose"):
        framework.of("qp")(*map(array, matrices))


def test_shapes_inside_a_mapped_call(framework: Framework) -> None:
    layer, array = framework.of("simplex"), framework.array
    for axes, given in ((0, (np.ones(3), np.ones(3))), ((0, None), (np.ones(3), np.ones(())))):
        for wrap in (lambda f: f, *framework.compiled[:1]):
            mapped = wrap(framework.vmap(lambda t, s: layer(t, s), axes))
            with pytest.raises(ProgramError, match=r"'target' has shape \(\).*vmap"):
                mapped(*map(array, given))
    with pytest.raises(ProgramError, match="got 1, expected 2"):
        framework.vmap(layer)(array(np.ones((2, 3))))


def test_types(framework: Framework) -> None:
    layer, one = framework.of("simplex"), framework.array(1.0)
    for wrong in framework.wrong:
        with pytest.raises(ProgramError, match=r"'target' has dtype (torch\.)?(int|complex)"):
            layer(wrong, one)
    for call in (layer, framework.vmap(layer)):
        lead = () if call is layer else (2,)
        with pytest.raises(ProgramError, match=r"one dtype|astype"):
            call(framework.other(np.ones((*lead, 3))), framework.array(np.ones(lead)))
    with pytest.raises(ProgramError, match="'target' is a list"):
        layer([1.0, 2.0, 3.0], one)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values(framework: Framework, value: float) -> None:
    layer, array = framework.of("simplex"), framework.array
    bad = array([0.5, 0.4, value])
    with pytest.raises(ProgramError, match=r"'target' has the value (nan|inf) at entry \(?2"):
        layer(bad, array(1.0))
    with pytest.raises(ProgramError, match="'target'"):
        framework.grad(lambda t: layer(t, array(1.0))[0][0])(bad)
    rows = array(np.stack([TARGET, [0.5, 0.4, value]]))
    with pytest.raises(ProgramError, match="'target'"):
        framework.vmap(layer)(rows, array(np.ones(2)))
    for wrap in framework.compiled[:1]:
        with pytest.raises(framework.raised, match="'target' has the value"):
            wrap(layer)(bad, array(1.0))


def test_values_against_attributes(framework: Framework) -> None:
    layer, targets = framework.of("simplex"), framework.array(np.ones((4, 3)))
    totals = framework.array([1.0, 1.0, 1.0, -1.0])
    for call in (layer, framework.vmap(layer)):
        with pytest.raises(ProgramError, match=r"'total' is declared nonneg=True.*\(3,\)"):
            call(targets, totals)
    for wrap in framework.compiled[1:2]:
        with pytest.raises(framework.raised, match=r"'total' is declared nonneg=True.*\(3,\)"):
            wrap(layer)(targets, totals)
    a = cp.Parameter(pos=True, name="a")
    x, y = cp.Variable(pos=True), cp.Variable(pos=True)
    geometric = framework.layer(cp.Problem(cp.Minimize(x + a * y), [x * y >= 8]), [a], [x, y], gp=True)
    for call, value in ((geometric, -1.0), (framework.vmap(geometric), [2.0, -1.0])):
        with pytest.raises(ProgramError, match="'a'"):
            call(framework.array(value))


def test_constructor(framework: Framework) -> None:
    x, p, other = cp.Variable(2, name="x"), cp.Parameter(2, name="p"), cp.Parameter(2, name="other")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - p)))
    for given, outputs, options, words in (
        ([p, other], [x], {}, "not in the problem.*other"),
        ([], [x], {}, "missing.*'p'"),
        ([p, p], [x], {}, "once"),
        ([p], [cp.Variable(name="w")], {}, "'w' is not in the problem"),
        ([p], [], {}, "variables is empty"),
        (p, [x], {}, "parameters must be provided as a list"),
        ([p], [x], {"solver": "NOSUCH"}, "nosuch"),
        ([p], [x], {"solver": "CLARABEL", "solver_args": {"tol_gap": 1}}, "no option 'tol_gap'"),
        ([p], [x], {"solver_args": {"tol_gap": 1}}, "tol_gap"),
        ([p], [x], {"singular": "ignore"}, "singular='ignore'"),
        ([p], [x], {"on_failure": "zero"}, "on_failure='zero'"),
        ([p], [x], {"check": "loud"}, "check='loud'"),
    ):
        with pytest.raises(ProgramError, match=words):
            framework.layer(problem, given, outputs, **options)


def test_problems(framework: Framework) -> None:
    x, p, q = cp.Variable(2, name="x"), cp.Parameter(name="p"), cp.Parameter(name="q")
    with pytest.raises(ProgramError, match=r"not DPP(.|\n)*p \* q"):
        framework.layer(cp.Problem(cp.Minimize(cp.sum_squares(x) + p * q * x[0])), [p, q], [x])
    whole = cp.Variable(2, integer=True, name="whole")
    with pytest.raises(ProgramError, match="'whole' is integer"):
        framework.layer(cp.Problem(cp.Minimize(cp.sum_squares(whole - p))), [p], [whole])


def complex_simplex() -> tuple[cp.Problem, list[cp.Parameter], list[cp.Variable]]:
    """Its parameter z is split into real and imaginary part."""
    x, z, s = cp.Variable(2, complex=True), cp.Parameter(2, complex=True, name="z"), cp.Parameter(name="s")
    return cp.Problem(cp.Minimize(cp.sum_squares(x - z)), [cp.real(cp.sum(x)) == s]), [z, s], [x]


def factor_and_exponent() -> tuple[cp.Problem, list[cp.Parameter], list[cp.Variable]]:
    """Its parameter z is split into a factor and an exponent."""
    x, z, s = cp.Variable(2, pos=True), cp.Parameter(2, pos=True, name="z"), cp.Parameter(pos=True, name="s")
    return cp.Problem(cp.Minimize(cp.sum(x)), [z[0] * cp.power(x[0], s) * x[1] >= s, x[1] >= z[1]]), [z, s], [x]


@pytest.mark.parametrize(("parts", "options"), [(complex_simplex, {}), (factor_and_exponent, {"gp": True})])
def test_split_parameters_have_the_names_that_the_user_gave(framework: Framework, parts, options) -> None:
    problem, (z, s), variables = parts()
    layer, array = framework.layer(problem, [z, s], variables, **options), framework.array
    for given, words in (
        (([1.0, 1.0],), r"got 1, expected 2 \('z' \(2,\), 's' \(\)\)"),
        ((1.0, [1.0, 1.0]), r"'z' has shape \(\); expected \(2,\).*The order of the tensors is 'z', 's'\.$"),
        (([1.0, 1.0, 1.0], 1.0), r"'z' has shape \(3,\); expected \(2,\)"),
    ):
        tensors = [array(v) for v in given]
        with pytest.raises(ProgramError, match=words):
            layer(*tensors)
        (finding,) = layer.diagnose(*tensors).faults
        assert re.search(words, finding.text), finding
    for wrong, words in (
        ([z, z], r"got \['z', 'z'\], expected .*; missing: \['s'\]; more than once: \['z'\]"),
        ([s], r"missing: \['z'\]"),
        (5, "list or tuple of cp.Parameter; got int"),
    ):
        with pytest.raises(ProgramError, match=words):
            framework.layer(problem, wrong, variables, **options)
    report = layer.diagnose(array([1.0, 1.0]), array(1.0))
    assert report.title == f"layer of problem in {variables[0].name()}"
