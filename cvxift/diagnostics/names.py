"""Rows, columns and units in the user's words."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from cvxift.kkt.regularity.point import LocalPoint
from cvxift.program.structure import Floats


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
    for constraint in point.program.problem.constraints:
        for dual in constraint.dual_variables:
            out[point.program.output(dual).matrix.indices] = True
    return out
