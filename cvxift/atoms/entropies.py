"""Entropies as convex atoms: Shannon, Tsallis, Gini, norm, and relative entropy to a prior.

    Tsallis   Ω_α(z) = (Σ z_i^α − z_i) / (α(α−1)),  z ≥ 0;  α → 1 is Σ z_i log z_i, α = 2 is ½ Σ z_i(z_i − 1)
    norm      Ω_q(z) = ‖z‖_q − 1

On the simplex each is ≤ 0, zero at the vertices. M. Blondel, A. Martins, V. Niculae, "Learning with Fenchel-Young
losses", JMLR 2020, sections 4.1 and 4.3.
"""

from __future__ import annotations

from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp
from cvxpy.atoms.atom import Atom
from cvxpy.expressions.expression import Expression
from scipy.special import rel_entr, xlogy

from cvxift._types import override
from cvxift.atoms.base import Definition, Regularizer, over_slices
from cvxift.atoms.registry import register
from cvxift.errors import ProgramError

BELOW_ZERO = 1e-5  # entries this little below zero are a solver's rounding, and count as zero in values


@register("exp")
class neg_entropy(Regularizer):
    """Negative Shannon entropy Σ z_i log z_i, for z ≥ 0.

    Args:
        z: expression of any shape.
        axis: axis or axes to sum over; None for all.
        keepdims: keep the summed axes with length one.

    Raises:
        ProgramError: z has no such axis.

    Source: Blondel, Martins, Niculae 2020, Table 1.

    Example:
        >>> import cvxpy as cp
        >>> from cvxift.atoms import neg_entropy
        >>> z = cp.Variable(4)
        >>> problem = cp.Problem(cp.Minimize(neg_entropy(z)), [cp.sum(z) == 1])
        >>> round(float(problem.solve()), 6)
        -1.386294
    """

    symbol = r"\sum_i %s_i \log %s_i"

    @override
    def latex(self) -> str:
        word = rf"\mathrm{{{self.args[0].name()}}}"
        return self.symbol % (word, word)

    def numeric(self, values: list[Any]) -> Any:
        """Value; +∞ for a negative entry."""
        z = np.asarray(values[0], dtype=float)
        return np.sum(-_entr(z), axis=self.axis, keepdims=self.keepdims)

    def definition(self, args: list[Expression]) -> Definition:
        """−Σ entr(z)."""
        return -cp.sum(cp.entr(args[0]), axis=self.axis, keepdims=self.keepdims), []

    def _column_grad(self, value: np.ndarray) -> np.ndarray | None:
        return None if np.any(value <= 0) else np.log(value) + 1

    def _domain(self) -> list[Any]:
        return [self.args[0] >= 0]


@register("nonneg", "soc", quadratic=True)
class gini(Regularizer):
    """Negative Gini entropy ½ Σ z_i(z_i − 1), finite everywhere; ½(‖z‖² − 1) where Σ z_i = 1.

    Quadratic, so a problem in which it stands in the objective stays a QP.

    Args:
        z: expression of any shape.
        axis: axis or axes to sum over; None for all.
        keepdims: keep the summed axes with length one.

    Raises:
        ProgramError: z has no such axis.

    Source: Martins & Astudillo 2016 (sparsemax); Blondel, Martins, Niculae 2020, Table 1.

    Example:
        >>> import cvxpy as cp, numpy as np
        >>> from cvxift.atoms import gini
        >>> z = cp.Variable(3)
        >>> objective = cp.Maximize(np.array([0.5, 0.4, -1.0]) @ z - gini(z))
        >>> _ = cp.Problem(objective, [cp.sum(z) == 1, z >= 0]).solve()
        >>> z.value.round(4) + 0.0
        array([0.55, 0.45, 0.  ])
    """

    symbol = r"\tfrac12 \sum_i %s_i (%s_i - 1)"

    @override
    def latex(self) -> str:
        word = rf"\mathrm{{{self.args[0].name()}}}"
        return self.symbol % (word, word)

    def numeric(self, values: list[Any]) -> Any:
        """The value at values of the arguments."""
        z = np.asarray(values[0], dtype=float)
        return 0.5 * np.sum(z * (z - 1), axis=self.axis, keepdims=self.keepdims)

    def definition(self, args: list[Expression]) -> Definition:
        """½ (Σ z² − Σ z)."""
        z, axis = args[0], self.axis
        linear = cp.sum(z, axis=axis, keepdims=self.keepdims)
        if axis is None and not self.keepdims:
            return 0.5 * (cp.sum_squares(z) - linear), []
        return 0.5 * (cp.sum(cp.square(z), axis=axis, keepdims=self.keepdims) - linear), []

    def is_quadratic(self) -> bool:
        """Where its argument is affine."""
        return self.args[0].is_affine()

    def has_quadratic_term(self) -> bool:
        """Where its argument is not constant."""
        return not self.args[0].is_constant()

    def is_qpwa(self) -> bool:
        """Where its argument is affine."""
        return self.args[0].is_affine()

    def _column_grad(self, value: np.ndarray) -> np.ndarray | None:
        return value - 0.5


@register("nonneg", "soc", "pow")
class norm_neg_entropy(Regularizer):
    """Negative norm entropy ‖z‖_q − 1.

    Args:
        z: expression of any shape.
        q: order of the norm, > 1.
        axis: an axis of a matrix, or None for all entries.
        keepdims: keep the reduced axis with length one.

    Raises:
        ProgramError: q ≤ 1 or not finite.

    Source: Blondel, Martins, Niculae 2020, section 4.3.

    Example:
        >>> import cvxpy as cp
        >>> from cvxift.atoms import norm_neg_entropy
        >>> z = cp.Variable(4)
        >>> problem = cp.Problem(cp.Minimize(norm_neg_entropy(z, 2)), [cp.sum(z) == 1, z >= 0])
        >>> round(float(problem.solve()), 6)
        -0.5
    """

    symbol = r"\|%s\|_{%s} - 1"

    def __init__(
        self, z: Any, q: float = 2.0, axis: int | tuple[int, ...] | None = None, keepdims: bool = False
    ) -> None:
        self.q = float(q)
        if not (np.isfinite(self.q) and self.q > 1):
            raise ProgramError(f"q = {q} is not allowed; norm_neg_entropy needs a finite q > 1.")
        super().__init__(z, axis, keepdims)

    def settings(self) -> list[Any]:
        """The order."""
        return [self.q]

    @override
    def latex(self) -> str:
        return self.symbol % (rf"\mathrm{{{self.args[0].name()}}}", f"{self.q:g}")

    def numeric(self, values: list[Any]) -> Any:
        """The value at values of the arguments."""
        return over_slices(lambda v: np.linalg.norm(v, self.q) - 1, values[0], self.axis, self.keepdims)

    def definition(self, args: list[Expression]) -> Definition:
        """The norm, by a second-order cone for q = 2, else by power cones."""
        z = args[0]
        parts = self._slices(z)
        if parts is None:
            return cp.reshape(self._norm(cp.vec(z, order="F")), self.shape, order="F") - 1, []
        return self._gather([self._norm(part) for part in parts]) - 1, []

    def _norm(self, vector: Expression) -> Expression:
        norms: Any = cp  # typed for constants alone
        return norms.norm(vector, 2) if self.q == 2 else norms.pnorm(vector, self.q, approx=False)

    def _column_grad(self, value: np.ndarray) -> np.ndarray | None:
        size = np.linalg.norm(value.ravel(), self.q)
        return np.zeros_like(value) if size == 0 else np.sign(value) * (np.abs(value) / size) ** (self.q - 1)


@register("exp")
class relative_entropy(Regularizer):
    """Relative entropy Σ z_i log(z_i / q_i) to a prior q, jointly convex in (z, q), for z, q ≥ 0.

    Args:
        z: expression of any shape.
        prior: expression of z's shape; a parameter is DPP.
        axis: axis or axes to sum over; None for all.
        keepdims: keep the summed axes with length one.

    Raises:
        ProgramError: the shapes differ.

    Source: Kullback & Leibler 1951.

    Example:
        >>> import cvxpy as cp, numpy as np
        >>> from cvxift.atoms import relative_entropy
        >>> z, prior = cp.Variable(3), cp.Parameter(3, nonneg=True, value=np.array([0.2, 0.3, 0.5]))
        >>> problem = cp.Problem(cp.Minimize(relative_entropy(z, prior)), [cp.sum(z) == 1])
        >>> _ = problem.solve(); z.value.round(4)
        array([0.2, 0.3, 0.5])
    """

    symbol = r"\mathrm{KL}(%s \,\|\, %s)"

    def __init__(self, z: Any, prior: Any, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> None:
        self.axis, self.keepdims = axis, keepdims
        Atom.__init__(self, z, prior)
        if self.args[0].shape != self.args[1].shape:
            raise ProgramError(
                f"prior has shape {self.args[1].shape}; relative_entropy expects the shape of z, {self.args[0].shape}."
            )

    def numeric(self, values: list[Any]) -> Any:
        """Value; +∞ outside the domain."""
        return np.sum(rel_entr(*values), axis=self.axis, keepdims=self.keepdims)

    def definition(self, args: list[Expression]) -> Definition:
        """Σ rel_entr(z, q)."""
        return cp.sum(cp.rel_entr(*args), axis=self.axis, keepdims=self.keepdims), []

    def is_decr(self, idx: int) -> bool:
        """In the prior."""
        return idx == 1

    def _grad(self, values: list[Any]) -> Any:
        z, q = (np.asarray(value, dtype=float) for value in values)
        if np.any(z <= 0) or np.any(q <= 0):
            return [None, None]
        ones: Any = cp.sum(cp.Variable(z.shape), axis=self.axis, keepdims=self.keepdims)
        (summing,) = ones._grad([np.ones(z.shape)])
        return [sp.csc_array(sp.diags_array(part.ravel(order="F")) @ summing) for part in (np.log(z / q) + 1, -z / q)]

    def _domain(self) -> list[Any]:
        return [self.args[0] >= 0, self.args[1] >= 0]


def _entr(z: np.ndarray) -> np.ndarray:
    return np.where(z < -BELOW_ZERO, -np.inf, -xlogy(np.maximum(z, 0), np.maximum(z, 0)))
