"""Derivatives of a solved batch between flat arrays: products with the Jacobian and with derivatives of any order.

z(θ) are the flat outputs, J = dz/dθ. Every product takes vectors with leading dimensions before the batch's own: that
many products with each instance's one factorization. Failed instances have zero derivatives.

    vjp:  Jᵀ z̄        jvp:  J θ̇        derivative:  both, and those of higher order
"""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np

from cvxift.errors import ProgramError
from cvxift.kkt.backend import Array
from cvxift.kkt.batch.solutions import Solved
from cvxift.kkt.engine import Engine
from cvxift.kkt.policy import Policy
from cvxift.kkt.recovery import Recovery
from cvxift.program.program import Program


class Derivatives(abc.ABC):
    """The products, for arrays of one place.

    Attributes:
        program: the problem's program.
        engine: the program's engine.
        policy: how derivatives are taken.
        output_size: K, length of the flat outputs.
    """

    program: Program
    engine: Engine
    policy: Policy
    output_size: int
    _recover: Recovery
    _permutation: np.ndarray | None
    highest_order: int | None = None  # how often the map can be differentiated; None for as often as its cones allow

    @property
    def theta_size(self) -> int:
        """N, length of θ."""
        return self.program.theta_size

    def check_order(self, order: int) -> None:
        """Refuse an order of differentiation that the map does not have, or that is not known in closed form.

        Raises:
            ProgramError: the order is above 2 and the cones are curved, or the derivative is the central path's.
        """
        if self.highest_order is not None and order > self.highest_order:
            raise ProgramError(
                f"A derivative of order {order} was asked for; orders up to {self.highest_order} are supported of "
                "nonlinear programs, because CVXPY's engine gives no third derivatives of the problem's functions. "
                "State a convex problem by the DPP rules without nlp=True, or differentiate less often."
            )
        if order <= 2:
            return
        if self.policy.singular == "smooth":
            raise ProgramError(
                f"A derivative of order {order} was asked for under singular='smooth'; orders 1 and 2 are supported "
                "there. Choose another policy, or differentiate less often."
            )
        cones = self.program.structure.cones
        if not cones.polyhedral:
            curved = ", ".join(sorted({block.kind for block in cones.blocks()} - {"zero", "nonneg"}))
            raise ProgramError(
                f"A derivative of order {order} was asked for of a problem with curved cones ({curved}); orders 1 and "
                "2 are supported there, any order where all constraints are linear. Differentiate less often, or "
                "state the problem as a quadratic program."
            )

    @abc.abstractmethod
    def _product(self, solved: Solved, tangents: Sequence[Array], bar: Array | None) -> Array:
        """`derivative`, for all outputs as they leave the affine map of `Recovery`."""

    def derivative(self, solved: Solved, tangents: Sequence[Array], bar: Array | None = None) -> Array:
        """The derivative of the outputs along some directions, or its transpose in one more.

            forward   Dᵏz(θ)[θ̇₁, …, θ̇ₖ]                       shape of the outputs
            adjoint   ∇_θ ⟨z̄, Dᵏ⁻¹z(θ)[θ̇₁, …, θ̇ₖ₋₁]⟩          shape of θ

        Args:
            solved: what `solve` returned.
            tangents: directions θ̇ᵢ, shapes (*lead, *batch, N), whose leading dimensions broadcast.
            bar: cotangent z̄ of the outputs, shape (*lead, *batch, K), for the adjoint form; None for the forward form.

        Returns:
            Shape (*lead, *batch, K) for the forward form, (*lead, *batch, N) for the adjoint one; zero for failed
            instances.

        Raises:
            ProgramError: the order is not supported; see `check_order`.
            ApplicabilityError: under ``singular="raise"``, where the derivative does not exist.
        """
        if len(tangents) > 1:
            self.check_order(len(tangents) + (bar is not None))
        unbounded = self._not_finite(solved, tangents, bar)
        if unbounded is not None:
            return unbounded
        if self._recover.positive is None:
            return self._product(solved, tangents, bar)
        if bar is None:
            return self._recover.alive(solved.outputs, self._product(solved, tangents, None))
        return self._product(solved, tangents, self._recover.alive(solved.outputs, bar))

    def _not_finite(self, solved: Solved, tangents: Sequence[Array], bar: Array | None) -> Array | None:
        """The derivative where a vector is not finite: NaN in every entry of its instance; None where all are finite.

        Arrays of a device are not looked at, which would be to wait for them.
        """
        vectors = list(tangents) if bar is None else [*tangents, bar]
        for v in vectors:
            if not isinstance(v, np.ndarray):
                return None
            if not math.isfinite(v.dot(v) if v.ndim == 1 else v.sum()):
                break
        else:
            return None
        masks = [~np.isfinite(v).all(axis=-1, keepdims=True) for v in vectors]
        if not any(mask.any() for mask in masks):
            return None  # a square or the sum overflowed
        fine = [np.where(mask, 0.0, v) for mask, v in zip(masks, vectors, strict=True)]
        out = self.derivative(solved, fine[: len(tangents)], None if bar is None else fine[-1])
        failed = np.isnan(solved.outputs).any(axis=-1, keepdims=True)  # what is NaN there comes back as such cotangents
        return np.where(reduce(np.logical_or, masks) & ~failed, np.nan, out)

    def vjp(self, solved: Solved, bar: Any) -> Any:
        """Vector-Jacobian products.

        Args:
            solved: what `solve` returned.
            bar: cotangents of the outputs, shape (*lead, *batch, K); the leading dimensions are that many products
                with each instance's one factorization.

        Returns:
            Cotangents of θ, shape (*lead, *batch, N); zero for failed instances.

        Raises:
            ApplicabilityError: under ``singular="raise"``, where a derivative does not exist.
        """
        return self.derivative(solved, (), bar)

    def jvp(self, solved: Solved, theta_dot: Any) -> Any:
        """Jacobian-vector products.

        Args:
            solved: what `solve` returned.
            theta_dot: tangents of θ, shape (*lead, *batch, N).

        Returns:
            Tangents of the outputs, shape (*lead, *batch, K); zero for failed instances.

        Raises:
            ApplicabilityError: as `vjp`.
        """
        return self.derivative(solved, (theta_dot,))
