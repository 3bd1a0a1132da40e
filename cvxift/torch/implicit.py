"""Implicit functions of tensors: any F(x, θ) = 0, any fixed point, any minimizer, with whatever code finds it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, overload

import torch

from cvxift.errors import ProgramError
from cvxift.implicit import function
from cvxift.implicit.function import Decorator, Solves, X
from cvxift.implicit.linear import Certificate
from cvxift.implicit.options import chosen
from cvxift.implicit.oracle import Oracle
from cvxift.implicit.settings import Settings
from cvxift.implicit.voice import say
from cvxift.torch.closures import find, tracked, wrapped
from cvxift.torch.implicit_active import multipliers
from cvxift.torch.implicit_diagnose import oracle
from cvxift.torch.implicit_function import Conditions
from cvxift.torch.implicit_operator import structured_by
from cvxift.torch.implicit_rule import System, attached
from cvxift.torch.implicit_solver import Runner, run
from cvxift.torch.implicit_traced import register, traced_call
from cvxift.torch.implicit_verify import verify
from cvxift.torch.trees import Layout, flatten, require_real, unflatten

Tensor = torch.Tensor


@dataclass(frozen=True, eq=False)
class Prepared:
    """A point with its conditions, before a derivative is attached.

    Attributes:
        x: what the solver returned.
        aux: its by-products.
        conditions: the equations.
        w: the point as a vector; with constraints followed by the multipliers.
        operands: the tensors that the conditions depend on: θ's, the active rows, what is closed over.
        residual: the conditions' value.
        margins: of the rows of H, to a change of the active set.
        names: of θ's tensors.
    """

    x: Any
    aux: Any
    conditions: Conditions
    w: Tensor
    operands: list[Tensor]
    residual: Tensor
    margins: Tensor
    names: list[str]


class ImplicitFunction(function.ImplicitFunction):
    """x(θ), the solution that a solver finds, with the derivative that the equations define.

    Made by `implicit_root`, `implicit_fixed_point` and `implicit_argmin`.

    Attributes:
        settings: what it is made of.
        certificate: of the last linear solve of a derivative; None before the first.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._with_grad = False
        self.key = register(self)

    def __call__(  # type: ignore[override]  # the decorator's type is a union of what it may be given
        self, *theta: Any, init: Any = None
    ) -> Any:
        """Solve, once.

        Args:
            *theta: the parameters, nested structures of tensors.
            init: a warm start, handed to a solver that has an argument ``init``.

        Returns:
            x; with ``has_aux`` the pair (x, aux), of which aux is not differentiated.

        Raises:
            ProgramError: F's value or the solver's has a wrong structure, shape or dtype, by the leaf's name.
            SolveError: the solver returned NaN or infinity, by the entry's name.
            ApplicabilityError: with ``check="raise"``, where the point is no solution.
        """
        if torch.compiler.is_compiling():
            return traced_call(self, theta, init)
        prepared = self._prepared(theta, init)
        layout = prepared.conditions.layout
        out = layout.unravel(self._attach(prepared)[: layout.size]) if layout.size else prepared.x
        return (out, prepared.aux) if self.settings.has_aux else out

    def _oracle(self, theta: tuple[Any, ...], init: Any) -> Oracle:
        return oracle(self, self._prepared(theta, init))

    def _instances(self, theta: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        names, leaves, spec = flatten("theta", list(theta))
        own = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        count = function.batch_size([names[i] for i in own], [leaves[i].shape for i in own])
        return [
            tuple(unflatten([leaf[k] if i in own else leaf for i, leaf in enumerate(leaves)], spec))
            for k in range(count)
        ]

    def _solve(self, rebuild: Any, tensors: Sequence[Tensor], init: Any) -> tuple[Any, Any, Any]:
        """What the solver returned: x, aux, multipliers."""
        self._check_init(init)
        like = next((t for t in tensors if t.is_floating_point()), None)
        runner = Runner(
            self.settings.solver, rebuild, init, self._with_grad, torch.empty(0) if like is None else like.detach()
        )
        answer = runner.result(run(runner, tensors))
        self._with_grad = runner.with_grad
        return self._parts(answer)

    def _prepared(self, theta: tuple[Any, ...], init: Any) -> Prepared:
        """The solver's answer, the conditions at it, and the tensors that they depend on."""
        names, leaves, spec = flatten("theta", list(theta))
        places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        for i in places:
            require_real(names[i], leaves[i])
        tensors = [leaves[i] for i in places]

        def rebuild(values: Sequence[Tensor]) -> tuple[Any, ...]:
            now = list(leaves)
            for i, value in zip(places, values, strict=True):
                now[i] = value
            return tuple(unflatten(now, spec))

        x, aux, given = self._solve(rebuild, tensors, init)
        layout = Layout.of(*flatten("x", x))
        layout.floating()
        conditions = Conditions(self.settings, layout, rebuild, count=len(tensors))
        flat = layout.ravel(flatten("x", x)[1]).detach()
        nothing = flat[:0]
        if not layout.size:
            return Prepared(x, aux, conditions, flat, tensors, nothing, nothing, [names[i] for i in places])
        if self.settings.constrained:
            conditions, w, operands, residual, margins = self._constrain(conditions, flat, tensors, given)
        else:
            residual, found = find(conditions.value, flat, *(t.detach() for t in tensors))
            conditions = replace(conditions, found=tuple(found))
            w, operands, margins = flat, [*tensors, *found], nothing
        return Prepared(x, aux, conditions, w, operands, residual, margins, [names[i] for i in places])

    def _system(self, prepared: Prepared) -> System:
        """How linear systems at the point are solved."""
        settings, layout = self.settings, prepared.conditions.layout
        option = chosen(settings.linear_solver, len(prepared.w), settings.symmetric, not settings.constrained)
        minimum = layout.size if settings.kind == "argmin" and settings.check != "off" else None
        return System(
            prepared.conditions.value,
            option,
            settings.damping,
            settings.symmetric,
            structured_by(layout),
            self._certified,
            minimum=minimum,
        )

    def _attach(self, prepared: Prepared) -> Tensor:
        """The point as a vector with its derivative."""
        conditions, w, operands = prepared.conditions, prepared.w, prepared.operands
        system = self._system(prepared)
        if any(map(wrapped, (w, *operands))):
            system.verify = lambda own, point, values: verify(conditions, own, point, values, None)
            return attached(system, w, operands)
        self.look(prepared, system)
        return attached(system, w, operands) if any(map(tracked, operands)) else w

    def look(self, prepared: Prepared, system: System) -> None:
        """Judge the point, of plain tensors."""
        if not prepared.w.is_meta and prepared.conditions.layout.size:
            operands = [t.detach() for t in prepared.operands]
            verify(prepared.conditions, system, prepared.w.detach(), operands, prepared.residual)

    def _constrain(
        self, conditions: Conditions, flat: Tensor, tensors: Sequence[Tensor], given: Any
    ) -> tuple[Conditions, Tensor, list[Tensor], Tensor, Tensor]:
        """The KKT conditions at a point, with multipliers, active set and margins."""
        detached = [t.detach() for t in tensors]
        sizes = [side.numel() for side in conditions.sides(flat, *detached)]
        conditions = replace(conditions, sizes=tuple(sizes))

        def everything(x: Tensor, *theta: Tensor) -> Tensor:
            return torch.cat([conditions._energy(x, *theta)[None], conditions._constraints(x, *theta)])

        _, found = find(everything, flat, *detached)
        conditions = replace(conditions, found=tuple(found))
        own: list[Tensor] = []
        if self.settings.has_multipliers:
            for name, part, size in zip(("nu", "lambda"), given, sizes, strict=True):
                leaves = [leaf.reshape(-1) for leaf in flatten(name, part)[1] if isinstance(leaf, Tensor)]
                vector = torch.cat(leaves) if leaves else flat[:0]
                if vector.numel() != size:
                    raise ProgramError(f"The solver returned {vector.numel()} multipliers {name}; expected {size}.")
                own.append(vector.to(flat.dtype))
        nu, lam, active, margins = multipliers(conditions, flat, [*tensors, *found], own)
        w = torch.cat([flat, nu, lam])
        operands = [*tensors, active, *found]
        residual = conditions.value(w, *(t.detach() for t in operands)).detach()
        return conditions, w, operands, residual, margins

    def _certified(self, certificate: Certificate) -> None:
        self.certificate = certificate
        if certificate.problem:
            say(f"{self.settings.title}: {certificate.problem}.", self.settings.check)


# What is made while tracing would close over traced tensors.
_made: Any = torch.compiler.disable(function.made)


@overload
def implicit_root(F: Callable[..., Any], solver: Callable[..., X], **options: Any) -> Solves[X]: ...
@overload
def implicit_root(F: Callable[..., Any], solver: None = None, **options: Any) -> Decorator: ...
def implicit_root(F: Callable[..., Any], solver: Callable[..., Any] | None = None, **options: Any) -> Any:
    """The root of F as a differentiable function of what F depends on.

    F(x(θ), θ) = 0, so dx = −(∂F/∂x)⁻¹ ∂F/∂θ dθ. The rule needs F's derivatives and the solver's answer; the solver is
    any code, runs once a call, and is not differentiated. Tensors that F closes over, such as a module's parameters,
    get their gradients like θ.

    Args:
        F: (x, *theta) ↦ residual of x's structure.
        solver: (*theta) ↦ x; without it, a decorator for one is returned.
        **options: ``linear_solver`` ("auto", a name or an option of `cvxift.implicit.options`, or a callable
            (matvec, b) ↦ y), ``damping`` (added to the Jacobian's diagonal; 0), ``has_aux`` (the solver returns
            (x, aux); False), ``check`` ("off", "warn" or "raise": what to do where F ≠ 0; "warn"), ``tolerance``
            (relative residual up to which F counts as 0; 1e-6 in double, 3e-3 in single precision).

    Returns:
        solve: (*theta) ↦ x.

    Raises:
        ProgramError, SolveError, ApplicabilityError: an argument cannot be used; NaN from the solver; F ≠ 0.

    Example:
        >>> import torch
        >>> solve = implicit_root(lambda x, t: t**2 + x**2 - 1.0, lambda t: torch.sqrt(1.0 - t**2))
        >>> t = torch.tensor(0.6, dtype=torch.float64, requires_grad=True)
        >>> x = solve(t)
        >>> x.backward()
        >>> round(float(t.grad), 12)  # −t/x
        -0.75
    """
    return _made(ImplicitFunction, "root", F, solver, options)


@overload
def implicit_fixed_point(T: Callable[..., Any], solver: Callable[..., X], **options: Any) -> Solves[X]: ...
@overload
def implicit_fixed_point(T: Callable[..., Any], solver: None = None, **options: Any) -> Decorator: ...
def implicit_fixed_point(T: Callable[..., Any], solver: Callable[..., Any] | None = None, **options: Any) -> Any:
    """The fixed point x = T(x, θ) as a differentiable function: `implicit_root` of x − T(x, θ).

    Args:
        T: (x, *theta) ↦ value of x's structure.
        solver: (*theta) ↦ x; without it, a decorator for one is returned.
        **options: as for `implicit_root`.

    Returns:
        solve: (*theta) ↦ x.

    Raises:
        ProgramError, SolveError, ApplicabilityError: as `implicit_root`.

    Example:
        >>> import torch
        >>> step = lambda x, t: 0.5 * (x + t / x)  # Newton's, for √t
        >>> t = torch.tensor(4.0, dtype=torch.float64, requires_grad=True)
        >>> implicit_fixed_point(step, torch.sqrt)(t).backward()
        >>> float(t.grad)  # 1/(2√t)
        0.25
    """
    return _made(ImplicitFunction, "fixed_point", T, solver, options)


@overload
def implicit_argmin(
    E: Callable[..., Any], solver: Any = None, *, has_multipliers: Literal[True], **options: Any
) -> Any: ...
@overload
def implicit_argmin(E: Callable[..., Any], solver: Callable[..., X], **options: Any) -> Solves[X]: ...
@overload
def implicit_argmin(E: Callable[..., Any], solver: None = None, **options: Any) -> Decorator: ...
def implicit_argmin(E: Callable[..., Any], solver: Callable[..., Any] | None = None, **options: Any) -> Any:
    """A minimizer of E, possibly constrained, as a differentiable function: a root of ∇E, or of the KKT conditions.

    Args:
        E: (x, *theta) ↦ energy, one number.
        solver: (*theta) ↦ x; without it, a decorator for one is returned.
        **options: as for `implicit_root`, and ``equality`` (G(x, *theta) = 0), ``inequality`` (H(x, *theta) <= 0),
            ``has_multipliers`` (the solver returns (x, (nu, lambda)) for x; otherwise they are recovered by least
            squares).

    Returns:
        solve: (*theta) ↦ x. That the point is a minimum, not a saddle or maximum, is checked where the Jacobian is
        formed.

    Raises:
        ProgramError, SolveError, ApplicabilityError: as `implicit_root`.

    Example:
        >>> import torch
        >>> t = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
        >>> implicit_argmin(lambda x, t: (x - t) ** 2 + 2 * x**2, lambda t: t / 3)(t).backward()
        >>> round(float(t.grad), 12)
        0.333333333333
    """
    return _made(ImplicitFunction, "argmin", E, solver, options)
