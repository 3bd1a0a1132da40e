"""Nonlinear solvers by CVXPY's interfaces to them, given the smooth program's own oracles, bounds and start.

CVXPY's own path reads bounds and start values in the order of one problem and the oracles in that of another, keeps
oracles with old parameters in them, and drops multipliers; here a solver gets all of them from one place. What it says
of its point is a message: residuals decide.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from cvxift.errors import ProgramError
from cvxift.program.smooth.oracles import SolverOracles
from cvxift.program.smooth.program import SmoothProgram
from cvxift.program.smooth.smoothing import INSIDE
from cvxift.program.structure import Floats

try:
    from cvxpy.reductions.solvers.defines import INSTALLED_SOLVERS, NLP_SOLVER_VARIANTS, SOLVER_MAP_NLP
except ImportError:  # CVXPY before 1.9
    INSTALLED_SOLVERS, NLP_SOLVER_VARIANTS, SOLVER_MAP_NLP = [], {}, {}

INSTALL = "pip install 'cvxift[nlp]' brings UNO; or install one of IPOPT (cyipopt), KNITRO and COPT"
QUIET = {"UNO": {"logger": "SILENT"}, "IPOPT": {"print_level": 0, "sb": "yes"}}
INTERIOR = 400  # columns from which UNO's interior-point preset is quicker than its own choice, whose QPs are dense
SPARSE = {"UNO": NLP_SOLVER_VARIANTS.get("uno_ipm", ("UNO", {}))[1]}  # options for programs of more columns
BARRIER = 1e-6  # barrier parameter at which an interior-point method starts near a solution
INFEASIBLE = ("INFEASIBLE_STATIONARY_POINT", "INFEASIBLE_SMALL_STEP", "Infeasible_Problem_Detected")
UNBOUNDED = ("UNBOUNDED", "UNBOUNDED_OBJECTIVE", "DIVERGING_ITERATE", "Diverging_Iterates")
LIMITS = ("ITERATION_LIMIT", "TIME_LIMIT", "Maximum_Iterations_Exceeded", "Maximum_CpuTime_Exceeded")


@dataclass(frozen=True, eq=False)
class Found:
    """What a nonlinear solver returned.

    Attributes:
        x: its point, shape (n,); None if it has none.
        y: its multipliers of all rows, shape (m,), up to their sign; None if it has none.
        words: the solver's own on how it ended.
    """

    x: Floats | None
    y: Floats | None
    words: str


def installed() -> list[str]:
    """The nonlinear solvers that are installed, UNO first, then in CVXPY's order."""
    known = [name for name in SOLVER_MAP_NLP if name in INSTALLED_SOLVERS]
    return sorted(known, key=lambda name: name != "UNO")


def named(solver: str | None) -> tuple[str, dict[str, Any]]:
    """A solver by its name, or the first that is installed, and the options that the name stands for.

    Raises:
        ProgramError: there is none, it is not installed, or it is not a nonlinear solver.
    """
    known = installed()
    if solver is None:
        if not known:
            raise ProgramError(f"No nonlinear solver is installed: {INSTALL}.")
        return known[0], {}
    base, options = NLP_SOLVER_VARIANTS.get(solver.lower(), (solver.upper(), {}))
    if base not in SOLVER_MAP_NLP:
        raise ProgramError(
            f"Solver '{solver}' is not a nonlinear solver that CVXPY knows; choose one of "
            f"{', '.join([*SOLVER_MAP_NLP, *NLP_SOLVER_VARIANTS])}."
        )
    if base not in known:
        raise ProgramError(f"Solver '{base}' is not installed; installed: {', '.join(known) or 'none'}. {INSTALL}.")
    return base, dict(options)


def near_start(solver: str, options: Mapping[str, Any], radius: float) -> dict[str, Any]:
    """Options that keep a solver's first steps from a point near a solution short.

    Args:
        solver: its name.
        options: those it has.
        radius: largest entry of a step, for a method with a trust region.
    """
    if solver == "UNO" and options.get("preset") != "ipopt":
        return {"TR_radius": radius}
    return {"UNO": {"barrier_initial_parameter": BARRIER}, "IPOPT": {"mu_init": BARRIER}}.get(solver, {})


def solve(
    program: SmoothProgram, p: Floats, x: Floats, solver: str, options: Mapping[str, Any], verbose: bool = False
) -> Found:
    """Call a solver.

    Args:
        program: the program.
        p: its data columns, shape (n_p,).
        x: where to start, shape (n,).
        solver: its name, as `named` gives it.
        options: its options.
        verbose: whether it may print.

    Returns:
        Its point; a failure of the solver is told in its words.

    Raises:
        ProgramError: the solver does not know an option.
    """
    oracles = SolverOracles(program.oracles, p)
    low, high = program.column_bounds
    rows = program.engine_rows
    x = x.copy()
    x[program.norms.t] = np.maximum(x[program.norms.t], INSIDE)  # at zero the squares have no gradient
    data = {
        "x0": np.clip(x, low, high),
        "lb": low,
        "ub": high,
        "cl": np.where((rows >= 0) & (rows < program.cones.zero), 0.0, -np.inf),
        "cu": np.zeros(len(rows)),
        "_bounds": SimpleNamespace(new_problem=SimpleNamespace(parameters=lambda: [])),
    }
    if not np.isfinite(oracles.objective(data["x0"])) or not np.isfinite(oracles.constraints(data["x0"])).all():
        return Found(None, None, "the start lies outside of the domain of the objective or of a constraint")
    settings = {**({} if verbose else QUIET.get(solver, {})), **options}
    with program.oracles.alone:
        try:
            raw = SOLVER_MAP_NLP[solver].solve_via_data(data, True, verbose, settings, {"oracles": oracles})
        except Exception as error:
            if any(name in str(error) for name in options):
                raise ProgramError(f"Solver {solver} refuses its options {dict(options)}: {error}.") from error
            return Found(None, None, f"{type(error).__name__}: {error}")
    point = np.asarray(raw["x"], dtype=float) if raw.get("x") is not None else None
    if point is None or point.shape != x.shape or not np.isfinite(point).all():
        return Found(None, None, _words(raw))
    return Found(point, _multipliers(program, raw), _words(raw))


def _words(raw: Mapping[str, Any]) -> str:
    parts = [raw.get(key) for key in ("optimization_status", "solution_status", "status_msg", "status")]
    return ", ".join(p.decode() if isinstance(p, bytes) else str(p) for p in parts[:3] if p) or str(parts[3])


def _multipliers(program: SmoothProgram, raw: Mapping[str, Any]) -> Floats | None:
    rows, low, high = (
        next((raw[key] for key in keys if raw.get(key) is not None), None)
        for keys in (
            ("constraint_dual", "mult_g"),
            ("lower_bound_dual", "mult_x_L"),
            ("upper_bound_dual", "mult_x_U"),
        )
    )
    if rows is None or low is None or high is None:
        return None
    y = np.zeros(program.structure.m)
    own, bounds, rows = program.engine_rows, program.bounds, np.asarray(rows)
    y[own[own >= 0]] = rows[own >= 0]
    y[program.norms.row] = program.norms.multipliers(np.asarray(raw["x"]), rows[own < 0])
    up, down = np.abs(np.asarray(high))[bounds.column], np.abs(np.asarray(low))[bounds.column]  # solvers' signs differ
    fixed = bounds.row < program.cones.zero
    y[bounds.row] = np.where(fixed, up - down, np.where(bounds.sign > 0, up, down))
    return y if np.isfinite(y).all() else None
