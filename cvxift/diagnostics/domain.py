"""Ends of domains: entries at the edge of an atom's, where it has no derivative, and parameters at the end of theirs.

A weight of zero that is declared nonneg=True can move one way only, so that a derivative from that side is all there is
to ask for. The point is then looked at a small step inside the domain: if the theorem applies there, nothing but the
bound is in the way.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cvxpy as cp
import numpy as np

from cvxift.diagnostics.findings import Finding, listed
from cvxift.kkt.regularity.pieces import reach_of
from cvxift.kkt.regularity.point import LocalPoint
from cvxift.kkt.regularity.thresholds import BEYOND, NOISE, STEP
from cvxift.program.attributes import SIGN_OF_ATTRIBUTE
from cvxift.program.canonicalize import squared
from cvxift.program.messages import short, subscript
from cvxift.program.program import Program
from cvxift.program.structure import Floats

INFINITE_SLOPE = ("entr", "log", "kl_div", "rel_entr", "geo_mean", "GeoMean", "GeoMeanApprox")  # infinite slope at zero
KINKED_AT_ZERO = ("Pnorm", "PnormApprox", "norm2", "norm_nuc", "normNuc")  # a kink at zero
ROOT_ATOMS = ("power", "Power", "PowerApprox")
KINKS = ("weakly active", "torn apart", "vanishing curvature", "infinite speed")  # what the bound alone may cause


def edges(point: LocalPoint) -> list[Finding]:
    """Notes on entropies, logarithms and roots of zero, and on norms of zero, in the user's expressions.

    They are notes: whether the solution map is smooth there is for the other checks to say.
    """
    program = point.program
    if program.log_mask is not None:
        return []
    values = values_at(point, point.x)
    size = max(1.0, float(np.abs(point.x[program.user_columns]).max(initial=0.0)))
    findings = []
    for atom in _atoms(program.problem):
        name, argument = type(atom).__name__, atom.args[0]
        root = name in ROOT_ATOMS and 0.0 < float(np.ravel(atom.p.value)[0]) < 1.0
        if not (name in INFINITE_SLOPE or name in KINKED_AT_ZERO or root) or not argument.variables():
            continue
        entries = np.abs(np.asarray(evaluate(argument, values)))
        if name in KINKED_AT_ZERO:
            if float(entries.max(initial=0.0)) <= NOISE * size:
                text = f"{short(atom)} is a norm at zero, where it has no gradient."
                advice = "Add ε² under the norm, cp.norm(cp.hstack([x, eps])), if a gradient is wanted there."
                findings.append(Finding("domain edge", text, advice, False, (short(atom),)))
            continue
        owner = argument.name() if isinstance(argument, cp.Variable) else f"({short(argument)})"
        where = [
            owner + subscript(tuple(map(int, k))) for k in np.argwhere(entries.reshape(argument.shape) <= NOISE * size)
        ]
        if where:
            text = f"{listed(where)} at the edge of the domain of {short(atom)}, where its slope is infinite."
            advice = "The derivative there tends to 0; keep the argument away from 0."
            findings.append(Finding("domain edge", text, advice, False, tuple(where)))
    return findings


def values_at(point: LocalPoint, x: Floats) -> dict[int, Floats]:
    """Value of each variable and parameter, by its id, at a canonical x; what the user's objects hold is left alone."""
    program = point.program
    values = {}
    for variable in program.problem.variables():
        out = program.output(variable)
        flat = out.matrix @ x + (0.0 if out.offset is None else out.offset)
        values[variable.id] = flat.reshape(out.shape)
    for parameter, part in program.offsets.items():
        values[parameter.id] = point.theta[part].reshape(parameter.shape)
    return values


def evaluate(expression: Any, values: dict[int, Floats]) -> Any:
    """Numeric value of an expression."""
    if not expression.args:
        return values.get(expression.id, expression.value) if hasattr(expression, "id") else expression.value
    return expression.numeric([evaluate(argument, values) for argument in expression.args])


def _atoms(problem: cp.Problem) -> Iterator[Any]:
    """Every atom of the objective and the constraints."""
    stack: list = [problem.objective.expr, *(arg for c in problem.constraints for arg in c.args)]
    seen: dict[int, Any] = {}  # with what their ids stand for, which another would get
    while stack:
        stated = stack.pop()
        if id(stated) in seen:
            continue
        seen[id(stated)] = stated
        node = squared(stated)
        if getattr(node, "args", None):
            yield node
            stack.extend(node.args)


def inside(point: LocalPoint, direction: Floats) -> Floats:
    """θ a small step inside the domain, shape (N,).

    Args:
        point: the point.
        direction: what `inward` returned.
    """
    return point.theta + direction * reach_of(point, BEYOND * STEP)


def told(program: Program, direction: Floats) -> Finding:
    """The finding that only the side inside the domain exists."""
    names = []
    for parameter, part in program.offsets.items():
        for k in np.flatnonzero(direction[part]):
            entry = subscript(tuple(int(i) for i in np.unravel_index(int(k), parameter.shape)))
            name = next(name for name in SIGN_OF_ATTRIBUTE if parameter.attributes[name])
            sign = ">=" if SIGN_OF_ATTRIBUTE[name] > 0 else "<="
            names.append(f"{parameter.name()}{entry} {sign} 0 ({name}=True)")
    return Finding(
        "parameter at its bound",
        f"One-sided: {listed(names)} {'is' if len(names) == 1 else 'are'} at the bound, and only changes that keep it "
        "are admissible. Along those the derivative exists.",
        "Take it with report.one_sided(direction), or give the parameter a small value inside its domain.",
        True,
        tuple(names),
    )
