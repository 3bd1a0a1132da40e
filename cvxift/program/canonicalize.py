"""The one file that touches CVXPY's reductions: a parametrized cone program whose parts know where they come from.

The chain is CVXPY's own, without a solver at its end: complex and log-log transforms where the problem has them,
Minimize everywhere, atoms to cones with quadratic objectives kept, attributes and bounds to constraints, and matrix
stuffing, which gives for each piece of data a constant sparse tensor to be multiplied by (inner parameters, 1). CVXPY
replaces variables, parameters and constraints by copies on the way; the user's are told from the copies by their ids,
here and nowhere else.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
from cvxpy.atoms.elementwise.power import Power
from cvxpy.atoms.pnorm import Pnorm
from cvxpy.atoms.quad_form import QuadForm
from cvxpy.atoms.quad_over_lin import quad_over_lin
from cvxpy.constraints.constraint import Constraint
from cvxpy.constraints.exponential import ExpCone
from cvxpy.constraints.nonpos import Inequality, NonNeg, NonPos
from cvxpy.constraints.power import PowCone3D, PowConeND
from cvxpy.constraints.psd import PSD
from cvxpy.constraints.second_order import SOC
from cvxpy.constraints.zero import Equality, Zero
from cvxpy.reductions.complex2real import complex2real
from cvxpy.reductions.cvx_attr2constr import CvxAttr2Constr
from cvxpy.reductions.dcp2cone.cone_matrix_stuffing import ParamConeProg
from cvxpy.reductions.dcp2cone.dcp2cone import Dcp2Cone
from cvxpy.reductions.dgp2dcp.dgp2dcp import Dgp2Dcp
from cvxpy.reductions.flip_objective import FlipObjective
from cvxpy.utilities.solver_context import SolverInfo

from cvxift.errors import ProgramError
from cvxift.program.messages import short
from cvxift.program.stuffing import backends, stuff

try:  # zero-sized expressions are removed by a reduction of their own since CVXPY 1.9
    from cvxpy.reductions.eliminate_zero_sized import EliminateZeroSized
except ImportError:
    EliminateZeroSized = None
try:  # the approximations of the relative entropy cones moved in CVXPY 1.9
    from cvxpy.reductions.cone2cone.approx import APPROX_CONE_CONVERSIONS, ApproxCone2Cone
except ImportError:
    APPROX_CONE_CONVERSIONS, ApproxCone2Cone = {}, None

CONES = frozenset({Zero, NonNeg, SOC, PSD, ExpCone, PowCone3D, PowConeND})


@dataclass(frozen=True)
class Origin:
    """Where a row or column of the stuffed program comes from, in the user's problem.

    Args:
        constraint: position in `problem.constraints` of the user's constraint that this is, or that needed the atom.
        variable: position in the user's variables: of the variable that this is, or whose attribute asks for the row.
        atom: the subexpression whose canonicalization introduced this; None for what the user wrote.
    """

    constraint: int | None = None
    variable: int | None = None
    atom: Any = None


@dataclass(frozen=True)
class InnerVariable:
    """A variable of the stuffed program and the leaf whose attributes say how it fills the full one."""

    id: int
    leaf: cp.Variable
    log: bool


@dataclass(frozen=True)
class Stuffed:
    """CVXPY's stuffed program together with the way back to the user's objects.

    Args:
        program: tensors, cone constraints (in row order) and inner variables (in column order).
        variables: for each of the user's variables, the inner variable that determines it.
        parameters: inner parameter id -> (position of the user's parameter, whether it is its logarithm, whether it
            holds only the entries that the attributes leave free).
        constraints: for each of the user's constraints, the id of the stuffed constraint that it became.
        origins: id of stuffed constraint or inner variable -> its origin.
    """

    program: ParamConeProg
    variables: tuple[InnerVariable, ...]
    parameters: dict[int, tuple[int, bool, bool]]
    constraints: tuple[int, ...]
    origins: dict[int, Origin]

    def auxiliary(self, n: int) -> np.ndarray:
        """Which of n columns are none of the user's variables', a mask."""
        users, out = {inner.id for inner in self.variables}, np.ones(n, dtype=bool)
        for variable in self.program.variables:
            if variable.id in users:
                start = self.program.var_id_to_col[variable.id]
                out[start : start + variable.size] = False
        return out


def canonicalize(
    problem: cp.Problem, user_parameters: Sequence[cp.Parameter], gp: bool, canon_backend: str | None
) -> Stuffed:
    """Apply CVXPY's canonicalization up to matrix stuffing.

    Args:
        problem: a DPP problem (DGP with `gp`).
        user_parameters: its parameters.
        gp: whether to go through the log-log transform.
        canon_backend: CVXPY's backend to try first; None takes the usual order. See `stuffing`.

    Returns:
        The stuffed program with its origins.

    Raises:
        ProgramError: if a parametric quadratic form stands where only its numeric factor could be used.
    """
    variables, user_constraints = problem.variables(), problem.constraints
    ids = {constraint.id: constraint.id for constraint in user_constraints}
    origins: dict[int, Origin] = {}

    current = problem
    if any(isinstance(constraint, NonPos) for constraint in user_constraints):
        current = cp.Problem(problem.objective, [_without_nonpos(constraint) for constraint in user_constraints])
    if complex2real.accepts(problem):
        current, _ = complex2real.Complex2Real().apply(current)
    log_variables, log_parameters = {}, {}
    if gp:
        to_log = Dgp2Dcp()
        current, inverse = to_log.apply(current)
        ids = _follow(ids, inverse.cons_id_map)
        log_variables, log_parameters = to_log.canon_methods._variables, to_log.canon_methods._parameters
    if isinstance(current.objective, cp.Maximize):
        current, _ = FlipObjective().apply(current)

    root_positions = {constraint.id: k for k, constraint in enumerate(current.constraints)}
    to_cones = _RecordingDcp2Cone()
    current, inverse = to_cones.apply(current)
    back = {new: user for user, new in ids.items()}
    position = {constraint.id: k for k, constraint in enumerate(user_constraints)}
    roots = {new: position[user] for new, user in back.items() if new in root_positions}
    for identifier, (atom, root) in to_cones.introduced.items():
        origins[identifier] = Origin(constraint=roots.get(root), atom=atom)
    ids = _follow(ids, inverse.cons_id_map)

    inner = [log_variables.get(variable, variable) for variable in variables]
    for k, variable in enumerate(inner):
        origins[variable.id] = Origin(variable=k)
    lower_attributes = CvxAttr2Constr(reduce_bounds=True)
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="Reading from a sparse CVXPY expression"
        )  # of parameter values, unused
        current, inverse = lower_attributes.apply(current)
    new_variables, moved = {}, {constraint.id: constraint.id for constraint in current.constraints}
    if inverse:
        new_variables, _, moved = inverse
        for old, new in new_variables.items():
            origins[new.id] = origins[old]
        _label_attribute_rows(current.constraints, set(moved.values()), origins)
    for old, new in moved.items():
        if old in origins:
            origins[new] = origins[old]
    ids = _follow(ids, moved)
    reduced_parameters = getattr(lower_attributes, "_parameters", {})

    approximate = {type(constraint) for constraint in current.constraints} & set(APPROX_CONE_CONVERSIONS)
    if approximate and ApproxCone2Cone is not None:
        current, inverse = ApproxCone2Cone(target_cones=approximate).apply(current)
        ids, origins = _follow(ids, inverse.cons_id_map), _move(origins, inverse.cons_id_map)
    if EliminateZeroSized is not None:
        current, inverse = EliminateZeroSized().apply(current)
        if inverse:
            ids, origins = _follow(ids, inverse["cons_id_map"]), _move(origins, inverse["cons_id_map"])
    _refuse_unknown_cones(current.constraints)

    program = stuff(current, backends(problem, canon_backend))

    for k, constraint in enumerate(user_constraints):
        origins[ids[constraint.id]] = Origin(constraint=k)
    parameters = {}
    for k, parameter in enumerate(user_parameters):
        for copy, log in ((parameter, False), (log_parameters.get(parameter), True)):
            if copy is not None:
                reduced = reduced_parameters.get(copy)
                parameters[(copy if reduced is None else reduced).id] = (k, log, reduced is not None)
    return Stuffed(
        program=program,
        variables=tuple(
            InnerVariable(
                new_variables[leaf.id].id if leaf.id in new_variables else leaf.id, leaf, variable in log_variables
            )
            for variable, leaf in zip(variables, inner, strict=True)
        ),
        parameters=parameters,
        constraints=tuple(ids[constraint.id] for constraint in user_constraints),
        origins=origins,
    )


class _RecordingDcp2Cone(Dcp2Cone):
    """Atoms to cones, noting which subexpression introduced each new variable and constraint."""

    def __init__(self) -> None:
        context = SolverInfo(solver=cp.CLARABEL, supported_constraints=CONES)
        super().__init__(quad_obj=True, solver_context=context)
        self.introduced: dict[int, tuple[Any, int | None]] = {}
        self._root: int | None = None
        self._squares: dict[int, tuple[Any, Any]] = {}  # CVXPY knows expressions by id: both stay as long as it asks

    def canonicalize_tree(self, expr: Any, *args: Any, **kwargs: Any) -> Any:
        square = squared(expr)
        if square is not expr:
            _, expr = self._squares.setdefault(id(expr), (expr, square))
        if isinstance(expr, Constraint) and self._root is None:
            self._root = expr.id
            try:
                return super().canonicalize_tree(expr, *args, **kwargs)
            finally:
                self._root = None
        return super().canonicalize_tree(expr, *args, **kwargs)

    def canonicalize_expr(self, expr, args, affine_above, *rest):
        if isinstance(expr, QuadForm) and not affine_above and expr.args[1].parameters():
            raise ProgramError(
                f"{short(expr)} has a parameter as its matrix, which is possible only where the objective is affine in "
                "it. Elsewhere write cp.sum_squares(L.T @ x) with a parameter L, L @ L.T being the matrix."
            )
        try:
            canonical, constraints = super().canonicalize_expr(expr, args, affine_above, *rest)
        except ValueError as error:  # as of a matrix that is indefinite, although it was said to be semidefinite
            raise ProgramError(f"CVXPY cannot canonicalize {short(expr)}: {error}") from error
        if constraints or type(expr) in self.cone_canon_methods:
            known = {variable.id for arg in args for variable in arg.variables()}
            for piece in (canonical, *constraints):
                for variable in piece.variables():
                    if variable.id not in known:
                        self.introduced.setdefault(variable.id, (expr, self._root))
            for constraint in constraints:
                self.introduced.setdefault(constraint.id, (expr, self._root))
        return canonical, constraints


def squared(expr: Any) -> Any:
    """The expression itself; for the square of a norm, the sum of squares that it is, which has curvature everywhere.

        ‖e‖² = Σ e²,      |e|² = e²,      ‖e‖² / y = quad_over_lin(e, y)

    Canonicalized as it stands, t² with ‖e‖ ≤ t has none in e where e = 0, as if the solution had no derivative there.

    Args:
        expr: an expression; its arguments are left as they are.
    """
    if not isinstance(expr, Power | quad_over_lin) or not expr.args[0].is_real():
        return expr
    root = expr.args[0]
    if not (isinstance(root, cp.abs) or (isinstance(root, Pnorm) and root.p == 2)):
        return expr
    inner = root.args[0]
    if isinstance(expr, quad_over_lin):
        whole = getattr(expr, "axis", None) is None  # else parts of a matrix are summed by themselves
        return cp.quad_over_lin(inner, expr.args[1]) if whole and inner.is_real() else expr
    if not isinstance(expr.p, cp.Constant) or expr.p.value != 2 or not inner.is_real():
        return expr
    return cp.square(inner) if isinstance(root, cp.abs) else cp.sum(cp.square(inner), root.axis, root.keepdims)


def _follow(ids: dict[int, int], moved: dict[int, int]) -> dict[int, int]:
    """Where each id stands after one more replacement."""
    return {user: moved.get(inner, inner) for user, inner in ids.items()}


def _move(origins: dict[int, Origin], moved: dict[int, int]) -> dict[int, Origin]:
    """Origins known under the new ids too."""
    return origins | {new: origins[old] for old, new in moved.items() if old in origins}


def _label_attribute_rows(constraints: list[Constraint], known: set[int], origins: dict[int, Origin]) -> None:
    """Give each constraint that only states an attribute of a variable that variable's origin."""
    for constraint in constraints:
        if constraint.id not in known:
            for variable in constraint.variables():
                if variable.id in origins:
                    origins[constraint.id] = origins[variable.id]
                    break


def _refuse_unknown_cones(constraints: list[Constraint]) -> None:
    known = CONES | {Equality, Inequality}
    for constraint in constraints:
        if type(constraint) not in known and type(constraint).__name__ != "SvecPSD":
            raise ProgramError(
                f"Constraint {short(constraint)} is of type {type(constraint).__name__}, which has no exact conic form "
                "here. Write it with equalities, inequalities, SOC, PSD, ExpCone or PowCone3D."
            )


def _without_nonpos(constraint: Constraint) -> Constraint:
    """Turn expr ≤ 0 in the old style into −expr ≥ 0, which has the same multiplier."""
    if isinstance(constraint, NonPos):
        return NonNeg(-constraint.args[0], constr_id=constraint.id)
    return constraint
