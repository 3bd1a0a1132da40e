"""A point in the user's own terms: names of rows and columns, the active set, residuals, and the linear systems.

What an atom introduced has the name of the constraint or atom that it serves. The two linear systems of the literature
are in the user's variables and constraints, for checking by hand:

Full:     unknowns (x, y) with all multipliers;   stationarity, equalities,  y_i (a_iᵀx − b_i) = 0

    [ ∇²L   Gᵀ ;  diag(1 or y_i) G   diag(0 or −s_i) ]

Reduced:  active constraints only, symmetric      [ ∇²L   G_actᵀ ;  G_act   0 ]

Canonicalization's auxiliary variables and the rows that express atoms are eliminated (a Schur complement), which turns
the curvature of second-order, semidefinite, exponential and power cones into ∇²L, the Hessian of the Lagrangian in the
user's variables: for softmax it is diag(1/z).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import scipy.sparse as sp

from cvxift import cones as cone
from cvxift._types import EPS
from cvxift.errors import ProgramError
from cvxift.kkt.regularity.kinks import Kinks
from cvxift.kkt.regularity.point import LocalPoint
from cvxift.kkt.system.factor import SINGULAR_RCOND
from cvxift.kkt.system.reduced import ReducedSystem, rotation
from cvxift.program.structure import Floats
from cvxift.program.write_back import real_duals

if TYPE_CHECKING:
    from cvxift.diagnostics.analysis import Analysis

LARGEST_WRITTEN = 3000  # unknowns up to which the matrices are written out
State = Literal["equality", "active", "inactive", "weakly active"]


def row_names(point: LocalPoint, rows: Iterable[int]) -> list[str]:
    """Names of rows without repetition; what an atom introduced is named by the constraint or atom it serves."""
    return list(dict.fromkeys(row_name(point, int(row)) for row in rows))


def row_name(point: LocalPoint, row: int) -> str:
    """Name of the row of A: what an atom introduced has the name of the constraint that it serves, or of the atom.

    A row of a cone has the cone's name, since no entry of it holds for itself.
    """
    label = point.program.row_labels[row]
    if label.atom is not None and label.constraint is not None:
        return label.text.removeprefix(f"{label.atom} in ")
    linear = point.cones.zero + point.cones.nonneg
    return label.text if row < linear else label.text.split(", cone")[0].split(", entry")[0]


def unit_names(point: LocalPoint, units: Iterable[int]) -> list[str]:
    """Names of units."""
    return row_names(point, [int(point.cones.unit_starts[unit]) for unit in units])


def direction_text(point: LocalPoint, u: Floats, most: int = 4) -> tuple[str, list[str]]:
    """A direction of x in the user's variables, largest entries first, as text and as the names of its entries.

    Args:
        point: the point.
        u: direction, shape (n,).
        most: entries that are written out.
    """
    user = np.flatnonzero(point.asked)
    values = u[user] / (np.abs(u[user]).max(initial=0.0) or 1.0)
    order = [k for k in np.argsort(-np.abs(values), kind="stable") if abs(values[k]) > 1e-6]
    names = [point.program.column_labels[int(user[k])].text.removeprefix("variable ") for k in order[: 4 * most]]
    words = [f"{values[k]:+.3g}·{name}" for k, name in zip(order[:most], names, strict=False)]
    text = " ".join(words).removeprefix("+").replace("1·", "") if words else "0"
    return text + (" + …" if len(order) > most else ""), names


def user_rows(point: LocalPoint) -> np.ndarray:
    """Rows whose multipliers are entries of the user's dual variables, mask of shape (m,)."""
    out = np.zeros(point.structure.m, dtype=bool)
    for dual in real_duals(point.program.problem):
        out[point.program.output(dual).matrix.indices] = True
    return out


@dataclass(frozen=True, eq=False)
class LabelledMatrix:
    """A matrix with named rows and columns.

    Attributes:
        matrix: shape (rows, columns).
        rows: names of the equations.
        columns: names of the unknowns.
    """

    matrix: Floats
    rows: tuple[str, ...]
    columns: tuple[str, ...]

    def __str__(self) -> str:
        width = max((len(name) for name in self.rows), default=0)
        cells = [[f"{value:.4g}" for value in row] for row in self.matrix]
        widths = [max([len(name), *(len(row[k]) for row in cells)]) for k, name in enumerate(self.columns)]
        lines = [" " * width + "  " + "  ".join(name.rjust(w) for name, w in zip(self.columns, widths, strict=True))]
        for name, row in zip(self.rows, cells, strict=True):
            lines.append(
                name.ljust(width) + "  " + "  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True))
            )
        return "\n".join(lines)


def reduced_system(point: LocalPoint, kinks: Kinks) -> LabelledMatrix:
    """[ ∇²L  G_actᵀ ; G_act  0 ] in the user's variables and active constraints."""
    columns, hessian, gradients, rows = _eliminated(point, kinks)
    r = len(rows)
    names = [row_name(point, row) for row in rows]
    matrix = np.block([[hessian, gradients.T], [gradients, np.zeros((r, r))]])
    return LabelledMatrix(
        matrix,
        (*(f"∂L/∂{name}" for name in columns), *names),
        (*columns, *(f"multiplier of {name}" for name in names)),
    )


def full_system(point: LocalPoint, kinks: Kinks) -> LabelledMatrix:
    """Stationarity and complementary slackness in the user's variables and all multipliers."""
    columns, hessian, active, rows = _eliminated(point, kinks)
    own = {row: k for k, row in enumerate(rows)}
    linear = point.cones.zero + point.cones.nonneg
    listed = [i for i in range(linear) if i in own or point.program.row_labels[i].atom is None]
    listed += [row for row in rows if row >= linear]
    A = sp.csr_array(point.instance.A)
    user = np.flatnonzero(point.program.user_columns)
    gradients = np.array([active[own[i]] if i in own else A[[i]].toarray()[0, user] for i in listed])
    gradients = gradients.reshape(len(listed), len(user))
    inequality = np.array([point.cones.zero <= i < linear for i in listed], dtype=bool)
    weight = np.where(inequality, point.y[listed], 1.0) if listed else np.zeros(0)
    slack = np.where(inequality, -point.s[listed], 0.0) if listed else np.zeros(0)
    matrix = np.block([[hessian, gradients.T], [weight[:, None] * gradients, np.diag(slack)]])
    names = [row_name(point, i) for i in listed]
    return LabelledMatrix(
        matrix,
        (*(f"∂L/∂{name}" for name in columns), *names),
        (*columns, *(f"multiplier of {name}" for name in names)),
    )


def _eliminated(point: LocalPoint, kinks: Kinks) -> tuple[list[str], Floats, Floats, list[int]]:
    """Names of the user's columns, ∇²L, the gradients of the active user's rows, and those rows.

    K z = f with z = (kept, eliminated):  K_kk − K_ke K_ee⁺ K_ek.
    """
    turn = rotation(point.cones, point.moved(kinks.shift))
    n = point.structure.n
    A_r = sp.csr_array(ReducedSystem(point.instance, turn).A_r).toarray()
    t = len(turn.rows)
    if n + len(A_r) > LARGEST_WRITTEN:
        raise ProgramError(f"The system has {n + len(A_r)} unknowns; it is written out up to {LARGEST_WRITTEN}.")
    h = np.zeros(len(A_r))
    origin = [int(row) for row in turn.rows]
    if turn.Q is not None and turn.h is not None:
        h[t:] = turn.h
        origin += [int(np.argmax(np.abs(column))) for column in turn.Q.toarray().T]
    labels = point.program.row_labels
    own = np.array([h[k] == 0.0 and labels[row].atom is None for k, row in enumerate(origin)], dtype=bool)
    if turn.Q is not None:  # in units of the multiplier of a bound that a cone took in
        part = np.abs(turn.Q.T @ point.program.bound_weights)
        A_r[t:][part > 0.0] /= part[part > 0.0, None]
        h[t:][part > 0.0] /= part[part > 0.0] ** 2
    K = np.block([[sp.csc_array(point.instance.P).toarray(), A_r.T], [A_r, -np.diag(h)]])
    user = point.program.user_columns
    keep = np.concatenate([user, own])
    K_ee = K[np.ix_(~keep, ~keep)]
    schur = K[np.ix_(keep, keep)]
    if K_ee.size:
        schur = (
            schur
            - K[np.ix_(keep, ~keep)]
            @ np.linalg.pinv(K_ee, rcond=SINGULAR_RCOND, hermitian=True)
            @ K[np.ix_(~keep, keep)]
        )
    schur[np.abs(schur) <= len(K) * EPS * np.abs(schur).max(initial=0.0)] = 0.0  # rounding of the elimination
    u = int(user.sum())
    names = [point.program.column_labels[int(j)].text.removeprefix("variable ") for j in np.flatnonzero(user)]
    rows = [row for row, mine in zip(origin, own, strict=True) if mine]
    return names, schur[:u, :u], schur[u:, :u], rows


@dataclass(frozen=True)
class ActiveRow:
    """One entry (or one cone) of the user's constraints.

    Attributes:
        name: the user's words for it.
        state: ``"equality"``, ``"active"``, ``"inactive"`` or ``"weakly active"``.
        slack: slack of an inequality, smallest distance to the boundary's scale for a cone (‖s‖).
        multiplier: its multiplier, ‖y‖ for a cone.
        margin: relative distance to a kink; infinite for an equality.
    """

    name: str
    state: State
    slack: float
    multiplier: float
    margin: float


def active_rows(point: LocalPoint, found: Analysis) -> tuple[ActiveRow, ...]:
    """The active set in the user's constraints and bounds; rows that only express atoms are left out."""
    labels = point.program.row_labels
    d = cone.spectrum(point.cones, point.v).d
    weak = set(map(int, found.kinks.real)) | set(map(int, found.kinks.harmless))
    opened, closed = set(map(int, found.kinks.opened)), set(map(int, found.kinks.closed))
    order = {id(constraint): k for k, constraint in enumerate(point.program.problem.constraints)}
    out = []
    for unit, start in enumerate(point.cones.unit_starts):
        label = labels[int(start)]
        if label.atom is not None:
            continue
        rows = point.rows_of(unit)
        state: State
        if start < point.cones.zero:
            state = "equality"
        elif unit in weak:
            state = "weakly active"
        elif unit in opened:
            state = "inactive"
        else:
            state = "active" if unit in closed or bool((d[rows] < 1.0).any()) else "inactive"
        slack, multiplier, bound = point.s[rows], point.y[rows], point.program.bound_weights[rows]
        if len(rows) == 1:
            numbers = float(slack[0]), float(multiplier[0])
        elif bound.any():
            numbers = _room(slack, bound), float(bound @ multiplier)
        else:
            numbers = float(np.linalg.norm(slack)), float(np.linalg.norm(multiplier))
        row = ActiveRow(row_name(point, int(start)), state, *numbers, float(point.margins[unit]))
        out.append((order.get(id(label.constraint), len(order)), row))
    return tuple(row for _, row in sorted(out, key=lambda pair: pair[0]))


def _room(s: Floats, d: Floats) -> float:
    """The largest δ for which s − δ d lies in the second-order cone: the slack of a bound that the cone took in."""
    a, b, c = (float(u[0] * v[0] - u[1:] @ v[1:]) for u, v in ((d, d), (d, s), (s, s)))  # a δ² − 2 b δ + c = 0
    root = b + np.sqrt(max(b * b - a * c, 0.0))
    return float(max(c, 0.0) / root) if root > 0.0 else 0.0


def residuals_by_constraint(point: LocalPoint) -> dict[str, float]:
    """Largest of |Ax + s − b| and |sᵢyᵢ|, relative to the data, over the rows of each constraint or attribute."""
    sigma_s, sigma_y = point.scales
    error = point.row_errors
    gap = np.bincount(
        point.cones.unit_of_row, weights=point.s * point.y / (sigma_s * sigma_y), minlength=point.cones.units
    )
    worst = np.maximum(error, np.abs(gap)[point.cones.unit_of_row]) if point.structure.m else error
    out: dict[str, float] = {}
    for row, value in enumerate(worst):
        name = point.program.row_labels[row].text.split(", entry")[0].split(", cone")[0]
        out[name] = max(out.get(name, 0.0), float(value))
    return out
