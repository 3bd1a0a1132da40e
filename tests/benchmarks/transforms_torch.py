"""The rows of PyTorch's table: each takes a fresh layer and raises unless the transform gives what it should."""

from __future__ import annotations

import copy
import os
import pickle
import tempfile
from typing import Any

import torch
from torch.autograd import forward_ad, functional
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

from .transforms import Cell, close, values

double = torch.float64
WEIGHTS = torch.tensor([1.0, 2.0, 3.0], dtype=double)


def tensors(batch: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """A and b."""
    A, b = values(batch)
    return torch.tensor(A), torch.tensor(b)


def leaves(batch: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """A and b that require gradients."""
    A, b = tensors(batch)
    return A.requires_grad_(), b.requires_grad_()


def closed(A: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The solution where x₁ ≥ 1/2 is active: AᵀA x + Cᵀν = Aᵀb, C x = d."""
    C = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]], dtype=A.dtype)
    d = torch.tensor([1.0, 0.5], dtype=A.dtype)
    K = torch.cat([torch.cat([A.mT @ A, C.T.expand(*A.shape[:-2], 3, 2)], -1),
                   torch.cat([C, torch.zeros(2, 2, dtype=A.dtype)], -1).expand(*A.shape[:-2], 2, 5)], -2)  # fmt: skip
    right = torch.cat([(A.mT @ b[..., None])[..., 0], d.expand(*b.shape[:-1], 2)], -1)
    return torch.linalg.solve(K, right[..., None])[..., :3, 0]


def loss(layer: Any) -> Any:
    """A smooth function of the solution, by the layer or, for None, by the closed form."""
    solve = closed if layer is None else lambda A, b: layer(A, b)[0]
    return lambda A, b: (WEIGHTS.to(A.dtype) * solve(A, b).sin()).sum()


def slope(layer: Any, batch: int | None = None) -> tuple[torch.Tensor, ...]:
    """The loss's gradient by a backward pass."""
    A, b = leaves(batch)
    return torch.autograd.grad(loss(layer)(A, b), (A, b))


def both(transform: Any) -> Cell:
    """The transform of the loss by the layer, against that by the closed form."""
    return lambda layer: close(transform(loss(layer)), transform(loss(None)))


def call(layer: Any) -> None:
    close(layer(*tensors())[0], closed(*tensors()))


def batch(layer: Any) -> None:
    close(layer(*tensors(4))[0], closed(*tensors(4)))
    close(slope(layer, 4), slope(None, 4))


def backward(layer: Any) -> None:
    close(slope(layer), slope(None))


def single(layer: Any) -> None:
    A, b = (t.float().detach().requires_grad_() for t in tensors())
    out = layer(A, b)[0]
    assert out.dtype == torch.float32, f"{out.dtype} for torch.float32"
    close(torch.autograd.grad((WEIGHTS.float() * out.sin()).sum(), (A, b)), slope(None))


def gradcheck(layer: Any) -> None:
    torch.autograd.gradcheck(lambda A, b: layer(A, b)[0], leaves(), eps=1e-3, atol=1e-2, rtol=1e-2, nondet_tol=1e-6)


def gradgradcheck(layer: Any) -> None:
    torch.autograd.gradgradcheck(lambda A, b: layer(A, b)[0], leaves(), eps=1e-3, atol=1e-2, rtol=1e-2, nondet_tol=1e-6)


def twice(layer: Any) -> None:
    def second(layer: Any) -> Any:
        A, b = leaves()
        first = torch.autograd.grad(loss(layer)(A, b), (A, b), create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), (A, b))

    close(second(layer), second(None))


def duals(layer: Any) -> None:
    A, b = tensors()
    with forward_ad.dual_level():
        pair = forward_ad.make_dual(A, torch.ones_like(A)), forward_ad.make_dual(b, torch.ones_like(b))
        tangents = [forward_ad.unpack_dual(loss(which)(*pair)).tangent for which in (layer, None)]
    close(*tangents)


def mapped(layer: Any) -> None:
    A, b = tensors(4)
    close(vmap(layer)(A, b)[0], closed(A, b))
    close(
        vmap(vmap(lambda A, b: layer(A, b)[0], (None, 0)), (0, None))(A, b),
        closed(A[:, None].expand(4, 4, 5, 3), b.expand(4, 4, 5)),
    )


def compiled(backend: str) -> Cell:
    def cell(layer: Any) -> None:
        torch._dynamo.reset()
        A, b = leaves()
        out = torch.compile(loss(layer), fullgraph=True, backend=backend)(A, b)
        close(torch.autograd.grad(out, (A, b)), slope(None))

    return cell


class Model(torch.nn.Module):
    """The layer after a linear map with one parameter."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer, self.scale = layer, torch.nn.Parameter(torch.ones(5, dtype=double))

    def forward(self, A: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return self.layer(A, self.scale * b)[0]


def exported(layer: Any) -> None:
    close(torch.export.export(Model(layer), tensors()).module()(*tensors()), closed(*tensors()))


def autocast(layer: Any) -> None:
    A, b = tensors()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(A.float(), torch.nn.functional.linear(b.float()[None], torch.eye(5))[0])[0]
    assert out.dtype == torch.float32, f"{out.dtype} for torch.float32"
    close(out, closed(A, b), 0.05)


def inference(layer: Any) -> None:
    with torch.inference_mode():
        close(layer(*tensors())[0], closed(*tensors()))


def checkpoint(layer: Any) -> None:
    from torch.utils.checkpoint import checkpoint

    A, b = leaves()
    close(torch.autograd.grad(checkpoint(loss(layer), A, b, use_reentrant=False), (A, b)), slope(None))


def deepcopied(layer: Any) -> None:
    call(layer)
    backward(copy.deepcopy(layer))


def pickled(layer: Any) -> None:
    call(layer)
    backward(pickle.loads(pickle.dumps(layer)))


def meta(layer: Any) -> None:
    out = layer(*(t.to("meta") for t in tensors(4)))[0]
    assert out.is_meta and out.shape == (4, 3), f"shape {tuple(out.shape)} on {out.device}"


class Items(torch.utils.data.Dataset):
    """Solutions that a worker computes."""

    def __init__(self, layer: Any) -> None:
        self.layer, self.data = layer, tensors(4)

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.layer(*(t[index] for t in self.data))[0].detach()


def workers(start: str) -> Cell:
    def cell(layer: Any) -> None:
        call(layer)
        loader = torch.utils.data.DataLoader(
            Items(layer), batch_size=4, num_workers=1, multiprocessing_context=start, timeout=60
        )
        close(next(iter(loader)), closed(*tensors(4)))

    return cell


def distributed(layer: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = f"file://{os.path.join(folder, 'store')}"
        torch.distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
        try:
            model = torch.nn.parallel.DistributedDataParallel(Model(layer))
            model(*tensors()).sum().backward()
            found = model.module.scale.grad
            del model  # a group that dies with it may wait for ever: tests/torch_adapter/test_distributed.py
        finally:
            torch.distributed.destroy_process_group()
    plain = Model(lambda A, b: (closed(A, b),))
    plain(*tensors()).sum().backward()
    close(found, plain.scale.grad)


V = tuple(torch.arange(1.0, t.numel() + 1, dtype=double).sin().reshape(t.shape) for t in tensors())

CELLS: dict[str, Cell] = {
    "a call": call,
    "a batch, and its gradient": batch,
    "`backward`": backward,
    "float32 in, float32 out": single,
    "`gradcheck`": gradcheck,
    "gradient of a gradient (`create_graph`)": twice,
    "`gradgradcheck`": gradgradcheck,
    "forward mode (dual numbers)": duals,
    "`torch.func.grad`": both(lambda f: grad(f, (0, 1))(*tensors())),
    "`torch.func.vjp`": both(lambda f: vjp(f, *tensors())[1](torch.tensor(1.0, dtype=double))),
    "`torch.func.jvp`": both(lambda f: jvp(f, tensors(), V)[1]),
    "`torch.func.jacrev`": both(lambda f: jacrev(f, (0, 1))(*tensors())),
    "`torch.func.jacfwd`": both(lambda f: jacfwd(f, (0, 1))(*tensors())),
    "`torch.func.hessian`": both(lambda f: hessian(f, (0, 1))(*tensors())),
    "`torch.func.jacrev` of `jacfwd`": both(lambda f: jacrev(jacfwd(f, 1), 1)(*tensors())),
    "`torch.func.vmap`, nested with mixed axes": mapped,
    "`vmap` of `grad`": both(lambda f: vmap(grad(f, (0, 1)))(*tensors(4))),
    "`grad` of `vmap`": both(lambda f: grad(lambda A, b: vmap(f)(A, b).sum(), (0, 1))(*tensors(4))),
    "`functional.jacobian(vectorize=True)`": both(lambda f: functional.jacobian(f, tensors(), vectorize=True)),
    "`functional.hessian(vectorize=True)`": both(lambda f: functional.hessian(f, tensors(), vectorize=True)),
    "`functional.hvp`": both(lambda f: functional.hvp(f, tensors(), V)[1]),
    "`torch.compile(fullgraph=True)`, aot_eager": compiled("aot_eager"),
    "`torch.compile(fullgraph=True)`, inductor": compiled("inductor"),
    "`torch.export`": exported,
    "autocast to bfloat16": autocast,
    "`inference_mode`": inference,
    "`checkpoint`": checkpoint,
    "`deepcopy`": deepcopied,
    "`pickle`": pickled,
    "meta tensors": meta,
    "`DataLoader` worker, forked": workers("fork"),
    "`DataLoader` worker, spawned": workers("spawn"),
    "`DistributedDataParallel`": distributed,
}
