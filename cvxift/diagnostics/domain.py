"""Entries at the edge of an atom's domain, where the atom itself has no derivative."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cvxpy as cp
import numpy as np

from cvxift.diagnostics.findings import Finding, listed
from cvxift.diagnostics.point import LocalPoint

EDGE = 1e-9  # relative distance from zero at which an argument counts as zero
_AT_ZERO = {"entr": 0, "log": 0, "kl_div": 0, "rel_entr": 0, "geo_mean": 0, "Pnorm": None, "norm2": None}


def edges(point: LocalPoint) -> list[Finding]:
    """Notes on entropies, logarithms and roots of zero, and on norms of zero, in the user's expressions.

    They are notes: whether the solution map is smooth there is for the other checks to say.
    """
    program = point.program
    if program.log_mask is not None:
        return []
    values = {}
    for variable in program.problem.variables():
        out = program.output(variable)
        flat = out.matrix @ point.x + (0.0 if out.offset is None else out.offset)
        values[variable.id] = flat.reshape(out.shape)
    findings = []
    for atom in _atoms(program.problem):
        name, argument = type(atom).__name__, atom.args[0]
        if not isinstance(argument, cp.Variable) or argument.id not in values:
            continue
        entries = values[argument.id]
        size = max(1.0, float(np.abs(entries).max(initial=0.0)))
        if name in ("Pnorm", "norm2"):
            if float(np.abs(entries).max(initial=0.0)) <= EDGE * size:
                text = f"{atom} is a norm at zero, where it has no gradient."
                findings.append(
                    Finding("domain edge", text, "Add ε² under the norm if a gradient is wanted there.", False)
                )
            continue
        root = name in ("power", "PowerApprox", "Power") and 0 < float(np.ravel(atom.p.value)[0]) < 1
        if name not in _AT_ZERO and not root:
            continue
        where = [
            f"{argument.name()}{list(map(int, k))}" if k.size else argument.name()
            for k in np.argwhere(np.abs(entries) <= EDGE * size)
        ]
        if where:
            text = f"{listed(where)} at the edge of the domain of {atom}, where its slope is infinite."
            findings.append(
                Finding(
                    "domain edge",
                    text,
                    "The derivative there tends to 0; keep the argument away from 0.",
                    False,
                    tuple(where),
                )
            )
    return findings


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
            if not isinstance(node, (cp.Variable, cp.Parameter, cp.Constant)):
                yield node
            stack.extend(node.args)
