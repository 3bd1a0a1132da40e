"""A smooth program linearized at a point: the quadratic program that has the same solution map to first order.

    minimize f(x, p)   subject to   g(x, p) + s = 0,  s ∈ K = {0}^z × R₊^k,        p = p(θ)

At a point (x, s, y) that satisfies the optimality conditions ∇ₓL = 0, g + s = 0, s ∈ K, y ∈ K*, sᵀy = 0 of the
Lagrangian L = f + yᵀg, the quadratic program

    minimize ½ zᵀPz + q(θ)ᵀz + d(θ)   subject to   A z + s = b(θ),  s ∈ K
    P = ∇ₓₓL,  A = ∂g/∂x,   q = ∇f − Px + L_xθ (θ − θ₀),   b = Ax − g − g_θ (θ − θ₀),   d = f − ½xᵀPx − (∇f − Px)ᵀx + …

has the same point, multipliers and optimality conditions, and to first order in θ the same solution map (Robinson 1980:
a generalized equation and its linearization are strongly regular together; Fiacco 1983, Theorem 3.2.2). It is what
factorizations, checks and reports of `cvxift.kkt` are asked about; d(θ) is such that its value has the derivative f_θ +
yᵀg_θ of the optimal value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from cvxift.program.structure import Data, Floats

if TYPE_CHECKING:
    from cvxift.program.smooth.program import SmoothProgram


@dataclass(frozen=True, eq=False)
class Request(Data):
    """Parameters at which a nonlinear program is to be solved: what `evaluate` gives in place of data.

    Attributes:
        theta: shape (..., N).
        near: a program linearized at a point to start from; None for the variables' values.
    """

    theta: Floats
    near: LocalProgram | None = None

    def __getitem__(self, index: Any) -> Request:
        return Request(None, self.q[index], None, None, None, self.theta[index], self.near)  # type: ignore[arg-type]  # a request has no matrices


@dataclass(frozen=True, eq=False)
class LinearizedData(Data):
    """The data of the quadratic program above, and the program that they are of."""

    program: LocalProgram


class LocalProgram:
    """A smooth program's linearization at a point: data affine in θ, as `Program` has them for every θ.

    Args:
        whole: the smooth program.
        theta: the parameters at the point, shape (N,).
        p: the data columns there, shape (n_p,).
        x: columns, shape (n,).
        y: multipliers, shape (m,).

    Attributes:
        data: at the point.
        lost: whether the last solution was not followed here: a solver found this one, some way from it.
        slow: whether Newton converged to the point by a constant factor only, as where curvature vanishes there.
    """

    slow = False
    lost = False

    def __init__(self, whole: SmoothProgram, theta: Floats, p: Floats, x: Floats, y: Floats) -> None:
        self.whole, self.theta, self._p, self.x, self.y = whole, theta, p, x, y
        structure = whole.structure
        self.value, self.g, found = whole.oracles.derivatives(x, p, y)
        Px = _product(structure.P_rows, structure.P_cols, found.P, x, structure.n)
        q = found.gradient - Px
        b = _product(structure.A_rows, structure.A_cols, found.A, x, structure.m) - self.g
        d = np.asarray(self.value - 0.5 * float(x @ Px) - float(q @ x))
        self._found, self.gradient = found, found.gradient
        self.data = LinearizedData(found.P, q, found.A, b, d, self)

    def __getattr__(self, name: str) -> Any:
        """Names, sizes and labels are the smooth program's."""
        if name.startswith("__") or "whole" not in self.__dict__:
            raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")
        return getattr(self.whole, name)

    @cached_property
    def _theta_maps(self) -> tuple[Any, Any, Floats]:
        """L_xθ (n, N), g_θ (m, N) and f_θ − xᵀL_xθ (N,)."""
        p_theta, found = self.whole.p_theta(self.theta), self._found
        G, H = sp.csr_array(found.L_xp @ p_theta), sp.csr_array(found.g_p @ p_theta)
        return G, H, np.asarray(p_theta.T @ found.f_p - G.T @ self.x)

    def at(self, solution: Any) -> LocalProgram:
        """The program linearized at another solution's point."""
        return solution.data.program

    def evaluate(self, theta: Floats) -> Request:
        """What is to be solved at θ, shape (..., N), from this point."""
        request = self.whole.evaluate(theta)
        return Request(request.P, request.q, request.A, request.b, request.d, theta, self)

    def jvp(self, dtheta: Floats) -> Data:
        """Tangents of q, b and d along dθ, shape (..., N); P and A are constant."""
        G, H, d = self._theta_maps
        structure, lead = self.structure, dtheta.shape[:-1]
        flat = dtheta.reshape(math.prod(lead), dtheta.shape[-1]).T
        return Data(
            np.zeros((*lead, structure.nnzP)),
            (G @ flat).T.reshape(*lead, structure.n),
            np.zeros((*lead, structure.nnzA)),
            -(H @ flat).T.reshape(*lead, structure.m),
            dtheta @ d,
        )

    def vjp(self, bar: Data) -> Floats:
        """Cotangent of θ, shape (..., N), of cotangents of q, b and d."""
        G, H, d = self._theta_maps
        lead = bar.q.shape[:-1]
        q, b = (part.reshape(math.prod(lead), part.shape[-1]) for part in (bar.q, bar.b))
        out = (G.T @ q.T - H.T @ b.T).T.reshape(*lead, self.theta_size)
        return out + np.asarray(bar.d)[..., None] * d

    def affine(self) -> dict[str, tuple[sp.csr_array, Floats]]:
        """P, q, A, b and d as affine functions of θ near the point."""
        G, H, d = self._theta_maps
        structure, N, data = self.structure, self.theta_size, self.data
        return {
            "P": (sp.csr_array((structure.nnzP, N)), data.P),
            "q": (G, data.q - G @ self.theta),
            "A": (sp.csr_array((structure.nnzA, N)), data.A),
            "b": (sp.csr_array(-H), data.b + H @ self.theta),
            "d": (sp.csr_array(d[None]), np.atleast_1d(data.d - d @ self.theta)),
        }


def _product(rows: np.ndarray, cols: np.ndarray, values: Floats, vector: Floats, size: int) -> Floats:
    bincount: Any = np.bincount  # its stub leaves the weights' dtype out
    return bincount(rows, weights=values * vector[cols], minlength=size)[:size]
