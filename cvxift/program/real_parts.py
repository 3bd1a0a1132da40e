"""Complex variables and parameters as pairs of real ones: the real problem, and the way between values of both.

    z = Re z + i Im z        a Hermitian variable: Re z symmetric, Im z = U − Uᵀ with U strictly upper triangular

CVXPY's reduction to real problems (Complex2Real) does the rest, as it does for constants that are complex. A complex
equation becomes one of the real and one of the imaginary parts: their multipliers are the parts of its own, as in
CVXPY. A derivative with respect to z is the pair of those with respect to its parts, of which each framework makes its
own convention.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
from cvxpy.constraints.psd import PSD
from cvxpy.constraints.zero import Equality

from cvxift.errors import ProgramError
from cvxift.program.integers import replaced


@dataclass(frozen=True, eq=False)
class Parts:
    """The real leaves of one leaf of the user's.

    Attributes:
        real: the real part; None where it is zero.
        imaginary: the imaginary part, or the free entries of it; None where it is zero.
        expand: S of shape (size, free entries): Im z = S @ imaginary, raveled in C order; None for all entries.
        value: the leaf as an expression of its parts.
    """

    real: Any
    imaginary: Any
    expand: np.ndarray | None
    value: Any

    @property
    def leaves(self) -> list[Any]:
        """The parts that there are, the real one first."""
        return [leaf for leaf in (self.real, self.imaginary) if leaf is not None]


class RealParts:
    """A problem with complex leaves as a real one.

    Args:
        problem: the user's problem.
        parameters: the user's parameters in the order of a call; None for the problem's own.

    Attributes:
        problem: the real problem; its constraints are the user's, in order, of complex equations the real part; then
            the imaginary parts of these, and the constraints of complex PSD variables.
        duals: the user's dual variables: of real constraints and of complex equations.
        parameters: as given.
        outputs: the variables that a layer returns.
    """

    def __init__(self, problem: cp.Problem, parameters: Sequence[cp.Parameter] | None = None) -> None:
        self._user = problem
        self.outputs: tuple[Any, ...] = ()
        self.parameters = tuple(problem.parameters() if parameters is None else parameters)
        leaves = [leaf for leaf in (*problem.variables(), *problem.parameters()) if leaf.is_complex()]
        self._parts: dict[Any, Parts] = {leaf: _parts(leaf) for leaf in leaves}
        real = replaced(problem, {id(leaf): self._parts[leaf].value for leaf in leaves})
        more = [_definite(leaf, self._parts[leaf]) for leaf in leaves if _is_definite(leaf)]
        equations = {i: c for i, c in enumerate(real.constraints) if isinstance(c, Equality) and not c.is_real()}
        halves = {i: (cp.real(c.expr) == 0, cp.imag(c.expr) == 0) for i, c in equations.items()}
        for i, (one, two) in halves.items():
            dual = problem.constraints[i].dual_variables[0]
            self._parts[dual] = Parts(one.dual_variables[0], two.dual_variables[0], None, None)
        constraints = [halves[i][0] if i in halves else c for i, c in enumerate(real.constraints)]
        self.problem = cp.Problem(real.objective, [*constraints, *(two for _, two in halves.values()), *more])
        known = (c for i, c in enumerate(problem.constraints) if i in halves or c.is_real())
        self.duals = tuple(dual for constraint in known for dual in constraint.dual_variables)

    @classmethod
    def of(cls, problem: Any, parameters: Sequence[cp.Parameter] | None = None) -> RealParts | None:
        """The real problem; None for a problem without complex leaves, or for what is none."""
        if not isinstance(problem, cp.Problem):
            return None
        if not any(leaf.is_complex() for leaf in (*problem.variables(), *problem.parameters())):
            return None
        return cls(problem, parameters)

    def parts(self, leaf: Any) -> Parts | None:
        """The parts of a complex leaf of the user's; None for a real one."""
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
            ProgramError: a dual variable of a complex constraint, which CVXPY splits.
        """
        if item is self._user.objective:
            return self.problem.objective
        for own, real in zip(self._user.constraints, self.problem.constraints, strict=False):
            for place, dual in enumerate(own.dual_variables):
                if dual is item:
                    if not own.is_real():
                        raise ProgramError(
                            f"Constraint {own} is complex and no equation; its dual variable is not available. State "
                            "it by its real parts: for X >> 0, cp.bmat([[cp.real(X), -cp.imag(X)], [cp.imag(X), "
                            "cp.real(X)]]) >> 0."
                        )
                    return real.dual_variables[place]
        return item

    def layer(self, parameters: Any, variables: Any) -> tuple[cp.Problem, Any, Any]:
        """The real problem, parameters and variables of a layer; notes its outputs."""
        if not isinstance(variables, (list, tuple)) or not isinstance(parameters, (list, tuple)):
            return self.problem, parameters, variables  # refused with its own words later
        self.outputs = tuple(variables)
        return self.problem, self.leaves(parameters), self.leaves(variables)

    def split_call(self, values: Sequence[Any], take: Callable[[Any, Any], tuple[Any, Any]]) -> tuple[Any, ...]:
        """A layer's values, one for each real parameter, from those of the user's.

        Args:
            values: of the user's parameters.
            take: real and imaginary part of a complex parameter's value.

        Raises:
            ProgramError: not one value for each parameter.
        """
        if len(values) != len(self.parameters):
            names = ", ".join(f"'{p.name()}' {p.shape}" for p in self.parameters)
            raise ProgramError(
                f"A tensor must be provided for each CVXPY parameter: got {len(values)}, "
                f"expected {len(self.parameters)} ({names})."
            )
        out: list[Any] = []
        for leaf, value in zip(self.parameters, values, strict=True):
            parts = self.parts(leaf)
            if parts is None:
                out.append(value)
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
            if parts is None:
                out.append(next(rest))
                continue
            real = None if parts.real is None else next(rest)
            imaginary = zeros_like(real) if parts.imaginary is None else next(rest)
            if parts.expand is not None:
                imaginary = (imaginary @ put(parts.expand.T, imaginary)).reshape(*imaginary.shape[:-1], *leaf.shape)
            out.append(compose(zeros_like(imaginary) if real is None else real, imaginary))
        return tuple(out)

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
        out: dict[Any, Any] = {} if parts.real is None else {parts.real: np.real(array)}
        if parts.imaginary is not None:
            imaginary = np.imag(array)
            if parts.expand is not None:  # the transpose of the expansion: what a cotangent becomes
                imaginary = imaginary.reshape(*array.shape[: array.ndim - leaf.ndim], leaf.size) @ parts.expand
            out[parts.imaginary] = imaginary
        return out

    def join(self, leaf: Any, values: Mapping[Any, Any]) -> Any:
        """One of the user's leaves from the values, tangents or gradients of the real ones.

        Args:
            leaf: the user's.
            values: real leaf -> array of its shape, with any trailing dimensions.
        """
        parts = self.parts(leaf)
        if parts is None:
            return values[self.dual(leaf)]
        out: Any = 0j if parts.real is None else values[parts.real] + 0j
        if parts.imaginary is None:
            return out
        imaginary = values[parts.imaginary]
        if parts.expand is not None:
            trailing = imaginary.shape[1:]
            imaginary = (parts.expand @ imaginary.reshape(len(imaginary), -1)).reshape(*leaf.shape, *trailing)
        return out + 1j * imaginary


def _parts(leaf: Any) -> Parts:
    variable = isinstance(leaf, cp.Variable)
    kind: Any = cp.Variable if variable else cp.Parameter
    names, attributes = (f"real({leaf.name()})", f"imag({leaf.name()})"), leaf.attributes
    if leaf.is_hermitian():
        n = leaf.shape[0]
        real = kind((n, n), name=names[0], symmetric=True)
        if not variable:
            imaginary = cp.Parameter((n, n), name=names[1])
            return Parts(real, imaginary, None, real + 0.5j * (imaginary - imaginary.T))
        if n == 1:
            return Parts(real, None, None, real + 0j)
        row, column = np.triu_indices(n, k=1)
        S = np.zeros((n, n, len(row)))
        S[row, column, np.arange(len(row))], S[column, row, np.arange(len(row))] = 1.0, -1.0
        S = S.reshape(n * n, len(row))
        free = cp.Variable(len(row), name=names[1])
        return Parts(real, free, S, real + 1j * cp.reshape(S @ free, (n, n), order="C"))
    kept = {name: attributes[name] for name in ("diag", "sparsity") if attributes.get(name)}
    imaginary = kind(leaf.shape, name=names[1], **kept)
    if leaf.is_imag():
        return Parts(None, imaginary, None, 1j * imaginary)
    real = kind(leaf.shape, name=names[0], **kept)
    return Parts(real, imaginary, None, real + 1j * imaginary)


def _is_definite(leaf: Any) -> bool:
    return isinstance(leaf, cp.Variable) and bool(leaf.attributes["PSD"] or leaf.attributes["NSD"])


def _definite(leaf: Any, parts: Parts) -> cp.Constraint:
    """That a Hermitian variable is positive (negative) semidefinite."""
    return PSD(-parts.value) if leaf.attributes["NSD"] else PSD(parts.value)
