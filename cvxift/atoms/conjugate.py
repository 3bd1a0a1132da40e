"""The conjugate of a regularizer over the simplex, as a CVXPY atom, and the Fenchel–Young loss made of it.

    regularized_max   Ω*(θ) = max { θᵀz − Ω(z) : z ∈ Δ },   Δ = {z ≥ 0, Σ z = 1};   gradient: the argmax
    Fenchel–Young     L(θ; y) = Ω*(θ) + Ω(y) − θᵀy ≥ 0, zero iff y is the argmax

The conjugate of any convex Ω comes from its conic form, by duality. CVXPY writes Ω(z) − θᵀz over Δ as

    min (c_z − θ)ᵀz + c_wᵀw + d   s.t.   A_z z + A_w w + s = b,  s ∈ K,

whose dual is  Ω*(θ) = min { bᵀy − d : A_zᵀy = θ − c_z,  A_wᵀy = −c_w,  y ∈ K* },  convex in θ and linear in its data.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp
from cvxpy.atoms.atom import Atom
from cvxpy.expressions.expression import Expression
from cvxpy.utilities.scopes import dpp_scope_active
from scipy.special import logsumexp, softmax

from cvxift._types import override
from cvxift.atoms.base import Definition, Regularizer, over_slices
from cvxift.atoms.entropies import gini, neg_entropy
from cvxift.atoms.registry import register
from cvxift.atoms.tsallis import tsallis_neg_entropy
from cvxift.errors import ProgramError

Omega = float | Callable[[Any], Any]
"""A number α (the Tsallis entropy of that order), or a function of a vector that returns a convex scalar expression."""


@register("nonneg", "soc", "exp", "pow")
class regularized_max(Regularizer):
    """max over the simplex of θᵀz − Ω(z): a smoothed maximum, convex and nondecreasing in θ.

    Args:
        theta: scores; a vector, or a matrix with an axis.
        regularizer: Ω, a number α ≥ 1 for the Tsallis entropy (1: log-sum-exp, 2: sparsemax's maximum), or a function
            that maps a CVXPY vector to a convex scalar expression without parameters, such as ``gini``.
        axis: the axis of a matrix along which the distribution lies.
        keepdims: keep the reduced axis with length one.

    Raises:
        ProgramError: Ω is not a convex scalar function free of parameters, or the axis is missing.

    Source: Nesterov 2005 (smoothing); Blondel, Martins, Niculae 2020, equation 9.

    Example:
        >>> import cvxpy as cp, numpy as np
        >>> from cvxift.atoms import regularized_max
        >>> round(float(regularized_max(np.array([0.0, 0.0, 0.0]), 1).value), 6)
        1.098612
        >>> theta = cp.Variable(3)
        >>> problem = cp.Problem(cp.Minimize(regularized_max(theta, 2)), [theta >= np.array([1.0, 0.5, 0.0])])
        >>> round(float(problem.solve()), 4)
        1.0625
    """

    symbol = r"\Omega^*(%s)"

    def __init__(self, theta: Any, regularizer: Omega, axis: int | None = None, keepdims: bool = False) -> None:
        self.regularizer = _checked(regularizer)
        super().__init__(theta, axis, keepdims)
        _check_axis(self, self.args[0], axis)

    def settings(self) -> list[Any]:
        """The regularizer."""
        return [self.regularizer]

    def numeric(self, values: list[Any]) -> Any:
        """Value: closed form for entropies, else by solving the problem."""
        return over_slices(lambda v: _maximum(v, self.regularizer)[0], values[0], self.axis, self.keepdims)

    def is_incr(self, idx: int) -> bool:
        """Yes: the simplex lies in the nonnegative orthant."""
        return True

    def definition(self, args: list[Expression]) -> Definition:
        """The dual conic form, one column for each slice."""
        theta: Any = args[0]
        columns: Any = theta.T if self.axis == 1 else theta
        if theta.ndim < 2:
            columns = cp.reshape(theta, (theta.size, 1), order="F")
        n, count = tuple(columns.shape)
        form = conic_form(self.regularizer, n)
        A: Any = form.A  # SciPy's stubs leave a sparse matrix's shape open
        y = cp.Variable((A.shape[0], count))
        constraints: list[Any] = [form.A_z.T @ y == columns - form.c_z[:, None]]
        if form.A_w.shape[1]:
            constraints.append(form.A_w.T @ y == -form.c_w[:, None] * np.ones((1, count)))
        constraints += _dual_cones(y, form.dims)
        return cp.reshape(form.b @ y - form.d, self.shape, order="F"), constraints

    def _column_grad(self, value: np.ndarray) -> np.ndarray | None:
        return _maximum(value.ravel(), self.regularizer)[1].reshape(value.shape)

    def _call(self, args: list[str]) -> str:
        return super()._call(args) if isinstance(self.regularizer, float) else _named(self, args)


@register("nonneg", "soc", "exp", "pow")
class fenchel_young_loss(Regularizer):
    """Fenchel–Young loss Ω*(θ) + Ω(y) − θᵀy: convex in θ, nonnegative, zero iff the regularized argmax at θ is y.

    Args:
        theta: affine scores; a vector, or a matrix with an axis.
        y: target of θ's shape in the simplex: constant, or a parameter.
        regularizer: as for `regularized_max`.
        axis: the axis of a matrix along which the distribution lies.
        keepdims: keep the reduced axis with length one.

    Raises:
        ProgramError: the shapes differ, the axis is missing, or Ω is not convex.

    Source: Blondel, Martins, Niculae 2020, Definition 2.

    Example:
        >>> import cvxpy as cp, numpy as np
        >>> from cvxift.atoms import fenchel_young_loss
        >>> y = np.array([1.0, 0.0, 0.0])
        >>> theta = cp.Variable(3)
        >>> problem = cp.Problem(cp.Minimize(fenchel_young_loss(theta, y, 2) + 0.1 * cp.sum_squares(theta)))
        >>> _ = problem.solve(); theta.value.round(4)
        array([ 0.5556, -0.2778, -0.2778])
    """

    symbol = r"L_\Omega(%s;\, %s)"

    def __init__(self, theta: Any, y: Any, regularizer: Omega, axis: int | None = None, keepdims: bool = False) -> None:
        self.regularizer = _checked(regularizer)
        self.axis, self.keepdims = axis, keepdims
        Atom.__init__(self, theta, y)
        if self.args[0].shape != self.args[1].shape:
            raise ProgramError(
                f"y has shape {self.args[1].shape}; fenchel_young_loss expects that of theta, {self.args[0].shape}."
            )
        _check_axis(self, self.args[0], axis)
        self.axis = None if axis is None else axis % self.args[0].ndim

    def settings(self) -> list[Any]:
        """The regularizer."""
        return [self.regularizer]

    @override
    def sign_from_args(self) -> tuple[bool, bool]:
        return (True, False)

    def is_atom_convex(self) -> bool:
        """In θ, for a y that is not optimized; under DPP parameters may stand in one of the two."""
        theta, y = self.args
        if y.variables():
            return False
        return not (dpp_scope_active() and y.parameters() and theta.parameters())

    def numeric(self, values: list[Any]) -> Any:
        """The value at values of the arguments."""
        theta, y = (np.asarray(value, dtype=float) for value in values)
        both = np.stack([theta, y], axis=-1)
        axis = self.axis if self.axis is not None else 0
        result = _pairs(self._loss, both, axis)
        return np.expand_dims(result, axis) if self.keepdims else result

    def definition(self, args: list[Expression]) -> Definition:
        """Ω*(θ) + Ω(y) − Σ θ y."""
        theta, y = args
        conjugate = regularized_max(theta, self.regularizer, self.axis, self.keepdims)
        omega = _function(self.regularizer)
        if theta.ndim < 2:
            own = cp.reshape(omega(y), self.shape, order="F")
        else:
            own = self._gather([omega(part) for part in self._slices(y) or []])
        linear = cp.sum(cp.multiply(y, theta), axis=self.axis, keepdims=self.keepdims)
        return conjugate + own - linear, []

    def _loss(self, pair: np.ndarray) -> float:
        theta, y = pair[..., 0], pair[..., 1]
        own = _function(self.regularizer)(cp.Constant(y)).value
        return float(_maximum(theta, self.regularizer)[0] + np.asarray(own).item() - theta @ y)

    def _grad(self, values: list[Any]) -> Any:
        conjugate = regularized_max(self.args[0], self.regularizer, self.axis, self.keepdims)
        (gradient,) = conjugate._grad([values[0]])
        ones: Any = cp.sum(self.args[0], axis=self.axis, keepdims=self.keepdims)
        (summing,) = ones._grad([values[0]])
        target = sp.diags_array(np.ravel(np.asarray(values[1], dtype=float), order="F")) @ summing
        return [sp.csc_array(gradient - target), None]

    def _call(self, args: list[str]) -> str:
        return super()._call(args) if isinstance(self.regularizer, float) else _named(self, args)


class ConicForm:
    """Ω over the simplex in conic form (see the module): dual rows and costs, split in z and auxiliary columns."""

    def __init__(self, regularizer: Omega, n: int) -> None:
        z = cp.Variable(n)
        expression = _function(regularizer)(z)
        problem = cp.Problem(cp.Minimize(expression), _simplex(z))
        data, _, _ = problem.get_problem_data(cp.SCS, solver_opts={"use_quad_obj": False})
        program = data["param_prob"]
        first = program.var_id_to_col[z.id]
        own = np.zeros(data["A"].shape[1], dtype=bool)
        own[first : first + n] = True
        self.A = sp.csc_array(data["A"])
        self.A_z, self.A_w = self.A[:, own], self.A[:, ~own]
        self.b, self.c_z, self.c_w = data["b"], data["c"][own], data["c"][~own]
        self.d = float(program.apply_parameters()[1])
        self.dims = data["dims"]
        if self.dims.psd:
            raise ProgramError("The regularizer needs a semidefinite cone; regularized_max takes those without.")


@lru_cache(maxsize=64)
def conic_form(regularizer: Omega, n: int) -> ConicForm:
    """The conic form of a regularizer on vectors of length n, remembered for the next use."""
    return ConicForm(regularizer, n)


def _simplex(z: cp.Variable) -> list[Any]:
    return [z >= 0, cp.sum(z) == 1]


def _dual_cones(y: cp.Variable, dims: Any) -> list[Any]:
    """y ∈ K*, column by column; rows in the order zero (dual: free), nonnegative, second-order, exponential, power."""
    constraints: list[Any] = []
    start, count = dims.zero, y.shape[1]
    if dims.nonneg:
        constraints.append(y[start : start + dims.nonneg] >= 0)
        start += dims.nonneg
    for size in dims.soc:
        constraints.append(cp.SOC(y[start, :], y[start + 1 : start + size, :], axis=0))
        start += size
    if dims.exp:
        # (u, v, w) ∈ K_exp*  ⇔  −u exp(v/u − 1) ≤ w  ⇔  (u − v, −u, w) ∈ K_exp
        u, v, w = _triples(y, start, dims.exp)
        constraints.append(cp.ExpCone(u - v, -u, w))
        start += 3 * dims.exp
    if dims.p3d:
        # (u, v, w) ∈ K_α*  ⇔  (u/α, v/(1−α), w) ∈ K_α
        u, v, w = _triples(y, start, len(dims.p3d))
        alpha = np.tile(np.asarray(dims.p3d, dtype=float), count)
        constraints.append(cp.PowCone3D(cp.multiply(u, 1 / alpha), cp.multiply(v, 1 / (1 - alpha)), w, alpha))
    return constraints


def _triples(y: cp.Variable, start: int, count: int) -> list[Expression]:
    return [cp.vec(y[start + k : start + 3 * count : 3, :], order="F") for k in range(3)]


def _maximum(theta: np.ndarray, regularizer: Omega) -> tuple[float, np.ndarray]:
    """Value and argmax of one slice."""
    alpha = _order(regularizer)
    if alpha is None:
        return _solved(theta, regularizer)
    if alpha == 1.0:
        return float(logsumexp(theta)), softmax(theta)
    z = entmax(theta, alpha)
    return float(theta @ z - np.sum(z**alpha - z) / (alpha * (alpha - 1))), z


def entmax(theta: np.ndarray, alpha: float) -> np.ndarray:
    """The α-entmax of a vector, α > 1: z_i = [(α−1)θ_i − τ]_+^{1/(α−1)}, τ by bisection to the last bit."""
    power = 1.0 / (alpha - 1.0)
    shifted = (alpha - 1.0) * (theta - np.max(theta))
    low, high = -1.0, 0.0  # at τ = −1 the largest entry alone is 1; at 0 all are 0
    while low < (middle := 0.5 * (low + high)) < high:
        if np.sum(np.maximum(shifted - middle, 0.0) ** power) >= 1.0:
            low = middle
        else:
            high = middle
    z = np.maximum(shifted - low, 0.0) ** power
    return z / np.sum(z)


def _solved(theta: np.ndarray, regularizer: Omega) -> tuple[float, np.ndarray]:
    z = cp.Variable(theta.size)
    problem = cp.Problem(cp.Maximize(theta @ z - _function(regularizer)(z)), _simplex(z))
    value = problem.solve(solver=cp.CLARABEL)
    if z.value is None:
        raise ProgramError(
            f"The maximum could not be computed: status {problem.status}; is the regularizer finite on the simplex?"
        )
    return float(np.asarray(value).item()), z.value


def _order(regularizer: Omega) -> float | None:
    """α where the regularizer is a Tsallis entropy, else None."""
    if isinstance(regularizer, float):
        return regularizer
    if regularizer is neg_entropy:
        return 1.0
    if regularizer is gini:
        return 2.0
    return None


def _function(regularizer: Omega) -> Callable[[Any], Any]:
    function: Any = regularizer
    return partial(tsallis_neg_entropy, alpha=function) if isinstance(function, float) else function


def _checked(regularizer: Any) -> Omega:
    if isinstance(regularizer, int | float | np.number):
        alpha = float(regularizer)
        if not (np.isfinite(alpha) and alpha >= 1):
            raise ProgramError(
                f"regularizer = {regularizer}; as an order α of the Tsallis entropy it must be finite and ≥ 1."
            )
        return alpha
    if not callable(regularizer):
        raise ProgramError(
            f"regularizer is a {type(regularizer).__name__}; expected a number α ≥ 1 or a function of a CVXPY vector, "
            "such as cvxift.atoms.gini."
        )
    example = regularizer(cp.Variable(3))
    if not isinstance(example, Expression) or example.size != 1 or not example.is_convex():
        raise ProgramError("regularizer must return a convex scalar CVXPY expression of its vector argument.")
    if example.parameters():
        raise ProgramError("regularizer contains parameters, and its conjugate would not be DPP; use constants.")
    return regularizer


def _check_axis(atom: Regularizer, theta: Expression, axis: Any) -> None:
    if theta.ndim != 1 and not (theta.ndim == 2 and axis in (0, 1, -1, -2)):
        raise ProgramError(
            f"theta has shape {theta.shape} and axis={axis}; {type(atom).__name__} takes a vector, or a matrix "
            "with axis=0 or 1."
        )


def _named(atom: Any, args: list[str]) -> str:
    name = getattr(atom.regularizer, "__name__", type(atom.regularizer).__name__)
    words = [*args, name] + ([] if atom.axis is None else [f"axis={atom.axis}"])
    return f"{type(atom).__name__}({', '.join(words)})"


def _pairs(function: Callable[[np.ndarray], float], both: np.ndarray, axis: int) -> np.ndarray:
    """Apply a function of (slice length, 2) arrays along an axis of an array whose last axis is the pair."""
    moved = np.moveaxis(both, axis, -2)
    flat = moved.reshape(-1, *moved.shape[-2:])
    return np.array([function(pair) for pair in flat]).reshape(moved.shape[:-2])
