"""Every transform of `torch.func` and `torch.autograd` against finite differences and against plain calls."""

from __future__ import annotations

import cvxpy as cp
import pytest

torch = pytest.importorskip("torch")

from torch.autograd import forward_ad, functional  # noqa: E402
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap  # noqa: E402
from torch_layers import (  # noqa: E402
    CASES,
    ball_layer,
    case,
    close,
    differences,
    double,
    entropy_layer,
    flat,
    qp_layer,
    qp_tensors,
    requires_grad,
    row,
)

from cvxift import ProgramError  # noqa: E402
from cvxift.torch import CvxpyLayer  # noqa: E402

every_case = pytest.mark.parametrize("name", CASES)
CURVED = [name for name in CASES if name != "quadratic"]

FIRST = {
    "grad": lambda c: flat(grad(c.loss, c.all)(*c.tensors)),
    "jacrev": lambda c: flat(jacrev(c.loss, c.all)(*c.tensors)),
    "jacfwd": lambda c: flat(jacfwd(c.loss, c.all)(*c.tensors)),
    "vjp": lambda c: flat(vjp(c.loss, *c.tensors)[1](torch.tensor(1.0, dtype=double))),
    "functional.jacobian": lambda c: flat(functional.jacobian(c.loss, tuple(c.tensors))),
    "functional.jacobian vectorized": lambda c: flat(functional.jacobian(c.loss, tuple(c.tensors), vectorize=True)),
    "functional.jacobian forward": lambda c: flat(
        functional.jacobian(c.loss, tuple(c.tensors), vectorize=True, strategy="forward-mode")
    ),
}


@every_case
@pytest.mark.parametrize("transform", FIRST)
def test_gradients(name, transform):
    c = case(name)
    close(FIRST[transform](c), c.gradient)


@every_case
def test_jacobian_vector_products(name):
    c = case(name)
    expected = c.gradient @ flat(c.direction)
    close(jvp(c.loss, tuple(c.tensors), c.direction)[1], expected)
    close(functional.jvp(c.loss, tuple(c.tensors), c.direction)[1], expected)
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(t, dot) for t, dot in zip(c.tensors, c.direction, strict=True)]
        close(forward_ad.unpack_dual(c.loss(*duals)).tangent, expected)
        # one dual number among plain tensors
        (partial,) = (forward_ad.unpack_dual(c.loss(*duals[:1], *c.tensors[1:])).tangent,)
    close(partial, c.gradient[: c.sizes[0]] @ c.direction[0].reshape(-1))


SECOND = {
    "hessian": lambda c: hessian(c.loss, c.all),
    "forward over reverse": lambda c: jacfwd(jacrev(c.loss, c.all), c.all),
    "reverse over forward": lambda c: jacrev(jacfwd(c.loss, c.all), c.all),
    "reverse over reverse": lambda c: jacrev(jacrev(c.loss, c.all), c.all),
    "forward over forward": lambda c: jacfwd(jacfwd(c.loss, c.all), c.all),
    "functional": lambda c: lambda *t: functional.hessian(c.loss, t),
    "functional vectorized": lambda c: lambda *t: functional.hessian(c.loss, t, vectorize=True),
}


@every_case
@pytest.mark.parametrize("transform", SECOND)
def test_hessians(name, transform):
    c = case(name)
    close(c.matrix(SECOND[transform](c)(*c.tensors)), c.hessian)


@every_case
def test_hessian_vector_products(name):
    c = case(name)
    expected = c.hessian @ flat(c.direction)
    close(flat(jvp(grad(c.loss, c.all), tuple(c.tensors), c.direction)[1]), expected)
    close(flat(functional.hvp(c.loss, tuple(c.tensors), c.direction)[1]), expected)
    close(flat(functional.vhp(c.loss, tuple(c.tensors), c.direction)[1]), expected)

    def slope(*tensors):
        return jvp(c.loss, tensors, c.direction)[1]

    close(jvp(slope, tuple(c.tensors), c.direction)[1], flat(c.direction) @ expected)
    leaves = requires_grad(c.tensors)
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(t, dot) for t, dot in zip(leaves, c.direction, strict=True)]
        tangent = forward_ad.unpack_dual(c.loss(*duals)).tangent
        close(flat(torch.autograd.grad(tangent, leaves)), expected)


def third_by_reverse(c):
    leaves = requires_grad(c.tensors)
    first = torch.autograd.grad(c.loss(*leaves), leaves, create_graph=True)
    second = torch.autograd.grad(flat(first) @ flat(c.direction), leaves, create_graph=True)
    return flat(torch.autograd.grad(flat(second) @ flat(c.direction), leaves))


def twice(c, *tensors):
    return jvp(lambda *t: jvp(c.loss, t, c.direction)[1], tensors, c.direction)[1]


THIRD = {
    "reverse": third_by_reverse,
    "reverse over forward": lambda c: flat(grad(lambda *t: twice(c, *t), c.all)(*c.tensors)),
    "forward": lambda c: flat(jacfwd(lambda *t: twice(c, *t), c.all)(*c.tensors)),
    "forward over hessian": lambda c: (
        flat(jacfwd(lambda *t: flat(c.direction) @ c.matrix(hessian(c.loss, c.all)(*t)) @ flat(c.direction), c.all)(
            *c.tensors
        ))
    ),
}  # fmt: skip


@pytest.mark.parametrize("transform", THIRD)
def test_third_order_of_a_quadratic_program(transform):
    c = case("quadratic")
    v = flat(c.direction)

    def curvature(theta):
        leaves = requires_grad(c.unflat(theta))
        first = torch.autograd.grad(c.loss(*leaves), leaves, create_graph=True)
        return flat(torch.autograd.grad(flat(first) @ v, leaves)) @ v

    close(THIRD[transform](c), differences(curvature, c.theta), 1e-6)


@pytest.mark.parametrize("name", CURVED)
@pytest.mark.parametrize("transform", THIRD)
def test_third_order_through_curved_cones_is_refused_by_name(name, transform):
    with pytest.raises(ProgramError, match="order 3"):
        THIRD[transform](case(name))


@every_case
def test_gradcheck_in_every_mode(name):
    c = case(name)
    leaves = requires_grad(c.tensors)
    assert torch.autograd.gradcheck(
        c.layer, leaves, check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True
    )
    assert torch.autograd.gradcheck(c.layer, leaves, check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(
        c.layer, leaves, check_fwd_over_rev=True, check_rev_over_rev=True, check_batched_grad=True
    )
    assert torch.autograd.gradgradcheck(c.layer, leaves, check_fwd_over_rev=True, fast_mode=True)


def test_derivatives_on_the_central_path():
    x, c = cp.Variable(3), cp.Parameter(3)
    problem = cp.Problem(cp.Minimize(c @ x), [cp.sum(x) == 1, x >= 0])
    layer = CvxpyLayer(problem, [c], [x], singular="smooth", mu=0.05)

    # On the path cᵢ − μ/xᵢ = ν with Σxᵢ = 1; its Jacobian is wwᵀ/Σw − diag(w), w = x²/μ.
    def path(costs):
        low, high = costs.min() - 1.0, costs.min() - 1e-9
        for _ in range(100):
            nu = 0.5 * (low + high)
            low, high = (nu, high) if (0.05 / (costs - nu)).sum() < 1 else (low, nu)
        return 0.05 / (costs - nu)

    costs = row(1.0, 0.2, 0.9)

    def jacobian(costs):
        w = path(costs) ** 2 / 0.05
        return torch.outer(w, w) / w.sum() - torch.diag(w)

    close(jacrev(lambda v: layer(v)[0])(costs), jacobian(costs), 1e-8)
    expected = differences(lambda v: jacobian(v)[0], costs)
    close(jacfwd(jacrev(lambda v: layer(v)[0][0]))(costs), expected, 1e-6)


def stacked(c, count=3):
    g = torch.Generator().manual_seed(7)
    return [t + 0.01 * torch.randn(count, *t.shape, generator=g, dtype=double) for t in c.tensors]


class TestVmap:
    """A mapped call is the batched call."""

    @every_case
    def test_is_the_batched_call(self, name):
        c = case(name)
        batch = stacked(c)
        for mapped, expected in zip(vmap(c.layer)(*batch), c.layer(*batch), strict=True):
            torch.testing.assert_close(mapped, expected, atol=0, rtol=0)

    @every_case
    def test_mixed_axes(self, name):
        c = case(name)
        batch = stacked(c)
        dims = tuple(None if i % 2 else t.dim() for i, t in enumerate(c.tensors))
        given = [t if i % 2 else b.movedim(0, -1) for i, (t, b) in enumerate(zip(c.tensors, batch, strict=True))]
        plain = [t if i % 2 else b for i, (t, b) in enumerate(zip(c.tensors, batch, strict=True))]
        for mapped, expected in zip(vmap(c.layer, dims, out_dims=-1)(*given), c.layer(*plain), strict=True):
            torch.testing.assert_close(mapped.movedim(-1, 0), expected, atol=1e-12, rtol=0)
        gradients = vmap(grad(c.loss, c.all), dims)(*given)
        for i in range(3):
            alone = [t if k % 2 else batch[k][i] for k, t in enumerate(c.tensors)]
            close(flat([part[i] for part in gradients]), c.eager_gradient(flat(alone)), 1e-10)

    def test_nested_and_beside_batch_dimensions_of_its_own(self):
        layer = qp_layer()
        tensors = qp_tensors((2, 3, 5))
        tensors[0] = tensors[0][0, 0, 0]  # shared by all
        tensors[3] = tensors[3] + 5.0
        expected = layer(*tensors)
        dims = (None, 0, 0, 0, 0, 0)
        for mapped in (vmap(layer, dims)(*tensors), vmap(vmap(layer, dims), dims)(*tensors)):
            for out, reference in zip(mapped, expected, strict=True):
                torch.testing.assert_close(out, reference, atol=1e-12, rtol=0)
        # the mapped tensor has fewer dimensions of its own than its neighbour
        q = tensors[1][:, 0, 0]  # (2, n): mapped
        b = tensors[5][0]  # (3, 5, p): not mapped, a batch
        rest = [t[0, 0, 0] if t.dim() > 3 else t for t in tensors]
        mapped = vmap(lambda q: layer(tensors[0], q, *rest[2:5], b)[0])(q)
        assert mapped.shape == (2, 3, 5, 4)
        for i in range(2):
            torch.testing.assert_close(mapped[i], layer(tensors[0], q[i], *rest[2:5], b)[0], atol=1e-11, rtol=0)

    @every_case
    def test_of_second_derivatives_and_under_them(self, name):
        c = case(name)
        batch = stacked(c, 2)
        mapped = vmap(hessian(c.loss, c.all))(*batch)
        for i in range(2):
            alone = hessian(c.loss, c.all)(*(b[i] for b in batch))
            close(c.matrix([[block[i] for block in blocks] for blocks in mapped]), c.matrix(alone), 1e-9)
        outside = grad(lambda *t: vmap(c.loss)(*t).sum(), c.all)(*batch)
        inside = vmap(grad(c.loss, c.all))(*batch)
        close(flat(outside), flat(inside), 1e-10)
        twice = jvp(lambda *t: vmap(grad(c.loss, c.all))(*t), tuple(batch), tuple(b * 0 + 1 for b in batch))[1]
        rows = [flat(parts) for parts in zip(*twice, strict=True)]
        for i in range(2):
            H = c.matrix(hessian(c.loss, c.all)(*(b[i] for b in batch)))
            close(rows[i], H.sum(1), 1e-9)

    def test_chunks_and_reverse_mode_through_it(self):
        c = case("quadratic")
        leaves = requires_grad(stacked(c, 5))
        out = vmap(c.loss, chunk_size=2)(*leaves)
        got = torch.autograd.grad(out.sum(), leaves)
        plain = requires_grad(leaves)
        for i in range(5):
            c.loss(*(t[i] for t in plain)).backward()
        close(flat(got), flat([t.grad for t in plain]), 1e-10)

    def test_is_one_batched_solve_and_a_jacobian_one_factorization(self, monkeypatch):
        layer, tensors = qp_layer(), qp_tensors((6,))
        solves, products = [], []
        solve, product = layer.core.map.solve, layer.core.map.derivative
        monkeypatch.setattr(
            layer.core.map, "solve", lambda theta, **kw: solves.append(theta.shape) or solve(theta, **kw)
        )
        monkeypatch.setattr(
            layer.core.map, "derivative", lambda s, dots, bar: products.append(bar.shape) or product(s, dots, bar)
        )
        vmap(layer)(*tensors)
        assert [shape[:-1] for shape in solves] == [(6,)]
        solves.clear()
        jacrev(lambda q: layer(tensors[0][0], q, *(t[0] for t in tensors[2:]))[0])(tensors[1][0])
        assert [shape[:-1] for shape in solves] == [()] and [shape[:-1] for shape in products] == [(4,)]


def test_another_device_is_refused_in_a_mapped_call():
    layer, tensors = qp_layer(), qp_tensors((3,))
    with pytest.raises(ProgramError, match=r"'q' is torch.float64 on meta.*one dtype and device"):
        vmap(layer)(tensors[0], tensors[1].to("meta"), *tensors[2:])


def test_closed_forms_of_the_problems():
    theta = row(0.3, -0.2, 1.0, 0.1)
    layer = entropy_layer()
    close(
        jacfwd(jacrev(lambda v: layer(v, row(0.7)[0])[0]))(theta),
        jacfwd(jacrev(lambda v: torch.softmax(v / 0.7, -1)))(theta),
        1e-9,
    )
    ball, point = ball_layer(), row(2.0, 1.0, -0.5)
    close(hessian(lambda v: ball(v)[0])(point), hessian(lambda v: v / v.norm())(point), 1e-9)


def test_float32_is_solved_in_float64():
    layer = qp_layer()
    single = [t.float() for t in qp_tensors((3,))]
    wide = [t.double() for t in single]
    out, reference = vmap(layer)(*single), vmap(layer)(*wide)
    assert out[0].dtype == torch.float32
    torch.testing.assert_close(out[0], reference[0].float(), atol=0, rtol=0)
    J = jacfwd(lambda q: layer(single[0][0], q, *(t[0] for t in single[2:]))[0])(single[1][0])
    J64 = jacfwd(lambda q: layer(wide[0][0], q, *(t[0] for t in wide[2:]))[0])(wide[1][0])
    torch.testing.assert_close(J, J64.float(), atol=1e-6, rtol=1e-6)


def test_an_output_changed_in_place_changes_no_kept_solution():
    layer, tensors = qp_layer(), qp_tensors((3,))
    first = vmap(layer)(*tensors)[0]
    expected = first.clone()
    first.zero_()
    torch.testing.assert_close(vmap(layer)(*tensors)[0], expected, atol=0, rtol=0)


def test_an_empty_batch():
    c = case("quadratic")
    empty = [b[:0] for b in stacked(c)]
    x, dual = c.layer(*empty)
    leaves = requires_grad(empty)
    (out,) = torch.autograd.grad(c.layer(*leaves)[0].sum(), leaves[:1], create_graph=True)
    assert x.shape == (0, 3) and dual.shape == (0, 2) and out.shape == (0, 3, 3)
