"""The one rule of implicit functions, as PyTorch's autograd functions.

    F(x(θ), θ) = 0   ⇒   ẋ = −J⁻¹ F_θ θ̇,     θ̄ = −F_θᵀ J⁻ᵀ x̄,     J = ∂F/∂x.

y = J⁻¹b is an implicit function, too, of G(y; b, x, θ) = J(x, θ) y − b, with ∂G/∂y = J. So the derivative of the rule
comes from the rule: every order, in both modes, never through a solver.

θ are the tensors that F takes or closes over. All vectors are flat. Under ``torch.func.vmap`` the function is mapped
and the batch is solved at once; cotangents alone that are mapped are right-hand sides of one factorization.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import torch
from torch.autograd import forward_ad

from cvxift.errors import ProgramError
from cvxift.implicit import linear
from cvxift.implicit.linear import Certificate, Outcome
from cvxift.implicit.minimum import NO_MINIMUM, is_minimum
from cvxift.implicit.options import LU, Cholesky, LinearSolver
from cvxift.torch.closures import tracked, wrapped
from cvxift.torch.implicit_operator import BACKEND, Jacobian
from cvxift.torch.nested import nested, primals
from cvxift.torch.source import is_legacy_batched
from cvxift.torch.tensors import untraced

Tensor = torch.Tensor
Function = Callable[..., Tensor]  # (x, *tensors) ↦ residual, flat


class System:
    """F of one instance, and how systems with its Jacobian are solved.

    Args:
        function: (x, *tensors) ↦ residual; x and the residual have shape (n,).
        option: the linear solver.
        damping: added to J's diagonal.
        symmetric: whether J is symmetric by construction.
        structured: see `Jacobian`.
        report: is called with every certificate.
        minimum: number of variables of a minimizer, whose Hessian is tested where it is formed; None for no test.
        maps: for each batch dimension, innermost first, which tensors have it (in front): 0 or None.
    """

    def __init__(
        self,
        function: Function,
        option: LinearSolver,
        damping: float,
        symmetric: bool,
        structured: Any,
        report: Callable[[Certificate], None],
        maps: tuple[tuple[int | None, ...], ...] = (),
        minimum: int | None = None,
    ) -> None:
        self.verify: Callable[[System, Tensor, Sequence[Tensor]], None] | None = None
        self.minimum = minimum
        self.depth = 0
        self.one, self.option, self.damping, self.symmetric = function, option, damping, symmetric
        self.structured, self.report, self.maps = structured, report, maps

    def __call__(self, x: Tensor, *tensors: Tensor) -> Tensor:
        """F of the batch."""
        function = self.one
        for dims in self.maps:
            function = torch.func.vmap(function, in_dims=(0, *dims))
        return function(x, *tensors)

    def mapped(self, dims: tuple[int | None, ...]) -> System:
        """The system with one more batch dimension."""
        maps = (*self.maps, dims)
        system = System(
            self.one, self.option, self.damping, self.symmetric, self.structured, self.report, maps, self.minimum
        )
        system.verify = self.verify
        return system

    def jacobian(self, x: Tensor, tensors: Sequence[Tensor]) -> Jacobian:
        """J at plain tensors."""
        return Jacobian(lambda point: self(point, *tensors), x, self.structured, self.symmetric)

    @untraced
    def solve(self, transposed: bool, b: Tensor, x: Tensor, tensors: Sequence[Tensor]) -> Tensor:
        """J⁻¹b or J⁻ᵀb at plain tensors, certified; NaN where it is no derivative of anything."""
        operator: Any = self.jacobian(x, tensors)
        with torch.no_grad():
            y, outcome = linear.solve(BACKEND, operator.T if transposed else operator, b, self.option, self.damping)
            parts = (outcome.residual, outcome.iterations, outcome.status, outcome.condition)
            eps = torch.finfo(b.dtype).eps
            if outcome.residual.numel() == 1:
                residual, iterations, status, condition = (part.item() for part in parts)
                certificate = linear.certify_one(residual, int(iterations), int(status), condition, self.option, eps)
            else:
                certificate = linear.certify(Outcome(*(part.cpu().numpy() for part in parts)), self.option, eps)
            if self.minimum is not None and not certificate.problem and isinstance(self.option, LU | Cholesky):
                least = bool(is_minimum(BACKEND, operator.dense(), self.minimum).all())
                certificate = certificate if least else replace(certificate, problem=NO_MINIMUM)
            if certificate.unusable:
                y = torch.where(linear.suspect(BACKEND.xp, outcome, self.option, eps)[1], torch.nan, y)
            self.report(certificate)
        return y


class LinearSystem(System):
    """G(y; b, x, θ) = J y − b, or with Jᵀ, as a function of y.

    Its first two tensors are b and x, followed by the base's, which begin with such a pair if that is one, too.
    """

    def __init__(self, base: System, transposed: bool, maps: tuple[tuple[int | None, ...], ...] = ()) -> None:
        super().__init__(self._value, base.option, base.damping, base.symmetric, base.structured, base.report, maps)
        self.base, self.transposed = base, transposed
        self.depth = base.depth + 1

    def _value(self, y: Tensor, b: Tensor, x: Tensor, *tensors: Tensor) -> Tensor:
        product = pull(self.base, x, tensors, y) if self.transposed else push(self.base, x, tensors, y)
        return product + self.damping * y - b if self.damping else product - b

    def mapped(self, dims: tuple[int | None, ...]) -> System:
        """The system with one more batch dimension; b and x must have it."""
        return LinearSystem(self.base, self.transposed, (*self.maps, dims))

    def jacobian(self, x: Tensor, tensors: Sequence[Tensor]) -> Any:
        """J does not depend on y, and is that of the base at its own point."""
        base = self.base
        for dims in self.maps:
            base = base.mapped(dims[2:])
        found = base.jacobian(tensors[1], tensors[2:])
        return found.T if self.transposed else found

    def solve(self, transposed: bool, b: Tensor, x: Tensor, tensors: Sequence[Tensor]) -> Tensor:
        """As the base solves, which knows which of J and Jᵀ is which."""
        base = self.base
        for dims in self.maps:
            base = base.mapped(dims[2:])
        return base.solve(transposed != self.transposed, b, tensors[1], tensors[2:])


def pull(function: Function, x: Tensor, tensors: Sequence[Tensor], u: Tensor) -> Tensor:
    """F_xᵀ u."""
    return torch.func.vjp(lambda point: function(point, *tensors), x)[1](u)[0]


def push(function: Function, x: Tensor, tensors: Sequence[Tensor], v: Tensor) -> Tensor:
    """F_x v."""
    return along(lambda point: function(point, *tensors), (x,), (v,))


def along(function: Function, at: tuple[Tensor, ...], dots: tuple[Tensor, ...]) -> Tensor:
    """The derivative along tangents: u ↦ F′ᵀu is linear, and its transpose is F′.

    Forward mode proper would do, but loses terms where passes are nested, and does not nest in dual levels.
    """
    value, back, *_ = torch.func.vjp(function, *at)
    return torch.func.vjp(back, torch.zeros_like(value))[1](dots)[0]


class Constant(torch.autograd.Function):
    """What has no derivative, where tensors are wrapped by a transform; its tensors are detached."""

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing is kept."""
        ctx.mark_non_differentiable(*([output] if isinstance(output, Tensor) else output))
        ctx.number = len(inputs)

    @staticmethod
    def backward(ctx: Any, *bars: Any) -> Any:
        """None."""
        return (None,) * ctx.number


class _Solved(Constant):
    """J⁻¹b or J⁻ᵀb without derivatives; its tensors are detached."""

    @staticmethod
    def forward(system: System, transposed: bool, b: Tensor, x: Tensor, *tensors: Tensor) -> Tensor:
        """Solve."""
        return system.solve(transposed, b, x, tensors)

    @staticmethod
    # Named arguments for the base's *args.
    def vmap(info: Any, in_dims: Any, system: System, transposed: bool, b: Tensor, x: Tensor, *tensors: Tensor) -> Any:  # type: ignore[override]
        """One more batch dimension, of right-hand sides only or of systems."""
        dims = in_dims[2:]
        b = first(info.batch_size, dims[0], b)
        if all(dim is None for dim in dims[1:]):
            return _Solved.apply(system, transposed, b, x, *tensors), 0
        extra = b.ndim - 1 - x.ndim + (dims[1] is not None)
        if extra:  # right-hand sides that were mapped before stay in front of the batch
            b = b.movedim(0, extra)
        mapped, moved = _mapped(system, info.batch_size, dims[2:], tensors)
        return _Solved.apply(mapped, transposed, b, first(info.batch_size, dims[1], x), *moved), extra


class _Attached(torch.autograd.Function):
    """x as it is, with the derivative of an implicit function of the tensors."""

    @staticmethod
    def forward(system: System, x: Tensor, *tensors: Tensor) -> Tensor:
        """The value itself; on the way down through the transforms it is first plain here, and is looked at."""
        if system.verify is not None:
            system.verify(system, x, tensors)
        return x.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        """Keep the solution: as output for the backward pass, which it differentiates; as input for the forward one."""
        system, x, *tensors = inputs
        ctx.system = system
        ctx.save_for_backward(output, *tensors)
        ctx.save_for_forward(x, *tensors)
        ctx.constants = ()

    @staticmethod
    def backward(ctx: Any, *bars: Any) -> Any:
        """θ̄ = −F_θᵀ J⁻ᵀ x̄."""
        (bar,) = bars
        x, *tensors = ctx.saved_tensors
        wanted = [i for i, want in enumerate(ctx.needs_input_grad[2:]) if want]
        grads: list[Tensor | None] = [None] * len(tensors)
        if bar is None or not wanted:
            return None, None, *grads
        u = solved(ctx.system, True, bar, x, tensors)
        for i, grad in zip(wanted, tensor_pull(ctx.system, x, tensors, wanted, -u), strict=True):
            grads[i] = grad
        return None, None, *grads

    @staticmethod
    @nested
    # Named arguments for the base's *args.
    def jvp(ctx: Any, system: None, x_dot: None, *dots: Tensor | None) -> Tensor:  # type: ignore[override]
        """ẋ = −J⁻¹ F_θ θ̇."""
        x, *tensors = primals(ctx)
        x = _Attached.apply(ctx.system, x.detach(), *tensors)
        moving = [i for i, dot in enumerate(dots) if dot is not None]
        if not moving:
            return torch.zeros_like(x)
        b = along(
            _of_tensors(ctx.system, x, tensors, moving),
            tuple(tensors[i] for i in moving),
            tuple(dots[i].to(tensors[i]) for i in moving),  # type: ignore[union-attr]
        )
        return solved(ctx.system, False, -b, x, tensors)

    @staticmethod
    # Named arguments for the base's *args.
    def vmap(info: Any, in_dims: Any, system: System, x: Tensor, *tensors: Tensor) -> Any:  # type: ignore[override]
        """One more batch dimension."""
        mapped, moved = _mapped(system, info.batch_size, in_dims[2:], tensors)
        return _Attached.apply(mapped, first(info.batch_size, in_dims[1], x), *moved), 0


def attached(system: System, x: Tensor, tensors: Sequence[Tensor]) -> Tensor:
    """x with its derivative in the tensors."""
    return _Attached.apply(system, x, *tensors)  # type: ignore[return-value]  # torch leaves apply untyped


def solved(system: System, transposed: bool, b: Tensor, x: Tensor, tensors: Sequence[Tensor]) -> Tensor:
    """J⁻¹b or J⁻ᵀb, differentiable in b, x and the tensors if a derivative can be asked for."""
    operands = (b, x, *tensors)
    wrapped_any = any(map(wrapped, operands))
    if is_legacy_batched(b):
        return _by_rows(system, transposed, b, x, tensors)
    if not wrapped_any and not (torch.is_grad_enabled() or forward_ad._current_level >= 0):
        return system.solve(transposed, b, x, tensors)
    y = _Solved.apply(system, transposed, *(t.detach() for t in operands))
    if not any(map(tracked, operands)):
        return y  # type: ignore[return-value]  # torch leaves apply untyped
    return attached(LinearSystem(system, transposed), y, operands)  # type: ignore[arg-type]


_called: dict[int, Function] = {}  # solves with the systems whose rows are being solved


@torch.library.custom_op("cvxift::implicit_rows", mutates_args=(), schema="(int key, Tensor b) -> Tensor")
def _row_operator(key: int, b: Tensor) -> Tensor:
    """`System.solve` as an operator, which ``is_grads_batched`` maps row by row."""
    with ThreadPoolExecutor(1) as fresh:  # inside an operator autograd is off; each thread has its own state
        return fresh.submit(_called[key], b).result().clone()


def _by_rows(system: System, transposed: bool, b: Tensor, x: Tensor, tensors: Sequence[Tensor]) -> Tensor:
    """Cotangents that ``torch.autograd.grad(is_grads_batched=True)`` maps, which knows operators only."""
    if torch.is_grad_enabled() and any(map(tracked, (x, *tensors))):
        raise ProgramError(
            "is_grads_batched=True with create_graph=True does not reach autograd functions: use torch.func.jacrev."
        )
    _called[id(system)] = lambda row: system.solve(transposed, row, x, tensors)
    try:
        return _row_operator(id(system), b)
    finally:
        del _called[id(system)]


def tensor_pull(
    system: System, x: Tensor, tensors: Sequence[Tensor], wanted: Sequence[int], u: Tensor
) -> Sequence[Tensor | None]:
    """F_θᵀ u for the wanted tensors."""
    chosen = [tensors[i] for i in wanted]
    function = _of_tensors(system, x, tensors, wanted)
    if torch.is_grad_enabled() or any(map(wrapped, (x, u, *tensors))):
        return torch.func.vjp(function, *chosen)[1](u)
    with torch.enable_grad():
        leaves = [t.detach().requires_grad_() for t in chosen]
        value = function(*leaves)
    if not value.requires_grad:
        return [torch.zeros_like(t) for t in chosen]
    grads = torch.autograd.grad(value, leaves, u, allow_unused=True)
    return [torch.zeros_like(t) if grad is None else grad for grad, t in zip(grads, chosen, strict=True)]


def _of_tensors(system: System, x: Tensor, tensors: Sequence[Tensor], moving: Sequence[int]) -> Function:
    """F as a function of some of its tensors."""

    def function(*values: Tensor) -> Tensor:
        all_of_them = list(tensors)
        for i, value in zip(moving, values, strict=True):
            all_of_them[i] = value
        return system(x, *all_of_them)

    return function


def _mapped(
    system: System, size: int, dims: Sequence[int | None], tensors: Sequence[Tensor]
) -> tuple[System, list[Tensor]]:
    """A system with one more batch dimension, and its tensors with it in front; points and right-hand sides have it."""
    everywhere = 2 * system.depth
    moved = [
        t if dim is None and i >= everywhere else first(size, dim, t) for i, (t, dim) in enumerate(zip(tensors, dims))
    ]
    kept = tuple(None if dim is None and i >= everywhere else 0 for i, dim in enumerate(dims))
    return system.mapped(kept), moved


def first(size: int, dim: int | None, t: Tensor) -> Tensor:
    """A mapped tensor with its mapped dimension in front, broadcast if it has none."""
    return t.expand(size, *t.shape) if dim is None else t.movedim(dim, 0)
