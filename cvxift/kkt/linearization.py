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
Bend:      the tangent of (ẋ, ẏ) along a second tangent θ̇′. With e = D²Π(v)[v̇, v̇′], and ÿ = w + e, s̈ = Dv̈ + e,
               P ẍ + Aᵀw = −(Ṗẋ′ + Ȧᵀẏ′ + Ṗ′ẋ + Ȧ′ᵀẏ) − Aᵀe,    A ẍ + D v̈ = −(Ȧẋ′ + Ȧ′ẋ) − e,    w = (D − I) v̈.
All solves are `ReducedSystem.solve`, because K is symmetric. Vectors and data may have one leading dimension k: that
many products from one factorization. On the central path (`mu`) Π is φ of `cvxift.kkt.smooth` on inequality rows.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import numpy as np

from cvxift import cones as cone
from cvxift.kkt.factor import Certificate
from cvxift.kkt.instance import Instance
from cvxift.kkt.iterative import IterativeSystem
from cvxift.kkt.system import ReducedSystem, rotation
from cvxift.kkt.units import Way
from cvxift.program.products import apply
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
        mu: the central path's parameter if the point is on that path; None for a solution.
    """

    def __init__(
        self,
        structure: Structure,
        data: Data,
        x: Floats,
        y: Floats,
        system: ReducedSystem | IterativeSystem,
        v: Floats,
        substitution: Way | None = None,
        mu: float | None = None,
    ) -> None:
        self.structure, self.data, self.x, self.y = structure, data, x, y
        self.system, self.v, self.substitution, self.mu = system, v, substitution, mu
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

    def solve(self, g: Floats, h: Floats | None) -> tuple[Floats, Floats]:
        """(u, w) with P u + Aᵀw = g and Qᵀ(A u − h) = H Qᵀw, in the original program; keeps the certificate.

        Args:
            g: right-hand side on columns, shape (n,) or (k, n).
            h: right-hand side on rows, shape (m,) or (k, m); None for zero.
        """
        return self._inner(g, h) if self.substitution is None else self.substitution.solve(self._inner, g, h)

    def _inner(self, g: Floats, h: Floats | None) -> tuple[Floats, Floats]:
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
        return self.solve(-x_bar, None if y_bar is None else -y_bar)

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
        """Tangents (ẋ, ẏ) of the solution for a tangent of the data, with its leading dimension if it has one."""
        return self.solve(*self.residual_tangent(tangent))

    def residual_tangent(self, tangent: Data) -> tuple[Floats, Floats]:
        """−F_θ θ̇, the right-hand side (g, h) of the tangent system."""
        return residual_tangent(self.structure, self.x, self.y, tangent)

    @cached_property
    def _A(self):
        return self.structure.A_matrix(self.data.A)

    def second(self, x_bar: Floats, y_bar: Floats | None, tangent: Data) -> Data:
        """Derivative with respect to the data of ⟨(x̄, ȳ), (ẋ, ẏ)⟩.

        Args:
            x_bar: cotangent of x, shape (n,) or (k, n).
            y_bar: cotangent of y, shape (m,) or (k, m); None for zero.
            tangent: the data's tangent that gives (ẋ, ẏ), with the same leading dimension.

        Returns:
            Cotangent of the data.
        """
        u, w = self.adjoint(x_bar, y_bar)
        x_dot, y_dot = self.jvp(tangent)
        direct = outer(self.structure, x_dot, y_dot, u, w)
        gamma_x, gamma_y = act(self.structure, tangent, u, w)
        tilt = apply(self._A, u) + w
        bend = self._bend(self._v_dot(tangent, x_dot, y_dot), tilt if y_bar is None else tilt + y_bar)
        w_slack: Floats | float = 0.0
        if bend is not None:
            shift_x, shift_y, w_slack = self._split(bend)
            gamma_x = gamma_x + shift_x
            gamma_y = gamma_y + shift_y
        u2, w2 = self.adjoint(gamma_x, gamma_y)
        through = self.pull_back(u2, w2 + w_slack)
        # q̄ and b̄ do not multiply the point, so they have no direct part.
        return Data(direct.P + through.P, through.q, direct.A + through.A, through.b, through.d)

    def second_tangent(self, first: Data, other: Data) -> tuple[Floats, Floats]:
        """(ẍ, ÿ), the second derivative of the solution along two tangents of the data; symmetric in them.

        Args:
            first: a tangent θ̇ of the data.
            other: another, θ̇′, with the same leading dimension.

        Returns:
            Shapes of x and y after the tangents' leading dimension.
        """
        x_dot, y_dot = self.jvp(first)
        x_other, y_other = self.jvp(other)
        left, right = act(self.structure, first, x_other, y_other), act(self.structure, other, x_dot, y_dot)
        g, h = -(left[0] + right[0]), -(left[1] + right[1])
        bend = self._bend(self._v_dot(first, x_dot, y_dot), self._v_dot(other, x_other, y_other))
        if bend is None:
            return self.solve(g, h)
        x, w = self.solve(g - apply(self._A.T, bend), h - bend)
        return x, w + bend

    def _v_dot(self, tangent: Data, x_dot: Floats, y_dot: Floats) -> Floats:
        """v̇ = ṡ − ẏ with ṡ = ḃ − Ȧx − Aẋ."""
        moved = act(self.structure, tangent, self.x, self.y)[1]
        return tangent.b - moved - apply(self._A, x_dot) - y_dot

    def _bend(self, a: Floats, b: Floats) -> Floats | None:
        """D²Π(v)[a, b]; None where Π is piecewise linear."""
        cones = self.structure.cones
        if self.mu is not None:
            # φ(v) = (v + √(v² + 4μ))/2  ⇒  φ''(v) = 2μ/(v² + 4μ)^{3/2};  equality rows have φ = 0
            bend = 2.0 * self.mu * (self.v * self.v + 4.0 * self.mu) ** -1.5
            bend[: cones.zero] = 0.0
            return bend * a * b
        return None if cones.polyhedral else self._spectrum.bend(a, b)

    @cached_property
    def _spectrum(self) -> cone.Spectrum:
        return cone.spectrum(self.structure.cones, self.v)

    def _split(self, v_bar: Floats) -> tuple[Floats, Floats, Floats | float]:
        """A general cotangent v̄ of v as (an addition to x̄, an equivalent ȳ, the fixed part of w on slack directions).

        See `Spectrum.split`; the fixed part moves Aᵀw to the columns. Polyhedral rows do not bend, so v̄ is zero there.
        """
        if self.mu is not None:
            # No direction is slack; 1 − φ' = (1 − v/√(v² + 4μ))/2, written without cancellation where v > 0.
            root = np.sqrt(self.v * self.v + 4.0 * self.mu)
            complement = np.where(self.v > 0.0, 2.0 * self.mu / (root * (root + self.v)), 0.5 * (1.0 - self.v / root))
            return np.zeros((*v_bar.shape[:-1], self.structure.n)), -v_bar / complement, 0.0
        w_slack, y_bar = self._spectrum.split(v_bar)
        return apply(self._A.T, w_slack), y_bar, w_slack


def act(structure: Structure, data: Data, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """(P x + Aᵀ y, A x) for P and A given by values on the patterns.

    Args:
        structure: the patterns.
        data: the values, with any leading dimensions.
        x: shape (n,) or with the same leading dimensions.
        y: shape (m,) or likewise.

    Returns:
        Shapes (..., n) and (..., m).
    """
    P_rows, P_cols, A_rows, A_cols = structure.places
    n, m = structure.n, structure.m
    Px = data.P * x.take(P_cols, axis=-1)
    ATy, Ax = data.A * y.take(A_rows, axis=-1), data.A * x.take(A_cols, axis=-1)
    return _sum(P_rows, Px, n) + _sum(A_cols, ATy, n), _sum(A_rows, Ax, m)


def _sum(index: np.ndarray, values: Floats, size: int) -> Floats:
    """The sums of the values, shape (..., entries), that share an index, shape (..., size)."""
    bincount: Any = np.bincount  # its stub leaves the weights' dtype out
    if values.ndim == 1:
        return bincount(index, weights=values, minlength=size)
    count = math.prod(values.shape[:-1])
    where = index + size * np.arange(count)[:, None]
    return bincount(where.ravel(), weights=values.ravel(), minlength=count * size).reshape(*values.shape[:-1], size)


def residual_tangent(structure: Structure, x: Floats, y: Floats, tangent: Data) -> tuple[Floats, Floats]:
    """−F_θ θ̇ = (−(Ṗx + q̇ + Ȧᵀy),  ḃ − Ȧx), the right-hand side (g, h) of the tangent system.

    Args:
        structure: the patterns.
        x: shape (n,) or (..., n).
        y: shape (m,) or (..., m).
        tangent: of the data, with any leading dimensions.
    """
    columns, rows = act(structure, tangent, x, y)
    return -(columns + tangent.q), tangent.b - rows


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
