"""The one rule of implicit functions, for JAX.

    F(x(θ), θ) = 0   ⇒   ẋ = −J⁻¹ F_θ θ̇,     J = ∂F/∂x.

JAX transposes it for reverse mode. x inside the rule is the rule's own output, and the solve with J knows its
derivative, so every order comes from the rule, never from a solver.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jax.dtypes import float0

from cvxift.implicit import linear
from cvxift.implicit.backend import Backend, Factor, Operator
from cvxift.implicit.linear import Certificate, Outcome
from cvxift.implicit.minimum import NO_MINIMUM, is_minimum
from cvxift.implicit.options import LU, Cholesky, LinearSolver
from cvxift.jax.host_call import constant

Array = Any
Function = Callable[..., Array]  # (x, *operands) ↦ residual, flat


def _factor(kind: str, J: Array) -> Factor:
    if kind == "cholesky":
        L = jnp.linalg.cholesky(J)
        return lambda b, transposed: _columns(lambda B: jsl.cho_solve((L, True), B), J, b)
    factors = jsl.lu_factor(J)
    return lambda b, transposed: _columns(lambda B: jsl.lu_solve(factors, B, trans=int(transposed)), J, b)


def _columns(solve: Callable[[Array], Array], J: Array, b: Array) -> Array:
    """Right-hand sides (*more, n) as columns of one matrix; batches of matrices are JAX's own affair."""
    return jnp.reshape(solve(jnp.reshape(b, (-1, J.shape[-1])).T).T, b.shape)


BACKEND = Backend(
    jnp,
    jax.lax.while_loop,
    _factor,
    lambda array, like: jnp.asarray(array, dtype=like.dtype),
    False,
    lambda array: None,
)


class Product:
    """A Jacobian as a function; see `cvxift.implicit.backend.Operator`.

    Args:
        matvec: v ↦ J v.
        like: a vector.
        symmetric: whether J is by construction.
        structured: calls a user's function on x's structure.
    """

    def __init__(self, matvec: Callable[[Array], Array], like: Array, symmetric: bool, structured: Any) -> None:
        self.product, self.like, self.symmetric, self._structured = matvec, like, symmetric, structured

    def matvec(self, v: Array) -> Array:
        """J v, for vectors with any leading axes."""
        product = self.product
        for _ in range(v.ndim - 1):
            product = jax.vmap(product)
        return product(v)

    def rmatvec(self, v: Array) -> Array:
        """Jᵀ v."""
        if self.symmetric:
            return self.product(v)
        return jax.linear_transpose(self.product, self.like)(v)[0]

    def dense(self) -> Array:
        """J."""
        eye = jnp.eye(self.like.shape[-1], dtype=self.like.dtype)
        return jax.vmap(self.product, out_axes=-1)(eye)

    def call(self, function: Callable[..., Any], b: Array) -> Array:
        """A user's linear solver."""
        unravel, matching = self._structured
        found = function(lambda v: unravel(self.product(matching("A vector given to matvec", v))), unravel(b))
        return matching("What the linear solver returned", found)

    def precondition(self, function: Callable[[Any], Any], v: Array) -> Array:
        """A user's preconditioner."""
        unravel, matching = self._structured
        return matching("What the preconditioner returned", function(unravel(v)))


@dataclass(frozen=True, eq=False)
class Rule:
    """How systems with J are solved.

    Attributes:
        option: the linear solver.
        damping: added to J's diagonal.
        symmetric: whether J is symmetric by construction.
        minimum: number of variables of a minimizer, whose Hessian is tested where it is formed; 0 for no test.
        structured: x's `unravel` and `matching`.
        report: is called on the host with certificates that have a problem; None for never.
    """

    option: LinearSolver
    damping: float
    symmetric: bool
    minimum: int
    structured: tuple[Any, Any]
    report: Callable[[Certificate], None] | None

    def solve(self, matvec: Callable[[Array], Array], b: Array) -> Array:
        """J⁻¹b, certified; NaN where it is no derivative of anything."""
        operator = Product(matvec, b, self.symmetric, self.structured)
        if isinstance(self.option, LU | Cholesky):
            y, values, bad = _dense(operator.dense(), b, self.option, self.minimum)
        else:
            y, values, bad = _judged(*linear.solve(BACKEND, operator, b, self.option), self.option, jnp.array(True))
        return y if self.report is None else tell(_Listener(self.report, self.option), bad, values, y)


@dataclass(frozen=True)
class _Listener:
    """Takes what `_judged` found from a compiled program; equal for equal functions, so that nothing compiles twice."""

    report: Callable[[Certificate], None]
    option: LinearSolver

    def __call__(self, values: np.ndarray) -> None:
        """Report."""
        residual, iterations, status, condition, least = (float(value) for value in values)
        eps = float(np.finfo(values.dtype).eps)
        certificate = linear.certify_one(residual, int(iterations), int(status), condition, self.option, eps)
        if not certificate.problem and not least:
            certificate = linear.with_problem(certificate, NO_MINIMUM)
        self.report(certificate)


class _Matrix:
    """A Jacobian that is formed."""

    symmetric = False

    def __init__(self, J: Array) -> None:
        self.J = J

    def dense(self) -> Array:
        """J."""
        return self.J


@partial(jax.jit, static_argnums=(2, 3))
def _dense(J: Array, b: Array, option: LinearSolver, minimum: int) -> tuple[Array, Array, Array]:
    """J⁻¹b with a formed Jacobian; compiled once for each size."""
    least = is_minimum(BACKEND, J, minimum) if minimum else jnp.array(True)
    return _judged(*linear.solve(BACKEND, cast(Operator, _Matrix(J)), b, option), option, least)


def _judged(y: Array, outcome: Outcome, option: LinearSolver, least: Array) -> tuple[Array, Array, Array]:
    """y, NaN where it is unusable; what a certificate says, as numbers; whether something is wrong."""
    parts = (outcome.residual, outcome.iterations, outcome.status, outcome.condition, least)
    values = jnp.stack([jnp.ravel(part)[0].astype(y.dtype) for part in parts])
    bad, unusable = linear.suspect(jnp, outcome, option, float(jnp.finfo(y.dtype).eps))
    return jnp.where(unusable, jnp.nan, y), values, bad.ravel()[0] | ~least


def _hear(bad: np.ndarray, values: np.ndarray, y: np.ndarray, listener: Callable[[np.ndarray], None]) -> np.ndarray:
    for index in np.argwhere(bad):  # under vmap all branches run, for all instances
        listener(values[tuple(index)])
    return np.ascontiguousarray(y)


listen = constant("cvxift_implicit_tell", _hear, lambda bad, values, y, listener: y)


def tell(function: Callable[[np.ndarray], None], bad: Array, values: Array, y: Array) -> Array:
    """y, and where ``bad`` the function is called on the host with the values; in compiled programs, too.

    No derivative passes.
    """
    return jax.lax.cond(bad, partial(listen, listener=function), lambda b, v, y: y, bad, values, y)


def attached(function: Function, rule: Rule, x: Array, operands: Sequence[Array]) -> Array:
    """x with its derivative in the operands.

    Args:
        function: (x, *operands) ↦ residual.
        rule: of linear systems.
        x: the solution, shape (n,).
        operands: arrays; of those that are not floating no derivative is asked.
    """

    @jax.custom_jvp
    def value(x: Array, *operands: Array) -> Array:
        return x

    def derivative(primals: Any, tangents: Any) -> Any:
        x, *own = value(*primals), *primals[1:]
        moving = [i for i, dot in enumerate(tangents[1:]) if _moves(dot)]

        def of_operands(*values: Array) -> Array:
            now = list(own)
            for i, new in zip(moving, values, strict=True):
                now[i] = new
            return function(x, *now)

        dots = [tangents[1 + i] for i in moving]
        if not moving:
            return x, jnp.zeros_like(x)
        _, b = jax.jvp(of_operands, [own[i] for i in moving], dots)
        _, product = jax.linearize(lambda point: function(point, *own), x)
        if rule.damping:
            undamped = product

            def product(v: Array) -> Array:
                return undamped(v) + rule.damping * v

        y = jax.lax.custom_linear_solve(product, -b, rule.solve, rule.solve, symmetric=rule.symmetric)
        return x, y

    value.defjvp(derivative, symbolic_zeros=True)
    return value(x, *operands)


def _moves(tangent: Any) -> bool:
    """Whether a tangent is one, not a zero that stands for a constant or an integer."""
    return not isinstance(tangent, SymbolicZero) and tangent.dtype != float0
