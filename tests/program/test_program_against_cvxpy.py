"""The canonical program has CVXPY's own numbers, and its solution is CVXPY's: values, variables, dual variables."""

from __future__ import annotations

import warnings

import cvxpy as cp
import numpy as np
import pytest
import scipy.sparse as sp
from cvxpy.constraints.exponential import ExpCone
from cvxpy.constraints.power import PowConeND
from problem_zoo import NEEDS_1_9, OLD, VERSION, ZOO, Case
from reference_solve import TIGHT, solve

from cvxift.program import Data, Program

# Problems with rows that leave the program, and those of them in which a repeated row has a multiplier.
REDUNDANT = {
    "zero_and_duplicate_rows",
    "same_constraint_twice",
    "attributes_together",
    "sparse_variable_and_parameter",
    "every_elementary_constraint",
}
REPEATED = {"zero_and_duplicate_rows", "same_constraint_twice"}
WEAK = {"second_order_cones"}  # at one of its points a cone is nearly weak: known to √gap
CHAINED = {"power_cone_of_many_factors", "power_cone_of_rows", "single_power_cone_of_many_factors"}


@pytest.fixture(params=ZOO)
def name(request):
    if OLD and request.param in NEEDS_1_9:
        pytest.skip("needs CVXPY 1.9")
    return request.param


def build(name: str, seed: int = 1) -> tuple[Case, Program, Data]:
    """A case, its program built before the parameters have values, and the data at the values."""
    case = ZOO[name](np.random.default_rng(seed))
    program = Program(case.problem, gp=case.gp)
    theta = program.pack(case.values)
    if program.log_mask is not None:
        theta[program.log_mask] = np.log(theta[program.log_mask])
    return case.set(), program, program.evaluate(theta)


def test_data_are_cvxpys(name):
    if name in CHAINED:
        pytest.skip("Clarabel takes these cones whole; the solution is compared instead")
    case, program, data = build(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CVXPY's remarks on its own backends and on old-style constraints
        theirs, _, inverse = case.problem.get_problem_data(cp.CLARABEL, gp=case.gp)
    structure = program.structure
    presolved = program._presolved
    rows, columns = presolved.source, presolved.columns  # without rows that are redundant, and columns of epigraphs
    A, b = theirs["A"].toarray(), theirs["b"]
    assert np.isfinite(b[rows]).all()
    bound = np.flatnonzero(presolved.weights)  # rows that took in a bound
    A_of, b_of = A[rows], b[rows]
    A_of[bound] += presolved.weights[bound, None] * A[presolved.named[bound]]
    b_of[bound] += presolved.weights[bound] * b[presolved.named[bound]]
    assert not A_of[:, np.setdiff1d(np.arange(A.shape[1]), columns)].any()
    np.testing.assert_allclose(structure.A_matrix(data.A).toarray(), A_of[:, columns], atol=1e-14)
    np.testing.assert_allclose(data.b, b_of, atol=1e-14)
    np.testing.assert_allclose(data.q, theirs["c"][columns], atol=1e-14)
    P = theirs["P"].toarray()[np.ix_(columns, columns)] if "P" in theirs else np.zeros((structure.n, structure.n))
    np.testing.assert_allclose(structure.P_matrix(data.P).toarray(), (P + P.T) / 2, atol=1e-13)
    np.testing.assert_allclose(data.d, inverse[-1]["offset"], atol=1e-14)
    if name in REDUNDANT:
        return
    assert structure.m == np.isfinite(theirs["b"]).sum() - (A.shape[1] - len(columns))
    dims, cones = theirs["dims"], program.cones
    assert (cones.zero, cones.soc, cones.psd, cones.exp) == (dims.zero, tuple(dims.soc), tuple(dims.psd), dims.exp)
    np.testing.assert_allclose(cones.pow, dims.p3d)


@pytest.mark.parametrize("seed", [1, 2])
def test_solution_is_cvxpys(name, seed):
    case, program, data = build(name, seed)
    x, y = solve(program, data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "solution may be inaccurate": the tolerances are at their limit
        case.problem.solve(solver=cp.CLARABEL, gp=case.gp, **TIGHT)
    assert program.primal_value(data, x) == pytest.approx(case.problem.value, rel=1e-8, abs=1e-8)
    # A chain of cones is another program than the whole cone: the same optimum to √gap only.
    tolerance = 1e-5 if name in CHAINED | WEAK else 1e-8
    for variable in case.problem.variables():
        value = variable.value_sparse if variable.attributes["sparsity"] else variable.value
        value = value.toarray() if sp.issparse(value) else value
        ours = program.output(variable).value(x)
        assert ours.shape == variable.shape
        np.testing.assert_allclose(ours, value, atol=tolerance)
    for constraint in case.problem.constraints:
        if OLD and isinstance(constraint, PowConeND):
            continue  # CVXPY 1.8 gives them another shape
        if VERSION < (1, 9, 2) and isinstance(constraint, ExpCone) and constraint.x.ndim > 1:
            continue  # CVXPY 1.9.1 and earlier transpose them
        for dual in constraint.dual_variables:
            ours = program.output(dual).value(y)
            assert ours.shape == dual.shape
            if name in REPEATED:  # what CVXPY splits between repeated rows goes to the first of them
                times = 2 if name == "same_constraint_twice" else 1  # one constraint object, twice
                np.testing.assert_allclose(np.sum(ours), times * np.sum(dual.value), atol=1e-6)
                continue
            np.testing.assert_allclose(ours.ravel(), np.ravel(dual.value), atol=max(tolerance, 1e-6))


def test_dual_of_power_cone_of_rows_by_sensitivity():
    """The multiplier of z ≤ ∏ w^α is the change of the optimum when the cone is shifted."""
    alpha = np.array([[0.2, 0.3, 0.5], [0.25, 0.35, 0.4]])
    shift, W, z = cp.Parameter((2, 3)), cp.Variable((2, 3)), cp.Variable(2)
    cone = cp.PowConeND(W + shift, z, alpha, axis=1)
    program = Program(cp.Problem(cp.Minimize(-cp.sum(z)), [cone, cp.sum(W, axis=1) <= 1]))
    dual = program.output(cone.dual_variables[0])

    def value(at):
        data = program.evaluate(program.pack({shift: at}))
        x, y = solve(program, data)
        return float(program.primal_value(data, x)), dual.value(y)

    at, step = np.array([[0.1, 0.2, 0.3], [0.3, 0.1, 0.0]]), 1e-4
    multiplier = value(at)[1]
    for entry in np.ndindex(at.shape):
        moved = np.zeros_like(at)
        moved[entry] = step
        slope = (value(at + moved)[0] - value(at - moved)[0]) / (2 * step)
        assert -slope == pytest.approx(multiplier[entry], abs=1e-5)


def test_batched_semidefinite_constraints():
    if OLD:
        pytest.skip("needs CVXPY 1.9")
    rng = np.random.default_rng(0)
    C, X = cp.Parameter((3, 2, 2)), cp.Variable((3, 2, 2))
    constraint = X >> 0
    problem = cp.Problem(cp.Minimize(cp.sum_squares(X - C)), [constraint])
    program = Program(problem)
    C.value = rng.normal(size=(3, 2, 2))
    x, y = solve(program, program.evaluate(program.pack({})))
    for k in range(3):
        one = cp.Variable((2, 2))
        single = cp.Problem(cp.Minimize(cp.sum_squares(one - C.value[k])), [one >> 0])
        single.solve(solver=cp.CLARABEL, **TIGHT)
        np.testing.assert_allclose(program.output(X).value(x)[k], one.value, atol=1e-7)
        multiplier = program.output(constraint.dual_variables[0]).value(y)[k]
        np.testing.assert_allclose(multiplier, single.constraints[0].dual_value, atol=1e-7)


def test_empty_variable_and_parameter():
    if OLD:
        pytest.skip("zero-sized expressions need CVXPY 1.9")
    empty, nothing, x, b = cp.Variable(0), cp.Parameter(0), cp.Variable(2), cp.Parameter(2)
    constraint = empty == nothing
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - b) + cp.sum(empty)), [constraint, x >= 0])
    program = Program(problem)
    x_star, y_star = solve(program, program.evaluate(program.pack({b: [1.0, -1.0], nothing: np.zeros(0)})))
    np.testing.assert_allclose(program.output(x).value(x_star), [1.0, 0.0], atol=1e-8)
    assert program.output(empty).value(x_star).shape == (0,)
    assert program.output(constraint.dual_variables[0]).value(y_star).shape == (0,)


def test_unused_user_columns_are_told_from_auxiliaries():
    x, X = cp.Variable(2), cp.Variable((2, 2), symmetric=True)
    program = Program(cp.Problem(cp.Minimize(cp.norm(x - 1) + cp.trace(X)), [X >> 0]))
    assert program.user_columns.sum() == 2 + 3
    assert program.structure.n == 2 + 3 + 1  # and the norm's epigraph


@pytest.mark.parametrize("order", ["C", "F"])
def test_entries_of_a_matrix_meet_their_parameters_in_either_order(order: str) -> None:
    theta, z = cp.Parameter((2, 3), value=np.arange(6.0).reshape(2, 3)), cp.Variable((2, 3))
    product = cp.vec(theta, order=order) @ cp.vec(z, order=order)
    program = Program(cp.Problem(cp.Minimize(0.5 * cp.sum_squares(z) - product), [z >= -1]))
    data = program.evaluate(program.pack({theta: theta.value}))
    columns = program.output(z).matrix
    np.testing.assert_array_equal((columns @ data.q).reshape(2, 3), -theta.value)
