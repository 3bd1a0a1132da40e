"""Derivatives of the solution map at one point: adjoint, tangent and second order, one factorization for all.

The normal map F(x, v; θ) = [ Px + q + Aᵀ(Π(v) − v) ; Ax + Π(v) − b ] vanishes at the solution, with Jacobian J = [ P
Aᵀ(D − I) ; A  D ].

Tangent:   J (ẋ, v̇) = −(Ṗx + q̇ + Ȧᵀy,  Ȧx − ḃ),     ẏ = (D − I) v̇,   ṡ = D v̇
Adjoint:   Jᵀ (u, w) = −(x̄, v̄),  v̄ = (D − I) ȳ;       q̄ = u,  b̄ = −w,  P̄ = u xᵀ,  Ā_ij = y_i u_j + w_i x_j
Second:    the derivative of ⟨(x̄, ȳ), (ẋ, ẏ)⟩ along dθ is (u, w)ᵀ (dJ (ẋ, v̇) + dF_θ θ̇): a direct part, bilinear in
    (u, w) and (ẋ, ẏ), and a part
           through the point, which is one more adjoint solve with
               γ_x = Ṗu + Ȧᵀw,    γ_v = D²Π(v)[v̇, Au + w + ȳ] + (D − I) Ȧu,
           where ȳ stands because ẏ = (D(v) − I) v̇ moves with v as well.
Both solves are `ReducedSystem.solve`, because K is symmetric.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from cvxift import cones as cone
from cvxift.kkt.factor import Certificate
from cvxift.kkt.instance import Instance
from cvxift.kkt.iterative import IterativeSystem
from cvxift.kkt.system import ReducedSystem, rotation
from cvxift.program.condense import Substitution
from cvxift.program.structure import Data, Floats, Structure


class Linearization:
    """The solution map's derivatives at a point of a program.

    Args:
        structure: the program's structure.
        data: its data, unbatched.
        x: columns, shape (n,).
        y: multipliers, shape (m,).
        system: the reduced system of the (condensed) instance at the point.
        v: s − y, shape (m,); what substituted rows hold does not matter.
        substitution: the way from the condensed program to this one; None if they are the same.
    """

    def __init__(
        self,
        structure: Structure,
        data: Data,
        x: Floats,
        y: Floats,
        system: ReducedSystem | IterativeSystem,
        v: Floats,
        substitution: Substitution | None = None,
    ) -> None:
        self.structure, self.data, self.x, self.y = structure, data, x, y
        self.system, self.v, self.substitution = system, v, substitution
        self.certificate: Certificate | None = None

    @classmethod
    def at(cls, structure: Structure, data: Data, instance: Instance, x: Floats, s: Floats, y: Floats) -> Linearization:
        """The linearization of an uncondensed program at (x, s, y)."""
        v = s - y
        return cls(structure, data, x, y, ReducedSystem(instance, rotation(structure.cones, v)), v)

    def prepare(self) -> None:
        """Factorize the reduced system, if there is one."""
        if isinstance(self.system, ReducedSystem):
            _ = self.system.factor

    def solve(self, g: Floats, h: Floats) -> tuple[Floats, Floats]:
        """(u, w) with P u + Aᵀw = g and Qᵀ(A u − h) = H Qᵀw, in the original program; keeps the certificate.

        Args:
            g: right-hand side on columns, shape (n,) or (k, n).
            h: right-hand side on rows, shape (m,) or (k, m).
        """
        return self._inner(g, h) if self.substitution is None else self.substitution.solve(self._inner, g, h)

    def _inner(self, g: Floats, h: Floats) -> tuple[Floats, Floats]:
        u, w, self.certificate = self.system.solve(g, h)
        return u, w

    def adjoint(self, x_bar: Floats, y_bar: Floats | None = None) -> tuple[Floats, Floats]:
        """The adjoint solution (u, w) for cotangents of x and y.

        Args:
            x_bar: cotangent of x, shape (n,) or (k, n).
            y_bar: cotangent of y, shape (m,) or (k, m); None for zero.

        Returns:
            u and w, shapes of x and y.
        """
        if y_bar is None:
            y_bar = np.zeros((*x_bar.shape[:-1], self.structure.m))
        return self.solve(-x_bar, -y_bar)

    def pull_back(self, u: Floats, w: Floats, with_P: bool = True) -> Data:
        """Cotangent of the data, F_θᵀ(u, w).

        Args:
            u: adjoint solution on columns, shape (..., n).
            w: adjoint solution on rows, shape (..., m).
            with_P: whether P's cotangent is wanted.

        Returns:
            Data with the leading dimensions of u and w.
        """
        return outer(self.structure, self.x, self.y, u, w, with_P)

    def vjp(self, x_bar: Floats, y_bar: Floats | None = None, with_P: bool = True) -> Data:
        """Cotangent of the data for cotangents x_bar (n,) and y_bar (m,) of the solution."""
        return self.pull_back(*self.adjoint(x_bar, y_bar), with_P)

    def jvp(self, tangent: Data) -> tuple[Floats, Floats]:
        """Tangents (ẋ, ẏ) of the solution for a tangent of the data, unbatched."""
        return self.solve(*self.residual_tangent(tangent))

    def residual_tangent(self, tangent: Data) -> tuple[Floats, Floats]:
        """−F_θ θ̇, the right-hand side (g, h) of the tangent system."""
        P_dot, A_dot = self.structure.P_matrix(tangent.P), self.structure.A_matrix(tangent.A)
        return -(P_dot @ self.x + tangent.q + A_dot.T @ self.y), tangent.b - A_dot @ self.x

    @cached_property
    def _A(self):
        return self.structure.A_matrix(self.data.A)

    def second(self, x_bar: Floats, y_bar: Floats | None, tangent: Data) -> Data:
        """Derivative with respect to the data of ⟨(x̄, ȳ), (ẋ, ẏ)⟩.

        Args:
            x_bar: cotangent of x, shape (n,).
            y_bar: cotangent of y, shape (m,); None for zero.
            tangent: the data's tangent that gives (ẋ, ẏ), unbatched.

        Returns:
            Cotangent of the data.
        """
        structure = self.structure
        u, w = self.adjoint(x_bar, y_bar)
        P_dot, A_dot = structure.P_matrix(tangent.P), structure.A_matrix(tangent.A)
        x_dot, y_dot = self.jvp(tangent)
        direct = outer(structure, x_dot, y_dot, u, w)
        gamma_x = P_dot @ u + A_dot.T @ w
        gamma_y = A_dot @ u
        if not structure.cones.polyhedral:
            s_dot = tangent.b - A_dot @ self.x - self._A @ x_dot
            tilt = self._A @ u + w if y_bar is None else self._A @ u + w + y_bar
            bend = cone.second_derivative(structure.cones, self.v, s_dot - y_dot, tilt)
            shift_x, shift_y, w_slack = self._split(bend)
            gamma_x = gamma_x + shift_x
            gamma_y = gamma_y + shift_y
        else:
            w_slack = 0.0
        u2, w2 = self.adjoint(gamma_x, gamma_y)
        through = self.pull_back(u2, w2 + w_slack)
        # q̄ and b̄ do not multiply the point, so they have no direct part.
        return Data(direct.P + through.P, through.q, direct.A + through.A, through.b, through.d)

    def _split(self, v_bar: Floats) -> tuple[Floats, Floats, Floats]:
        """A general cotangent v̄ of v as (an addition to x̄, an equivalent ȳ, the fixed part of w on slack directions).

        (I − D)A u − D w = v̄: on slack directions w = −v̄, which moves Aᵀw to the columns; on the others it is ȳ =
        −v̄/(1 − d). Polyhedral rows do not bend, so v̄ is zero there.
        """
        full = rotation(self.structure.cones, self.v)
        assert full.Q is not None and full.slack is not None and full.complement is not None
        w_slack = -(full.slack @ (full.slack.T @ v_bar))
        y_bar = -(full.Q @ ((full.Q.T @ v_bar) / full.complement))
        return self._A.T @ w_slack, y_bar, w_slack


def outer(structure: Structure, x: Floats, y: Floats, u: Floats, w: Floats, with_P: bool = True) -> Data:
    """The data's cotangent  P̄ = u xᵀ,  Ā_ij = y_i u_j + w_i x_j,  q̄ = u,  b̄ = −w  on the patterns.

    Args:
        structure: the patterns.
        x: shape (n,) or (..., n).
        y: shape (m,) or (..., m).
        u: shape (..., n).
        w: shape (..., m).
        with_P: whether P̄ is wanted; else it is left out (zero), where P is the same for every θ.
    """
    P_rows, P_cols, A_rows, A_cols = structure.places
    P = u.take(P_rows, axis=-1) * x.take(P_cols, axis=-1) if with_P else None
    A = y.take(A_rows, axis=-1) * u.take(A_cols, axis=-1)
    A += w.take(A_rows, axis=-1) * x.take(A_cols, axis=-1)
    return Data(P, u, A, -w, np.zeros(np.shape(u)[:-1]))  # type: ignore[arg-type]  # None is a zero cotangent
