"""Everything that a problem reaches: the parameters that CVXPY lists and those it does not, and all its variables.

`Problem.parameters()` asks each atom, and an atom may keep an argument's parameters to itself (a support function), or
hold expressions beside its arguments (a perspective's function, a power cone's exponents), whose values CVXPY reads
once when it canonicalizes. The first are found here; the second are refused, for the solution would not follow them.
Likewise a canonicalization may read the values that variables hold (CVXPY starts epigraph variables from them, and
fails where the formula for the start does not fit); they are put aside meanwhile.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import cvxpy as cp
from cvxpy.atoms.affine.wraps import nsd_wrap, psd_wrap
from cvxpy.constraints.constraint import Constraint
from cvxpy.expressions.leaf import Leaf
from cvxpy.utilities import scopes

from cvxift.errors import ProgramError
from cvxift.program.messages import short


class Reach:
    """What a problem reaches, gone through once.

    Args:
        problem: the user's problem.

    Attributes:
        parameters: all that its solution depends on: those of ``problem.parameters()``, in its order, then those that
            stand in the arguments of atoms which do not list them.
        approximation: how far the atoms that CVXPY approximates are from what it canonicalizes: the sum of their
            relative errors; None where one does not say.
        vouched: whether the user said of a matrix that it is definite, which CVXPY then does not check.

    Raises:
        ProgramError: a parameter stands in the data of an atom, where CVXPY takes its value for a constant; or it
            enters an atom that hides it in a way that is not affine.
    """

    def __init__(self, problem: cp.Problem) -> None:
        self._nodes = tuple(nodes(problem))
        listed = list(problem.parameters())
        known = {parameter.id for parameter in listed}
        hidden: list[cp.Parameter] = []
        for node, owner in self._nodes:
            if isinstance(node, cp.Parameter) and node.id not in known:
                if owner is not None:
                    raise ProgramError(
                        f"Parameter '{node.name()}' stands in the data of {short(owner)}, where CVXPY takes the value "
                        "it holds for a constant: the solution would not follow the parameter. Write that atom out "
                        "with the parameter in its arguments (a perspective as cp.quad_over_lin, cp.rel_entr or "
                        "cp.norm of them, or times a factor outside), or put a constant there."
                    )
                known.add(node.id)
                hidden.append(node)
        if hidden:
            self._refuse_nonaffine({parameter.id for parameter in hidden})
        self.parameters: tuple[cp.Parameter, ...] = (*listed, *hidden)
        self.approximation = self._approximation()
        self.vouched = any(isinstance(node, psd_wrap | nsd_wrap) for node, _ in self._nodes)

    @contextlib.contextmanager
    def values_aside(self) -> Iterator[None]:
        """Within, none of the variables holds a value; afterwards they hold what they held."""
        held = {id(node): (node, node._value) for node, _ in self._nodes if isinstance(node, cp.Variable)}
        try:
            for variable, _ in held.values():
                variable._value = None
            yield
        finally:
            for variable, value in held.values():
                variable._value = value

    def _approximation(self) -> float | None:
        total = 0.0
        for node, _ in self._nodes:
            kind = type(node).__name__
            if getattr(node, "quad_approx", None) is not None or kind.startswith(("OpRelEntr", "RelEntr")):
                return None
            error = getattr(node, "approx_error", 0.0)
            total += float(error) if isinstance(error, int | float) else 0.0
        return total

    def _refuse_nonaffine(self, hidden: set[int]) -> None:
        """CVXPY's check of the rules does not look inside an atom that hides parameters."""
        for node, _ in self._nodes:
            inside = {p.id for arg in node.args for p in arg.parameters()} & hidden if node.args else set()
            if inside and not inside <= {p.id for p in node.parameters()}:
                for arg in node.args:
                    with scopes.dpp_scope():
                        affine = arg.is_affine()
                    if not affine:
                        raise ProgramError(
                            f"The problem is not DPP: {short(arg)} is not affine in its parameters and variables "
                            "together. Replace it by a new variable tied to it by an equality, or its parameters by "
                            "one that holds the product."
                        )


def nodes(problem: cp.Problem) -> Iterator[tuple[Any, Any]]:
    """Everything that a problem reaches.

    Yields:
        Each expression and constraint, once, and the atom whose data it is reached through; what is reached through
        arguments alone comes first, with None.
    """
    seen: set[int] = set()
    stack: list[tuple[Any, Any]] = [(problem.objective.expr, None), *((c, None) for c in problem.constraints)]
    later: list[tuple[Any, Any]] = []
    while stack or later:
        if not stack:
            stack, later = later, []
        node, owner = stack.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, cp.Problem):  # the argument of a partially minimized problem
            stack += [(node.objective.expr, owner), *((c, owner) for c in node.constraints)]
            continue
        yield node, owner
        stack += [(arg, owner) for arg in node.args]
        if isinstance(node, Leaf):
            stack += [(bound, owner) for bound in node.attributes["bounds"] or () if isinstance(bound, cp.Expression)]
            continue
        for name, value in vars(node).items():
            if name not in ("args", "dual_variables"):
                whole = isinstance(value, cp.Expression | Constraint | cp.Problem)
                members = [value] if whole else getattr(value, "constraints", value)  # those of a support function
                if isinstance(members, list | tuple):
                    known = (cp.Expression, Constraint, cp.Problem)
                    later += [(held, owner or node) for held in members if isinstance(held, known)]
