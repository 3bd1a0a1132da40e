"""The two linear systems of the literature in the user's own variables and constraints, for checking by hand.

Full:     unknowns (x, y) with all multipliers;   stationarity, equalities,  y_i (a_iᵀx − b_i) = 0

    [ ∇²L   Gᵀ ;  diag(1 or y_i) G   diag(0 or −s_i) ]

Reduced:  active constraints only, symmetric      [ ∇²L   G_actᵀ ;  G_act   0 ]

Canonicalization's auxiliary variables and the rows that express atoms are eliminated (a Schur complement), which turns
the curvature of second-order, semidefinite, exponential and power cones into ∇²L, the Hessian of the Lagrangian in the
user's variables: for softmax it is diag(1/z).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from cvxift.diagnostics.names import row_name
from cvxift.errors import ProgramError
from cvxift.kkt.regularity.kinks import Kinks
from cvxift.kkt.regularity.point import LocalPoint
from cvxift.kkt.system import ReducedSystem, rotation
from cvxift.program.structure import Floats

LARGEST = 3000  # unknowns up to which the matrices are written out
CHOP = 1e-13  # relative size of entries that rounding alone leaves
DROP = 1e-12  # relative singular value of the auxiliaries' block that is dropped


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
    if n + len(A_r) > LARGEST:
        raise ProgramError(f"The system has {n + len(A_r)} unknowns; it is written out up to {LARGEST}.")
    h = np.zeros(len(A_r))
    origin = [int(row) for row in turn.rows]
    if turn.Q is not None and turn.h is not None:
        h[t:] = turn.h
        origin += [int(np.argmax(np.abs(column))) for column in turn.Q.toarray().T]
    K = np.block([[sp.csc_array(point.instance.P).toarray(), A_r.T], [A_r, -np.diag(h)]])
    labels = point.program.row_labels
    own = np.array([h[k] == 0.0 and labels[row].atom is None for k, row in enumerate(origin)], dtype=bool)
    user = point.program.user_columns
    keep = np.concatenate([user, own])
    K_ee = K[np.ix_(~keep, ~keep)]
    schur = K[np.ix_(keep, keep)]
    if K_ee.size:
        schur = (
            schur - K[np.ix_(keep, ~keep)] @ np.linalg.pinv(K_ee, rcond=DROP, hermitian=True) @ K[np.ix_(~keep, keep)]
        )
    schur[np.abs(schur) <= CHOP * np.abs(schur).max(initial=0.0)] = 0.0  # rounding of the elimination
    u = int(user.sum())
    names = [point.program.column_labels[int(j)].text.removeprefix("variable ") for j in np.flatnonzero(user)]
    rows = [row for row, mine in zip(origin, own, strict=True) if mine]
    return names, schur[:u, :u], schur[u:, :u], rows
