"""J y = b by the method that was chosen, with a certificate of what came out."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cvxift.errors import ProgramError
from cvxift.implicit import krylov, lsmr, series
from cvxift.implicit.backend import Backend, Operator
from cvxift.implicit.dense import solve_dense
from cvxift.implicit.options import (
    CG,
    GMRES,
    LU,
    BiCGStab,
    Cholesky,
    Custom,
    Identity,
    Iterative,
    LinearSolver,
    Neumann,
    NormalCG,
    Nystrom,
)
from cvxift.implicit.status import (
    APPROXIMATE,
    ASYMMETRIC,
    CONVERGED,
    DIVERGED,
    INDEFINITE,
    SINGULAR,
    WORDS,
)

Array = Any

NOTHING = 1.0  # relative residual of y = 0, which no approximation may exceed


@dataclass(frozen=True)
class Outcome:
    """What a solve of a batch of systems came to; arrays of shape (*batch, 1).

    Attributes:
        residual: ‖b − J y‖ / ‖b‖, computed anew from y.
        iterations: products spent.
        status: one of `cvxift.implicit.status`.
        condition: estimate, 1-norm; NaN where the method knows none.
    """

    residual: Array
    iterations: Array
    status: Array
    condition: Array


@dataclass(frozen=True)
class Certificate:
    """How well a linear system behind a derivative was solved; the worst one of a batch.

    Attributes:
        method: name of the method.
        residual: true relative residual.
        iterations: products with the Jacobian.
        reason: why it stopped, in words.
        condition: estimate of the condition number; NaN if the method knows none.
        problem: what is wrong, in a sentence; empty if nothing is.
        unusable: whether what was found is no derivative of anything: not finite, or of a singular system.
    """

    method: str
    residual: float
    iterations: int
    reason: str
    condition: float
    problem: str = ""
    unusable: bool = False


def goal_of(dtype_eps: float) -> float:
    """Relative residual that iterative methods aim at by default: 1e-10, or near what the dtype can reach."""
    return max(1e-10, 30.0 * dtype_eps)


def solve(
    backend: Backend, operator: Operator, b: Array, option: LinearSolver, damping: float = 0.0
) -> tuple[Array, Outcome]:
    """Solve (J + damping I) y = b for a batch.

    b is scaled to largest entry one first: methods that square it would lose a tiny one, and overflow at a huge one.

    Args:
        backend: the arrays' library.
        operator: J.
        b: shape (*more, *batch, n).
        option: the method.
        damping: added to J's diagonal.

    Returns:
        y and the outcome.
    """
    xp = backend.xp
    if 0 in b.shape:
        nothing = xp.sum(b, axis=-1, keepdims=True)
        status = xp.zeros_like(nothing, dtype=xp.int32) + CONVERGED
        return b, Outcome(nothing, xp.zeros_like(status), status, nothing)
    size = xp.max(xp.abs(b), axis=-1, keepdims=True)
    finite = xp.isfinite(size)  # what is not is handed on: no method fails by it, nor is the system at fault
    scale = xp.where((size > 0) & finite, size, xp.ones_like(size))
    rhs = xp.where(finite, b / scale, xp.zeros_like(b))

    def A(v: Array) -> Array:
        return operator.matvec(v) + damping * v if damping else operator.matvec(v)

    unknown = xp.full_like(size, xp.nan)
    if isinstance(option, LU | Cholesky):
        J = operator.dense()
        if damping:
            J = J + damping * xp.eye(b.shape[-1], dtype=b.dtype, device=backend.device(b))
        y, iterations, status, condition = solve_dense(backend, J, rhs, option)
        difference = rhs - xp.sum(J * y[..., None, :], axis=-1)
    else:
        y, iterations, status = _iterate(backend, operator, A, rhs, option, damping)
        condition, difference = unknown, rhs - A(y)
    length = krylov.norm(xp, rhs)
    residual = krylov.divided(xp, krylov.norm(xp, difference), length)
    return xp.where(finite, y * scale, xp.full_like(b, xp.nan)), Outcome(residual, iterations, status, condition)


def _iterate(
    backend: Backend, operator: Operator, A: krylov.Product, b: Array, option: LinearSolver, damping: float
) -> krylov.Result:
    xp, loop = backend.xp, backend.loop

    def At(v: Array) -> Array:
        return operator.rmatvec(v) + damping * v if damping else operator.rmatvec(v)

    if isinstance(option, Identity):
        return series.identity(xp, b, option.scale)
    if isinstance(option, Neumann):
        return series.neumann(xp, loop, A, b, option)
    if isinstance(option, Nystrom):
        probes = backend.asarray(series.probes_of(b.shape[-1], option), b)
        return series.nystrom(xp, A, b, probes, option)
    if isinstance(option, Custom):
        count = xp.zeros_like(b[..., :1], dtype=xp.int32)
        return operator.call(option.function, b), count, count + APPROXIMATE
    if not isinstance(option, Iterative):
        raise ProgramError(f"The linear solver {type(option).__name__} is not known.")
    own = option.preconditioner

    def M(v: Array) -> Array:
        return v if own is None else operator.precondition(own, v)

    tolerance = option.tolerance or goal_of(float(xp.finfo(b.dtype).eps))
    limit = option.max_iterations or 10 * max(b.shape[-1], 10)
    numbers = (krylov.Floats if backend.eager and b.ndim == 1 else krylov.Numbers)(xp, b)
    if isinstance(option, CG):
        return krylov.cg(numbers, loop, A, M, b, tolerance, limit)
    if isinstance(option, NormalCG):
        return lsmr.normal_cg(numbers, loop, A, At, M, b, tolerance, limit)
    if isinstance(option, GMRES):
        return krylov.gmres(xp, loop, A, M, b, tolerance, limit, option.restart)
    if isinstance(option, BiCGStab):
        return krylov.bicgstab(numbers, loop, A, M, b, tolerance, limit)
    return lsmr.lsmr(xp, loop, A, At, b, tolerance, limit)


def certify(outcome: Outcome, option: LinearSolver, eps: float) -> Certificate:
    """The certificate of a batch, its arrays as NumPy arrays: that of the worst instance.

    A result is a problem if an exact method left a true residual above ten times its tolerance, a factorization an
    error bound eps · condition under which less than a fifth of the digits survive, a series diverges, or an
    approximation is worse than zero.
    """
    residual, status = np.asarray(outcome.residual).ravel(), np.asarray(outcome.status).ravel()
    condition = np.asarray(outcome.condition).ravel()
    if residual.size == 0:
        return Certificate(option.name, 0.0, 0, WORDS[CONVERGED], float("nan"))
    rank = np.where(np.isfinite(residual), residual, np.inf)
    rank = np.where(np.isin(status, (SINGULAR, ASYMMETRIC, INDEFINITE)), np.inf, rank)
    known = np.isfinite(condition)
    if isinstance(option, LU | Cholesky) and known.any() and not np.isinf(rank).any():
        worst = int(np.argmax(np.where(known, condition, 0.0)))
    else:
        worst = int(np.argmax(rank))
    iterations = int(np.max(np.asarray(outcome.iterations)))
    return certify_one(float(residual[worst]), iterations, int(status[worst]), float(condition[worst]), option, eps)


def certify_one(
    residual: float, iterations: int, code: int, condition: float, option: LinearSolver, eps: float
) -> Certificate:
    """The certificate of one system; see `certify`."""
    problem, unusable = _judge(option, residual, code, condition, eps)
    return Certificate(option.name, residual, iterations, WORDS[code], condition, problem, unusable)


def _judge(option: LinearSolver, residual: float, code: int, condition: float, eps: float) -> tuple[str, bool]:
    name = type(option).__name__
    if isinstance(option, LU | Cholesky):
        if code != CONVERGED:
            return f"{name}: {WORDS[code]} (condition {condition:.0e})", True
        if not math.isfinite(residual):
            return f"{name}: the solution overflows", True
        bound = condition * eps
        if bound > eps**0.2:
            return f"{name}: the Jacobian is ill-conditioned; the derivative's relative error may be {bound:.0e}", False
        return "", False
    if not math.isfinite(residual):
        return f"{name}: what it returned is not finite ({WORDS[code]})", True
    if code in (DIVERGED, ASYMMETRIC) or (code == INDEFINITE and not option.exact):
        return f"{name}: {WORDS[code]}; the relative residual is {residual:.1e}", False
    if not option.exact:
        if residual > NOTHING:
            return f"{name}: the approximation is worse than zero: its relative residual is {residual:.1e}", False
        return "", False
    limit = 10.0 * (getattr(option, "tolerance", None) or goal_of(eps))
    if residual > limit:
        return f"{name} did not solve the linear system: relative residual {residual:.1e} ({WORDS[code]})", False
    return "", False


def suspect(xp: Any, outcome: Outcome, option: LinearSolver, eps: float) -> tuple[Array, Array]:
    """Where `certify` would find a problem, and where what was found is unusable, for arrays without values yet.

    Returns:
        Two boolean arrays of shape (*batch, 1).
    """
    finite = xp.isfinite(outcome.residual)
    if isinstance(option, LU | Cholesky):
        unusable = (outcome.status != CONVERGED) | ~finite
        return unusable | ~(outcome.condition * eps <= eps**0.2), unusable
    bad = ~finite
    for code in (DIVERGED, ASYMMETRIC) if option.exact else (DIVERGED, ASYMMETRIC, INDEFINITE):
        bad = bad | (outcome.status == code)
    limit = 10.0 * (getattr(option, "tolerance", None) or goal_of(eps)) if option.exact else NOTHING
    return bad | (outcome.residual > limit), ~finite


def with_problem(certificate: Certificate, problem: str) -> Certificate:
    """The certificate with a problem that the solve itself does not see."""
    return replace(certificate, problem=problem)
