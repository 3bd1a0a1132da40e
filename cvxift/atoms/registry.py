"""How the atoms enter CVXPY: each is canonicalized through its definition in CVXPY's own atoms.

CVXPY finds a canonicalizer by the atom's exact type and takes an unregistered atom for affine, so every class is
registered here, together with the cones it needs (CVXPY chooses a solver by them before it canonicalizes).
"""

from __future__ import annotations

from typing import Any, Literal

import cvxpy.atoms as cvxpy_atoms
from cvxpy.reductions.dcp2cone.canonicalizers import CANON_METHODS
from cvxpy.reductions.dcp2cone.canonicalizers.quad import QUAD_CANON_METHODS
from cvxpy.reductions.dcp2cone.dcp2cone import Dcp2Cone

Cone = Literal["nonneg", "soc", "exp", "pow"]

_LISTS: dict[str, list[type]] = {
    "nonneg": cvxpy_atoms.NONPOS_ATOMS,
    "soc": cvxpy_atoms.SOC_ATOMS,
    "exp": cvxpy_atoms.EXP_ATOMS,
    "pow": cvxpy_atoms.POWCONE_ATOMS,
}


def register(*cones: Cone, quadratic: bool = False):
    """Class decorator: make CVXPY canonicalize an atom through its ``definition(args)``.

    Args:
        *cones: the cones that its canonical form may need.
        quadratic: whether it may stand in a quadratic objective as it is.
    """

    def enter(atom: Any) -> Any:
        CANON_METHODS[atom] = _cone_canon
        if quadratic:
            QUAD_CANON_METHODS[atom] = _quad_canon
        for cone in cones:
            _LISTS[cone].append(atom)
        return atom

    return enter


def _cone_canon(expr: Any, args: list[Any], solver_context: Any = None) -> tuple[Any, list[Any]]:
    return _canonicalize(expr, args, solver_context, quadratic=False)


def _quad_canon(expr: Any, args: list[Any], solver_context: Any = None) -> tuple[Any, list[Any]]:
    return _canonicalize(expr, args, solver_context, quadratic=True)


def _canonicalize(expr: Any, args: list[Any], solver_context: Any, quadratic: bool) -> tuple[Any, list[Any]]:
    reduction = Dcp2Cone(quad_obj=quadratic, solver_context=solver_context)
    definition, required = expr.definition(args)
    canonical, constraints = reduction.canonicalize_tree(definition, quadratic)
    for constraint in required:
        affine, auxiliary = reduction.canonicalize_tree(constraint, False)
        constraints = [*constraints, *auxiliary, affine]
    return canonical, constraints
