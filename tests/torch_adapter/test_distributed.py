"""The layer among PyTorch's machinery: several processes, loaders, devices, dtypes, modes, copies."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from torch_layers import Model, ball_layer, close, double, qp_layer, qp_tensors, requires_grad  # noqa: E402

from cvxift import ProgramError  # noqa: E402
from tests.children import light  # noqa: E402


def data() -> torch.Tensor:
    return torch.randn(8, 2, generator=torch.Generator().manual_seed(1), dtype=double)


def test_processes_of_distributed_training_and_of_a_loader():
    here = Path(__file__).resolve().parent
    command = [sys.executable, str(here / "processes.py")]
    result = subprocess.run(command, capture_output=True, text=True, env=light(*sys.path))
    assert result.returncode == 0 and result.stdout.strip() == "done", result.stderr[-3000:]


def test_threads_share_a_layer():
    layer, batches = qp_layer(), [qp_tensors(seed=k) for k in range(4)]
    found: dict[int, list[torch.Tensor]] = {}

    def solve(k):
        leaves = requires_grad(batches[k])
        jac = torch.func.jacrev(lambda q: layer(leaves[0].detach(), q, *(t.detach() for t in leaves[2:]))[0])
        layer(*leaves)[0].sum().backward()
        found[k] = [*(t.grad for t in leaves), jac(leaves[1].detach())]

    threads = [threading.Thread(target=solve, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k, together in sorted(found.items()):
        solve(k)
        for a, b in zip(together, found[k], strict=True):
            close(a, b, 1e-12)
    assert len(found) == 4


def test_to_another_device_and_back():
    model = Model()
    x = data()
    expected = model(x)
    shapes = copy.deepcopy(model).to("meta")
    out = shapes(x.to("meta"))
    assert out.is_meta and out.shape == expected.shape
    out.sum().backward()
    assert shapes.linear.weight.grad.is_meta
    back = shapes.to_empty(device="cpu")
    back.load_state_dict(model.state_dict())
    torch.testing.assert_close(back(x), expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(back.to(torch.float32)(x.float()), expected.float(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(back.double().cpu()(x), model(x), atol=1e-5, rtol=1e-5)


def test_copies_have_their_own_state():
    layer, tensors = qp_layer(), qp_tensors()
    expected = layer(*tensors)[0]
    twins = [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), copy.copy(layer)]
    assert len({layer._key, *(twin._key for twin in twins)}) == 4
    for twin in twins:
        torch.testing.assert_close(twin(*tensors)[0], expected, atol=1e-12, rtol=0)
        torch.testing.assert_close(torch.func.vmap(twin)(*(t[None] for t in tensors))[0][0], expected, atol=0, rtol=0)
        compiled = torch.compile(twin, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(*tensors)[0], expected, atol=0, rtol=0)


class TestModes:
    """Gradient modes."""

    def test_no_grad_and_inference(self):
        layer, leaves = qp_layer(), requires_grad(qp_tensors())
        expected = layer(*leaves)[0].detach()
        with torch.no_grad():
            x = layer(*leaves)[0]
        assert not x.requires_grad
        with torch.inference_mode():
            inside = layer(*leaves)[0]
            assert inside.is_inference() and not inside.requires_grad
            mapped = torch.func.vmap(layer)(*(t[None] for t in leaves))[0][0]
        for out in (x, inside, mapped):
            torch.testing.assert_close(out, expected, atol=0, rtol=0)

    def test_checkpoint(self):
        from torch.utils.checkpoint import checkpoint

        layer, leaves, again = qp_layer(), requires_grad(qp_tensors()), requires_grad(qp_tensors())
        checkpoint(layer, *leaves, use_reentrant=False)[0].square().sum().backward()
        layer(*again)[0].square().sum().backward()
        for a, b in zip(leaves, again, strict=True):
            torch.testing.assert_close(a.grad, b.grad, atol=1e-12, rtol=0)


class TestAutocast:
    """Solved in float64; the outputs are float32 at least."""

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision_is_widened(self, dtype):
        layer, leaves = qp_layer(), requires_grad([t.to(dtype) for t in qp_tensors()])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            x, dual = layer(*leaves)
        assert x.dtype == dual.dtype == torch.float32
        exact, _ = layer(*(t.detach().double() for t in leaves))
        torch.testing.assert_close(x.detach(), exact.float(), atol=0, rtol=0)
        x.sum().backward()
        assert all(t.grad.dtype == dtype for t in leaves)

    def test_mixed_dtypes_become_the_widest(self):
        layer, tensors = qp_layer(), qp_tensors()
        mixed = requires_grad([tensors[0].bfloat16(), *(t.float() for t in tensors[1:])])
        with pytest.raises(ProgramError, match="one dtype"):
            layer(*mixed)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert layer(*mixed)[0].dtype == torch.float32
            layer(*mixed)[0].sum().backward()
            assert mixed[0].grad.dtype == torch.bfloat16 and mixed[1].grad.dtype == torch.float32
            assert layer(tensors[0], *mixed[1:])[0].dtype == double
            with pytest.raises(ProgramError, match=r"'q' has dtype torch\.int64"):
                layer(mixed[0], mixed[1].long(), *mixed[2:])

    def test_a_network_in_bfloat16_around_it(self):
        linear, layer = torch.nn.Linear(2, 3), ball_layer()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden = linear(torch.ones(4, 2))
            (z,) = layer(hidden)
            assert hidden.dtype == torch.bfloat16 and z.dtype == torch.float32
            z.sum().backward()
        assert linear.weight.grad.dtype == torch.float32 and torch.isfinite(linear.weight.grad).all()
