"""From the point that a CVXPY problem holds to a canonical point, whatever solver found it.

CVXPY keeps the values of the user's variables and dual variables, but not those of the columns that canonicalization
added, nor the multipliers of bounds and other variable attributes. Where everything needed is known the point is taken
as it is. Else the rest is found from the proximal program

    minimize  ½xᵀPx + qᵀx + (ρ/2)‖x_U − x̂_U‖²   subject to the same constraints,       U: columns of the user's
    variables,  x̂: the values held.

x̂ is optimal exactly if it solves this program (Rockafellar 1976), the proximal term then has gradient 0, so that its
multipliers are the problem's own, and x_U is unique even where the problem has many solutions: the point differentiated
is the user's, not another one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla

from cvxift import cones as cone
from cvxift import solvers
from cvxift.kkt.engine import TOLERANCE, Engine, Solution
from cvxift.kkt.regularity.point import LocalPoint
from cvxift.kkt.units import Rescaled, Units
from cvxift.program.products import dense
from cvxift.program.program import Program
from cvxift.program.structure import Data, Floats, Structure
from cvxift.program.write_back import real_duals

ACCURATE = 1e-14  # relative residual to which multipliers are fitted
SAME_VALUES = 1e-4  # relative difference of values up to which they are one solution's, found to different tolerances
KEPT_VALUES = 1e-12  # up to which they stay where they are: differences of values over steps of 1e-6 are right to 1e-6
SAME_SOLUTION = 1e-3  # relative distance from the values held up to which the completed point is the same one


def held_point(program: Program, engine: Engine, data: Data) -> Solution | None:
    """The canonical point of the values that the problem's variables hold, polished.

    Args:
        program: the problem's program.
        engine: its engine.
        data: its data at the parameters' current values.

    Returns:
        The solution, whose `ok` says whether it satisfies the optimality conditions; None if the problem holds no
        values, or none near an optimal point.
    """
    if any(variable.value is None for variable in program.problem.variables()):
        return None
    return completed(
        program,
        engine,
        data,
        {variable: variable.value for variable in program.problem.variables()},
        {dual: dual.value for dual in real_duals(program.problem) if dual.value is not None},
        "cvxpy",
    )


def holds_values_of(solution: Solution, program: Program, tolerance: float = SAME_VALUES) -> bool:
    """Whether the values that the problem's variables hold are those of a solution, but for a solver's tolerance.

    Args:
        solution: a solution that has a point.
        program: the problem's program.
        tolerance: how far they may be off, relative to the values.
    """
    values = program.values(solution.x)
    held = [np.asarray(dense(variable.value), dtype=float) for variable in values]
    off = [float(np.abs(value - own).max(initial=0.0)) for value, own in zip(values.values(), held, strict=True)]
    sizes = [float(np.abs(value).max(initial=0.0)) for value in values.values()]
    columns: Floats | None = None
    for variable, error, size in zip(values, off, sizes, strict=True):
        if error <= tolerance * size:
            continue
        if columns is None:
            columns = LocalPoint(program, solution).sizes[0]
        output = program.output(variable)
        unit = float((abs(output.matrix) @ columns).max(initial=0.0))
        # A variable that is zero, but for the tolerance, has the size that it could have.
        if output.exp or max(size, error) > tolerance * unit:
            return False
    return True


def completed(
    program: Program,
    engine: Engine,
    data: Data,
    variables: Mapping[cp.Variable, Any],
    duals: Mapping[cp.Variable, Any],
    name: str,
) -> Solution | None:
    """The canonical point around values of variables and dual variables, polished.

    Args:
        program: the problem's program.
        engine: its engine.
        data: its data, unbatched.
        variables: values of the problem's variables, those that are known.
        duals: values of its dual variables, likewise.
        name: whose point it is; the solution's `solver`.

    Returns:
        The solution; None if there is none near these values.
    """
    x = _known(program, variables, program.structure.n)
    y = _known(program, duals, program.structure.m)
    small, way = engine.condense(data)
    x, y = engine.condensation.restrict(x, y)
    units = way.units if isinstance(way, Rescaled) else None
    if units is not None:
        x, _, y = units.point(x, y, y)
    structure = engine.condensation.structure
    near = SAME_SOLUTION * (1.0 + np.abs(x[np.isfinite(x)]).max(initial=0.0))
    best: Solution | None = None
    for point in _candidates(engine, structure, small, x, y):
        found = engine.accept_condensed(data, *(point if units is None else units.point_back(*point)), name)
        if found.ok and (best is None or found.worst < best.worst):
            best = found
        if best is not None and best.worst <= TOLERANCE:
            break
    if best is None or _distance(best, x, units) > near:
        return None
    if best.worst <= TOLERANCE:
        return best
    # It may be a nearby program's: a solver's point is better, if it is the same one.
    fresh = engine.solve(data)
    return fresh if fresh.ok and _distance(fresh, x, units) <= near else best


def _candidates(
    engine: Engine, structure: Structure, small: Data, x: Floats, y: Floats
) -> Iterator[tuple[Floats, Floats, Floats]]:
    """Points (x, s, y) around what is known, the cheapest first."""
    if np.isfinite(x).all() and np.isfinite(y).all():
        yield x, cone.project(engine.cones, small.b - structure.A_matrix(small.A) @ x), y
    for make in (_tight, _complete):
        point = make(structure, small, x)
        if point is not None:
            yield point


def _distance(solution: Solution, x: Floats, units: Units | None) -> float:
    """How far the condensed point is from the columns that are known, in these units."""
    start = solution.start()
    if start is None:
        return np.inf
    there = start.x if units is None else start.x / units.columns
    return float(np.abs(there - x)[np.isfinite(x)].max(initial=0.0))


def _known(program: Program, values: Mapping[cp.Variable, Any], size: int) -> Floats:
    """Columns (or rows) that the objects' values determine, NaN elsewhere.

    The columns of an output map are orthogonal to each other, so each is read off by its own product.
    """
    out = np.full(size, np.nan)
    for obj, value in values.items():  # a sparse matrix for a diagonal variable
        output = program.output(obj)
        flat = np.ravel(np.asarray(dense(value), dtype=float))
        flat = np.log(flat) if output.exp else flat
        flat = flat if output.offset is None else flat - output.offset
        weight = output.matrix.power(2).sum(axis=0)
        at = np.flatnonzero(weight)
        read = (output.matrix.T @ flat)[at] / weight[at]
        if output.positive is not None:  # the two halves of an equality's multiplier, whose sum it is
            paired = (output.matrix.T @ output.positive.astype(float))[at] != 0
            read = np.where(paired & np.isfinite(out[at]), read + out[at], read)
        out[at] = read
    return out


def _tight(structure: Structure, data: Data, x: Floats) -> tuple[Floats, Floats, Floats] | None:
    """(x, s, y) where only the epigraphs t of exponential cones are unknown: there the cones are tight, p = r log(β/r).

    The multiplier of a cone is y_p (1, −∂p/∂r, −∂p/∂β), and y_p balances the cost of t; those of linear rows are the
    least-squares solution of what is left. No solver is asked, so that rows that depend on each other do no harm.
    """
    cones, A = structure.cones, sp.csc_array(structure.A_matrix(data.A))
    unknown, linear = np.flatnonzero(np.isnan(x)), cones.zero + cones.nonneg
    own = sp.coo_array(A[:, unknown])
    first = linear + 3 * np.arange(cones.exp)
    if linear + 3 * cones.exp < structure.m or not np.array_equal(np.sort(own.row), first) or own.nnz < len(unknown):
        return None
    t, gain, row = unknown[own.col], own.data, own.row
    x, y = np.where(np.isnan(x), 0.0, x), np.zeros(structure.m)
    s = data.b - A @ x
    if len(np.unique(t)) < len(t) or not (s[row + 1] > 0).all() or not (s[row + 2] > 0).all():
        return None
    log = np.log(s[row + 2] / s[row + 1])
    x[t] = (s[row] - s[row + 1] * log) / gain
    y[row] = -data.q[t] / gain
    y[row + 1], y[row + 2] = y[row] * (1.0 - log), -y[row] * np.exp(-log)
    s = data.b - A @ x
    s[: cones.zero] = 0.0
    tight = np.flatnonzero(s[:linear] <= TOLERANCE * (1.0 + np.abs(s[:linear]).max(initial=0.0)))
    gradient = data.q + A.T @ y
    if structure.nnzP:
        gradient = gradient + structure.P_matrix(data.P) @ x
    if len(tight):
        y[tight] = spla.lsmr(A[tight].T, -gradient, atol=ACCURATE, btol=ACCURATE, maxiter=8 * structure.m)[0]
    return x, s, y


def _complete(structure: Structure, data: Data, x: Floats) -> tuple[Floats, Floats, Floats] | None:
    """(x, s, y) of the proximal program around the known entries of x; None if it could not be solved."""
    known = np.flatnonzero(np.isfinite(x))
    rho = 1.0 + (np.abs(data.P).max(initial=0.0))
    keys = structure.P_cols.astype(np.int64) * structure.n + structure.P_rows
    diagonal = known.astype(np.int64) * (structure.n + 1)
    merged, where = np.unique(np.concatenate([keys, diagonal]), return_inverse=True)
    weights = np.concatenate([data.P, np.full(len(known), rho)])
    P = np.asarray(np.bincount(where, weights=weights, minlength=len(merged)), dtype=float)
    proximal = Structure.from_patterns(
        structure.n,
        structure.cones,
        P=(merged % structure.n, merged // structure.n),
        A=(structure.A_rows, structure.A_cols),
    )
    q = data.q.copy()
    q[known] -= rho * x[known]
    for name in solvers.choose(proximal):
        raw = solvers.get(name).session(proximal).solve(P, q, data.A, data.b)
        if raw.status.has_point and np.isfinite(raw.x).all():
            return raw.x, raw.s, raw.y
    return None
