"""The judge of regular points: over a layer's life, in other units, on either side of its thresholds, and when reused.

Without a case that isolates them: NOISE and NOISE_CURVED (floors under rounding, which an exact problem does not reach
from above), STEP, MEAN_STEPS and BEYOND (lengths of steps, with nothing on their other side), SAME_POINT (rows further
away than it are no kink by their margin already), CLEAR, REGULAR and GROWN (they choose between a quick answer and a
slow one, which must be the same: cases on either side have one verdict).
"""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
import scipy.sparse as sp
from kinks import WAYS, Case, heard, numpy_jvp, numpy_vjp, two_bounds

from cvxift import differentiate
from cvxift.program import Program

BOTH = {"vjp": numpy_vjp, "jvp": numpy_jvp}


@pytest.mark.parametrize("closed_form", ["never", "auto"])
@pytest.mark.parametrize("framework", ["torch", "jax", "jax, compiled"])
def test_every_kink_of_a_layers_life_is_told(framework, closed_form):
    """Call i has xᵢ on its kink and all others at 1."""
    n = 40
    x, t = cp.Variable(n, name="x"), cp.Parameter(n, name="t")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - t)), [x >= 0])
    if framework == "torch":
        torch = pytest.importorskip("torch")
        from cvxift.torch import CvxpyLayer

        layer = CvxpyLayer(problem, [t], [x], closed_form=closed_form, check="warn")

        def backward(value):
            theta = torch.tensor(value, requires_grad=True)
            layer(theta)[0].sum().backward()
            return theta.grad.numpy()
    else:
        jax = pytest.importorskip("jax")
        from cvxift.jax import CvxpyLayer

        layer = CvxpyLayer(problem, [t], [x], closed_form=closed_form, check="warn")
        gradient_of = jax.grad(lambda theta: layer(theta)[0].sum())
        # A compiled gradient does not compute the outputs, which nothing needs.
        gradient_of = jax.jit(gradient_of) if "compiled" in framework else gradient_of

        def backward(value):
            with jax.enable_x64(True):
                return np.asarray(gradient_of(jax.numpy.asarray(value)))

    for i in range(n):
        value = np.ones(n)
        value[i] = 0.0
        gradient, said = heard(lambda value=value: backward(value))
        assert said, f"call {i} was not told"
        assert min(abs(gradient[i]), abs(gradient[i] - 1.0)) < 1e-8
        assert np.allclose(np.delete(gradient, i), 1.0, atol=1e-8)
    assert heard(lambda: backward(value))[1], "the same point again was not told"
    _, said = heard(lambda: backward(np.ones(n)))
    assert not said


SCALES = (1e-5, 1e-2, 1e2, 1e5)
KINDS = ("columns", "rows", "cost", "theta")


def scaled(build, kind: str, scale: float) -> Case:
    """A case with one kind of its numbers in another unit."""
    return build(**{other: scale if other == kind else 1.0 for other in KINDS})


def kink(columns: float, rows: float, cost: float, theta: float) -> Case:
    """X = min(T₁, T₂) with X = columns·x and T = theta·t."""
    x = cp.Variable(name="x")
    t1, t2 = (cp.Parameter(name=name, value=1.0 / theta) for name in ("t1", "t2"))
    X = columns * x
    problem = cp.Problem(
        cp.Minimize(cost * cp.square(X - 5)), [rows * X <= rows * theta * t1, rows * X <= rows * theta * t2]
    )
    slope = theta / columns
    return Case(problem, x, np.array(1.0), t1, np.array(1.0), (0.0, slope))


def weak(columns: float, rows: float, cost: float, theta: float) -> Case:
    """X = max(T, 0), at T = 0 in one entry and 1 in the other."""
    x, t = cp.Variable(2, name="x"), cp.Parameter(2, name="t", value=np.array([0.0, 1.0 / theta]))
    problem = cp.Problem(cp.Minimize(cost * cp.sum_squares(columns * x - theta * t)), [rows * columns * x >= 0])
    return Case(problem, x, np.array([1.0, 0.0]), t, np.array([1.0, 0.0]), (theta / columns, 0.0))


def regular(columns: float, rows: float, cost: float, theta: float) -> Case:
    """The projection on ΣX = 1, X ≥ 0, with one bound strictly active."""
    x, t = cp.Variable(3, name="x"), cp.Parameter(3, name="t", value=np.array([0.5, 0.4, -1.0]) / theta)
    X = columns * x
    problem = cp.Problem(cp.Minimize(cost * cp.sum_squares(X - theta * t)), [rows * cp.sum(X) == rows, rows * X >= 0])
    slope = 0.5 * theta / columns
    return Case(problem, x, np.eye(3)[0], t, np.eye(3)[0], (slope, slope))


def ball(columns: float, rows: float, cost: float, theta: float) -> Case:
    """The nearest point to (3, 4) in the ball of radius T = 1."""
    x, t = cp.Variable(2, name="x"), cp.Parameter(name="t", value=1.0 / theta)
    X = columns * x
    problem = cp.Problem(
        cp.Minimize(cost * cp.sum_squares(X - np.array([3.0, 4.0]))), [rows * cp.norm(X) <= rows * theta * t]
    )
    slope = 0.6 * theta / columns
    return Case(problem, x, np.array([1.0, 0.0]), t, np.array(1.0), (slope, slope))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("build", [kink, weak, regular, ball])
def test_units_do_not_change_the_verdict(build, kind, scale):
    for way in (*BOTH.values(), WAYS["torch_backward"]):
        case = scaled(build, kind, scale)
        value, said = heard(lambda way=way, case=case: way(case))
        assert bool(said) == (case.slopes[0] != case.slopes[1])
        size = max(map(abs, case.slopes))
        assert min(abs(value - slope) for slope in case.slopes) < 1e-5 * size


def tilted(delta: float) -> Case:
    """x ≤ t and x ≤ (1 + δ) t − δ at t = 1: the slopes are 1 and 1 + δ, θ pulls by δ/2."""
    x, t = cp.Variable(name="x"), cp.Parameter(name="t", value=1.0)
    problem = cp.Problem(cp.Minimize(cp.square(x - 5)), [x <= t, x <= (1 + delta) * t - delta])
    return Case(problem, x, np.array(1.0), t, np.array(1.0), (1.0, 1.0 + delta))


def bent(delta: float) -> Case:
    """½ (x − t)² + ½ δ max(x, 0)² at t = 0: the slopes are 1/(1 + δ) and 1."""
    x, t = cp.Variable(name="x"), cp.Parameter(name="t", value=0.0)
    problem = cp.Problem(cp.Minimize(0.5 * cp.square(x - t) + 0.5 * delta * cp.square(cp.pos(x))))
    return Case(problem, x, np.array(1.0), t, np.array(1.0), (1.0 / (1.0 + delta), 1.0))


def bent_curve(delta: float) -> Case:
    """½ ‖x − t‖² + ½ δ max(‖x‖ − 1, 0)² at ‖t‖ = 1, along t."""
    x, t = cp.Variable(2, name="x"), cp.Parameter(2, name="t", value=np.array([0.6, 0.8]))
    excess = cp.pos(cp.norm(x) - 1)
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(x - t) + 0.5 * delta * cp.square(excess)))
    return Case(problem, x, np.array([0.6, 0.8]), t, np.array([0.6, 0.8]), (1.0 / (1.0 + delta), 1.0))


@pytest.mark.parametrize("way", BOTH)
@pytest.mark.parametrize(
    ("make", "delta", "told"),
    [
        (tilted, 1e-7, False),
        (tilted, 1e-4, True),
        (bent, 1e-7, False),
        (bent, 1e-4, True),
        (bent_curve, 1e-6, False),
        (bent_curve, 1e-1, True),
    ],
)
def test_different(make, delta, told, way):
    """PULLED, DIFFERENT and DIFFERENT_CURVED: pieces are two from the relative difference on that a promise allows."""
    case = make(delta)
    value, said = heard(lambda: BOTH[way](case))
    assert bool(said) == told
    assert min(abs(value - slope) for slope in case.slopes) < 1e-6


def nearly_flat(epsilon: float, copies: int) -> Case:
    """(x₀ + x₁ − t)² + ε (x₀ − x₁)² many times: both are t/2 while ε > 0."""
    x, t = cp.Variable((copies, 2), name="x"), cp.Parameter(copies, name="t", value=np.ones(copies))
    cost = cp.sum_squares(cp.sum(x, axis=1) - t) + epsilon * cp.sum_squares(x[:, 0] - x[:, 1])
    bar = np.zeros((copies, 2))
    bar[0, 0] = 1.0
    return Case(cp.Problem(cp.Minimize(cost), [x <= 5]), x, bar, t, np.eye(copies)[0], (0.5, 0.5))


@pytest.mark.parametrize("way", BOTH)
@pytest.mark.parametrize("copies", [1, 150], ids=["dense", "sparse"])
@pytest.mark.parametrize(("epsilon", "told"), [(1e-3, False), (1e-7, False), (1e-15, True), (0.0, True)])
def test_null(epsilon, told, copies, way):
    """NULL, REGULAR, GROWN: a direction is flat where its curvature is rounding, not where it is only small."""
    case = nearly_flat(epsilon, copies)
    value, said = heard(lambda: BOTH[way](case))
    assert bool(said) == told
    if not told:
        assert abs(value - 0.5) < 1e-6


@pytest.mark.parametrize(("part", "told"), [(0.0, False), (1e-9, False), (1e-3, True)])
def test_felt(part, told):
    """FELT: the output z = 2t + part · (x₀ − x₁) feels the free direction x₀ − x₁, or does not."""
    v, t = cp.Variable(3, name="v"), cp.Parameter(name="t", value=1.0)  # v = (z, x₀, x₁)
    fixed = np.array([[0.0, 1.0, 1.0], [1.0, -part, part]])
    problem = cp.Problem(cp.Minimize(cp.quad_form(v, fixed.T @ fixed) - 2 * t * (np.array([1.0, 2.0]) @ fixed @ v)))
    case = Case(problem, v, np.eye(3)[0], t, np.array(1.0), (2.0, 2.0))
    value, said = heard(lambda: numpy_vjp(case))
    assert bool(said) == told
    assert told or abs(value - 2.0) < 1e-6


@pytest.mark.parametrize("way", BOTH)
@pytest.mark.parametrize(("gap", "told"), [(1e-12, True), (1e-6, False), (1e-5, False), (1e-3, False)])
def test_gap(gap, told, way):
    """CLEAR: a row is on a kink, only near one, or clear of it, and t1's slope is then 1."""
    case = two_bounds(values=(1.0, 1.0 + gap))
    value, said = heard(lambda: BOTH[way](case))
    assert bool(said) == told
    assert told or abs(value - 1.0) < 1e-8


@pytest.mark.parametrize("way", BOTH)
@pytest.mark.parametrize(("delta", "told"), [(0.0, False), (1e-9, False), (1e-1, True), (1.0, True)])
def test_solved(delta, told, way):
    """SOLVED: Σx = t and Σx = (1 + δ) t − δ at t = 1 have no solution beside it, but for a δ that is rounding."""
    x, t = cp.Variable(3, name="x"), cp.Parameter(name="t", value=1.0)
    problem = cp.Problem(
        cp.Minimize(cp.sum_squares(x)), [cp.sum(x) == t, 2 * cp.sum(x) == 2 * ((1 + delta) * t - delta)]
    )
    case = Case(problem, x, np.ones(3), t, np.array(1.0), (1.0, 1.0))
    value, said = heard(lambda: BOTH[way](case))
    assert bool(said) == told
    assert told or abs(value - 1.0) < 1e-7


def corner(a_varies: bool) -> tuple[cp.Problem, list[dict[str, np.ndarray]]]:
    """A problem with three active sets, two of them degenerate, and parameter values for each."""
    x, c = cp.Variable(2, name="x"), cp.Parameter(2, name="c")
    a = cp.Parameter(2, name="a") if a_varies else np.ones(2)
    rows = [cp.multiply(a, x) <= 1, cp.sum(x) <= 2, x >= 0]
    values = [{"c": np.array(v)} for v in ([3.0, 3.0], [0.0, 0.5], [-1.0, 0.3], [3.0, 3.0], [1.5, 0.2])]
    if a_varies:
        weights = ([1.0, 1.0], [1.0, 1.0], [1.0, 2.0], [0.8, 1.0], [1.0, 3.0])
        values = [{**v, "a": np.array(w)} for v, w in zip(values, weights, strict=True)]
    return cp.Problem(cp.Minimize(cp.sum_squares(x - c)), rows), values


@pytest.mark.parametrize("way", BOTH)
@pytest.mark.parametrize("a_varies", [False, True])
def test_kept_judgements_are_those_of_fresh_ones(a_varies, way):
    problem, values = corner(a_varies)
    program = Program(problem)

    def ask(problem, value, index, **options):
        for parameter in problem.parameters():
            parameter.value = value[parameter.name()]
        found = differentiate(problem, solver="clarabel", **options)
        output = (problem.variables() + [problem.constraints[k].dual_variables[0] for k in (0, 2)])[index]
        if way == "vjp":
            products = found.vjp({output: np.array([1.0, -2.0])})
            return [products[p] for p in problem.parameters()]
        return [found.jvp({p: np.arange(1.0, 1.0 + p.size) for p in problem.parameters()})[output]]

    told = set()
    for turn in range(2):
        for k, value in enumerate(values):
            for index in range(3):
                ours, said = heard(lambda v=value, i=index: ask(problem, v, i, program=program))
                own, fresh_said = heard(lambda v=value, i=index: ask(corner(a_varies)[0], v, i))
                assert bool(said) == bool(fresh_said), (turn, k, index)
                told.add(bool(said))
                for one, other in zip(ours, own, strict=True):
                    assert np.allclose(one, other, atol=1e-7, equal_nan=True), (turn, k, index)
    assert told == {True, False}


@pytest.mark.parametrize("solver", ["clarabel", "piqp", "osqp", "daqp"])
@pytest.mark.parametrize("unit", [1.0, 1e5])
def test_a_row_of_zeros_at_its_bound_is_told_whatever_its_multiplier(solver, unit):
    """0ᵀx ≤ h₁ with h₁ = 0 has no solution for h₁ < 0; interior points give the row any multiplier, others zero."""
    x, c, h = cp.Variable(2, name="x"), cp.Parameter(2, name="c"), cp.Parameter(2, name="h")
    c.value, h.value = [-3.0, -2.0], [1.5, 0.0]
    rows = unit * np.array([[0.0, -1.0], [0.0, 0.0]]), unit * h
    s = differentiate(cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [rows[0] @ x <= rows[1]]), solver=solver)
    gradient, said = heard(lambda: s.vjp({x: np.array([0.5, 2.0])}))
    assert said and "h to one side" in said[0]
    np.testing.assert_allclose(gradient[c], [0.5, 0.0], atol=1e-9)
    np.testing.assert_allclose(gradient[h], [-2.0, 0.0], atol=1e-9)


@pytest.mark.parametrize("n", [2, 400])
@pytest.mark.parametrize("curved", [False, True])
@pytest.mark.parametrize("unit", [1e-5, 1.0, 1e5])
def test_a_row_of_zeros_beside_others_is_told_where_it_is_pulled_alone(n, curved, unit):
    """0ᵀx = h₁ holds for h₁ = 0 alone, whatever c is; dense and sparse, in both modes, in a batch and in JAX."""
    x, c, h = cp.Variable(n, name="x"), cp.Parameter(n, name="c"), cp.Parameter(2, name="h")
    c.value, h.value = 0.01 * np.arange(n) - 2.0, np.array([1.5, 0.0])
    row = sp.csr_array(([-unit], ([0], [0])), shape=(2, n))
    cost = cp.sum_squares(x - c) + (cp.norm(x) if curved else 0.0)
    problem = cp.Problem(cp.Minimize(cost), [(row if n > 50 else row.toarray()) @ x == unit * h])

    def told(ask):
        return heard(ask)[1]

    assert told(lambda: differentiate(problem).vjp({x: np.ones(n)}))
    assert told(lambda: differentiate(problem).jvp({h: np.array([0.0, 1.0])}))
    assert not told(lambda: differentiate(problem).jvp({c: np.ones(n)}))
    if unit != 1.0:
        return  # layers hand the point to the same judge
    torch, jax = pytest.importorskip("torch"), pytest.importorskip("jax")
    from cvxift.jax import CvxpyLayer as JaxLayer
    from cvxift.torch import CvxpyLayer

    values = [torch.tensor(np.tile(p.value, (3, 1)), requires_grad=True) for p in (c, h)]
    assert told(lambda: CvxpyLayer(problem, [c, h], [x])(*values)[0].sum().backward())
    with jax.enable_x64(True):
        layer = JaxLayer(problem, [c, h], [x])
        assert told(lambda: np.asarray(jax.grad(lambda h: layer(c.value, h)[0].sum())(jax.numpy.asarray(h.value))))
