"""Entries at the edge of an atom's domain, where the atom itself has no derivative."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cvxpy as cp
import numpy as np

from cvxift.diagnostics.findings import Finding, listed
from cvxift.kkt.regularity.point import LocalPoint
from cvxift.program.messages import short, subscript
from cvxift.program.structure import Floats

EDGE = 1e-9  # relative distance from zero at which an argument counts as zero
STEEP = ("entr", "log", "kl_div", "rel_entr", "geo_mean", "GeoMean", "GeoMeanApprox")  # infinite slope at zero
NORMS = ("Pnorm", "PnormApprox", "norm2", "norm_nuc", "normNuc")  # a kink at zero
ROOTS = ("power", "Power", "PowerApprox")


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
        root = name in ROOTS and 0.0 < float(np.ravel(atom.p.value)[0]) < 1.0
        if not (name in STEEP or name in NORMS or root) or not argument.variables():
            continue
        entries = np.abs(np.asarray(evaluate(argument, values), dtype=float))
        if name in NORMS:
            if float(entries.max(initial=0.0)) <= EDGE * size:
                text = f"{short(atom)} is a norm at zero, where it has no gradient."
                advice = "Add ε² under the norm, cp.norm(cp.hstack([x, eps])), if a gradient is wanted there."
                findings.append(Finding("domain edge", text, advice, False, (short(atom),)))
            continue
        owner = argument.name() if isinstance(argument, cp.Variable) else f"({short(argument)})"
        where = [
            owner + subscript(tuple(map(int, k))) for k in np.argwhere(entries.reshape(argument.shape) <= EDGE * size)
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
    seen: set[int] = set()
    while stack:
        node = stack.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if getattr(node, "args", None):
            yield node
            stack.extend(node.args)
