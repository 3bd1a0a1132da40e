"""Transport plans and soft permutations: against their problem by KKT, exact marginals anywhere, derivatives, loss."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import cvxift
from cvxift import argmax
from cvxift.argmax.polytope import pullback, pushforward
from cvxift.argmax.quadratic_transport import quadratic_transport
from cvxift.argmax.sinkhorn import sinkhorn
from cvxift.errors import ProgramError, SolveError

torch = pytest.importorskip("torch")
from cvxift import torch as ct  # noqa: E402

KINDS = ["entropic", "quadratic"]
SOLVERS = {"entropic": sinkhorn, "quadratic": quadratic_transport}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("point", ["random", "ties", "tiny", "one", "column", "cold"])
def test_value_and_jacobians_are_those_of_the_problem(kind: str, point: str, rng: np.random.Generator) -> None:
    n, m = {"one": (1, 1), "column": (4, 1)}.get(point, (3, 4))
    theta = rng.standard_normal((n, m))
    theta = {"ties": np.round(theta), "tiny": 1e-6 * theta, "cold": 4 * theta}.get(point, theta)
    a, b = rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(m))
    problem = argmax.transport(a, b, kind, 0.5)
    z, scores = argmax.variable(problem), argmax.parameter(problem)
    scores.value = theta
    sensitivity = cvxift.differentiate(problem)
    ta, tb, tx = (torch.tensor(v) for v in (a, b, theta))

    def closed(x: torch.Tensor) -> torch.Tensor:
        return ct.transport(x, ta, tb, 0.5, kind)

    np.testing.assert_allclose(closed(tx), sensitivity.value(z), atol=1e-8)
    jacobian = torch.autograd.functional.jacobian(closed, tx)
    np.testing.assert_allclose(jacobian, sensitivity.jacobian(z, scores), atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(2, 3), (3, 2), (1, 1)])
def test_derivatives_of_any_order_against_differences(kind: str, shape: tuple[int, int], rng) -> None:
    n, m = shape
    x, log_a, log_b = (torch.tensor(rng.standard_normal(s), requires_grad=True) for s in ((n, m), (n,), (m,)))
    t = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

    def plan(x, log_a, log_b, t):
        return ct.transport(x, log_a.softmax(-1), log_b.softmax(-1), t, kind)

    assert torch.autograd.gradcheck(plan, (x, log_a, log_b, t), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(plan, (x, log_a, log_b, t))
    target = plan(torch.randn_like(x), log_a, log_b, 0.5).detach()

    def loss(x, t):
        return ct.transport_loss(x, target, t, kind)

    assert torch.autograd.gradcheck(loss, (x, t), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(loss, (x, t))


@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0, 1e3, 1e6])
@pytest.mark.parametrize("masses", ["uniform", "random", "uneven"])
def test_entropic_marginals_are_exact_at_any_temperature(scale: float, masses: str, rng: np.random.Generator) -> None:
    for n, m in ((5, 5), (3, 8), (30, 20)):
        x = scale * rng.standard_normal((n, m))
        spread = {"uniform": 1e9, "random": 1.0, "uneven": 0.05}[masses]
        a, b = rng.dirichlet(np.full(n, spread)), rng.dirichlet(np.full(m, spread))
        plan = sinkhorn(x, a, b)
        assert plan.error < 2e-14
        np.testing.assert_allclose(plan.z.sum(axis=1), a, atol=3e-14)
        np.testing.assert_allclose(plan.z.sum(axis=0), b, atol=3e-14)
        # Where it can be seen, z is exp of the scores up to row and column terms: all 2 × 2 minors agree.
        if scale <= 30 and plan.z.min() > 1e-250:
            inner = np.log(plan.z) - x
            defect = inner - inner[:1] - inner[:, :1] + inner[0, 0]
            assert np.abs(defect).max() < 1e-9


@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
def test_quadratic_plans_satisfy_their_optimality_conditions(scale: float, rng: np.random.Generator) -> None:
    for n, m in ((5, 5), (3, 8), (30, 20)):
        x = scale * rng.standard_normal((n, m))
        a, b = np.full(n, 1 / n), np.full(m, 1 / m)
        plan = quadratic_transport(x, a, b)
        assert plan.error < 2e-14
        # z = [x + f + g]_+: f + g = z − x on the support, at most −x outside.
        z = plan.z
        rows, columns = np.nonzero(z > 0)
        system = np.zeros((rows.size, n + m))
        system[np.arange(rows.size), rows] = system[np.arange(rows.size), n + columns] = 1.0
        wanted = (z - x)[rows, columns]
        assert np.abs(system @ np.linalg.lstsq(system, wanted)[0] - wanted).max() < 1e-11 * max(scale, 1)
        np.testing.assert_allclose(z.sum(axis=1), a, atol=1e-13)


@pytest.mark.parametrize("scale", [1e-2, 30.0, 1e4])
def test_quadratic_plans_between_masses_of_all_sizes(scale: float, rng: np.random.Generator) -> None:
    for n, m, low in ((5, 5, -8), (3, 8, -12), (30, 20, -8), (60, 50, -8)):
        a, b = 10 ** rng.uniform(low, 0, n), 10 ** rng.uniform(low, 0, m)
        a, b = a / a.sum(), b / b.sum()
        for x in (scale * rng.standard_normal((n, m)), -scale * (rng.random((n, 1)) - rng.random(m)) ** 2):
            plan = quadratic_transport(x, a, b)
            assert plan.error < 2e-14 and plan.iterations < 100
            # The masses on the longer side are exact; on the other one to the error, relative to the total.
            long, short = (1, 0) if n >= m else (0, 1)
            np.testing.assert_allclose(plan.z.sum(axis=long), (a, b)[short], rtol=1e-9, atol=1e-15)
            np.testing.assert_allclose(plan.z.sum(axis=short), (a, b)[long], rtol=1e-5, atol=1e-14)
            # A plan is the positive part of scores plus potentials, to one rounding of the scores.
            potentials = plan.level - x
            centred = potentials - potentials.mean(0) - potentials.mean(1, keepdims=True) + potentials.mean()
            assert np.abs(centred).max() <= 1e-14 * (1.0 + np.abs(x).max())
            narrow = [torch.tensor(v, dtype=torch.float32) for v in (x, a, b)]
            in_float32 = ct.transport(*narrow, regularizer="quadratic")
            exact = quadratic_transport(*(v.double().numpy() for v in narrow))
            np.testing.assert_allclose(in_float32, exact.z, atol=1e-7)


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_quadratic_plans_between_masses_far_below_rounding(scale: float) -> None:
    for seed in range(4):
        rng = np.random.default_rng(seed)
        a, b = rng.dirichlet(np.full(32, 0.05), 2)
        assert min(a.min(), b.min()) < 1e-20
        x = scale * rng.standard_normal((32, 32))
        plan = quadratic_transport(x, a, b)
        assert plan.error <= 2e-14
        np.testing.assert_allclose(plan.z.sum(axis=1), a, rtol=1e-9, atol=1e-15)
        np.testing.assert_allclose(plan.z.sum(axis=0), b, atol=2e-14)
        # A plan that is the positive part of scores plus potentials is optimal; some masses are zero altogether.
        np.testing.assert_allclose(np.maximum(plan.level, 0.0), plan.z, atol=1e-15)
        potentials = (plan.level - x)[np.ix_(a > 0, b > 0)]
        centred = potentials - potentials.mean(0) - potentials.mean(1, keepdims=True) + potentials.mean()
        assert np.abs(centred).max() <= 1e-14 * (1.0 + np.abs(x).max())


def test_quadratic_plans_of_many_small_problems_are_of_potentials(rng: np.random.Generator) -> None:
    # Parts of a plan with no mass between them let potentials grow: the plan must not take their rounding.
    for _ in range(300):
        n, m = rng.integers(2, 7, 2)
        x = rng.standard_normal((n, m)) * rng.choice([0.0, 0.1, 1.0, 10.0, 100.0])
        a, b = (10 ** rng.uniform(rng.choice([-8, -1]), 0, size) for size in (n, m))
        if rng.random() < 0.3:
            x, a, b = np.round(x), rng.integers(1, 4, n).astype(float), rng.integers(1, 4, m).astype(float)
        b = b * (a.sum() / b.sum())
        plan = quadratic_transport(x, a, b)
        assert plan.error <= 2e-14
        potentials = plan.level - x
        centred = potentials - potentials.mean(0) - potentials.mean(1, keepdims=True) + potentials.mean()
        assert np.abs(centred).max() <= 1e-14 * (1.0 + np.abs(x).max())


def test_quadratic_plans_between_uneven_masses_are_those_of_the_problem(rng: np.random.Generator) -> None:
    for n, m in ((4, 6), (8, 8)):
        theta = 2 * rng.standard_normal((n, m))
        a, b = 10 ** rng.uniform(-6, 0, n), 10 ** rng.uniform(-6, 0, m)
        a, b = a / a.sum(), b / b.sum()
        problem = argmax.transport(a, b, "quadratic", 0.5)
        scores = argmax.parameter(problem)
        scores.value = theta
        expected = cvxift.differentiate(problem, closed_form="never").value(argmax.variable(problem))
        found = ct.transport(torch.tensor(theta), torch.tensor(a), torch.tensor(b), 0.5, "quadratic")
        np.testing.assert_allclose(found, expected, atol=1e-9)


def test_cold_soft_permutations_are_the_best_assignment(rng: np.random.Generator) -> None:
    scores = rng.standard_normal((5, 5))
    best = max(itertools.permutations(range(5)), key=lambda p: sum(scores[i, p[i]] for i in range(5)))
    for kind in KINDS:
        z = ct.birkhoff(torch.tensor(scores, requires_grad=True), 1e-3, kind)
        np.testing.assert_allclose(z.detach(), np.eye(5)[list(best)], atol=1e-10)


def test_a_large_plan(rng: np.random.Generator) -> None:
    x = torch.tensor(rng.standard_normal((300, 400)), requires_grad=True)
    z = ct.transport(x, temperature=0.1)
    weights = torch.tensor(rng.standard_normal((300, 400)))
    (gradient,) = torch.autograd.grad((z * weights).sum(), x)
    assert gradient.sum(0).abs().max() < 1e-14 and gradient.sum(1).abs().max() < 1e-14
    step = 1e-6 * torch.tensor(rng.standard_normal((300, 400)))
    change = ((ct.transport(x + step, temperature=0.1) - ct.transport(x - step, temperature=0.1)) * weights).sum() / 2
    assert change.item() == pytest.approx((gradient * step).sum().item(), rel=1e-5)


def test_masks_and_empty_lines(rng: np.random.Generator) -> None:
    x = torch.tensor(rng.standard_normal((3, 3)))
    x[0, 1] = x[2, 0] = -torch.inf
    x.requires_grad_()
    a = torch.tensor([0.5, 0.0, 0.5], dtype=torch.float64, requires_grad=True)
    z = ct.transport(x, a, torch.tensor([0.3, 0.3, 0.4], dtype=torch.float64))
    assert z[0, 1] == z[2, 0] == 0 and (z[1] == 0).all()
    grads = torch.autograd.grad((z**2).sum(), (x, a))
    assert all(torch.isfinite(g).all() for g in grads) and grads[0][0, 1] == 0 and (grads[0][1] == 0).all()
    empty = ct.transport(torch.zeros(0, 3, 4))
    assert empty.shape == (0, 3, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_vmap_dtypes_and_functional_transforms(kind: str, rng: np.random.Generator) -> None:
    x = torch.tensor(rng.standard_normal((4, 3, 5)))

    def plan(x):
        return ct.transport(x, regularizer=kind)

    torch.testing.assert_close(torch.func.vmap(plan)(x), plan(x), atol=1e-13, rtol=0)
    forward, reverse = (torch.func.vmap(f(plan))(x) for f in (torch.func.jacfwd, torch.func.jacrev))
    torch.testing.assert_close(forward, reverse, atol=1e-12, rtol=0)
    for dtype, tolerance in ((torch.float16, 1e-3), (torch.bfloat16, 8e-3), (torch.float32, 2e-5)):
        low = plan(x.to(dtype))
        assert low.dtype is dtype
        torch.testing.assert_close(low.double(), plan(x.to(dtype).double()), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_products_with_the_jacobian_are_transposes_of_each_other(kind: str, rng: np.random.Generator) -> None:
    z = SOLVERS[kind](3 * rng.standard_normal((6, 4)), np.full(6, 1 / 6), rng.dirichlet(np.ones(4))).z
    s = z if kind == "entropic" else (z > 0).astype(float)
    dx, bar = rng.standard_normal((2, 6, 4))
    da, db = rng.standard_normal(6), rng.standard_normal(4)
    da, db = da - da.mean(), db - db.mean()
    x_bar, a_bar, b_bar = pullback(s, bar)
    dz = pushforward(s, dx, da, db)
    if kind == "entropic":  # the quadratic support may fall apart, where no change of masses across is possible
        np.testing.assert_allclose(dz.sum(axis=1), da, atol=1e-10)
        assert np.sum(bar * dz) == pytest.approx(np.sum(x_bar * dx) + a_bar @ da + b_bar @ db, rel=1e-9)
    np.testing.assert_allclose(np.sum(bar * pushforward(s, dx, 0 * da, 0 * db)), np.sum(x_bar * dx), atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_loss(kind: str, rng: np.random.Generator) -> None:
    x = torch.tensor(rng.standard_normal((2, 3, 4)), requires_grad=True)
    target = ct.transport(torch.tensor(rng.standard_normal((2, 3, 4))), regularizer=kind)
    loss = ct.transport_loss(x, target, 0.5, kind)
    assert (loss > 1e-3).all()
    (gradient,) = torch.autograd.grad(loss.sum(), x)
    prediction = ct.transport(x, target.sum(-1), target.sum(-2), 0.5, kind)
    torch.testing.assert_close(gradient, prediction.detach() - target, atol=1e-13, rtol=0)
    own = ct.transport_loss(x, prediction.detach(), 0.5, kind)
    assert own.abs().max() < 1e-13


def test_the_tolerance_is_honoured_and_reported(rng: np.random.Generator) -> None:
    x = 3 * rng.standard_normal((8, 8))
    mass = np.full(8, 0.125)
    rough, fine = sinkhorn(x, mass, mass, tol=1e-2), sinkhorn(x, mass, mass)
    assert fine.error < rough.error <= 1e-2 and rough.iterations < fine.iterations
    with pytest.raises(SolveError, match=r"off by .* in instance \(1,\) after 3") as caught:
        ct.transport(torch.tensor(np.stack([0 * x, x])), max_iterations=3)
    assert set(caught.value.failures) == {(1,)}
    assert torch.isnan(caught.value.solutions[0][1]).all() and not torch.isnan(caught.value.solutions[0][0]).any()


@pytest.mark.parametrize("masked", [False, True])
def test_scalings_lead_to_the_same_plans(masked: bool, rng, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without them Newton's method does it all: plans of small, moderate and large ranges, some without mass."""
    from cvxift.argmax import sinkhorn as module

    x = rng.standard_normal((5, 6, 4)) * np.array([0.1, 1.0, 5.0, 50.0, 500.0])[:, None, None]
    a, b = rng.uniform(0.5, 1.5, (5, 6)), rng.uniform(0.5, 1.5, (5, 4))
    if masked:
        a[:, 2] = b[:, 1] = 0.0
        x[:, 0, 0] = -np.inf
    b *= (a.sum(-1) / b.sum(-1))[:, None]
    with np.errstate(all="ignore"):
        found, alone = sinkhorn(x, a, b), [sinkhorn(*parts) for parts in zip(x, a, b)]
        monkeypatch.setattr(module, "NEAR", -1.0)  # no gap is near: what they found is dropped
        plain = sinkhorn(x, a, b)
    assert (found.error <= 64 * np.finfo(float).eps).all()
    np.testing.assert_allclose(found.z, plain.z, atol=1e-13)
    np.testing.assert_allclose(found.z, np.stack([plan.z for plan in alone]), atol=1e-14)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ct.transport(torch.zeros(3)), r"shape \(3,\)"),
        (lambda: ct.transport(torch.zeros(2, 2, dtype=torch.long)), "int64"),
        (lambda: ct.transport(torch.full((2, 2), torch.nan)), "score nan"),
        (lambda: ct.transport(torch.zeros(2, 2), torch.ones(2)), "a and b sum to 2.0 and 1.0"),
        (lambda: ct.transport(torch.zeros(2, 2), torch.ones(3)), r"masses a of shape \(3,\)"),
        (lambda: ct.transport(torch.zeros(2, 2), torch.tensor([2.0, -1.0])), r"mass a\[1\] = -1.0"),
        (lambda: ct.transport(torch.zeros(2, 2), temperature=-1.0), "temperature = -1.0"),
        (lambda: ct.transport(torch.zeros(2, 2), temperature=torch.tensor(0.0)), "temperature = 0.0"),
        (lambda: ct.transport(torch.zeros(2, 2), regularizer="gini"), "regularizer = 'gini'"),
        (lambda: ct.transport(torch.tensor([[-torch.inf] * 2, [0.0, 0.0]])), r"row \[0\] has mass"),
        (lambda: ct.birkhoff(torch.zeros(2, 3)), r"shape \(2, 3\)"),
        (lambda: ct.transport_loss(torch.zeros(2, 2), torch.zeros(2, 3)), r"target has shape \(2, 3\)"),
    ],
)
def test_bad_input_says_what_is_wrong(call, words: str) -> None:
    with pytest.raises(ProgramError, match=words):
        call()


def test_masks_that_leave_no_plan_are_not_passed_over() -> None:
    # Two rows can only reach one column, which cannot take both.
    x = torch.tensor([[0.0, -torch.inf, -torch.inf], [0.0, -torch.inf, -torch.inf], [0.0, 0.0, 0.0]])
    with pytest.raises(SolveError, match="masked"):
        ct.transport(x, max_iterations=100)


@pytest.mark.parametrize("kind", KINDS)
def test_jax_agrees_with_torch(kind: str, rng: np.random.Generator) -> None:
    jax = pytest.importorskip("jax")
    from cvxift import jax as cj

    x, w = rng.standard_normal((2, 2, 3, 4))
    a, b = rng.dirichlet(np.ones(3), 2), rng.dirichlet(np.ones(4), 2)
    tensors = [torch.tensor(v, requires_grad=True) for v in (x, a, b)]
    expected = ct.transport(*tensors, 0.7, kind)
    grads = torch.autograd.grad((expected * torch.tensor(w)).sum(), tensors)
    target = expected.detach().numpy()
    colder = ct.transport_loss(tensors[0], torch.tensor(target), 0.5, kind)
    (slope,) = torch.autograd.grad(colder.sum(), tensors[0])
    with jax.enable_x64(True):

        def both(x, a, b, shift):
            z = cj.transport(x, a, b, 0.7, kind)
            loss = cj.transport_loss(x + shift, target, 0.5, kind)
            return (w * z).sum() + loss.sum(), (z, loss)

        both = jax.jit(jax.grad(both, (0, 1, 2, 3), has_aux=True))
        found, (z, loss) = both(x, a, b, np.zeros_like(x))
        np.testing.assert_allclose(z, expected.detach(), atol=1e-12)
        np.testing.assert_allclose(loss, colder.detach(), atol=1e-12)
        np.testing.assert_allclose(found[3], slope, atol=1e-12)
        np.testing.assert_allclose(found[0], grads[0] + slope, atol=1e-12)
        for ours, theirs in zip(found[1:3], grads[1:]):
            np.testing.assert_allclose(ours, theirs, atol=1e-12)
        # Two rows can only reach one column, which cannot take both: NaN where nothing can be raised.
        blocked = x.copy()
        blocked[0, :2, 1:] = -np.inf
        _, (z, _) = both(blocked, a, b, np.zeros_like(x))
        assert np.isnan(z[0]).all() and not np.isnan(z[1]).any()
        with pytest.raises(ProgramError, match="a and b sum to"):
            cj.transport(x, 2 * a, b, 0.7, kind)


@pytest.mark.parametrize(("size", "concentration"), [(12, 0.05), (32, 1.0)])
@pytest.mark.parametrize("mapped", [False, True])
def test_jax_finds_quadratic_plans_in_compiled_loops_and_on_the_host(
    size: int, concentration: float, mapped: bool
) -> None:
    """Small plans by compiled loops, which ask the host for an interior; larger ones on the host."""
    jax = pytest.importorskip("jax")
    from cvxift import jax as cj
    from cvxift.jax.structured_maps import WORTH_THE_HOST

    assert (size**2 < WORTH_THE_HOST) == (size == 12)
    rng = np.random.default_rng(3)
    a, b = rng.dirichlet(np.full(size, concentration), 2)
    x = 30.0 * rng.standard_normal((2, size, size))
    plans = [quadratic_transport(part, a, b) for part in x]
    assert size > 12 or all(plan.iterations > 40 for plan in plans)  # so many that an interior was asked for
    with jax.enable_x64(True):

        def plan(x):
            return cj.transport(x, a, b, regularizer="quadratic")

        found = jax.jit(jax.vmap(plan))(x) if mapped else np.stack([jax.jit(plan)(part) for part in x])
        np.testing.assert_allclose(found, [plan.z for plan in plans], atol=1e-13)
        if mapped:
            np.testing.assert_array_equal(found[0], plan(jax.numpy.asarray(x[0])))
