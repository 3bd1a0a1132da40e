"""Any other solver that CVXPY has, by its name there: HIGHS, ECOS, MOSEK, GUROBI, ….

The instance is written as a CVXPY problem in the canonical variables. Rows of the zero and nonneg cones stay plain
equalities and inequalities; for the other cones a variable s = b − Ax is introduced, so that every y is the
multiplier of a linear constraint, whose sign CVXPY fixes as ours: Px + q + Aᵀy = 0. A problem is built per instance,
which costs milliseconds: this is for solvers without an adapter of their own.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp
from cvxpy.error import SolverError
from numpy.typing import NDArray

from cvxift._types import Floats
from cvxift.errors import ProgramError
from cvxift.program.cones import Cones
from cvxift.program.structure import Structure
from cvxift.solvers.base import Raw, Session, Solver, Status
from cvxift.solvers.settings import check_options, read_settings

STATUS = {
    cp.OPTIMAL: Status.SOLVED,
    cp.OPTIMAL_INACCURATE: Status.INACCURATE,
    cp.INFEASIBLE: Status.INFEASIBLE,
    cp.INFEASIBLE_INACCURATE: Status.INFEASIBLE,
    cp.UNBOUNDED: Status.UNBOUNDED,
    cp.UNBOUNDED_INACCURATE: Status.UNBOUNDED,
    cp.USER_LIMIT: Status.ITERATION_LIMIT,
    # HiGHS' presolve finds that there is no solution before it knows which of the two.
    "infeasible_or_unbounded": Status.INFEASIBLE,
}
_OURS = frozenset({"solver", "gp", "qcp", "nlp", "method", "requires_grad", "enforce_dpp", "ignore_dpp", "solver_path"})


def installed() -> list[str]:
    """The solvers that CVXPY finds installed, by its names."""
    return cp.installed_solvers()


class Cvxpy(Solver):
    """A solver that CVXPY knows.

    Its options are passed on as they are. Those of HIGHS are checked by name; CVXPY offers no list of the others'
    options, so that an unknown one is refused by the solver itself, at the first solve.

    Args:
        solver: CVXPY's name of it, such as "HIGHS".
    """

    verbose_options = MappingProxyType({"verbose": True})

    def __init__(self, solver: str) -> None:
        self.solver = solver.upper()
        self.name = solver.lower()

    def missing(self) -> str | None:
        """None if CVXPY finds the solver, else what is installed."""
        if self.solver in installed():
            return None
        return f"CVXPY does not find {self.solver} installed; it finds {', '.join(installed())}"

    def unsupported(self, structure: Structure) -> str | None:
        """None if CVXPY can hand such a program to the solver, found by asking it with a small one of the same kind."""
        return _refusal(self.solver, _small(structure.cones), structure.nnzP > 0)

    @property
    def options(self) -> Mapping[str, Any]:
        """HIGHS' options; of other solvers nothing is known here."""
        if self.solver != "HIGHS":
            return {}
        import highspy

        return read_settings(highspy.HighsOptions())

    def session(self, structure: Structure, **options: Any) -> Session:
        """Open a session; see `Solver.session`. Options are checked here for HIGHS alone."""
        known = self.options or options
        check_options(self.name, options, [name for name in [*known, "verbose"] if name not in _OURS])
        reason = self.supports(structure)
        if reason is not None:
            raise ProgramError(f"Solver '{self.name}' cannot solve this problem: {reason}.")
        return self._session(structure, options)

    def _session(self, structure: Structure, options: Mapping[str, Any]) -> Session:
        return CvxpySession(self, structure, options)


def _small(cones: Cones) -> Cones:
    """One cone of each kind that occurs."""
    return Cones(
        zero=min(cones.zero, 1),
        nonneg=min(cones.nonneg, 1),
        soc=(3,) * bool(cones.soc),
        psd=(2,) * bool(cones.psd),
        exp=min(cones.exp, 1),
        pow=(0.4,) * bool(cones.pow),
    )


@lru_cache(maxsize=256)
def _refusal(solver: str, cones: Cones, quadratic: bool) -> str | None:
    diagonal = np.arange(2 if quadratic else 0)
    rows = np.arange(cones.m)
    structure = Structure.from_patterns(2, cones, P=(diagonal, diagonal), A=(rows, np.zeros_like(rows)))
    model = Model(structure, np.ones(len(diagonal)), np.ones(2), np.ones(cones.m), np.ones(cones.m))
    try:
        model.problem.get_problem_data(solver)
    except SolverError:
        kinds = sorted({block.kind for block in cones.blocks()})
        cost = "a quadratic" if quadratic else "a linear"
        return f"CVXPY's {solver} does not take {cost} cost with cones of kind {', '.join(kinds) or 'none'}"
    return None


class Model:
    """One instance as a CVXPY problem.

    Args:
        structure: sizes, cones and patterns.
        P: values of P's stored entries.
        q: linear cost.
        A: values of A's stored entries.
        b: right-hand side.
    """

    def __init__(self, structure: Structure, P: Floats, q: Floats, A: Floats, b: Floats) -> None:
        cones = structure.cones
        linear = cones.zero + cones.nonneg
        self.x = cp.Variable(structure.n)
        cost = q @ self.x
        if structure.nnzP:
            cost = cost + 0.5 * cp.quad_form(self.x, cp.psd_wrap(structure.P_matrix(P)))
        matrix = sp.csr_array(structure.A_matrix(A))
        self.constraints: list[cp.Constraint] = []  # in the order of their rows, together all of A's rows
        if cones.zero:
            self.constraints.append(matrix[: cones.zero] @ self.x == b[: cones.zero])
        if cones.nonneg:
            self.constraints.append(matrix[cones.zero : linear] @ self.x <= b[cones.zero : linear])
        conic: list[cp.Constraint] = []
        self.s = cp.Variable(structure.m - linear) if structure.m > linear else None
        if self.s is not None:
            self.constraints.append(matrix[linear:] @ self.x + self.s == b[linear:])
            for block in cones.blocks():
                if block.kind not in ("zero", "nonneg"):
                    conic.append(_member(block.kind, block.param, self.s[block.start - linear : block.stop - linear]))
        self.problem = cp.Problem(cp.Minimize(cost), self.constraints + conic)

    def multipliers(self) -> Floats:
        """y, shape (m,), after the problem was solved."""
        duals: list[Any] = [constraint.dual_value for constraint in self.constraints]
        return np.concatenate([np.ravel(dual) for dual in duals] or [np.zeros(0)])


def _member(kind: str, param: Any, s: cp.Expression) -> cp.Constraint:
    """The constraint that s lies in a cone of this kind."""
    if kind == "soc":
        return cp.SOC(s[0], s[1:]) if s.size > 1 else s >= 0
    if kind == "psd":
        return cp.reshape(_smat(param) @ s, (param, param), order="F") >> 0
    if kind == "exp":
        return cp.ExpCone(s[0], s[1], s[2])
    return cp.PowCone3D(s[0], s[1], s[2], param)


@lru_cache(maxsize=64)
def _smat(order: int) -> sp.csr_array:
    """The linear map from svec (upper triangle column by column, off-diagonals times √2) to the matrix, vectorized."""
    cols, rows = np.tril_indices(order)
    index: NDArray = np.arange(len(rows))
    scale = np.where(rows == cols, 0.5, np.sqrt(0.5))  # a diagonal entry is met twice
    entries = np.concatenate([scale, scale])
    places = np.concatenate([cols * order + rows, rows * order + cols])
    return sp.csr_array((entries, (places, np.concatenate([index, index]))), shape=(order * order, len(rows)))


class CvxpySession(Session):
    """Builds and solves one CVXPY problem per instance."""

    def __init__(self, solver: Cvxpy, structure: Structure, options: Mapping[str, Any]) -> None:
        super().__init__(structure, options)
        self._solver = solver

    def _solve(self, P: Floats, q: Floats, A: Floats, b: Floats, warm: Raw | None) -> Raw:
        structure = self.structure
        model = Model(structure, P, q, A, b)
        problem = model.problem
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Solution may be inaccurate")  # the status says so
            try:
                problem.solve(solver=self._solver.solver, **self.options)
            except (TypeError, ValueError) as error:
                if not self.options:
                    return self.failure(f"{type(error).__name__}: {error}")
                message = f"Solver '{self._solver.name}' cannot work with the options {self.options}: {error}"
                raise ProgramError(message) from error
        status = STATUS.get(problem.status, Status.FAILED)
        if not status.has_point or model.x.value is None:
            return self.failure(problem.status, status)
        x, y = np.array(model.x.value), model.multipliers()
        zero, linear = structure.cones.zero, structure.cones.zero + structure.cones.nonneg
        s = np.zeros(structure.m)
        s[zero:linear] = np.maximum((b - structure.A_matrix(A) @ x)[zero:linear], 0.0)
        np.maximum(y[zero:linear], 0.0, out=y[zero:linear])
        if model.s is not None:
            s[linear:] = model.s.value
        return Raw(x, s, y, status, problem.status, problem.solver_stats.num_iters or 0)
