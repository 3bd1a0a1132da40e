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
    def kinks(self) -> list[str]:
        """As `SmoothProgram.kinks`, at the point's parameters."""
        return self.whole.kinks(self.theta)

    @cached_property
    def _p_theta(self) -> Any:
        return self.whole.p_theta(self.theta)

    @cached_property
    def _d_p(self) -> Floats:
        """f_p − xᵀL_xp, shape (n_p,)."""
        return self._found.f_p - self._found.L_xp.transposed_times(self.x[:, None])[:, 0]

    def at(self, solution: Any) -> LocalProgram:
        """The program linearized at another solution's point."""
        return solution.data.program

    def evaluate(self, theta: Floats) -> Request:
        """What is to be solved at θ, shape (..., N), from this point."""
        request = self.whole.evaluate(theta)
        return Request(request.P, request.q, request.A, request.b, request.d, theta, self)

    def jvp(self, dtheta: Floats) -> Data:
        """Tangents of q, b and d along dθ, shape (..., N); P and A are constant."""
        structure, found, lead = self.structure, self._found, dtheta.shape[:-1]
        dp = self._p_theta @ dtheta.reshape(math.prod(lead), dtheta.shape[-1]).T
        return Data(
            np.zeros((*lead, structure.nnzP)),
            found.L_xp.times(dp).T.reshape(*lead, structure.n),
            np.zeros((*lead, structure.nnzA)),
            -found.g_p.times(dp).T.reshape(*lead, structure.m),
            (self._d_p @ dp).reshape(lead),
        )

    def vjp(self, bar: Data) -> Floats:
        """Cotangent of θ, shape (..., N), of cotangents of q, b and d."""
        found, lead = self._found, bar.q.shape[:-1]
        q, b = (part.reshape(math.prod(lead), part.shape[-1]) for part in (bar.q, bar.b))
        p = found.L_xp.transposed_times(q.T) - found.g_p.transposed_times(b.T)
        p += np.multiply.outer(self._d_p, np.ravel(bar.d))
        return (self._p_theta.T @ p).T.reshape(*lead, self.theta_size)

    def affine(self) -> dict[str, tuple[sp.csr_array, Floats]]:
        """P, q, A, b and d as affine functions of θ near the point."""
        structure, N, data = self.structure, self.theta_size, self.data
        G, H = (sp.csr_array(part.matrix @ self._p_theta) for part in (self._found.L_xp, self._found.g_p))
        d = self._p_theta.T @ self._d_p
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
