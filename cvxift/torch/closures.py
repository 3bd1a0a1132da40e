"""What a function closes over, as arguments: module parameters and any other tensor that is tracked or mapped.

While the function runs, PyTorch shows every operator's arguments. A tracked tensor among them that neither is an
argument of the function nor was made inside it comes from outside. `find` collects these; `with_values` runs the
function with others in their places. So a rule can treat them like arguments, in every mode of differentiation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode

from cvxift.errors import ProgramError

Tensor = torch.Tensor
_functorch = torch._C._functorch  # type: ignore[attr-defined]


def wrapped(t: Tensor) -> bool:
    """Whether the tensor stands for another under a transform of ``torch.func``."""
    return _functorch.is_functorch_wrapped_tensor(t)


def dual(t: Tensor) -> bool:
    """Whether the tensor carries a tangent of forward mode."""
    return forward_ad._current_level >= 0 and forward_ad.unpack_dual(t, level=0).tangent is not None


def tracked(t: Tensor) -> bool:
    """Whether a derivative may be asked for with respect to the tensor, or it is mapped."""
    return t.requires_grad or wrapped(t) or dual(t)


class _Replace(TorchFunctionMode):
    """Puts other tensors in the places of given ones, in every operator's arguments."""

    def __init__(self, others: dict[int, Tensor]) -> None:
        super().__init__()
        self.others = others

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*map(self.swap, args), **{key: self.swap(value) for key, value in (kwargs or {}).items()})

    def swap(self, value: Any) -> Any:
        """A value, or a container's, with tensors replaced."""
        if isinstance(value, Tensor):
            return self.others.get(id(value), value)
        if type(value) in (list, tuple):
            return type(value)(map(self.swap, value))
        if type(value) is dict:
            return {key: self.swap(item) for key, item in value.items()}
        return value


class _Find(_Replace):
    """Collects tracked tensors from outside, and lets the function see them detached."""

    def __init__(self, own: Sequence[Tensor]) -> None:
        super().__init__({})
        self.level = _functorch.maybe_current_level() or -1 if hasattr(_functorch, "maybe_current_level") else -1
        self.known: dict[int, Tensor] = {id(t): t for t in own}
        self.found: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = super().__torch_function__(func, types, args, kwargs)
        for value in out if type(out) in (tuple, list) else (out,):
            if isinstance(value, Tensor):
                self.known[id(value)] = value  # kept, so that its id is nobody else's
        return out

    def swap(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return super().swap(value)
        other = self.others.get(id(value))
        if other is not None:
            return other
        if id(value) in self.known or not tracked(value) or self.made_inside(value):
            return value
        self.found.append(value)
        other = self.others[id(value)] = value.detach()
        self.known[id(other)] = other
        return other

    def made_inside(self, value: Tensor) -> bool:
        """Whether a transform that the function itself opened wrapped the tensor."""
        return wrapped(value) and _functorch.maybe_get_level(value) > self.level


def find(function: Callable[..., Tensor], *arguments: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Run a function, and see what it closes over.

    Args:
        function: of tensors, with a tensor as result.
        *arguments: detached.

    Returns:
        Its value, detached, and the tracked tensors from outside that it used.

    Raises:
        ProgramError: the value depends on a tracked tensor that was not seen, by name where it has one.
    """
    with _Find(arguments) as mode:
        value = function(*arguments)
    if value.requires_grad:
        hidden = _leaf_outside(value, mode.known)
        if hidden is not None:
            shape = tuple(hidden.shape)
            raise ProgramError(
                f"The function closes over a tensor of shape {shape} that requires a gradient and that reaches it "
                "through a custom torch.autograd.Function or compiled code, where it cannot be followed. "
                "Pass it as an argument."
            )
    return value.detach(), mode.found


def with_values(
    function: Callable[..., Tensor], found: Sequence[Tensor], values: Sequence[Tensor], arguments: Sequence[Tensor]
) -> Tensor:
    """Run a function with other values in place of tensors that it closes over.

    Args:
        function: of tensors.
        found: what `find` saw.
        values: as many tensors.
        arguments: of the function.
    """
    if not found:
        return function(*arguments)
    with _Replace({id(t): value for t, value in zip(found, values, strict=True)}):
        return function(*arguments)


def _leaf_outside(value: Tensor, known: dict[int, Tensor]) -> Tensor | None:
    """A leaf of the value's graph that is none of the known tensors."""
    nodes, seen = [value.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if isinstance(leaf, Tensor) and id(leaf) not in known:
            return leaf
        nodes.extend(previous for previous, _ in node.next_functions)
    return None
