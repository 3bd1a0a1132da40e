"""Sensitivities of problems with complex leaves, or parameters of two roles: those of their parts, put together."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import cvxpy as cp
import numpy as np
from cvxpy.problems.objective import Objective

from cvxift._types import override
from cvxift.layers.description import facts
from cvxift.layers.sensitivity import Output, Sensitivity
from cvxift.program.split_leaves import SplitProblem

if TYPE_CHECKING:
    from cvxift.diagnostics.report import Report


class SplitSensitivity(Sensitivity):
    """Derivatives of a solution whose leaves were split (`program.split_leaves`); made by `differentiate`.

    A gradient is ∂/∂Re + i ∂/∂Im, the direction of steepest ascent, and a cotangent weighs an output as
    Re ⟨cotangent, output⟩ = Re Σ conj(cotangent)·output, as in PyTorch (the conjugate Wirtinger derivative, doubled).
    A tangent is a complex change.

    Args:
        parts: the problem's parts.
        problem: the user's problem.
        inner: the sensitivities of the problem in the parts.
    """

    def __init__(self, parts: SplitProblem, problem: cp.Problem, inner: Sensitivity) -> None:
        super().__init__(
            problem, inner.program, inner.solution, inner._theta, inner.policy, inner._mapping, inner.check
        )
        self._parts, self._inner = parts, inner

    @override
    def _facts(self) -> dict[str, str]:
        return facts(self._parts.parameters, self.problem.variables(), self.solution.solver, self.path)

    @cached_property
    @override
    def path(self) -> str:
        """Which way the derivatives of the problem's variables are taken, in words."""
        return self._inner.path

    @cached_property
    @override
    def _report(self) -> Report:
        return self._inner.report

    @override
    def value(self, output: Any) -> Any:
        """As `Sensitivity.value`; complex for a complex variable."""
        if isinstance(output, Objective):
            return self._inner.value(self._parts.dual(output))
        leaves = self._parts.leaves([output])
        return self._parts.join(output, {leaf: self._inner.value(leaf) for leaf in leaves})

    @override
    def vjp(self, cotangents: Mapping[Output, Any]) -> dict[cp.Parameter, np.ndarray]:
        """As `Sensitivity.vjp`; the gradient of Re Σ ⟨cotangent, output⟩."""
        real: dict[Any, Any] = {}
        for key, cotangent in cotangents.items():
            real |= (
                {self._parts.dual(key): cotangent} if isinstance(key, Objective) else self._parts.split(key, cotangent)
            )
        found = self._inner.vjp(real)
        return {p: self._parts.join(p, found) for p in self._parts.parameters}

    @override
    def jvp(self, tangents: Mapping[cp.Parameter, Any]) -> dict[Output, Any]:
        """As `Sensitivity.jvp`; dual variables of complex second-order cones are left out."""
        real: dict[Any, Any] = {}
        for parameter, tangent in tangents.items():
            real |= self._parts.split(parameter, tangent)
        found = self._inner.jvp(real)
        out: dict[Output, Any] = {
            v: self._parts.join(v, found) for v in (*self.problem.variables(), *self._parts.duals)
        }
        out[self.problem.objective] = found[self._parts.problem.objective]
        return out

    @override
    def jacobian(self, output: Output, parameter: cp.Parameter) -> np.ndarray:
        """The Jacobian of an output with respect to a parameter.

        Args:
            output: as for `Sensitivity.jacobian`.
            parameter: likewise.

        Returns:
            Array of shape ``output.shape + parameter.shape``, complex for a complex output. For a complex parameter it
            has one more axis, the last, of length 2: derivatives with respect to the real and to the imaginary part,
            since a solution map is not holomorphic.
        """
        inner = [self._parts.dual(output)] if isinstance(output, Objective) else self._parts.leaves([output])

        def wrt(leaf: Any) -> np.ndarray:
            if isinstance(output, Objective):
                return self._inner.jacobian(inner[0], leaf)
            return self._parts.join(output, {out: self._inner.jacobian(out, leaf) for out in inner})

        parts = self._parts.parts(parameter)
        return wrt(parameter) if parts is None else parts.jacobian(wrt)
