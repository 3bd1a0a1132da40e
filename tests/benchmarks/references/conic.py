"""Second-order cone and semidefinite references: Newton on smooth optimality conditions, then their adjoint."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.linalg as la
import torch

from ..model import Array, ReferenceFailed


def smooth_kkt(
    lagrangian: Callable[..., torch.Tensor],
    active: Callable[..., torch.Tensor],
    x: Array,
    y: Array,
    theta: tuple[Array, ...],
    dz: Array,
) -> tuple[Array, Array, tuple[Array, ...]]:
    """Solve ∇ₓL(x, y, θ) = 0, g(x, θ) = 0 from a good start and differentiate it.

    With K = [L_xx, g_xᵀ; g_x, 0] symmetric and K [w; v] = [dz; 0], the VJP is −∂/∂θ (wᵀ∇ₓL + vᵀg).

    Args:
        lagrangian: L(x, y, *θ), smooth near the start.
        active: g(x, *θ), the active constraints, smooth near the start; L = f + yᵀg.
        x: start, (n,).
        y: start of the multipliers, (k,).
        theta: parameters.
        dz: cotangent, (n,).

    Returns:
        x, y and one gradient for each parameter.
    """
    xt, yt = torch.tensor(x, dtype=torch.float64), torch.tensor(y, dtype=torch.float64)
    parameters = [torch.tensor(t, dtype=torch.float64) for t in theta]
    n, k = x.size, y.size
    last = np.inf
    for _ in range(30):
        gradient = torch.func.grad(lagrangian)(xt, yt, *parameters).numpy()
        residual = np.concatenate([gradient, active(xt, *parameters).numpy()])
        H = torch.func.hessian(lagrangian)(xt, yt, *parameters).numpy()
        G = torch.func.jacrev(active)(xt, *parameters).numpy().reshape(k, n)
        K = np.block([[H, G.T], [G, np.zeros((k, k))]])
        size = float(np.linalg.norm(residual))
        if size >= 0.5 * last:
            break
        last = size
        step = la.solve(K, -residual)
        xt, yt = xt + torch.from_numpy(step[:n]), yt + torch.from_numpy(step[n:])
    if last > 1e-11 * max(1.0, float(np.abs(x).max())):
        raise ReferenceFailed(f"Newton's method stopped at a residual of {last:.1e}")
    solution = la.solve(K, np.concatenate([dz, np.zeros(k)]))
    w, v = torch.from_numpy(solution[:n]), torch.from_numpy(solution[n:])
    leaves = [p.requires_grad_() for p in parameters]
    slope = torch.func.jvp(lambda z: lagrangian(z, yt, *leaves), (xt,), (w,))[1]
    gradients = torch.autograd.grad(-(slope + v @ active(xt, *leaves)), leaves, allow_unused=True)
    return (
        xt.numpy(),
        yt.numpy(),
        tuple(np.zeros_like(t) if g is None else g.numpy() for g, t in zip(gradients, theta, strict=True)),
    )


def nearest_correlation(C: Array, dZ: Array) -> tuple[Array, Array, float]:
    """argmin ½‖X − C‖_F² with diag X = 1, X ≽ 0, by Newton on its dual (H. Qi, D. Sun, SIMAX 2006), and its VJP.

    X = Π(B), B = sym(C) + Diag(y), with diag Π(B) = 1. Π'(B)[H] = Q(W ∘ (QᵀHQ))Qᵀ, W the divided differences of
    max(λ, 0), is self-adjoint; V = the matrix of h ↦ diag Π'(B)[Diag h]. Differentiating both equations, with
    S = sym(dZ), C̄ = Π'(B)[S − Diag(V⁻¹ diag Π'(B)[S])].

    Returns:
        X, C̄ and the margin min|λ(B)| / max|λ(B)|.
    """
    sym = (C + C.T) / 2
    n = C.shape[0]

    def project(y: Array) -> tuple[Array, Array, Array]:
        eigenvalues, Q = la.eigh(sym + np.diag(y))
        return eigenvalues, Q, (Q * np.maximum(eigenvalues, 0)) @ Q.T

    def weights(eigenvalues: Array) -> Array:
        a, b = eigenvalues[:, None], eigenvalues[None, :]
        mixed = (a > 0) != (b > 0)
        quotient = (np.maximum(a, 0) - np.maximum(b, 0)) / np.where(mixed, a - b, 1.0)
        return np.where(mixed, quotient, (a > 0) & (b > 0))

    y = 1 - np.diag(sym)
    eigenvalues, Q, X = project(y)
    for _ in range(100):
        residual = np.diag(X) - 1
        if np.abs(residual).max() < 1e-15 * n:
            break
        W = weights(eigenvalues)
        V = np.einsum("ik,jk,kl,il,jl->ij", Q, Q, W, Q, Q, optimize=True)
        step = la.solve(V + 1e-14 * np.eye(n), -residual, assume_a="pos")
        # Backtrack on the dual objective ½‖Π(B)‖² − Σy, whose gradient is the residual.
        value, slope, length = 0.5 * np.sum(X**2) - y.sum(), residual @ step, 1.0
        while True:
            trial = project(y + length * step)
            gain = 0.5 * np.sum(trial[2] ** 2) - (y + length * step).sum() - value
            if gain <= 1e-4 * length * slope + 1e-12 * abs(value) or length < 1e-10:
                break
            length /= 2
        y = y + length * step
        eigenvalues, Q, X = trial
    if np.abs(np.diag(X) - 1).max() > 1e-12:
        raise ReferenceFailed("the dual Newton iteration for the nearest correlation matrix did not converge")
    W = weights(eigenvalues)
    V = np.einsum("ik,jk,kl,il,jl->ij", Q, Q, W, Q, Q, optimize=True)

    def derivative(H: Array) -> Array:
        return Q @ (W * (Q.T @ H @ Q)) @ Q.T

    S = (dZ + dZ.T) / 2
    gradient = derivative(S - np.diag(la.solve(V, np.diag(derivative(S)))))
    return X, gradient, float(np.abs(eigenvalues).min() / np.abs(eigenvalues).max())


def diagonal_sdp(C: Array, X: Array, y: Array, dZ: Array) -> tuple[Array, Array, float]:
    """argmin tr(CX) with diag X = 1, X ≽ 0, refined from a good start, and its VJP.

    With S = sym(C) − Diag(y) ≽ 0 the conditions are XS + SX = 0 (F. Alizadeh, J.-P. Haeberly, M. Overton, SIOPT 1998)
    and diag X = 1, smooth and with a nonsingular Jacobian J at a strictly complementary, nondegenerate solution. J is
    written in an orthonormal basis of the symmetric matrices; with Jᵀ[U; v] = [sym(dZ); 0], C̄ = −(XU + UX).

    Args:
        C: (n, n).
        X: approximate solution, (n, n).
        y: approximate multiplier of the diagonal, (n,).
        dZ: cotangent, (n, n).

    Returns:
        X, C̄ and the margin: the smallest eigenvalue of X + S relative to its largest.
    """
    sym = (C + C.T) / 2
    n = C.shape[0]
    rows, columns = np.triu_indices(n)
    scale = np.where(rows == columns, 1.0, np.sqrt(2.0))
    basis = np.zeros((rows.size, n, n))
    each = np.arange(rows.size)
    basis[each, rows, columns] = 1 / scale
    basis[each, columns, rows] = 1 / scale

    def svec(M: Array) -> Array:
        return M[..., rows, columns] * scale

    def smat(v: Array) -> Array:
        return np.tensordot(v, basis, 1)

    def jacobian(X: Array, S: Array) -> Array:
        top = svec(basis @ S + S @ basis).T
        diagonal = np.zeros((n, n, n))
        diagonal[np.arange(n), np.arange(n), np.arange(n)] = 1
        right = -svec(X @ diagonal + diagonal @ X).T
        lower = basis[:, np.arange(n), np.arange(n)].T
        return np.block([[top, right], [lower, np.zeros((n, n))]])

    last = np.inf
    for _ in range(30):
        S = sym - np.diag(y)
        residual = np.concatenate([svec(X @ S + S @ X), np.diag(X) - 1])
        size = float(np.linalg.norm(residual))
        if size >= 0.5 * last:
            break
        last = size
        step = la.solve(jacobian(X, S), -residual)
        X, y = X + smat(step[: rows.size]), y + step[rows.size :]
    S = sym - np.diag(y)
    if last > 1e-11 or la.eigvalsh(X)[0] < -1e-10 or la.eigvalsh(S)[0] < -1e-10:
        raise ReferenceFailed(f"no certified solution of the semidefinite program: residual {last:.1e}")
    adjoint = la.solve(jacobian(X, S).T, np.concatenate([svec((dZ + dZ.T) / 2), np.zeros(n)]))
    U = smat(adjoint[: rows.size])
    eigenvalues = la.eigvalsh(X + S)
    return X, -(X @ U + U @ X), float(eigenvalues[0] / eigenvalues[-1])
