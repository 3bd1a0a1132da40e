"""Approximate inverses: the truncated Neumann series and the Nyström approximation, on the array API standard."""

from __future__ import annotations

from typing import Any

import numpy as np

from cvxift.argmax.loops import Loop
from cvxift.implicit.krylov import Array, Product, Result, norm
from cvxift.implicit.options import Neumann, Nystrom
from cvxift.implicit.status import APPROXIMATE, ASYMMETRIC, DIVERGED, INDEFINITE


def neumann(xp: Any, loop: Loop, A: Product, b: Array, option: Neumann) -> Result:
    """y = α Σₖ (I − αA)ᵏ b; it diverges where its last term is no smaller than its first."""

    def body(state: tuple[Array, ...]) -> tuple[Array, ...]:
        k, term, y = state
        term = term - option.scale * A(term)
        return k + 1, term, y + term

    size = norm(xp, b)
    count = xp.zeros_like(size, dtype=xp.int32)
    start = xp.sum(count)
    _, term, y = loop(lambda state: state[0] < option.terms - 1, body, (start, b, b))
    lost = ~(norm(xp, term) < size) & (size > 0) if option.terms > 1 else size < 0
    return option.scale * y, count + option.terms, xp.where(lost, DIVERGED, APPROXIMATE)


def probes_of(n: int, option: Nystrom) -> np.ndarray:
    """The sketch's orthonormal vectors as rows, shape (min(rank, n), n)."""
    k = min(option.rank, n)
    return np.linalg.qr(np.random.default_rng(option.seed).standard_normal((n, k)))[0].T


def sketch(xp: Any, A: Product, b: Array, probes: Array) -> tuple[Array, Array, Array]:
    """The Nyström approximation A ≈ U diag(λ) Uᵀ: U (*batch, n, k), λ (*batch, k), and the status (*batch, 1).

    Y = AΩ with orthonormal Ω, shifted by ν for stability: A + νI ≈ Y(ΩᵀY)⁻¹Yᵀ (Tropp et al. 2017, algorithm 3).
    """
    k, n = probes.shape
    columns = [A(xp.broadcast_to(probes[i, :], b.shape)) for i in range(k)]
    Y = xp.stack(columns, axis=-1)
    scale = xp.sqrt(xp.sum(Y * Y, axis=(-2, -1), keepdims=True))
    shift = xp.finfo(b.dtype).eps * scale * n**0.5
    Y = Y + shift * probes.T
    core = probes @ Y
    skew = xp.max(xp.abs(core - xp.matrix_transpose(core)), axis=(-2, -1))[..., None]
    core = 0.5 * (core + xp.matrix_transpose(core))
    values, vectors = xp.linalg.eigh(core)
    doubt = xp.finfo(b.dtype).eps ** 0.5 * xp.max(xp.abs(values), axis=-1, keepdims=True)
    count = xp.zeros_like(doubt, dtype=xp.int32)
    status = xp.where(skew > doubt, ASYMMETRIC, xp.where(values[..., :1] < -doubt, INDEFINITE, APPROXIMATE)) + count
    floor = shift[..., 0] * 0.1 + xp.finfo(b.dtype).tiny
    root = vectors / xp.sqrt(xp.where(values > floor, values, floor))[..., None, :]
    U, s, _ = xp.linalg.svd(Y @ root, full_matrices=False)
    return U, xp.where(s * s > shift[..., 0], s * s - shift[..., 0], xp.zeros_like(s)), status


def nystrom(xp: Any, A: Product, b: Array, probes: Array, option: Nystrom) -> Result:
    """y = U (Λ + ρ)⁻¹ Uᵀ b + (1/ρ) (I − UUᵀ) b, ρ relative to the largest eigenvalue."""
    U, values, status = sketch(xp, A, b, probes)
    top = xp.max(values, axis=-1, keepdims=True)
    rho = option.damping * xp.where(top > 0, top, xp.ones_like(top))
    along = (xp.matrix_transpose(U) @ b[..., None])[..., 0]
    inside = (U @ (along / (values + rho))[..., None])[..., 0]
    outside = b - (U @ along[..., None])[..., 0]
    y = inside + outside / rho if U.shape[-1] < b.shape[-1] else inside
    count = xp.zeros_like(b[..., :1], dtype=xp.int32) + U.shape[-1]
    return y, count, status


def identity(xp: Any, b: Array, scale: float) -> Result:
    """y = α b."""
    count = xp.zeros_like(b[..., :1], dtype=xp.int32)
    return scale * b, count, count + APPROXIMATE
