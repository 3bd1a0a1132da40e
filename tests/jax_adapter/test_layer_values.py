"""The JAX layer's values and first derivatives, on problems over all cones: against the torch layer and differences."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

jnp = pytest.importorskip("jax.numpy")
import jax  # noqa: E402

sys.path.append(str(Path(__file__).resolve().parent.parent / "sensitivity"))
from jax_layers import difference, directions_like, qp_layer, qp_values  # noqa: E402
from zoo import CASES, Case  # noqa: E402

from cvxift.jax import CvxpyLayer  # noqa: E402


@pytest.fixture(autouse=True)
def double():
    """64-bit types within a test and nowhere else."""
    with jax.enable_x64(True):
        yield


def made(name: str) -> tuple[Case, CvxpyLayer, list[np.ndarray]]:
    case = CASES[name](np.random.default_rng(7))
    layer = CvxpyLayer(case.problem, case.parameters, case.outputs, gp=case.gp)
    return case, layer, [np.asarray(p.value, dtype=float) for p in case.parameters]


def cotangents(outputs, seed=3):
    return tuple(jnp.asarray(dot) for dot in directions_like(outputs, seed))


def torch_values_and_gradients(case: Case, values, bars):
    torch = pytest.importorskip("torch")
    from cvxift.torch import CvxpyLayer as TorchLayer

    layer = TorchLayer(case.problem, case.parameters, case.outputs, gp=case.gp)
    tensors = [torch.tensor(np.asarray(value), requires_grad=True) for value in values]
    outputs = layer(*tensors)
    torch.autograd.backward(outputs, [torch.tensor(np.asarray(bar)) for bar in bars])
    return [out.detach().numpy() for out in outputs], [tensor.grad.numpy() for tensor in tensors]


def assert_all_close(ours, theirs, tolerance):
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("name", sorted(CASES))
def test_equals_the_torch_layer(name):
    case, layer, values = made(name)
    outputs, pull = jax.vjp(layer, *map(jnp.asarray, values))
    bars = cotangents(outputs)
    expected = torch_values_and_gradients(case, values, bars)
    assert_all_close(outputs, expected[0], 1e-10)
    assert_all_close(pull(bars), expected[1], 1e-10)


@pytest.mark.parametrize("name", ["qp", "second_order_cone", "geometric_program", "nearest_psd"])
def test_equals_the_torch_layer_in_batches_with_shared_parameters(name):
    case, layer, values = made(name)
    rng = np.random.default_rng(0)
    batched = [value * (1.0 + 0.01 * rng.random((2, 3) + (1,) * value.ndim)) for value in values]
    if len(batched) > 1:
        batched[-1] = values[-1]  # shared by the batch
    if len(batched) > 2:
        batched[0] = batched[0][:, :1]  # broadcasts along one of its dimensions
    outputs, pull = jax.vjp(layer, *map(jnp.asarray, batched))
    bars = cotangents(outputs)
    assert all(out.shape[:2] == (2, 3) for out in outputs)
    expected = torch_values_and_gradients(case, batched, bars)
    assert_all_close(outputs, expected[0], 1e-10)
    assert_all_close(pull(bars), expected[1], 1e-10)


@pytest.mark.parametrize("name", [
    "qp", "maximize_entropy", "second_order_cone", "semidefinite_dual", "explicit_power_cone", "geometric_program",
])  # fmt: skip
def test_both_modes_agree_with_differences(name):
    case, layer, values = made(name)
    dots = directions_like(values, 5)
    for i, p in enumerate(case.parameters):
        if p.is_symmetric() and p.ndim == 2:
            dots[i] = 0.5 * (dots[i] + dots[i].T)
    values, dots = tuple(map(jnp.asarray, values)), tuple(map(jnp.asarray, dots))
    outputs, tangents = jax.jvp(layer, values, dots)
    assert_all_close(tangents, difference(layer, values, dots, step=1e-5), 2e-6)
    bars = cotangents(outputs)
    gradients = jax.vjp(layer, *values)[1](bars)
    forward = sum(float(jnp.vdot(bar, dot)) for bar, dot in zip(bars, tangents, strict=True))
    reverse = sum(float(jnp.vdot(gradient, dot)) for gradient, dot in zip(gradients, dots, strict=True))
    assert forward == pytest.approx(reverse, rel=1e-9, abs=1e-9)


def test_a_batch_is_its_instances():
    layer, batch = qp_layer(), [jnp.asarray(value) for value in qp_values((5,))]
    x, dual = layer(*batch)
    for i in range(5):
        xi, di = layer(*(value[i] for value in batch))
        np.testing.assert_allclose(x[i], xi, atol=1e-12)
        np.testing.assert_allclose(dual[i], di, atol=1e-12)


@pytest.mark.parametrize("arguments", [
    {"solver_args": {"solve_method": "SCS", "eps": 1e-7, "max_iters": 20000}}, {"solver": "CLARABEL"},
    {"solver": "PIQP"}, {"linear_solver": "iterative"}, {"singular": "raise"},
])  # fmt: skip
def test_constructor_arguments_reach_the_solver(arguments):
    values = [jnp.asarray(value) for value in qp_values()]
    gradients = [
        jax.jit(jax.grad(lambda *v, layer=layer: layer(*v)[0].sum(), argnums=(0, 3)))(*values)
        for layer in (qp_layer(**arguments), qp_layer())
    ]
    assert_all_close(*gradients, 1e-8)


def test_options_of_a_call_and_warm_starts_give_the_same_solution():
    layer, values = qp_layer(solver="CLARABEL"), [jnp.asarray(value) for value in qp_values()]
    expected = layer(*values)
    for options in ({"solver_args": {"max_iter": 60}}, {"warm_start": True}):
        assert_all_close(layer(*values, **options), expected, 1e-9)
        assert_all_close(jax.jit(lambda *v, o=options: layer(*v, **o))(*values), expected, 1e-9)
