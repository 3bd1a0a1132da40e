"""Why a program has no solution: constraints that exclude each other, or variables that run away; in the user's words.

By the theorems of alternatives (Boyd & Vandenberghe 2004, section 5.8) each has a certificate, here the one of least
size, which convex programs that always have a solution give:

    no point:    min ½‖r‖²  over  Ax + s + Wr = b, s ∈ K.   The rows where r ≠ 0 exclude each other: y = W⁻¹r satisfies
                 Aᵀy = 0, y ∈ K*, bᵀy = ‖r‖² > 0.   W are the rows' own sizes, so that units do not choose the rows.
    no minimum:  min ½‖d‖²  over  Pd = 0, −Ad ∈ K, qᵀd = −1:   the cost falls along d, and nothing ends it.

With qᵀd ≤ 0 alone the cost does not rise along d from any point: the minimum is not attained (exp(x), a logistic loss
of separable data), or the set of solutions has no end. Solvers stop on the way, at a point of small residuals.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from cvxift import solvers
from cvxift.cones import distance
from cvxift.errors import ProgramError, SolveError
from cvxift.kkt.search import ACCEPTABLE
from cvxift.program import agreement
from cvxift.program.cones import Cones
from cvxift.program.program import Program
from cvxift.program.structure import Data, Floats, Structure
from cvxift.solvers.base import Status

if TYPE_CHECKING:
    from cvxift.kkt.engine import Solution

LARGEST_CERTIFIED = 5000  # rows + columns up to which a certificate is looked for
CERTIFIES = 1e-3  # part of the largest entry of a certificate from which a row or column is part of it
TOLERANCES = {"tol_gap_abs": 1e-18, "tol_gap_rel": 1e-10, "tol_feas": 1e-12}  # for gaps between rows down to 1e-7
NAMED_PLACES = 4  # rows, columns, or entries of a direction, that a message names


def why(solution: Solution, program: Program | None) -> str:
    """What makes a program infeasible or unbounded, as a sentence.

    Args:
        solution: an instance without a point.
        program: the program, to name the user's constraints and variables; None names nothing.

    Returns:
        The sentence, with a space behind it; empty where nothing was found.
    """
    structure = solution.structure
    if program is None or structure.n + structure.m > LARGEST_CERTIFIED:
        return ""
    if solution.status is Status.INFEASIBLE:
        names = program.row_labels.grouped(entries(_excluding(structure, solution.data)))
        verb = "cannot hold at these parameters" if len(names) == 1 else "exclude each other at these parameters"
        return f"{_some(names)} {verb}. " if names else ""
    if solution.status is Status.UNBOUNDED:
        ray = _falling(structure, solution.data)
        return "" if ray is None else along(ray, program)
    return ""


def along(ray: Floats, program: Program) -> str:
    """A direction along which the objective has no minimum, as a sentence with a space behind it."""
    columns = [column for column in entries(ray) if program.user_columns[column]]
    names = [
        f"{program.column_labels[j].text.removeprefix('variable ')} {'rises' if ray[j] > 0 else 'falls'}"
        for j in columns
    ]
    way = "falls" if program.objective_sign > 0 else "rises"
    return f"The objective {way} without end where {_some(names)}. " if names else ""


def agrees(program: Program, solution: Solution, theta: Floats) -> None:
    """Check a solved instance against the user's expressions; see `cvxift.program.agreement`.

    Args:
        program: the problem's program.
        solution: the instance.
        theta: in the user's units, shape (N,).

    Raises:
        SolveError: they differ because the objective has no minimum, and the solver stopped somewhere.
        ProgramError: they differ.
    """
    try:
        agreement.check_agreement(program, solution.data, theta, solution.x, solution.worst)
    except ProgramError:
        asked = program.user_columns.astype(float) * np.random.default_rng(0).uniform(0.5, 1.0, len(solution.x))
        ray = recession(solution.structure, solution.data, asked)
        if ray is None:
            raise
        status = Status.UNBOUNDED.value
        message = f"The problem was not solved: {status}. {along(ray, program)}Add a constraint or curvature."
        raise SolveError(message, status=status) from None


def first_agrees(program: Program, solutions: Iterable[Solution], theta: Floats) -> bool:
    """Check the first solved instance of a batch; see `agrees`.

    Args:
        program: the problem's program.
        solutions: the instances.
        theta: the program's θ, logarithms taken, shape (..., N).

    Returns:
        Whether there was a solved one.

    Raises:
        SolveError, ProgramError: as `agrees`.
    """
    rows = theta.reshape(math.prod(theta.shape[:-1]), program.theta_size)
    for solution, own in zip(solutions, rows, strict=True):
        if solution.ok:
            units = own if program.log_mask is None else np.where(program.log_mask, np.exp(own), own)
            agrees(program, solution, units)
            return True
    return False


def _excluding(structure: Structure, data: Data) -> Floats | None:
    """r of the least ‖r‖ with Ax + s + Wr = b, s ∈ K, shape (m,); None if it was not found."""
    A: Any = structure.A_matrix(data.A)
    n, m = structure.n, structure.m
    largest = abs(A).max(axis=1).toarray().ravel() if A.nnz else np.zeros(m)
    size = _of_blocks(structure.cones, np.maximum(largest, np.abs(data.b)))
    size = np.where((size > 0.0) & np.isfinite(size), size, 1.0)
    P = sp.block_diag([sp.csc_array((n, n)), sp.eye_array(m)], format="csc")
    both = sp.hstack([A, sp.diags_array(size)], format="csc")
    found = _solved(n + m, structure.cones, P, np.zeros(n + m), both, data.b)
    return None if found is None else found[n:]


def _falling(structure: Structure, data: Data) -> Floats | None:
    """The least direction d with Pd = 0, −Ad ∈ K, qᵀd = −1, shape (n,); None if there is none."""
    n, cones = structure.n, structure.cones
    if not data.q.any():
        return None
    P, A, q = structure.P_matrix(data.P), structure.A_matrix(data.A), sp.csc_array(data.q[None, :])
    rows = sp.vstack([P, q, A], format="csc")
    more = Cones(cones.zero + n + 1, cones.nonneg, cones.soc, cones.psd, cones.exp, cones.pow)
    b = np.concatenate([np.zeros(n), [-1.0], np.zeros(cones.m)])
    d = _solved(n, more, sp.eye_array(n, format="csc"), np.zeros(n), rows, b)
    return d if d is not None and _holds(more, rows, b, d) else None


def recession(structure: Structure, data: Data, functional: Floats) -> Floats | None:
    """A direction with Pd = 0, −Ad ∈ K, qᵀd ≤ 0 along which a functional changes, shape (n,); None if there is none.

    Args:
        structure: the program's structure.
        data: its data; with q = 0 the directions do not depend on the cost.
        functional: shape (n,), without zeros where it matters.
    """
    n, cones = structure.n, structure.cones
    P, A = structure.P_matrix(data.P), structure.A_matrix(data.A)
    rows = [P, sp.csc_array(functional[None, :]), sp.csc_array(data.q[None, :]), A]
    split = cones.zero  # the equalities come first, then the inequality of q, then the other rows
    at = sp.vstack([rows[0], rows[1], A[:split], rows[2], A[split:]], format="csc")
    more = Cones(n + 1 + split, cones.nonneg + 1, cones.soc, cones.psd, cones.exp, cones.pow)
    for sign in (1.0, -1.0):
        b = np.zeros(more.m)
        b[n] = sign
        d = _solved(n, more, sp.eye_array(n, format="csc"), np.zeros(n), at, b)
        if d is not None and _holds(more, at, b, d):
            return d
    return None


def _holds(cones: Cones, A: Any, b: Floats, x: Floats) -> bool:
    """Whether b − Ax ∈ K, relative to b and each row's size; a solver may stop, with a point, where there is none."""
    size = _of_blocks(cones, np.abs(b) + np.abs(x).max(initial=0.0) * abs(A).sum(axis=1))
    return bool((distance(cones, b - A @ x) <= ACCEPTABLE * size[cones.unit_starts]).all())


def _of_blocks(cones: Cones, size: Floats) -> Floats:
    """Sizes of rows, the largest of its cone for each row: the rows of one cone have one unit."""
    size = size.copy()
    for block in cones.blocks():
        if block.kind not in ("zero", "nonneg"):
            size[block.start : block.stop] = size[block.start : block.stop].max(initial=0.0)
    return size


def _solved(n: int, cones: Cones, P: Any, q: Floats, A: Any, b: Floats) -> Floats | None:
    """x of a convex program that is only looked at for a message; None if its solver fails."""
    P, A = sp.csc_array(P), sp.csc_array(A)
    for matrix in (P, A):
        matrix.sum_duplicates()
        matrix.sort_indices()
    places = [(np.asarray(M.indices), np.repeat(np.arange(M.shape[1]), np.diff(M.indptr))) for M in (P, A)]
    structure = Structure.from_patterns(n, cones, *places)
    name = next((name for name in solvers.choose(structure) if name == "clarabel"), None)
    if name is None:
        return None
    raw = solvers.get(name).session(structure, **TOLERANCES).solve(P.data, q, A.data, b)
    return raw.x if raw.status.has_point and np.isfinite(raw.x).all() else None


def entries(vector: Floats | None) -> list[int]:
    """The entries that count, largest first."""
    if vector is None or not len(vector):
        return []
    size = np.abs(vector)
    order = np.argsort(-size, kind="stable")
    return [int(k) for k in order if size[k] > CERTIFIES * size[order[0]]] if size[order[0]] > 0.0 else []


def _some(names: Sequence[str]) -> str:
    rest = len(names) - NAMED_PLACES
    if rest > 0:
        return ", ".join(names[:NAMED_PLACES]) + f" and {rest} more"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
