"""Redundancy that the structure shows: opposed and repeated rows, bounds that a domain implies, matrices in blocks."""

from __future__ import annotations

import warnings

import cvxpy as cp
import numpy as np
import pytest
import scipy.sparse as sp

import cvxift
from cvxift.atoms import neg_entropy, tsallis_neg_entropy
from cvxift.kkt.backend import Arrays
from cvxift.kkt.batch.device import DeviceMap
from cvxift.kkt.solution_map import SolutionMap
from cvxift.program import Program
from cvxift.program import program as program_module
from cvxift.program.cones import Cones
from tests.counting import calls

C = np.array([0.3, -0.8, 1.1])


def cones(problem):
    return Program(problem).cones


def near(x, c):
    """‖x − c‖² but for a constant, without auxiliary rows."""
    return cp.sum_squares(x) - 2 * cp.sum(cp.multiply(c, x))


# -- opposed inequalities


def pinned(kind, x, t):
    """Constraints that pin aᵀx (or x itself) to t, and the equality that they are."""
    A = np.array([[1.0, 2.0, -1.0], [0.5, 0.0, 3.0]])
    both = cp.hstack([t, 2 * t + 1])
    pairs = {
        "sum": ([cp.sum(x) <= t, cp.sum(x) >= t], [cp.sum(x) == t]),
        "scaled": ([2 * cp.sum(x) <= 2 * t, -3 * cp.sum(x) <= -3 * t], [cp.sum(x) == t]),
        "thirds": ([(1 / 3) * cp.sum(x) <= t / 3, cp.sum(x) / 7 >= t / 7], [cp.sum(x) == t]),
        "entries": ([x[:2] <= t, x[:2] >= t], [x[:2] == t]),
        "matrix": ([A @ x <= both, A @ x >= both], [A @ x == both]),
        "constant": ([x[0] + t * x[1] <= 1, x[0] + t * x[1] >= 1], [x[0] + t * x[1] == 1]),
        "units": ([1e6 * cp.sum(x) <= 1e6 * t, 1e-5 * cp.sum(x) >= 1e-5 * t], [cp.sum(x) == t]),
        "repeated": ([cp.sum(x) <= t, cp.sum(x) >= t, cp.sum(x) <= t, cp.sum(x) >= t - 1], [cp.sum(x) == t]),
    }
    return pairs[kind]


KINDS = ["sum", "scaled", "thirds", "entries", "matrix", "constant", "units", "repeated"]


def problems(kind, value=0.7):
    made = []
    for which in (0, 1):
        x, t, c = cp.Variable(3, name="x"), cp.Parameter(name="t", value=value), cp.Parameter(3, name="c", value=C)
        made.append((cp.Problem(cp.Minimize(near(x, c)), pinned(kind, x, t)[which]), x, t, c))
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_opposed_inequalities_are_the_equality_that_they_are(kind):
    (problem, x, t, c), (equality, y, s, d) = problems(kind)
    one, two = Program(problem), Program(equality)
    assert one.cones == two.cones
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours, theirs = cvxift.differentiate(problem), cvxift.differentiate(equality)
        assert ours.report.ok
    assert np.allclose(ours.value(x), theirs.value(y), atol=1e-9)
    for p, q in ((t, s), (c, d)):
        assert np.allclose(ours.jacobian(x, p), theirs.jacobian(y, q), atol=1e-8)
        assert np.allclose(ours.jacobian(problem.objective, p), theirs.jacobian(equality.objective, q), atol=1e-7)
    assert np.allclose(ours.jvp({t: 1.0})[x], theirs.jvp({s: 1.0})[y], atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [0.7, -2.3])
def test_multipliers_of_opposed_inequalities(kind, value):
    (problem, x, t, c), _ = problems(kind, value)
    s = cvxift.differentiate(problem)
    duals = [constraint.dual_variables[0] for constraint in problem.constraints]
    # Stationarity in the user's own terms: 2 (x − c) + Σ yᵢ ∇gᵢ = 0 for gᵢ ≤ 0, y ≥ 0.
    gradient = 2 * (s.value(x) - c.value)
    x.value = s.value(x)
    for constraint, dual in zip(problem.constraints, duals, strict=True):
        y = np.ravel(s.value(dual))
        assert y.min() >= 0
        jacobian = constraint.expr.grad[x].toarray()
        gradient = gradient + jacobian @ y
    assert np.abs(gradient).max() <= 1e-7
    first = [np.ravel(s.value(dual)) for dual in duals[:2]]
    assert np.all(np.minimum(*first) == 0)  # the smallest pair
    # Derivatives of the multipliers: finite differences of the same multipliers.
    step = 1e-5
    for dual in duals:
        moved = []
        for sign in (1, -1):
            t.value = value + sign * step
            moved.append(cvxift.differentiate(problem, solver="clarabel").value(dual))
        t.value = value
        assert np.allclose(s.jacobian(dual, t), (moved[0] - moved[1]) / (2 * step), rtol=1e-5, atol=1e-5)


def test_a_pair_in_layers():
    torch = pytest.importorskip("torch")
    from cvxift.torch import CvxpyLayer

    (problem, x, t, c), _ = problems("sum")
    duals = [constraint.dual_variables[0] for constraint in problem.constraints]
    layer = CvxpyLayer(problem, parameters=[t, c], variables=[x, *duals], check="raise")
    T = torch.tensor([0.7, -2.3, 5.0], dtype=torch.float64, requires_grad=True)
    C3 = torch.tensor(np.tile(C, (3, 1)), requires_grad=True)
    value, low, high = layer(T, C3)
    assert torch.allclose(value.sum(1), T)
    # x = c + (t − Σc)/3, multiplier of the equality 2 (Σc − t)/3.
    y = 2 * (C.sum() - T.detach()) / 3
    assert torch.allclose(low, y.clamp(min=0), atol=1e-8)
    assert torch.allclose(high, (-y).clamp(min=0), atol=1e-8)
    (gradient,) = torch.autograd.grad((value.sum() + 3 * low.sum() + 5 * high.sum()), T, create_graph=True)
    expected = 1 + -2.0 * (y > 0).double() + 10 / 3 * (y < 0).double()
    assert torch.allclose(gradient, expected, atol=1e-7)
    for k in range(3):  # unbatched
        single = T[k].detach().requires_grad_(True)
        v, one, two = layer(single, C3[k].detach())
        (g,) = torch.autograd.grad(v.sum() + 3 * one + 5 * two, single)
        assert torch.allclose(g, expected[k], atol=1e-7)


def test_a_pair_in_jax():
    jax = pytest.importorskip("jax")
    from cvxift.jax import CvxpyLayer

    (problem, x, t, c), _ = problems("sum")
    dual = problem.constraints[1].dual_variables[0]
    layer = CvxpyLayer(problem, parameters=[t, c], variables=[x, dual], check="raise")
    centre = jax.numpy.array(C)
    for value in map(jax.numpy.array, (0.7, -2.3, 5.0)):
        _, high = layer(value, centre)
        expected = max(-2 * (C.sum() - value) / 3, 0.0)
        assert np.allclose(high, expected, atol=1e-6)
        slope = 2 / 3 if expected > 0 else 0.0
        assert np.allclose(jax.grad(lambda v: layer(v, centre)[1])(value), slope, atol=1e-5)
        assert np.allclose(jax.jacobian(lambda v: layer(v, centre)[0])(value), 1 / 3)


@pytest.mark.parametrize("there", [False, True])
def test_all_products_with_a_pairs_multipliers(there):
    """Each against the equality's own multiplier, of which they are the parts; there: on arrays of a device."""
    (problem, _, t, c), (equality, _, s, d) = problems("sum")
    duals = [constraint.dual_variables[0] for constraint in problem.constraints]
    own = SolutionMap(problem, [t, c], duals)
    plain = SolutionMap(equality, [s, d], [equality.constraints[0].dual_variables[0]])
    ours, theirs = (DeviceMap(each, Arrays(np)) if there else each for each in (own, plain))
    theta = np.column_stack([[0.7, -2.3, 5.0], np.tile(C, (3, 1))])
    one, two = ours.solve(theta), theirs.solve(theta)
    y = two.outputs[:, 0]
    assert np.allclose(one.outputs, np.column_stack([np.maximum(y, 0), np.maximum(-y, 0)]), atol=1e-8)
    weight = np.column_stack([1.0 * (y > 0), -1.0 * (y < 0)])  # d part / d y
    rng = np.random.default_rng(0)
    bar, dot, other = rng.normal(size=(3, 2)), rng.normal(size=(3, 4)), rng.normal(size=(3, 4))
    pulled = np.sum(bar * weight, axis=1, keepdims=True)
    assert np.allclose(ours.vjp(one, bar), theirs.vjp(two, pulled), atol=1e-8)
    assert np.allclose(ours.jvp(one, dot), theirs.jvp(two, dot) * weight, atol=1e-8)
    assert np.allclose(ours.derivative(one, (dot,), bar), theirs.derivative(two, (dot,), pulled), atol=1e-8)
    second = theirs.derivative(two, (dot, other)) * weight
    assert np.allclose(ours.derivative(one, (dot, other)), second, atol=1e-8)
    for k in range(3):
        if not there:
            single = own.solve(theta[k])
            assert np.allclose(own.vjp(single, bar[k]), ours.vjp(one, bar)[k], atol=1e-8)
            assert np.allclose(own.jvp(single, dot[k]), ours.jvp(one, dot)[k], atol=1e-8)


def test_a_held_point_of_a_pair_is_taken_as_it_is():
    (problem, x, _, _), _ = problems("matrix")
    problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10)
    s = cvxift.differentiate(problem)
    assert s.solution.solver == "cvxpy"
    assert np.allclose(s.value(x), x.value, atol=1e-7)


def test_a_pair_is_named_by_both_constraints():
    (problem, *_), _ = problems("sum")
    labels = [label.text for label in Program(problem).row_labels]
    assert len(labels) == 1
    assert "constraint 0" in labels[0]
    assert "constraint 1" in labels[0]


def test_bounds_that_leave_no_room():
    low, high = np.array([0.5, -1.0, -np.inf]), np.array([0.5, 2.0, 0.0])
    x, c = cp.Variable(3, bounds=[low, high], name="x"), cp.Parameter(3, value=C)
    problem = cp.Problem(cp.Minimize(near(x, c)))
    program = Program(problem)
    assert (program.cones.zero, program.cones.nonneg) == (1, 3)
    assert {"x[0] >= 0.5 (bounds)", "x[0] <= 0.5 (bounds)"} == set(program.row_labels[0].text.split(" and "))
    s = cvxift.differentiate(problem)
    assert np.allclose(s.value(x), [0.5, -0.8, 0.0])
    assert np.allclose(s.jacobian(x, c), np.diag([0.0, 1.0, 0.0]), atol=1e-9)


@pytest.mark.parametrize("gap", [1e-9, 1e-3, 1.0])
def test_rows_with_room_between_them_stay(gap):
    x, t, u = cp.Variable(2), cp.Parameter(value=1.0), cp.Parameter(value=1.0)
    assert cones(cp.Problem(cp.Minimize(cp.sum_squares(x)), [cp.sum(x) <= t, cp.sum(x) >= t - gap])).nonneg == 2
    assert cones(cp.Problem(cp.Minimize(cp.sum_squares(x)), [cp.sum(x) <= t, cp.sum(x) >= u])).nonneg == 2
    assert cones(cp.Problem(cp.Minimize(cp.sum_squares(x)), [x[0] + t * x[1] <= 1, x[0] + u * x[1] >= 1])).nonneg == 2
    # opposed, but infeasible: for a solver to say
    with pytest.raises(cvxift.SolveError):
        cvxift.differentiate(cp.Problem(cp.Minimize(cp.sum_squares(x)), [cp.sum(x) <= t - 1, cp.sum(x) >= t]))


# -- repeated and dominated rows


@pytest.mark.parametrize(
    ("constraints", "left"),
    [
        (lambda x, t: [x <= t, x <= t], (0, 3)),
        (lambda x, t: [x <= t, 3 * x <= 3 * t], (0, 3)),
        (lambda x, t: [x == t, x == t, 2 * x == 2 * t], (3, 0)),
        (lambda x, t: [x == t, x <= t, x >= t], (3, 0)),
        (lambda x, t: [x <= 1, x <= 2, x <= 0.5, t <= 1], (0, 4)),
        (lambda x, t: [x >= -1, x >= -2, x <= t, x <= t + 1], (0, 6)),
        (lambda x, t: [x == 0.2, x <= 1, x >= -1, t <= 1], (3, 1)),
        (lambda x, t: [0 * x == 0, 0 * x <= 1, x <= t], (0, 3)),
        (lambda x, t: [x <= t, x <= 2 * t], (0, 6)),
        (lambda x, t: [cp.sum(x) <= 1, t * cp.sum(x) <= t], (0, 2)),
    ],
)
def test_repeated_and_dominated_rows(constraints, left):
    x, t, c = cp.Variable(3), cp.Parameter(value=0.4), cp.Parameter(3, value=C)
    problem = cp.Problem(cp.Minimize(near(x, c)), constraints(x, t))
    found = cones(problem)
    assert (found.zero, found.nonneg) == left
    problem.solve(solver=cp.CLARABEL)
    expected = x.value
    s = cvxift.differentiate(problem, solver="clarabel")
    assert np.allclose(s.value(x), expected, atol=1e-6)
    step, central = 1e-6, np.zeros(3)
    for sign in (1, -1):
        t.value = 0.4 + sign * step
        central += sign * cvxift.differentiate(problem, solver="clarabel").value(x) / (2 * step)
    assert np.allclose(s.jacobian(x, t), central, atol=1e-4)


def test_the_users_row_stays_and_has_the_multiplier():
    x = cp.Variable(2, nonneg=True, name="x")
    constraint = x >= 0
    problem = cp.Problem(cp.Minimize(near(x, -np.ones(2))), [constraint])
    assert "constraint 0" in Program(problem).row_labels[0].text
    assert np.allclose(cvxift.differentiate(problem).value(constraint.dual_variables[0]), 2.0)


def test_an_infinite_parametric_bound_beside_its_copy():
    x, u = cp.Variable(2), cp.Parameter(2, value=np.array([np.inf, 0.5]))
    problem = cp.Problem(cp.Minimize(near(x, np.ones(2))), [x <= u, 2 * x <= 2 * u])
    s = cvxift.differentiate(problem)
    assert np.allclose(s.value(x), [1.0, 0.5])
    assert np.allclose(s.jacobian(x, u), np.diag([0.0, 1.0]))


@pytest.mark.parametrize("kind", ["soc", "exp", "pow"])
def test_a_cone_stated_twice_is_stated_once(kind):
    x, t = cp.Variable(3), cp.Parameter(value=1.3)
    cone = {
        "soc": lambda k: cp.SOC(k * t, k * x),
        "exp": lambda k: cp.ExpCone(k * x[0], cp.Constant(k), k * (x[1] + t)),
        "pow": lambda k: cp.PowCone3D(k * x[0], cp.Constant(k), k * (x[2] + t), 0.3),
    }[kind]
    objective = cp.Minimize(near(x, np.array([1.0, -2.0, 3.0])))
    once, twice = (cp.Problem(objective, [cone(1.0), cone(2.0)][:k]) for k in (1, 2))
    assert cones(once) == cones(twice)
    one, two = cvxift.differentiate(once), cvxift.differentiate(twice, solver="clarabel")
    assert np.allclose(one.value(x), two.value(x), atol=1e-8)
    assert np.allclose(one.jacobian(x, t), two.jacobian(x, t), atol=1e-6)
    assert not np.any(two.value(twice.constraints[1].dual_variables[0]))


# -- bounds that an atom's domain implies

DOMAINS = {
    "entr": lambda z: -cp.sum(cp.entr(z)),
    "log": lambda z: -cp.sum(cp.log(z)),
    "kl_div": lambda z: cp.sum(cp.kl_div(z, np.full(3, 0.2))),
    "rel_entr": lambda z: cp.sum(cp.rel_entr(z, np.full(3, 0.2))),
    "power": lambda z: -cp.sum(cp.power(z, 0.3, approx=False)),
    "power_neg": lambda z: cp.sum(cp.power(z, -0.5, approx=False)),
    "log_of": lambda z: -cp.sum(cp.log(2 * z)),
    "neg_entropy": lambda z: neg_entropy(z),
    "tsallis": lambda z: tsallis_neg_entropy(z, 1.5),
}
BOUNDS = {
    "none": lambda z: [],
    "constraint": lambda z: [z >= 0],
    "scaled": lambda z: [-5 * z <= 0],
    "below": lambda z: [z >= -1],
    "twice": lambda z: [z >= 0, z >= 0],
}


@pytest.mark.parametrize("atom", DOMAINS)
def test_a_bound_that_the_domain_implies_leaves(atom):
    def problem(bound, **attributes):
        z, c = cp.Variable(3, **attributes), cp.Parameter(3, value=C)
        return cp.Problem(cp.Minimize(c @ z + DOMAINS[atom](z) + 0.1 * cp.sum_squares(z)), [cp.sum(z) == 1, *bound(z)])

    alone = cones(problem(BOUNDS["none"]))
    for bound in BOUNDS.values():
        assert cones(problem(bound)) == alone
    assert cones(problem(BOUNDS["none"], nonneg=True)) == alone
    assert cones(problem(BOUNDS["none"], bounds=[-2.0, None])) == alone
    assert cones(problem(lambda z: [z >= 0.01])).nonneg == 3  # says more than the domain, and than an atom's own row
    assert cones(problem(lambda z: [z <= 1])).nonneg == alone.nonneg + 3
    bounded = problem(BOUNDS["constraint"])
    assert not np.any(cvxift.differentiate(bounded).value(bounded.constraints[1].dual_variables[0]))


@pytest.mark.parametrize("closed_form", ["auto", "never"])
@pytest.mark.parametrize("bound", ["none", "constraint", "below"])
@pytest.mark.parametrize("spread", [5.0, 16.0, 27.6])
def test_small_entries_of_an_entropic_argmax_are_right_relatively(spread, bound, closed_form):
    z, c = cp.Variable(4), cp.Parameter(4, value=np.array([0.5, 0.5, 1.0, spread]))
    slack = np.arange(4) / 3 @ z <= 2  # never binds
    problem = cp.Problem(cp.Minimize(c @ z - cp.sum(cp.entr(z))), [cp.sum(z) == 1, slack, *BOUNDS[bound](z)])
    s = cvxift.differentiate(problem, closed_form=closed_form)
    true = np.exp(-c.value) / np.exp(-c.value).sum()
    assert np.abs(s.value(z) / true - 1).max() <= 1e-6
    if spread > 20:  # derivatives of entries of 1e-12 are right to rounding of the largest one
        return
    jacobian = np.outer(true, true) - np.diag(true)
    assert np.abs(s.jacobian(z, c) / true[:, None] - jacobian / true[:, None]).max() <= 1e-6


@pytest.mark.parametrize("bounded", [False, True])
def test_flows_with_an_entropy(bounded):
    k = 4
    edges = [(i * k + j, i * k + j + 1) for i in range(k) for j in range(k - 1)]
    edges += [(i * k + j, i * k + k + j) for i in range(k - 1) for j in range(k)]
    M, r = np.zeros((k * k, len(edges))), np.zeros(k * k)
    for e, (a, b) in enumerate(edges):
        M[a, e], M[b, e] = -1, 1
    r[0], r[-1] = -1, 1
    f, t = cp.Variable(len(edges)), cp.Parameter(len(edges))
    problem = cp.Problem(
        cp.Minimize(t @ f - 0.1 * cp.sum(cp.entr(f))), [M[:-1] @ f == r[:-1], *([f >= 0] if bounded else [])]
    )
    program = Program(problem)
    for seed in range(40):
        t.value = np.random.default_rng(seed).uniform(0.5, 3, len(edges))
        s = cvxift.differentiate(problem, program=program, solver="clarabel")
        assert s.residuals.worst <= 1e-9


# -- matrix cones


def test_a_diagonal_matrix_is_a_set_of_bounds():
    x, c = cp.Variable(3), cp.Parameter(3, value=C)
    problem = cp.Problem(cp.Minimize(near(x, c)), [cp.diag(x) >> 0])
    assert cones(problem) == Cones(nonneg=3)
    s = cvxift.differentiate(problem)
    assert np.allclose(s.value(x), np.maximum(C, 0))
    dual = s.value(problem.constraints[0].dual_variables[0])
    assert np.allclose(dual, np.diag(2 * np.maximum(-C, 0)))


SINGULAR_KINDS = ["singular", "congruent", "singular_and_once"]


def repeated(kind, X):
    n = X.shape[0]
    Z, B = np.zeros((n, n)), np.array([[1.0, 0.3, 0.0], [0.0, 1.2, -0.7]])
    forms = {
        "once": [X >> 0],
        "block": [cp.bmat([[X, Z], [Z, X]]) >> 0],
        "kron": [cp.kron(X, np.eye(2)) >> 0],
        "kron_left": [cp.kron(np.eye(3), X) >> 0],
        "twice": [X >> 0, X >> 0],
        "scaled": [X >> 0, 3 * X >> 0],
        "constant": [cp.bmat([[X, Z], [Z, np.eye(n)]]) >> 0],
        "diagonal": [X >> 0, cp.diag(X) >= 0, X[0, 0] >= -1],
        "negative": [X >> 0, -X << 0],
        "singular": [cp.bmat([[4 * X, -2 * X], [-2 * X, X]]) >> 0],
        "congruent": [B.T @ X @ B >> 0],
        "singular_and_once": [cp.bmat([[X, X], [X, X]]) >> 0, 2 * X >> 0],
    }
    return forms[kind]


@pytest.mark.parametrize("solver", [None, "scs", "clarabel"])
@pytest.mark.parametrize(
    "kind", ["block", "kron", "kron_left", "twice", "scaled", "constant", "diagonal", "negative", *SINGULAR_KINDS]
)
def test_matrices_that_repeat(kind, solver):
    """The projection on the cone; its derivative in the eigenvectors of P is λ₊/(λ₊ − λ₋) off the diagonal."""
    P0 = np.array([[0.6, 0.8], [0.8, -0.6]])
    X, P = cp.Variable((2, 2), symmetric=True), cp.Parameter((2, 2), symmetric=True, value=P0)
    problem = cp.Problem(cp.Minimize(near(X, P)), repeated(kind, X))
    assert cones(problem).psd == (2,)
    assert cones(problem).nonneg == 0
    s = cvxift.differentiate(problem, solver=solver)
    w, V = np.linalg.eigh(P0)
    ratio = w[1] / (w[1] - w[0])
    for D in (np.array([[0.0, 1], [1, 0]]), np.array([[1.0, 0], [0, 0]]), np.eye(2)):
        right = V @ (np.array([[0, ratio], [ratio, 1.0]]) * (V.T @ D @ V)) @ V.T
        assert np.allclose(s.jvp({P: D})[X], right, atol=1e-6)
        gradient = s.vjp({X: D})[P]
        assert np.allclose(gradient, right, atol=1e-6)
    # The multipliers: 2 (X − P) = Σ of what each constraint's multiplier pulls back to X.
    pull = np.zeros((2, 2))
    for constraint in problem.constraints:
        dual = s.value(constraint.dual_variables[0])
        if constraint.args[0].ndim == 2:
            assert np.linalg.eigvalsh(dual)[0] >= -1e-7
        X.value = s.value(X)
        expression = constraint.expr if hasattr(constraint, "expr") else constraint.args[0]
        for i in range(2):
            for j in range(2):
                E = np.zeros((2, 2))
                E[i, j] = E[j, i] = 1.0 if i == j else 0.5
                base = expression.value
                X.value = s.value(X) + E
                pull[i, j] += np.sum(dual * (expression.value - base)) * (1 if constraint.args[0].ndim == 2 else -1)
                X.value = s.value(X)
    assert np.allclose(2 * (s.value(X) - P0), pull, atol=1e-5)


@pytest.mark.parametrize("twice", [False, True])
def test_a_disc_as_a_matrix_inequality(twice):
    torch = pytest.importorskip("torch")
    from cvxift.torch import CvxpyLayer

    x, c, Z = cp.Variable(2, name="x"), cp.Parameter(2, name="c", value=np.array([-2.0, -2.0])), np.zeros((2, 2))
    L = np.eye(2) + x[0] * np.diag([1.0, -1]) + x[1] * np.array([[0.0, 1], [1, 0]])
    problem = cp.Problem(cp.Minimize(near(x, c)), [(cp.bmat([[L, Z], [Z, L]]) if twice else L) >> 0])
    u = c.value / np.linalg.norm(c.value)
    right = (np.eye(2) - np.outer(u, u)) / np.linalg.norm(c.value)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.allclose(cvxift.differentiate(problem).jacobian(x, c), right, atol=1e-6)
        t = torch.tensor(c.value, requires_grad=True)
        CvxpyLayer(problem, [c], [x], check="raise")(t)[0][0].backward()
    assert np.allclose(t.grad.numpy(), right[0], atol=1e-6)
    assert cvxift.diagnose(problem).ok


def test_blocks_joined_by_one_entry_stay_together():
    X, Y, t = cp.Variable((2, 2), symmetric=True), cp.Variable((2, 2), symmetric=True), cp.Parameter(value=0.1)
    join = np.zeros((2, 2))
    join[0, 1] = 1.0
    objective = cp.Minimize(cp.sum_squares(X) + cp.sum_squares(Y))
    assert cones(cp.Problem(objective, [cp.bmat([[X, t * join], [t * join.T, Y]]) >> 0])).psd == (4,)
    assert cones(cp.Problem(objective, [cp.bmat([[X, 0 * join], [0 * join.T, Y]]) >> 0])).psd == (2, 2)


def test_rows_of_a_matrix_leave_where_they_are_combinations_for_every_parameter_alone():
    X, t = cp.Variable((2, 2), symmetric=True), cp.Parameter((2, 2), symmetric=True, value=np.zeros((2, 2)))
    objective = cp.Minimize(cp.sum_squares(X))
    for corner, order in ((X, 2), (X + t, 4), (X + 1e-7 * np.eye(2), 4)):
        assert cones(cp.Problem(objective, [cp.bmat([[X, X], [X, corner]]) >> 0])).psd == (order,)
    w, A = (
        cp.Variable(6),
        np.array([[1.0, 1, 1, 0, 0, 0], [-1, 0, 0, 1, 1, 0], [0, -1, 0, -1, 0, 1], [0, 0, -1, 0, -1, -1]]),
    )
    assert cones(cp.Problem(cp.Minimize(cp.sum_squares(w)), [A @ cp.diag(w) @ A.T >> 0])).psd == (3,)  # a Laplacian


def test_a_constant_block_that_is_not_semidefinite_is_kept():
    X, Z = cp.Variable((2, 2), symmetric=True), np.zeros((2, 2))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(X)), [cp.bmat([[X, Z], [Z, np.diag([1.0, -1.0])]]) >> 0])
    with pytest.raises(cvxift.SolveError):
        cvxift.differentiate(problem)


# -- cost


@pytest.mark.parametrize("n", [100, 1000])
def test_the_reduction_handles_all_rows_at_once(n, monkeypatch):
    A = sp.diags_array(np.random.default_rng(0).uniform(1, 2, (3, n)), offsets=[-1, 0, 1], shape=(n, n), format="csr")
    x, c = cp.Variable(n, bounds=[-np.ones(n), np.ones(n)]), cp.Parameter(n)
    problem = cp.Problem(cp.Minimize(near(x, c)), [A @ x <= 1, x >= 0, A @ x >= -1])
    reduce, counts, out = program_module.presolve, [], []

    def counted(*args):
        counts.append(calls(lambda: out.append(reduce(*args))))
        return out[0]

    monkeypatch.setattr(program_module, "presolve", counted)
    assert Program(problem).cones.nonneg == 4 * n
    assert counts[0] < 8000  # as many whatever n is
