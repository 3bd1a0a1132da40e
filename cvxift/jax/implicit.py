"""Implicit functions of arrays: any F(x, θ) = 0, any fixed point, any minimizer, with whatever code finds it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, overload

import jax
import jax.numpy as jnp
import numpy as np

from cvxift.errors import ProgramError, SolveError
from cvxift.implicit import function
from cvxift.implicit.function import Decorator, Solves, X
from cvxift.implicit.linear import Certificate
from cvxift.implicit.options import chosen
from cvxift.implicit.oracle import Oracle
from cvxift.implicit.residual import tolerance_of
from cvxift.implicit.settings import Settings
from cvxift.implicit.voice import no_solution, say
from cvxift.jax.arrays import visible
from cvxift.jax.implicit_active import multipliers
from cvxift.jax.implicit_diagnose import oracle
from cvxift.jax.implicit_function import Conditions
from cvxift.jax.implicit_rule import Rule, listen
from cvxift.jax.implicit_solver import Runner
from cvxift.jax.implicit_traced import Compiled, Programs, Traced, trace
from cvxift.jax.trees import Layout, flatten, is_array, require_real, unflatten

Array = Any


@dataclass(frozen=True, eq=False)
class Prepared:
    """A point with its conditions, before a derivative is attached.

    Attributes:
        x: what the solver returned.
        aux: its by-products.
        conditions: the equations.
        w: the point as a vector; with constraints followed by the multipliers.
        function: the conditions' value at w and the operands, as a program unless x is empty.
        operands: the active rows, θ's arrays, what is closed over.
        margins: of the rows of H, to a change of the active set.
        names: of θ's arrays.
    """

    x: Any
    aux: Any
    conditions: Conditions
    w: Array
    function: Callable[..., Array]
    operands: list[Array]
    margins: Array
    names: list[str]


class ImplicitFunction(function.ImplicitFunction):
    """x(θ), the solution that a solver finds, with the derivative that the equations define.

    Made by `implicit_root`, `implicit_fixed_point` and `implicit_argmin`.

    Attributes:
        settings: what it is made of.
        certificate: of the last linear solve of a derivative that had a problem; None if none had.
    """

    options: ClassVar[dict[str, tuple[str, ...]]] = {
        kind: (*known, "like") for kind, known in function.ImplicitFunction.options.items()
    }

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._run = Runner(settings.solver, settings.like)
        self._programs = Programs()

    def __call__(self, *theta: Any, init: Any = None) -> Any:
        """Solve, once.

        Args:
            *theta: the parameters, any pytrees.
            init: a warm start, handed to a solver that has an argument ``init``.

        Returns:
            x; with ``has_aux`` the pair (x, aux), of which aux is not differentiated.

        Raises:
            ProgramError: F's value or the solver's has a wrong structure, shape or dtype, by the leaf's name.
            SolveError: the solver returned NaN or infinity, by the entry's name; NaN stays NaN in compiled programs.
            ApplicabilityError: with ``check="raise"``, where the point is no solution.
        """
        prepared = self._prepared(theta, init)
        layout = prepared.conditions.layout
        if not layout.size:
            return (prepared.x, prepared.aux) if self.settings.has_aux else prepared.x
        program = prepared.function
        assert isinstance(program, Traced)  # since x is not empty
        compiled = self._programs.compiled(program, self._key(layout), lambda: self._rule(prepared), layout.sizes)
        w = self._verified(prepared, compiled)
        out = layout.unravel(compiled.attach(w, *prepared.operands)[: layout.size])
        return (out, prepared.aux) if self.settings.has_aux else out

    def _oracle(self, theta: tuple[Any, ...], init: Any) -> Oracle:
        return oracle(self, self._prepared(theta, init))

    def _instances(self, theta: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        names, leaves, spec = flatten("theta", theta)
        own = [i for i, leaf in enumerate(leaves) if is_array(leaf)]
        count = function.batch_size([names[i] for i in own], [jnp.shape(leaves[i]) for i in own])
        return [unflatten([leaf[k] if i in own else leaf for i, leaf in enumerate(leaves)], spec) for k in range(count)]

    def _solve(self, rebuild: Any, arrays: Sequence[Array], init: Any) -> tuple[Any, Any, Any]:
        """What the solver returned: x, aux, multipliers."""
        self._check_init(init)
        return self._parts(self._run(rebuild, arrays, init))

    def _prepared(self, theta: tuple[Any, ...], init: Any) -> Prepared:
        """The solver's answer, the conditions at it, and the arrays that they depend on."""
        settings = self.settings
        names, leaves, treedef = flatten("theta", theta)
        for name, leaf in zip(names, leaves):
            require_real(name, leaf)
        places = [i for i, leaf in enumerate(leaves) if is_array(leaf)]

        def rebuild(values: Sequence[Array]) -> tuple[Any, ...]:
            now = list(leaves)
            for i, value in zip(places, values, strict=True):
                now[i] = value
            return unflatten(now, treedef)

        arrays = [jnp.asarray(leaves[i]) for i in places]
        x, aux, given = self._solve(rebuild, arrays, init)
        layout = Layout.of(*flatten("x", x))
        layout.floating()
        conditions = Conditions(settings, layout, rebuild)
        w = jax.lax.stop_gradient(layout.ravel(flatten("x", x)[1]))
        operands, margins = list(arrays), jnp.zeros(0)
        if settings.constrained and layout.size:
            stopped = [jax.lax.stop_gradient(array) for array in arrays]
            sizes = [jax.eval_shape(lambda x, *t, i=i: conditions.sides(x, *t)[i], w, *stopped).size for i in (0, 1)]
            conditions = replace(conditions, sizes=tuple(sizes))
            own = None
            if given is not None:
                parts = []
                for name, part, size in zip(("nu", "lambda"), given, sizes, strict=True):
                    pieces = [jnp.ravel(jnp.asarray(leaf, dtype=w.dtype)) for leaf in jax.tree.leaves(part)]
                    parts.append(jnp.concatenate(pieces) if pieces else w[:0])
                    if parts[-1].size != size:
                        raise ProgramError(f"The solver returned {parts[-1].size} multipliers {name}; expected {size}.")
                own = jnp.concatenate(parts)
            nu, lam, active, margins = multipliers(conditions, w, stopped, own)
            w = jnp.concatenate([w, nu, lam])
            operands = [active, *operands]
        program = conditions.value
        if layout.size:
            program, hoisted = trace(conditions.value, w, operands)
            operands += hoisted
        return Prepared(x, aux, conditions, w, program, operands, margins, [names[i] for i in places])

    def _key(self, layout: Layout) -> Any:
        """What the rule depends on beside the program; None where leaves of x are no part of it."""
        if any(leaf is not None for leaf in layout.constants):
            return None
        return layout.spec, tuple(layout.shapes), tuple(map(str, layout.dtypes))

    def _rule(self, prepared: Prepared) -> Rule:
        """How linear systems at the point are solved."""
        settings, layout = self.settings, prepared.conditions.layout
        option = chosen(settings.linear_solver, len(prepared.w), settings.symmetric, not settings.constrained)
        loud = settings.check != "off"
        minimum = layout.size if settings.kind == "argmin" and loud else 0
        structured = (layout.unravel, layout.matching)
        report = self._certified if loud else None
        return Rule(option, settings.damping, settings.symmetric, minimum, structured, report)

    def _verified(self, prepared: Prepared, compiled: Compiled) -> Array:
        """The point; refused if it is no number, told of where F ≠ 0."""
        settings, conditions, w = self.settings, prepared.conditions, prepared.w
        if visible(w) and not np.all(np.isfinite(np.asarray(w))):
            where = conditions.entry(int(np.flatnonzero(~np.isfinite(np.asarray(w)))[0]))
            raise SolveError(f"{settings.title}: the solver returned NaN or infinity at {where}.")
        if settings.check == "off":
            return w
        limit = settings.tolerance or tolerance_of(float(jnp.finfo(w.dtype).eps))

        def told(values: np.ndarray) -> None:
            residual, ratio = values
            place = int(np.argmax(ratio))
            if not ratio[place] <= limit:
                entry, size, worst = conditions.entry(place), float(residual[place]), float(ratio[place])
                say(no_solution(settings.title, entry, size, worst, limit), settings.check)

        operands = [jax.lax.stop_gradient(operand) for operand in prepared.operands]
        small = compiled.solves(limit, w, *operands)

        def judged() -> Array:  # what θ balances, and whether x is zero, can but excuse
            values = compiled.judge(w, *operands)
            if not visible(values):
                return listen(~small, values, w, listener=told)
            told(np.asarray(values))
            return w

        if visible(small):
            return w if bool(small) else judged()
        return jax.lax.cond(small, lambda: w, judged)

    def _certified(self, certificate: Certificate) -> None:
        self.certificate = certificate
        say(f"{self.settings.title}: {certificate.problem}.", self.settings.check)


@overload
def implicit_root(F: Callable[..., Any], solver: Callable[..., X], **options: Any) -> Solves[X]: ...
@overload
def implicit_root(F: Callable[..., Any], solver: None = None, **options: Any) -> Decorator: ...
def implicit_root(F: Callable[..., Any], solver: Callable[..., Any] | None = None, **options: Any) -> Any:
    """The root of F as a differentiable function of what F depends on.

    F(x(θ), θ) = 0, so dx = −(∂F/∂x)⁻¹ ∂F/∂θ dθ. The rule needs F's derivatives and the solver's answer; the solver is
    any code, runs once a call, and is not differentiated. Traced arrays that F closes over get derivatives like θ.

    Args:
        F: (x, *theta) ↦ residual of x's structure.
        solver: (*theta) ↦ x; without it, a decorator for one is returned.
        **options: ``linear_solver`` ("auto", a name or an option of `cvxift.implicit.options`, or a callable
            (matvec, b) ↦ y), ``damping`` (added to the Jacobian's diagonal; 0), ``has_aux`` (the solver returns
            (x, aux); False), ``check`` ("off", "warn" or "raise": what to do where F ≠ 0; "warn"), ``tolerance``
            (relative residual up to which F counts as 0; 1e-6 in double, 3e-3 in single precision), ``like`` (an
            example of what the solver returns, if it is no JAX code and runs under jit or vmap).

    Returns:
        solve: (*theta) ↦ x.

    Raises:
        ProgramError: an argument cannot be used; a call's residual and x differ in size.
        SolveError, ApplicabilityError: of a call, for NaN from the solver; under ``check="raise"``, where F ≠ 0.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> solve = implicit_root(lambda x, t: t**2 + x**2 - 1.0, lambda t: jnp.sqrt(1.0 - t**2))
        >>> bool(abs(jax.grad(solve)(0.6) + 0.75) < 1e-6)  # −t/x
        True
    """
    return function.made(ImplicitFunction, "root", F, solver, options)


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
        >>> import jax, jax.numpy as jnp
        >>> step = lambda x, t: 0.5 * (x + t / x)  # Newton's, for √t
        >>> float(jax.grad(implicit_fixed_point(step, jnp.sqrt))(4.0))  # 1/(2√t)
        0.25
    """
    return function.made(ImplicitFunction, "fixed_point", T, solver, options)


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
        >>> import jax
        >>> solve = implicit_argmin(lambda x, t: (x - t) ** 2 + 2 * x**2, lambda t: t / 3)
        >>> round(float(jax.grad(solve)(3.0)), 6)
        0.333333
    """
    return function.made(ImplicitFunction, "argmin", E, solver, options)
