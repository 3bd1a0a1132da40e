"""Sensitivities of a solved problem in NumPy, keyed by CVXPY's own objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

import cvxpy as cp
import numpy as np
from cvxpy.problems.objective import Objective

from cvxift.argmax.closed_form.closed_map import GENERIC, ClosedMap
from cvxift.errors import ProgramError
from cvxift.kkt.engine import Solution
from cvxift.kkt.failures import tell_kink
from cvxift.kkt.instance import Residuals
from cvxift.kkt.policy import Check, Policy
from cvxift.kkt.regularity.account import Regularity
from cvxift.kkt.regularity.thresholds import DIFFERENT, DIFFERENT_CURVED
from cvxift.kkt.solution_map import Solved
from cvxift.kkt.system.factor import Certificate
from cvxift.layers.description import facts, in_html, in_words
from cvxift.program.program import Program
from cvxift.program.structure import Data, Floats
from cvxift.program.write_back import real_duals

if TYPE_CHECKING:
    from cvxift.diagnostics.report import Report


Output = cp.Variable | Objective
"""A variable, a dual variable (``constraint.dual_variables[i]``), or ``problem.objective`` for the optimal value."""


class Sensitivity:
    """Derivatives of a problem's solution at its current parameters; made by `differentiate`.

    Attributes:
        problem: the CVXPY problem.
        solution: the canonical point: residuals, solver, attempts.

    Example:
        >>> import cvxpy as cp, numpy as np, cvxift
        >>> x, t = cp.Variable(2, name="x"), cp.Parameter(2, name="t", value=np.array([1.0, -1.0]))
        >>> s = cvxift.differentiate(cp.Problem(cp.Minimize(cp.sum_squares(x - t)), [x >= 0]))
        >>> s.vjp({x: np.ones(2)})[t].round(9) + 0.0
        array([1., 0.])
    """

    def __init__(
        self,
        problem: cp.Problem,
        program: Program,
        solution: Solution,
        theta: Floats,
        policy: Policy,
        mapping: ClosedMap,
        check: Check = "warn",
    ) -> None:
        self.check: Check = check
        self.problem, self.program, self.solution, self.policy = problem, program, solution, policy
        self._theta = theta
        self._mapping = mapping
        self._maps = {tuple(variable.id for variable in program.problem.variables()): mapping}

    def __repr__(self) -> str:
        return f"Sensitivity({in_words(self._facts())})"

    def _repr_html_(self) -> str:
        residual = f"{self.residuals.worst:.1e}"
        return in_html("Sensitivity", self._facts(), relative_residual=residual, last_linear_solve=self.certificate)

    def _facts(self) -> dict[str, str]:
        return facts(self.program.parameters, self.problem.variables(), self.solution.solver, self.path)

    @cached_property
    def path(self) -> str:
        """Which way the derivatives of the problem's variables are taken, in words."""
        variables = self.problem.variables()
        if not variables:
            return GENERIC
        return self._map(variables).path_of(self._solved(variables))

    @property
    def residuals(self) -> Residuals:
        """Relative primal and dual residuals of the canonical point."""
        return self.solution.residuals

    @property
    def certificate(self) -> Certificate | None:
        """Residual and condition estimate of the last linear solve; None before the first."""
        return self.solution.linearization(self.policy).certificate

    @property
    def report(self) -> Report:
        """Whether the implicit function theorem applies at this very point; see `cvxift.diagnose`."""
        return self._report

    @cached_property
    def _report(self) -> Report:
        from cvxift.diagnostics.diagnosis import report_at
        from cvxift.diagnostics.findings import Finding

        report = report_at(self.problem, self.program, self.solution, self._theta)
        return replace(report, findings=(*report.findings, Finding("path", f"path: {self.path}", "", False)))

    @overload
    def value(self, output: cp.Variable) -> Floats: ...

    @overload
    def value(self, output: Objective) -> float: ...

    def value(self, output: Output) -> Floats | float:
        """The value of a variable, dual variable or the objective at the differentiated point (polished).

        Args:
            output: a variable or dual variable of the problem, or ``problem.objective``.

        Returns:
            float for the objective, else an array of the output's shape.
        """
        if isinstance(output, Objective):
            self._is_objective(output)
            return float(self.program.primal_value(self.solution.data, self.solution.x))
        out = self.program.output(output)
        return out.value(self.solution.x if out.kind == "primal" else self.solution.y, self._theta)

    def vjp(self, cotangents: Mapping[Output, Any]) -> dict[cp.Parameter, np.ndarray]:
        """Vector-Jacobian product: gradient of Σ ⟨cotangent, output⟩ with respect to every parameter.

        Args:
            cotangents: output -> cotangent of its shape.

        Returns:
            parameter -> gradient of its shape.

        Raises:
            ProgramError: an output is not of the problem, or a cotangent has another shape.
            ApplicabilityError: under ``singular="raise"``, where a derivative does not exist.

        Example:
            >>> import cvxpy as cp, numpy as np, cvxift
            >>> z, theta = cp.Variable(2), cp.Parameter(2, value=np.array([0.3, 0.9]))
            >>> s = cvxift.differentiate(cp.Problem(cp.Minimize(cp.sum_squares(z - theta)), [cp.sum(z) == 1]))
            >>> s.vjp({z: np.array([1.0, 0.0])})[theta].round(6)
            array([ 0.5, -0.5])
        """
        theta_bar = np.zeros(self.program.theta_size)
        _refuse_keys("cotangents", cotangents, cp.Variable, Objective)
        keys = [key for key in cotangents if not isinstance(key, Objective)]
        for key in cotangents:
            if isinstance(key, Objective):
                weight = _shaped("the objective", cotangents[key], ())
                theta_bar += float(weight) * self._value_gradient(key)
        if keys:
            bars = [_shaped(_name(key), cotangents[key], key.shape) for key in keys]
            solution_map = self._map(keys)
            bar = np.concatenate([b.ravel() for b in bars]) * self._output_scale(keys)
            theta_bar += solution_map.vjp(self._solved(keys), bar)
        theta_bar = theta_bar * self._theta_scale()
        return {p: theta_bar[self.program.offsets[p]].reshape(p.shape) for p in self.program.parameters}

    def jvp(self, tangents: Mapping[cp.Parameter, Any]) -> dict[Output, Any]:
        """Jacobian-vector product: change of every variable, and of the objective, along a change of the parameters.

        Args:
            tangents: parameter -> tangent of its shape; parameters not named do not move.

        Returns:
            variable -> tangent of its shape, dual variable likewise, and ``problem.objective`` -> float. Dual
            variables that are not unique, or have a kink, have no derivative: NaN; the objective likewise.

        Raises:
            ProgramError: a parameter is not of the problem, or a tangent has another shape.

        Example:
            >>> import cvxpy as cp, numpy as np, cvxift
            >>> z, theta = cp.Variable(2), cp.Parameter(2, value=np.array([0.3, 0.9]))
            >>> s = cvxift.differentiate(cp.Problem(cp.Minimize(cp.sum_squares(z - theta)), [cp.sum(z) == 1]))
            >>> s.jvp({theta: np.array([1.0, 0.0])})[z].round(6)
            array([ 0.5, -0.5])
        """
        theta_dot = np.zeros(self.program.theta_size)
        _refuse_keys("tangents", tangents, cp.Parameter)
        for parameter, tangent in tangents.items():
            theta_dot[self._offset(parameter)] = _shaped(
                f"Parameter '{parameter.name()}'", tangent, parameter.shape
            ).ravel()
        theta_dot = theta_dot * self._theta_scale()
        result: dict[Output, Any] = {}
        variables: list[Any] = list(self.problem.variables())
        duals: list[Any] = real_duals(self.problem)
        parts = [(variables, self._map(variables).jvp(self._solved(variables), theta_dot))] if variables else []
        if duals:
            parts.append((duals, self._map(duals).determined(self.solution, theta_dot)))
        for keys, flat in parts:
            flat = flat * self._output_scale(keys)
            for key, part in zip(keys, np.split(flat, np.cumsum([key.size for key in keys])[:-1]), strict=True):
                result[key] = part.reshape(key.shape)
        slopes = self._value_gradients @ theta_dot
        settled = float(_spread(slopes)) <= self._tolerance * float(np.abs(slopes).max())
        result[self.problem.objective] = float(slopes[0]) if settled else float("nan")
        return result

    def jacobian(self, output: Output, parameter: cp.Parameter) -> np.ndarray:
        """The Jacobian of an output with respect to a parameter.

        Args:
            output: a variable or dual variable, or ``problem.objective`` for the gradient of the optimal value.
            parameter: a parameter of the problem.

        Returns:
            Array of shape ``output.shape + parameter.shape``.

        Raises:
            ProgramError: the output or parameter is not of the problem.

        Example:
            >>> import cvxpy as cp, numpy as np, cvxift
            >>> z, theta = cp.Variable(2), cp.Parameter(2, value=np.array([0.3, 0.9]))
            >>> s = cvxift.differentiate(cp.Problem(cp.Minimize(cp.sum_squares(z - theta)), [cp.sum(z) == 1]))
            >>> s.jacobian(z, theta).round(6)
            array([[ 0.5, -0.5],
                   [-0.5,  0.5]])
        """
        columns = self._offset(parameter)
        if isinstance(output, Objective):
            gradient = self._value_gradient(output) * self._theta_scale()
            return gradient[columns].reshape(parameter.shape)
        self.program.output(output)  # refuses what is none
        solution_map = self._map([output])
        matrix = solution_map.jacobian_of(self._solved([output]), columns)
        matrix = matrix * self._output_scale([output])[:, None] * self._theta_scale()[columns]
        return matrix.reshape((*output.shape, *parameter.shape))

    def _map(self, keys: list[Any]) -> ClosedMap:
        index = tuple(key.id for key in keys)
        if index not in self._maps:
            self._maps[index] = self._mapping.for_outputs(keys)
        return self._maps[index]

    def _solved(self, keys: list[Any]) -> Solved:
        closed = self._map(keys).closed(self._theta)
        return Solved((), (self.solution,), np.empty(0)) if closed is None else closed

    def _output_scale(self, keys: list[Any]) -> Floats:
        """d value / d canonical output: the value itself where it is an exponential (geometric programs), else 1.

        The multipliers of two inequalities that act as one equality are the parts of the equality's: the part that is
        zero stays zero.
        """
        scales = []
        for key, out in zip(keys, self._map(keys).outputs, strict=True):
            scale = np.ravel(self.value(key)) if out.exp else np.ones(key.size)
            scales.append(scale if out.positive is None else scale * ~(out.positive & (np.ravel(self.value(key)) <= 0)))
        return np.concatenate(scales) if scales else np.zeros(0)

    def _theta_scale(self) -> Floats:
        """d canonical θ / d θ: 1/θ for parameters that enter through their logarithm, else 1."""
        scale = np.ones(self.program.theta_size)
        mask = self.program.log_mask
        if mask is not None:
            scale[mask] = 1.0 / self._theta[mask]
        return scale

    def _value_gradient(self, objective: Objective) -> Floats:
        """Gradient of the optimal value with respect to canonical θ; says where there is none."""
        self._is_objective(objective)
        gradients = self._value_gradients
        account = self._account
        differs = np.flatnonzero(_spread(gradients) > self._tolerance * np.abs(gradients).max(axis=0))
        if account is not None and (len(differs) or account.ended):
            tell_kink(account, self.check, differs if len(differs) else account.pulled)
        return gradients[0]

    @property
    def _tolerance(self) -> float:
        """Relative difference between pieces from which they are two."""
        return DIFFERENT if self.program.cones.polyhedral else DIFFERENT_CURVED

    @cached_property
    def _account(self) -> Regularity | None:
        """What is known of the solution map here; None where nothing varies."""
        variables = self.problem.variables()
        return self._map(variables).account(self.solution) if variables else None

    @cached_property
    def _value_gradients(self) -> Floats:
        """The optimal value's gradient with each piece's point and multipliers, shape (pieces, N).

        At a saddle point of L = ½xᵀPx + qᵀx + d + yᵀ(Ax − b) the derivative of the value is the partial one of L
        (envelope theorem; Fiacco 1983, Theorem 3.4.1), so no linear system is solved. Multipliers that are not unique
        give one for each piece (Gauvin & Dubeau 1982).
        """
        structure, pieces = self.program.structure, () if self._account is None else self._account.pieces
        points = [(piece.x, piece.y) for piece in pieces] if len(pieces) > 1 else [(self.solution.x, self.solution.y)]
        gradients = []
        for x, y in points:
            P = 0.5 * x[structure.P_rows] * x[structure.P_cols]
            bar = Data(P, x, y[structure.A_rows] * x[structure.A_cols], -y, np.ones(()))
            gradients.append(self.program.vjp(bar) * self.program.objective_sign)
        exponential = self.value(self.problem.objective) if self.program.objective_exp else 1.0
        return np.stack(gradients) * exponential

    def _is_objective(self, objective: Objective) -> None:
        if objective is not self.problem.objective:
            raise ProgramError("The objective given is not the problem's; pass problem.objective.")

    def _offset(self, parameter: cp.Parameter) -> slice:
        if not isinstance(parameter, cp.Parameter):
            raise ProgramError(
                f"Expected a cp.Parameter of the problem, got {type(parameter).__name__}. The order is "
                "jacobian(output, parameter)."
            )
        try:
            return self.program.offsets[parameter]
        except KeyError:
            names = ", ".join(p.name() for p in self.program.parameters) or "none"
            raise ProgramError(
                f"Parameter '{parameter.name()}' is not in the problem; its parameters are: {names}."
            ) from None


def _spread(values: Floats) -> Floats:
    """How far the pieces' values lie from the first's."""
    return np.abs(values - values[0]).max(axis=0)


def _refuse_keys(name: str, given: Any, *kinds: type) -> None:
    if not isinstance(given, Mapping) or not all(isinstance(key, kinds) for key in given):
        wrong = [key for key in given if not isinstance(key, kinds)] if isinstance(given, Mapping) else [given]
        got = ", ".join(sorted({type(key).__name__ for key in wrong}))
        expected = " or ".join(f"cp.{kind.__name__}" for kind in kinds)
        raise ProgramError(f"{name} must be a dict with keys of the problem, each a {expected}; got {got}.")


def _name(key: Any) -> str:
    return f"variable '{key.name()}'"


def _shaped(name: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind in "cOSUmM":
        raise ProgramError(f"The value given for {name} has dtype {array.dtype}; expected real numbers.")
    array = array.astype(float)
    if array.shape != shape:
        raise ProgramError(f"The value given for {name} has shape {array.shape}; expected {shape}.")
    return array
