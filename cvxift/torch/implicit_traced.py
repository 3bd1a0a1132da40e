"""An implicit function's call as `torch.compile` sees it: one opaque operator, and one for its derivative.

A tracer must know x's structure, and which tensors F closes over, before the solver has run. So while it traces, the
call is made once with the values at hand, and what it tells is kept under a name. The tensors that F closes over become
inputs of the graph, and get their gradients like θ.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakValueDictionary

import torch

from cvxift.errors import ProgramError
from cvxift.torch.closures import dual, wrapped
from cvxift.torch.implicit_rule import solved, tensor_pull
from cvxift.torch.tensors import untraced
from cvxift.torch.trees import flatten

Tensor = torch.Tensor

_functions: WeakValueDictionary[str, Any] = WeakValueDictionary()
_calls: dict[str, Call] = {}  # for ever, as compiled code: its backward pass may come after the function is gone
_count = itertools.count()


def described(tree: Any, tensors: list[Any]) -> tuple[Any, ...]:
    """A structure as nested tuples of constants, which tracers keep as such; its tensors are appended to a list.

    PyTorch's own description of a structure is none of theirs.
    """
    if isinstance(tree, torch.Tensor):
        tensors.append(tree)
        return ("tensor",)
    if type(tree) is tuple or type(tree) is list:
        return (type(tree).__name__, *[described(item, tensors) for item in tree])
    if type(tree) is dict:
        return ("dict", *[(key, described(item, tensors)) for key, item in tree.items()])
    return ("value", tree)


def rebuilt(description: tuple[Any, ...], tensors: list[Any]) -> Any:
    """The inverse of `described`; takes the tensors from the front of the list."""
    kind, *parts = description
    if kind == "tensor":
        return tensors.pop(0)
    if kind == "value":
        return parts[0]
    if kind == "dict":
        return {key: rebuilt(part, tensors) for key, part in parts}
    items = [rebuilt(part, tensors) for part in parts]
    return tuple(items) if kind == "tuple" else items


@dataclass(frozen=True, eq=False)
class Call:
    """What the call that was made while tracing told.

    Attributes:
        function: the `ImplicitFunction`.
        given: (θ, init), described.
        shapes: of its tensors, and of those that F closes over.
        prepared: the point; its conditions matter.
        active: the mask of active rows; empty without constraints.
        wanted: which of the tensors need gradients.
        returned: what the call returns, described.
        outputs: shapes and dtypes of its tensors.
    """

    function: Any
    given: tuple[Any, ...]
    shapes: list[tuple[int, ...]]
    prepared: Any
    active: Tensor
    wanted: list[int]
    returned: tuple[Any, ...]
    outputs: list[tuple[tuple[int, ...], torch.dtype]]

    @property
    def places(self) -> list[bool]:
        """Which of the tensors returned are floating parts of x."""
        layout = self.prepared.conditions.layout
        x = [i for i, leaf in enumerate(layout.constants) if i in layout.positions or isinstance(leaf, Tensor)]
        return [k < len(x) and x[k] in layout.positions for k in range(len(self.outputs))]


def register(function: Any) -> str:
    """A name for an implicit function, which lives no longer than that."""
    key = f"implicit_{next(_count)}"
    _functions[key] = function
    return key


def traced_call(function: Any, theta: tuple[Any, ...], init: Any) -> Any:
    """The call of an implicit function; tracers read this."""
    tensors: list[Any] = []
    given = described((theta, init), tensors)
    name = _made(function.key, given, *tensors)
    if not name:
        return _untraced(function, theta, init)
    outputs = _opaque(name, *tensors, *getattr(function, f"{name}_found"))
    return rebuilt(getattr(function, f"{name}_returned"), list(outputs))


@untraced
def _untraced(function: Any, theta: tuple[Any, ...], init: Any) -> Any:
    """The call, run as it stands; ``fullgraph=True`` refuses it."""
    return function(*theta, init=init)


@torch.compiler.assume_constant_result
def _made(key: str, given: tuple[Any, ...], *tensors: Tensor) -> str:
    """Make the call with the values that are traced, keep what it tells, and return its name.

    The name is empty where there are no values, inside a transform of ``torch.func``, and where the solver returns what
    is no tensor, which would be for ever that of this call.
    """
    function = _functions[key]
    if any(wrapped(t) or dual(t) for t in tensors):
        return ""
    prepared = function._prepared(*rebuilt(given, [t.detach() for t in tensors]))  # keep no graph
    answer = (prepared.x, prepared.aux) if function.settings.has_aux else prepared.x
    if not all(part is None or isinstance(part, Tensor) for part in flatten("x", answer)[1]):
        return ""
    found = list(prepared.conditions.found)
    operands, parts = [*tensors, *found], list[Tensor]()
    name = f"{key}_{next(_count)}"
    call = Call(
        function,
        given,
        [tuple(t.shape) for t in operands],
        replace(prepared, x=None, aux=None, operands=[]),
        _active(prepared),
        [i for i, t in enumerate(operands) if t.requires_grad],
        described(answer, parts),
        [(tuple(part.shape), part.dtype) for part in parts],
    )
    _calls[name] = call
    # Tracers guard every attribute that they read: each call has its own ones, which never change.
    setattr(function, f"{name}_found", found)
    setattr(function, f"{name}_returned", call.returned)
    return name


@torch.compiler.allow_in_graph
def _opaque(name: str, *operands: Tensor) -> list[Tensor]:
    """The tensors that the call returns."""
    call = _call_of(name)
    for t, shape in zip(operands, call.shapes, strict=True):
        if any(int(size) != known for size, known in zip(t.shape, shape, strict=True)):
            raise ProgramError(f"{call.function.settings.title} was traced with tensors of other shapes.")
    layout = call.prepared.conditions.layout
    w, _, *others = torch.ops.cvxift.implicit(list(operands), name)
    leaves = flatten("x", layout.unravel(w[: layout.size]))[1]
    x, rest = iter([leaves[i] for i in layout.positions]), iter(others)
    return [next(x) if own else next(rest) for own in call.places]


def _call_of(name: str) -> Call:
    call = _calls.get(name)
    if call is None:
        raise ProgramError(
            f"The implicit function behind {name} does not exist in this process: what is compiled uses the very one "
            "that it was traced with. Keep it, and trace in the process that runs."
        )
    return call


def _active(prepared: Any) -> Tensor:
    """The mask of active rows; empty without constraints."""
    conditions = prepared.conditions
    constrained = conditions.settings.constrained and conditions.layout.size
    return prepared.operands[conditions.count].detach() if constrained else prepared.w.detach()[:0]


def _with_autograd() -> AbstractContextManager[Any]:
    """PyTorch's dispatch as outside of an operator, inside of which autograd is off."""
    none = torch._C._dispatch_keyset_full() - torch._C._dispatch_keyset_full()
    return torch._C._ForceDispatchKeyGuard(torch._C._dispatch_tls_local_include_set(), none)


torch.library.define("cvxift::implicit", "(Tensor[] operands, str name) -> Tensor[]")
torch.library.define(
    "cvxift::implicit_pull", "(Tensor[] operands, Tensor w, Tensor active, Tensor bar, str name) -> Tensor[]"
)


@torch.library.impl("cvxift::implicit", "CompositeExplicitAutograd")
def _solve(operands: list[Tensor], name: str) -> list[Tensor]:
    """Solve: the point as a vector, the mask of active rows, and what else the call returns.

    Args:
        operands: tensors of θ and init, then those that F closes over.
        name: of the call.
    """
    call = _call_of(name)
    function, known = call.function, call.prepared.conditions
    count = len(operands) - len(known.found)
    with _with_autograd(), torch.no_grad():
        prepared = function._prepared(*rebuilt(call.given, [t.detach() for t in operands[:count]]))
        if len(prepared.conditions.found) != len(known.found):
            raise ProgramError(
                f"{function.settings.title} closes over {len(prepared.conditions.found)} tracked tensors now, over "
                f"{len(known.found)} when torch.compile traced it. Pass what changes as an argument."
            )
        function.look(prepared, function._system(prepared))
    answer = (prepared.x, prepared.aux) if function.settings.has_aux else prepared.x
    parts: list[Tensor] = []
    described(answer, parts)
    got = [(tuple(part.shape), part.dtype) for part in parts]
    if got != call.outputs:
        raise ProgramError(f"{function.settings.title} returned {got}; when torch.compile traced it {call.outputs}.")
    others = [part.clone() for part, own in zip(parts, call.places, strict=True) if not own]
    return [prepared.w.detach().clone(), _active(prepared).clone(), *others]


@torch.library.register_fake("cvxift::implicit")
def _solve_fake(operands, name):
    call = _call_of(name)
    known = call.prepared
    others = [output for output, own in zip(call.outputs, call.places, strict=True) if not own]
    device = known.w.device
    return [
        *(torch.empty(t.shape, dtype=t.dtype, device=device) for t in (known.w, call.active)),
        *(torch.empty(shape, dtype=dtype, device=device) for shape, dtype in others),
    ]


def _context(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    operands, ctx.name = inputs
    w, active, *others = output
    ctx.mark_non_differentiable(active, *others)
    ctx.save_for_backward(w, active, *operands)


def _backward(ctx: Any, bars: Sequence[Tensor]) -> tuple[list[Tensor | None], None]:
    w, active, *operands = ctx.saved_tensors
    grads: list[Tensor | None] = [None] * len(operands)
    found = torch.ops.cvxift.implicit_pull(operands, w, active, bars[0], ctx.name)
    for i, grad in zip(_call_of(ctx.name).wanted, found, strict=True):
        grads[i] = grad
    return grads, None


torch.library.register_autograd("cvxift::implicit", _backward, setup_context=_context)


@torch.library.impl("cvxift::implicit_pull", "CompositeExplicitAutograd")
def _pull(operands: list[Tensor], w: Tensor, active: Tensor, bar: Tensor, name: str) -> list[Tensor]:
    """θ̄ = −F_θᵀ J⁻ᵀ x̄, of the tensors that are wanted.

    Args:
        operands: as the call had them.
        w: the point.
        active: the mask of active rows.
        bar: x̄, zero for multipliers.
        name: of the call.
    """
    call = _call_of(name)
    function, conditions = call.function, call.prepared.conditions
    system = function._system(call.prepared)
    count = len(operands) - len(conditions.found)
    mask = [active] if function.settings.constrained else []
    own = [t.detach() for t in (*operands[: conditions.count], *mask, *operands[count:])]
    before = conditions.count  # tensors of init have no derivative
    place = {i: i if i < before else i - count + before + len(mask) for i in call.wanted if i < before or i >= count}
    with _with_autograd(), torch.no_grad():
        u = solved(system, True, bar, w.detach(), own)
        pulled = dict(zip(place, tensor_pull(system, w.detach(), own, list(place.values()), -u), strict=True))
    return [pulled.get(i, torch.zeros_like(operands[i])).clone() for i in call.wanted]  # type: ignore[union-attr]


@torch.library.register_fake("cvxift::implicit_pull")
def _pull_fake(operands, w, active, bar, name):
    return [torch.empty_like(operands[i]) for i in _call_of(name).wanted]
