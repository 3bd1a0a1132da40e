"""What CVXPY hands over: rounding errors, backends that fail, held values, hidden parameters, zero coefficients."""

from __future__ import annotations

import subprocess

import cvxpy as cp
import numpy as np
import pytest
from atom_table import ATOMS, SHIFT
from cvxpy.lin_ops.backends.coo_backend import CooCanonBackend
from cvxpy.lin_ops.backends.scipy_backend import SciPyCanonBackend

import cvxift
from cvxift.program import Program, stuffing
from cvxift.program.stuffing import COEFFICIENT_ROUNDING
from tests.children import light

TIGHT = {"tol_gap_abs": 1e-11, "tol_gap_rel": 1e-11, "tol_feas": 1e-11}


def evaluated(problem, **options):
    program = Program(problem, **options)
    return program.structure, program.evaluate(program.pack({}))


def same(first, second):
    return first[0] == second[0] and all(
        np.array_equal(getattr(first[1], piece), getattr(second[1], piece)) for piece in ("P", "q", "A", "b", "d")
    )


# -- rounding


def symmetrized(seed, kind, exactly=False):
    """A matrix that is symmetric but for rounding, in an atom for which CVXPY states the symmetry as an equality.

    With `exactly` both halves are one expression, for references that CVXPY solves.
    """
    rng = np.random.default_rng(seed)
    p, x = cp.Parameter(2, value=rng.normal(size=2)), cp.Variable(3)
    if kind == "parameter":
        K = cp.reshape(rng.normal(size=(4, 6)) @ cp.hstack([x, p[0] * x]), (2, 2), order="F")
        K = K + K.T
    elif kind == "product":
        M, N = rng.normal(size=(2, 3)), rng.normal(size=(3, 2))
        K = M @ cp.diag(x) @ N + N.T @ cp.diag(x) @ M.T
    elif kind == "chain":
        B = rng.normal(size=(4, 3)) @ rng.normal(size=(3, 3))
        K = cp.reshape(1e3 * (B @ x) + (B * 1e3) @ cp.multiply(p[1], x), (2, 2), order="F")
        K = (K + K.T) / 1e3
    else:  # in units in which every entry is tiny
        K = 1e-9 * cp.reshape(rng.normal(size=(4, 3)) @ x, (2, 2), order="F")
        K = 1e9 * (K + K.T)
    if exactly:
        K = cp.bmat([[K[0, 0], K[0, 1]], [K[0, 1], K[1, 1]]])
    return cp.Problem(cp.Minimize(cp.lambda_max(K) + cp.sum_squares(x - 1) + p @ x[:2])), x, p


@pytest.mark.parametrize("kind", ["parameter", "product", "chain", "units"])
@pytest.mark.parametrize(("backend", "seed"), [("COO", 0), ("COO", 1), ("COO", 2), ("SCIPY", 0), ("CPP", 0)])
def test_a_symmetry_that_holds_but_for_rounding_restricts_nothing(seed, backend, kind):
    problem, x, p = symmetrized(seed, kind)
    reference, y, _ = symmetrized(seed, kind, exactly=True)
    reference.solve(solver=cp.CLARABEL, **TIGHT)
    s = cvxift.differentiate(problem, program=Program(problem, canon_backend=backend))
    assert np.allclose(s.value(x), y.value, atol=1e-6)
    step, central = 1e-3, np.zeros((3, 2))
    for k in range(2):
        for sign in (1, -1):
            moved = p.value + sign * step * np.eye(2)[k]
            other, y, q = symmetrized(seed, kind, exactly=True)
            q.value = moved
            other.solve(solver=cp.CLARABEL, **TIGHT)
            central[:, k] += sign * y.value / (2 * step)
    assert np.allclose(s.jacobian(x, p), central, atol=2e-4)


def test_rounding_is_measured_against_what_was_summed():
    x = cp.Variable(2)

    def coefficients(excess):
        constraint = (1.0 + excess) * x[0] - x[0] + x[1] == 1
        return np.count_nonzero(evaluated(cp.Problem(cp.Minimize(cp.sum_squares(x)), [constraint]))[1].A)

    assert coefficients(4 * COEFFICIENT_ROUNDING) == coefficients(1e-9) == 2  # x[0] and x[1]; the magnitudes sum to 2
    assert coefficients(COEFFICIENT_ROUNDING) == 1  # x[1] alone


def test_small_data_are_no_rounding_errors():
    x, tiny = cp.Variable(2), np.array([3e-18, 1.0])
    _, data = evaluated(cp.Problem(cp.Minimize(cp.sum_squares(x) + 1e-19 * x[0]), [tiny @ x <= 1e-20]))
    assert 3e-18 in data.A
    assert data.b.tolist() == [1e-20]
    assert 1e-19 in data.q


def test_infinite_bounds_and_large_constants_pass_the_check():
    x = cp.Variable(2, bounds=[np.array([-np.inf, 1e9]), np.array([np.inf, 1e12])])
    structure, data = evaluated(cp.Problem(cp.Minimize(cp.sum_squares(x)), [x <= np.inf]))
    assert structure.m == 2
    assert sorted(data.b.tolist()) == [-1e9, 1e12]


def test_rounding_in_cost_and_right_hand_side():
    x, p = cp.Variable(2), cp.Parameter(value=2.0)
    problem = cp.Problem(
        cp.Minimize(cp.sum_squares(x) + 0.1 * x[0] + 0.2 * x[0] - 0.3 * x[0] + 0.1 * p + 0.2 * p - 0.3 * p),
        [x[1] >= 0.1 * p + 0.2 * p - 0.3 * p],
    )
    data = evaluated(problem)[1]
    assert not data.q.any()
    assert not data.b.any()
    assert data.d == 0.0


def test_rounding_off_the_diagonal_of_a_quadratic_cost():
    x = cp.Variable(2)
    P = np.array([[1.0, 0.3], [0.3, 1.0]])
    other = np.array([[1.0, -0.1 - 0.2], [-0.1 - 0.2, 1.0]])
    assert other[0, 1] != -0.3  # the sum is rounded
    assert evaluated(cp.Problem(cp.Minimize(cp.quad_form(x, P) + cp.quad_form(x, other))))[0].nnzP == 2


# -- backends


def diagonal_variable():
    D, q = cp.Variable((3, 3), diag=True), cp.Parameter(3, value=np.array([1.0, 2.0, 0.5]))
    return cp.Problem(cp.Minimize(cp.sum_squares(D - np.eye(3))), [cp.diag(D) @ q <= 1]), D, q


def repeated_index():
    x, p = cp.Variable(9), cp.Parameter(2, value=np.array([-0.9, -1.0]))
    M = cp.reshape(cp.hstack([x, 2 * x[:1], p])[[1, 1, 6, 1]], (2, 2), order="F")
    return cp.Problem(cp.Minimize(cp.sum_squares(x - 0.3)), [(M + M.T) / 2 - np.eye(2) >> 0]), x, p


@pytest.mark.parametrize("make", [diagonal_variable, repeated_index])
@pytest.mark.parametrize("named", [None, "COO", "SCIPY", "CPP"])
def test_a_backend_that_raises_is_replaced(monkeypatch, make, named):
    monkeypatch.setattr(stuffing, "_trial", lambda *_: None)  # the next test starts that process
    problem, x, _ = make()
    problem.solve(solver=cp.CLARABEL)
    expected = cp.Constant(x.value).value
    s = cvxift.differentiate(problem, program=Program(problem, canon_backend=named))
    dense = np.asarray(expected.toarray() if hasattr(expected, "toarray") else expected)
    assert np.allclose(s.value(x), dense, atol=1e-5)


def test_both_interpreted_backends_failing_leaves_the_compiled_one(monkeypatch):
    """Which a process of its own tries first, and takes: the program is here."""
    monkeypatch.setattr(stuffing, "TRIAL_SECONDS", None)  # importing CVXPY may take long on a busy machine
    monkeypatch.setenv("PYTHONPATH", light()["PYTHONPATH"])
    tried = []
    for backend in (CooCanonBackend, SciPyCanonBackend):

        def broken(self, *args, name=backend.__name__, **kwargs):
            tried.append(name)
            raise KeyError("no such thing")

        monkeypatch.setattr(backend, "build_matrix", broken)
    x, p = cp.Variable(2), cp.Parameter(2, value=np.array([1.0, -1.0]))
    data = evaluated(cp.Problem(cp.Minimize(cp.sum_squares(x) + p @ x), [x >= 0]))[1]
    assert tried[0] == "CooCanonBackend"
    assert tried[-1] == "SciPyCanonBackend"
    assert data.q.tolist() == [1.0, -1.0]


def test_a_backend_that_ends_its_process_ends_only_that_one(monkeypatch):
    for backend in (CooCanonBackend, SciPyCanonBackend):
        monkeypatch.setattr(backend, "build_matrix", lambda self, *args, **kwargs: 1 / 0)
    monkeypatch.setattr(stuffing, "TRIAL_SECONDS", None)
    run = subprocess.run

    def killed(command, **options):
        return run([command[0], "-c", "import os, signal; os.kill(os.getpid(), signal.SIGABRT)"], **options)

    monkeypatch.setattr(subprocess, "run", killed)
    x = cp.Variable(2)
    with pytest.raises(cvxift.ProgramError, match=r"COO: ZeroDivisionError.*SCIPY: ZeroDivisionError.*CPP: ended"):
        Program(cp.Problem(cp.Minimize(cp.sum_squares(x)), [x >= 0]))


# -- held values


@pytest.mark.parametrize("name", ATOMS)
def test_held_values_do_not_reach_the_program(name):
    def problem():
        x, c = cp.Variable(4, name="x"), cp.Parameter(4, value=SHIFT)
        return cp.Problem(cp.Minimize(ATOMS[name](x) + cp.sum_squares(x - c)), [x <= 3]), x

    fresh, _ = problem()
    without = evaluated(fresh)
    held, x = problem()
    held.solve(solver=cp.CLARABEL)
    value = x.value.copy()
    assert same(without, evaluated(held))
    assert np.array_equal(x.value, value)


def test_values_come_back_when_canonicalization_fails():
    x, p = cp.Variable(2, integer=True), cp.Parameter(value=1.0)
    x.value = np.array([1.0, 2.0])
    with pytest.raises(cvxift.ProgramError):
        Program(cp.Problem(cp.Minimize(cp.sum_squares(x - p))))
    y = cp.Variable(2)
    y.value = np.array([3.0, 4.0])
    T = cp.Parameter((2, 2), PSD=True, value=np.eye(2))
    with pytest.raises(cvxift.ProgramError):
        Program(cp.Problem(cp.Minimize(cp.exp(cp.quad_form(y, T)))))
    assert x.value.tolist() == [1.0, 2.0]
    assert y.value.tolist() == [3.0, 4.0]


@pytest.mark.parametrize("name", ["cvar", "sum_largest", "sum_largest_part", "max", "norm_inf", "abs"])
def test_solve_then_differentiate(name):
    x, c = cp.Variable(4), cp.Parameter(4, value=SHIFT)
    problem = cp.Problem(cp.Minimize(ATOMS[name](x) + cp.sum_squares(x - c)))
    before = cvxift.differentiate(problem, solver="clarabel").jacobian(x, c)
    x.value = None
    problem.solve(solver=cp.CLARABEL)
    assert np.allclose(cvxift.differentiate(problem).jacobian(x, c), before, atol=1e-6)


# -- parameters that CVXPY does not list


def ball(kind, y):
    z = cp.Variable(y.size)
    sets = {"cross": [cp.norm1(z) <= 1], "cube": [cp.norm_inf(z) <= 1], "ball": [cp.norm2(z) <= 1]}
    return cp.suppfunc(z, sets[kind])(y)


@pytest.mark.parametrize(("kind", "order"), [("cross", "inf"), ("cube", 1), ("ball", 2)])
def test_a_parameter_in_a_support_function_is_found(kind, order):
    x = cp.Variable(2, name="x")
    p, q = cp.Parameter(2, value=np.array([1.0, -2.0])), cp.Parameter(2, value=np.array([0.1, 0.2]))
    problem = cp.Problem(cp.Minimize(ball(kind, x - 2 * p) + cp.sum_squares(x - q)))
    truth = cp.Problem(cp.Minimize(cp.norm(x - 2 * p, order) + cp.sum_squares(x - q)))
    assert [parameter.id for parameter in problem.parameters()] == [q.id]
    s, t = (cvxift.differentiate(each, solver="clarabel") for each in (problem, truth))
    assert np.allclose(s.value(x), t.value(x), atol=1e-6)
    for parameter in (p, q):
        assert np.allclose(s.jacobian(x, parameter), t.jacobian(x, parameter), atol=1e-5)


def test_a_hidden_parameter_without_value_is_asked_for():
    x, p = cp.Variable(2), cp.Parameter(2, name="hidden")
    with pytest.raises(cvxift.ProgramError, match="'hidden' has no value"):
        cvxift.differentiate(cp.Problem(cp.Minimize(ball("ball", x - p) + cp.sum_squares(x))))


def test_a_hidden_parameter_that_is_not_affine_is_refused():
    x, p = cp.Variable(2), cp.Parameter(2, name="hidden", value=np.ones(2))
    with pytest.raises(cvxift.ProgramError, match=r"not DPP.*hidden"):
        Program(cp.Problem(cp.Minimize(ball("ball", cp.multiply(p, p) - x) + cp.sum_squares(x))))


@pytest.mark.parametrize("where", ["objective", "constraint", "recession", "exponent"])
def test_a_parameter_in_an_atoms_data_is_refused_by_name(where):
    x, s, p = cp.Variable(), cp.Variable(nonneg=True), cp.Parameter(nonneg=True, value=0.5, name="weight")
    objective, constraints = cp.square(x) + cp.square(s - 1), []
    if where == "objective":
        objective = objective + cp.perspective(cp.square(x) * p, s)
    elif where == "constraint":
        constraints = [cp.perspective(cp.square(x - p), s) <= 1]
    elif where == "recession":
        objective = objective + cp.perspective(cp.square(x), s, f_recession=p * x)
    else:
        constraints = [cp.PowCone3D(x, s, cp.Constant(0.5), p)]
    with pytest.raises(cvxift.ProgramError, match="'weight' stands in the data of"):
        Program(cp.Problem(cp.Minimize(objective), constraints))


# -- zero coefficients

ZEROS = {
    "int": lambda: 0,
    "float": lambda: 0.0,
    "numpy": lambda: np.float64(0),
    "constant": lambda: cp.Constant(0.0),
    "parameter": lambda: cp.Parameter(nonneg=True, value=0.0),
}


@pytest.mark.parametrize("name", ATOMS)
def test_a_zero_coefficient_switches_an_atom_off(name):
    # Every atom at all places with all zeros; over the atoms, every zero at every place.
    first = list(ATOMS).index(name)
    for k, zero in enumerate(ZEROS.values(), first):
        place = ("minimize", "maximize", "constraint")[k % 3]
        x, c = cp.Variable(4), cp.Parameter(4, value=SHIFT)
        off, squares = zero() * ATOMS[name](x), cp.sum_squares(x - c)
        if place == "minimize":
            problem = cp.Problem(cp.Minimize(off + squares))
        elif place == "maximize":
            problem = cp.Problem(cp.Maximize(-off - squares))
        else:
            problem = cp.Problem(cp.Minimize(squares), [off <= 1])
        s = cvxift.differentiate(problem)
        assert np.allclose(s.value(x), SHIFT, atol=1e-6)  # in every atom's domain


Z = np.zeros((4, 4))
OFF = {
    "quad_form": lambda x: cp.quad_form(x, Z),
    "wrapped": lambda x: cp.quad_form(x, cp.psd_wrap(Z)),
    "parametric": lambda x: 0 * cp.quad_form(x, cp.Parameter((4, 4), PSD=True, value=np.eye(4))),
    "weights": lambda x: np.zeros(4) @ cp.square(x),
    "multiply": lambda x: cp.sum(cp.multiply(np.zeros(4), cp.square(x))),
    "inside": lambda x: cp.sum_squares(0 * x),
    "matrix": lambda x: cp.sum_squares(Z @ x),
    "sum": lambda x: 0 * (cp.sum_squares(x) + cp.norm(x)),
    "twice": lambda x: 0 * (0 * cp.sum_squares(x)),
    "parameter": lambda x: cp.Parameter(nonneg=True, value=2.0) * (0 * cp.sum_squares(x)),
    "empty": lambda x: cp.sum_squares(x[:0]),
    "nothing": lambda x: cp.Constant(0.0),
}


@pytest.mark.parametrize("name", OFF)
def test_terms_that_vanish(name):
    x, c = cp.Variable(4), cp.Parameter(4, value=SHIFT)
    bound = [] if name == "parametric" else [OFF[name](x) <= 1]  # its matrix may be a parameter in objectives alone
    problem = cp.Problem(cp.Minimize(OFF[name](x) + cp.sum_squares(x - c)), bound)
    s = cvxift.differentiate(problem)
    assert np.allclose(s.value(x), SHIFT, atol=1e-8)
    assert np.allclose(s.jacobian(x, c), np.eye(4), atol=1e-6)
    alone = cvxift.differentiate(cp.Problem(cp.Minimize(OFF[name](x)), [x == c]))
    assert np.allclose(alone.jacobian(x, c), np.eye(4), atol=1e-6)


@pytest.mark.parametrize("weight", [0, 0.0, np.float64(0)])
def test_a_ridge_switched_off_works_at_every_entry_point(weight):
    torch = pytest.importorskip("torch")
    from cvxift.torch import CvxpyLayer

    x, c = cp.Variable(2), cp.Parameter(2, value=np.array([1.0, 2.0]))
    problem = cp.Problem(cp.Minimize(c @ x + weight * cp.sum_squares(x)), [x >= 0, cp.sum(x) == 1])
    assert np.allclose(cvxift.differentiate(problem).value(x), [1.0, 0.0], atol=1e-7)
    cvxift.diagnose(problem)
    (value,) = CvxpyLayer(problem, parameters=[c], variables=[x])(torch.tensor([1.0, 2.0], dtype=torch.float64))
    assert np.allclose(value.numpy(), [1.0, 0.0], atol=1e-7)
