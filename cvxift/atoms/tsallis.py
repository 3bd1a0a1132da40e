"""Tsallis' entropies of order α > 1, on z ≥ 0."""

from __future__ import annotations

from typing import Any

import cvxpy as cp
import numpy as np
from cvxpy.expressions.expression import Expression

from cvxift._types import override
from cvxift.atoms.base import Definition, Regularizer
from cvxift.atoms.entropies import BELOW_ZERO, gini, neg_entropy
from cvxift.atoms.registry import register
from cvxift.errors import ProgramError


@register("nonneg", "soc", quadratic=True)
class NonnegGini(gini):
    """The Tsallis entropy of order 2: `gini` restricted to z ≥ 0."""

    function = "tsallis_neg_entropy"

    def _call(self, args: list[str]) -> str:
        return super()._call([*args, "2"])

    def numeric(self, values: list[Any]) -> Any:
        """Value; +∞ for a negative entry."""
        z = np.asarray(values[0], dtype=float)
        return np.sum(
            np.where(z < -BELOW_ZERO, np.inf, 0.5 * np.maximum(z, 0) * (np.maximum(z, 0) - 1)),
            axis=self.axis,
            keepdims=self.keepdims,
        )

    def definition(self, args: list[Expression]) -> Definition:
        """The Gini entropy and z ≥ 0."""
        return super().definition(args)[0], [args[0] >= 0]

    def is_qpwa(self) -> bool:
        """No: it carries a constraint, but the quadratic stays in the objective."""
        return self.args[0].is_affine()

    def _column_grad(self, value: np.ndarray) -> np.ndarray | None:
        return None if np.any(value < 0) else value - 0.5

    def _domain(self) -> list[Any]:
        return [self.args[0] >= 0]


@register("nonneg", "soc", "pow")
class TsallisNegEntropy(Regularizer):
    """Negative Tsallis entropy of order α > 1; made by `tsallis_neg_entropy`."""

    symbol = r"\tfrac{1}{%s} \sum_i (%s_i^{%s} - %s_i)"
    function = "tsallis_neg_entropy"

    def __init__(self, z: Any, alpha: float, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> None:
        self.alpha = alpha
        super().__init__(z, axis, keepdims)

    def settings(self) -> list[Any]:
        """α."""
        return [self.alpha]

    @override
    def latex(self) -> str:
        word = rf"\mathrm{{{self.args[0].name()}}}"
        return self.symbol % (f"{self.alpha * (self.alpha - 1):g}", word, f"{self.alpha:g}", word)

    def numeric(self, values: list[Any]) -> Any:
        """Value; +∞ for a negative entry."""
        z, a = np.asarray(values[0], dtype=float), self.alpha
        terms = np.where(z < -BELOW_ZERO, np.inf, (np.maximum(z, 0) ** a - np.maximum(z, 0)) / (a * (a - 1)))
        return np.sum(terms, axis=self.axis, keepdims=self.keepdims)

    def definition(self, args: list[Expression]) -> Definition:
        """(Σ z^α − Σ z) / (α(α−1)) over power cones, and z ≥ 0 (even powers are finite below it)."""
        z, a = args[0], self.alpha
        powers = cp.power(z, a, approx=False)
        return cp.sum(powers - z, axis=self.axis, keepdims=self.keepdims) / (a * (a - 1)), [z >= 0]

    def _column_grad(self, value: np.ndarray) -> np.ndarray | None:
        a = self.alpha
        return None if np.any(value < -BELOW_ZERO) else (a * np.maximum(value, 0) ** (a - 1) - 1) / (a * (a - 1))

    def _domain(self) -> list[Any]:
        return [self.args[0] >= 0]


def tsallis_neg_entropy(
    z: Any, alpha: float, axis: int | tuple[int, ...] | None = None, keepdims: bool = False
) -> Regularizer:
    """Negative Tsallis entropy Σ (z_i^α − z_i) / (α(α−1)), for z ≥ 0; its regularized argmax is α-entmax.

    Args:
        z: expression of any shape.
        alpha: order ≥ 1; 1 is Shannon's entropy, 2 Gini's.
        axis: axis or axes to sum over; None for all.
        keepdims: keep the summed axes with length one.

    Returns:
        The atom (`neg_entropy` for α = 1).

    Raises:
        ProgramError: α < 1 or not finite.

    Source: Peters, Niculae, Martins 2019, equation 8.

    Example:
        >>> import cvxpy as cp
        >>> from cvxift.atoms import tsallis_neg_entropy
        >>> z = cp.Variable(4)
        >>> problem = cp.Problem(cp.Minimize(tsallis_neg_entropy(z, 1.5)), [cp.sum(z) == 1])
        >>> round(float(problem.solve()), 6)
        -0.666667
    """
    alpha = float(alpha)
    if not (np.isfinite(alpha) and alpha >= 1):
        raise ProgramError(f"alpha = {alpha} is not allowed; tsallis_neg_entropy needs a finite alpha ≥ 1.")
    if alpha == 1.0:
        return neg_entropy(z, axis, keepdims)
    if alpha == 2.0:
        return NonnegGini(z, axis, keepdims)
    return TsallisNegEntropy(z, alpha, axis, keepdims)
