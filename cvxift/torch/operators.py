"""The forms as a PyTorch operator, which tracers see as one opaque node: `torch.compile`, `torch.export`, fake tensors.

An operator takes tensors and strings alone, so that a layer is known to it by a key; tangents are stacked along a first
dimension, and z̄ is empty in the forward form.
"""

from __future__ import annotations

import ast
import itertools
import os
from functools import lru_cache
from typing import Any
from weakref import WeakValueDictionary

import torch

from cvxift.errors import ProgramError
from cvxift.layers.solve_cache import Host, Options
from cvxift.torch.source import Operands, Source, cotangents, leading

_hosts: WeakValueDictionary[str, Host] = WeakValueDictionary()
_count = itertools.count()


def register(host: Host) -> str:
    """A new key for a host, which lives no longer than the host; of this process alone."""
    key = f"{os.getpid()}.{next(_count)}"
    _hosts[key] = host
    return key


def host_of(key: str) -> Host:
    """The host that has this key.

    Raises:
        ProgramError: there is none in this process.
    """
    host = _hosts.get(key)
    if host is None:
        raise ProgramError(
            f"The layer with key {key} does not exist in this process: a compiled or exported function uses the very "
            "layer that it was traced with. Keep the layer, and trace in the process that runs."
        )
    return host


@lru_cache(maxsize=64)
def _options(text: str) -> Options:
    args, warm_start = ast.literal_eval(text)
    return Options.of(dict(args), warm_start)


def encoded(options: Options) -> str:
    """Options as the operators take them."""
    return repr((tuple(sorted(options.solver_args.items())), options.warm_start))


torch.library.define(
    "cvxift::form",
    "(Tensor theta, Tensor tangents, Tensor bar, bool adjoint, str key, str options) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag,),
)
form = torch.ops.cvxift.form.default


@torch.library.impl("cvxift::form", "CompositeExplicitAutograd")
def _form(
    theta: torch.Tensor, tangents: torch.Tensor, bar: torch.Tensor, adjoint: bool, key: str, options: str
) -> torch.Tensor:
    """Either form; see `cvxift.torch.form`.

    Args:
        theta: shape (*lead, N).
        tangents: shape (k, *lead, N); none in the forward form are the solution itself.
        bar: shape (*lead, K) in the adjoint form, else anything.
        adjoint: which form.
        key: of the layer's host.
        options: of the call.
    """
    rows = tangents.unbind() if len(tangents) else ()
    return Source(host_of(key), _options(options), key)(theta, rows, bar if adjoint else None)


@torch.library.register_fake("cvxift::form")
def _form_fake(theta, tangents, bar, adjoint, key, options):
    mapping = host_of(key).core.map
    lead = torch.broadcast_shapes(theta.shape[:-1], tangents.shape[1:-1], bar.shape[:-1] if adjoint else ())
    return theta.new_empty((*lead, mapping.theta_size if adjoint else mapping.output_size))


def _form_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    theta, tangents, bar, ctx.adjoint, ctx.key, ctx.options = inputs
    ctx.save_for_backward(theta, tangents, bar)


def _form_backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    theta, tangents, bar = ctx.saved_tensors
    rows = tuple(tangents)
    directions = (*rows, bar) if ctx.adjoint else rows
    wanted = ctx.needs_input_grad

    def apply(theta: torch.Tensor, tangents: Operands, bar: torch.Tensor | None) -> torch.Tensor:
        host_of(ctx.key).check_order(len(tangents) + (bar is not None))
        return compute(ctx.key, ctx.options, theta, tangents, bar)

    each = [wanted[0], *[wanted[1]] * len(rows), *([wanted[2]] if ctx.adjoint else [])]
    grads = cotangents(apply, each, ctx.adjoint, theta, directions, g)
    rest = grads[1 : 1 + len(rows)]
    of_tangents = torch.stack([grad for grad in rest if grad is not None]) if wanted[1] and rows else None
    return grads[0], of_tangents, grads[-1] if ctx.adjoint else None, None, None, None


torch.library.register_autograd("cvxift::form", _form_backward, setup_context=_form_context)


def _form_vmap(info, in_dims, theta, tangents, bar, adjoint, key, options):
    theta, bar = leading((in_dims[0], in_dims[2]), (theta, bar))
    tangents = tangents.unsqueeze(1) if in_dims[1] is None else tangents.movedim(in_dims[1], 0).movedim(0, 1)
    return form(theta, tangents, bar, adjoint, key, options), 0


if hasattr(torch.library, "register_vmap"):  # from PyTorch 2.5
    torch.library.register_vmap("cvxift::form", _form_vmap)


def compute(key: str, options: str, theta: torch.Tensor, tangents: Operands, bar: torch.Tensor | None) -> torch.Tensor:
    """A form through the operator; arguments as `cvxift.torch.source.Source`, by the host's key and encoded options."""
    lead = torch.broadcast_shapes(*(tangent.shape for tangent in tangents)) if tangents else ()  # jit.trace has none
    rows = [tangent if tangent.shape == lead else tangent.expand(lead) for tangent in tangents]
    stack = torch.stack(rows) if rows else theta.new_zeros((0, *theta.shape))
    return form(theta, stack, theta.new_zeros(0) if bar is None else bar, bar is not None, key, options)
