"""A problem with some of the user's leaves taken apart (`program.leaf_parts`), and the way between values of both.

CVXPY's reduction to real problems (Complex2Real) does the rest, as it does for constants that are complex. A complex
equation becomes one of the real and one of the imaginary parts: their multipliers are the parts of its own, as in
CVXPY.

    X ≽ 0, X Hermitian       (Re X, −Im X; Im X, Re X) ≽ 0 with multiplier D.  By ⟨D, ·⟩ = Re⟨Y, X⟩ that of X is
                             Y = D₁₁ + D₂₂ + i (D₂₁ − D₁₂), which is unique where D is not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cvxpy as cp
import numpy as np
from cvxpy.constraints.psd import PSD
from cvxpy.constraints.zero import Equality

from cvxift.errors import ProgramError
from cvxift.program.checks import check_listed
from cvxift.program.integers import replaced
from cvxift.program.leaf_parts import Parts, Roles, parts_of, roles_in
from cvxift.program.parameters import in_callers_order, wrong_count, wrong_shape


class SplitProblem:
    """A problem with leaves of the user's as one with their parts, which are real and have one role each.

    Args:
        problem: the user's problem.
        parts: those leaves, and what they become.

    Attributes:
        problem: the problem in the parts; its constraints are the user's, in order, of complex equations the real part;
            then the imaginary parts of these, and the constraints of complex PSD variables.
        duals: the user's dual variables: of real constraints, complex equations and Hermitian matrices.
        parameters: the user's, in the order of a layer's call once it is known.
        user: the user's problem.
        outputs: the variables that a layer returns.
    """

    def __init__(self, problem: cp.Problem, parts: Mapping[Any, Parts | Roles]) -> None:
        self.user = problem
        self.outputs: tuple[Any, ...] = ()
        self.parameters = tuple(problem.parameters())
        self._parts: dict[Any, Parts | Roles] = dict(parts)
        real = replaced(problem, {id(leaf): part.value for leaf, part in parts.items()})
        constraints, more, known = list(real.constraints), [], []
        for i, (own, constraint) in enumerate(zip(problem.constraints, real.constraints, strict=True)):
            if own.is_real():
                known += own.dual_variables
            elif isinstance(constraint, Equality):
                constraints[i], two = cp.real(constraint.expr) == 0, cp.imag(constraint.expr) == 0
                more.append(two)
                halves = (constraints[i].dual_variables[0], two.dual_variables[0])
                self._parts[own.dual_variables[0]] = Parts(*halves, None, None)
                known += own.dual_variables
            elif isinstance(constraint, PSD) and constraint.args[0].ndim == 2:
                constraints[i], halves = _hermitian(constraint)
                self._parts[own.dual_variables[0]] = Parts(*halves, None, None)
                known += own.dual_variables
        more += [_definite(leaf, part.value) for leaf, part in parts.items() if _is_definite(leaf)]
        self.problem = cp.Problem(real.objective, [*constraints, *more])
        self.duals = tuple(known)

    @classmethod
    def of(cls, problem: Any, gp: bool = False) -> SplitProblem | None:
        """The problem without leaves that are to be split; None where there are none, or for what is no problem.

        Args:
            problem: the user's.
            gp: whether it is a geometric program, whose complex leaves are refused elsewhere.
        """
        if not isinstance(problem, cp.Problem):
            return None
        parts: dict[Any, Any] = roles_in(problem) if gp else {}
        if not gp:
            leaves = (*problem.variables(), *problem.parameters())
            parts = {leaf: parts_of(leaf) for leaf in leaves if leaf.is_complex()}
        return cls(problem, parts) if parts else None

    def parts(self, leaf: Any) -> Parts | Roles | None:
        """The parts of a leaf of the user's that is split; None for another."""
        return self._parts.get(leaf)

    def leaves(self, objects: Sequence[Any]) -> list[Any]:
        """The real problem's leaves, side by side, of the user's variables, dual variables or parameters."""
        out: list[Any] = []
        for item in objects:
            parts = self.parts(item) if isinstance(item, (cp.Variable, cp.Parameter)) else None
            out += [self.dual(item)] if parts is None else parts.leaves
        return out

    def dual(self, item: Any) -> Any:
        """The real problem's object that answers for a real one of the user's: itself, a dual variable, the objective.

        Raises:
            ProgramError: a dual variable of a complex second-order cone, of which CVXPY makes several.
        """
        if item is self.user.objective:
            return self.problem.objective
        for own, real in zip(self.user.constraints, self.problem.constraints, strict=False):
            for place, dual in enumerate(own.dual_variables):
                if dual is item:
                    if not own.is_real():
                        raise ProgramError(
                            f"Constraint {own} is complex, neither an equation nor semidefinite; its dual variable is "
                            "not available. State it by its real parts: for cp.SOC(t, z), cp.SOC(t, cp.hstack("
                            "[cp.real(z), cp.imag(z)]))."
                        )
                    return real.dual_variables[place]
        return item

    def layer(self, parameters: Any, variables: Any) -> tuple[cp.Problem, Any, Any]:
        """The real problem, parameters and variables of a layer; notes the order of a call and the outputs.

        Raises:
            ProgramError: the parameters are not the problem's; says which differ, by the user's names.
        """
        check_listed(parameters, variables)
        self.parameters = in_callers_order(parameters, self.user.parameters())
        self.outputs = tuple(variables)
        return self.problem, self.leaves(parameters), self.leaves(variables)

    def split_call(self, values: Sequence[Any], take: Callable[[Any, Any], tuple[Any, Any]]) -> tuple[Any, ...]:
        """A layer's values, one for each real parameter, from those of the user's.

        Args:
            values: of the user's parameters.
            take: real and imaginary part of a complex parameter's value.

        Raises:
            ProgramError: not one value for each parameter, or one of another shape; says which, by the user's names.
        """
        if len(values) != len(self.parameters):
            raise wrong_count(self.parameters, len(values))
        out: list[Any] = []
        for leaf, value in zip(self.parameters, values, strict=True):
            parts, shape = self.parts(leaf), tuple(getattr(value, "shape", leaf.shape))
            if shape[max(len(shape) - leaf.ndim, 0) :] != leaf.shape:
                raise wrong_shape(leaf, shape, self.parameters)
            if not isinstance(parts, Parts):
                out += [value] if parts is None else [value, value]
                continue
            real, imaginary = take(leaf, value)
            out += [p for p, there in ((real, parts.real), (imaginary, parts.imaginary)) if there is not None]
        return tuple(out)

    def join_call(
        self,
        values: Sequence[Any],
        compose: Callable[[Any, Any], Any],
        zeros_like: Callable[[Any], Any],
        put: Callable[[Any, Any], Any],
    ) -> tuple[Any, ...]:
        """A layer's outputs from those of the real layer.

        Args:
            values: of the real layer, with any leading dimensions.
            compose: complex array of a real and an imaginary part.
            zeros_like: an array's zeros.
            put: NumPy array -> the framework's, of the dtype and device of a second array.
        """
        out, rest = [], iter(values)
        for leaf in self.outputs:
            parts = self.parts(leaf)
            if not isinstance(parts, Parts):
                out.append(next(rest))
                continue
            real = None if parts.real is None else next(rest)
            imaginary = zeros_like(real) if parts.imaginary is None else next(rest)
            if parts.expand is not None:
                imaginary = (imaginary @ put(parts.expand.T, imaginary)).reshape(*imaginary.shape[:-1], *leaf.shape)
            out.append(compose(zeros_like(imaginary) if real is None else real, imaginary))
        return tuple(out)

    def in_numbers(self, values: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        """`join_call` for NumPy arrays."""
        return self.join_call(values, lambda real, imaginary: real + 1j * imaginary, np.zeros_like, lambda a, _: a)

    def hold_values(self) -> None:
        """Give the real parameters the values that the user's hold.

        Raises:
            ProgramError: a complex parameter has no value.
        """
        for parameter in self.parameters:
            parts = self.parts(parameter)
            if parts is None:
                continue
            if parameter.value is None:
                raise ProgramError(f"Parameter '{parameter.name()}' has no value: set its .value.")
            for leaf, value in self.split(parameter, parameter.value).items():
                leaf.value = value

    def split(self, leaf: Any, value: Any) -> dict[Any, Any]:
        """Real leaf -> its value, tangent or cotangent, from that of one of the user's leaves.

        Args:
            leaf: the user's.
            value: of its shape, after any leading dimensions.
        """
        parts = self.parts(leaf)
        if parts is None:
            return {self.dual(leaf): value}
        array = np.asarray(value)
        if array.shape[array.ndim - leaf.ndim :] != leaf.shape:
            kind = "Parameter" if isinstance(leaf, cp.Parameter) else "variable"
            raise ProgramError(
                f"The value given for {kind} '{leaf.name()}' has shape {array.shape}; expected {leaf.shape}."
            )
        return dict(zip(parts.leaves, parts.split(leaf, array), strict=True))

    def join(self, leaf: Any, values: Mapping[Any, Any]) -> Any:
        """One of the user's leaves from the values, tangents or gradients of the real ones.

        Args:
            leaf: the user's.
            values: real leaf -> array of its shape, with any trailing dimensions.
        """
        parts = self.parts(leaf)
        return values[self.dual(leaf)] if parts is None else parts.join(leaf, values)


def _is_definite(leaf: Any) -> bool:
    return isinstance(leaf, cp.Variable) and bool(leaf.attributes["PSD"] or leaf.attributes["NSD"])


def _definite(leaf: Any, value: Any) -> cp.Constraint:
    """That a Hermitian variable is positive (negative) semidefinite."""
    return PSD(-value) if leaf.attributes["NSD"] else PSD(value)


def _hermitian(constraint: PSD) -> tuple[PSD, tuple[cp.Variable, cp.Variable]]:
    """A Hermitian matrix's constraint in real numbers, and the real and imaginary part of the matrix' own multiplier.

    They are its dual variables in the place of D, which `program.recover` reads there.
    """
    X = constraint.args[0]
    real = PSD(cp.bmat([[cp.real(X), -cp.imag(X)], [cp.imag(X), cp.real(X)]]))
    halves = cp.Variable(X.shape), cp.Variable(X.shape)
    real.dual_variables = list(halves)
    return real, halves
