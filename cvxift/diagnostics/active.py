"""The user's constraints at the point: which entries are active, inactive, weakly active; residuals by constraint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from cvxift import cones as cone
from cvxift.diagnostics.analysis import Analysis
from cvxift.diagnostics.names import row_name
from cvxift.kkt.regularity.point import LocalPoint

State = Literal["equality", "active", "inactive", "weakly active"]


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
        slack, multiplier = point.s[rows], point.y[rows]
        single = len(rows) == 1
        out.append(
            ActiveRow(
                row_name(point, int(start)),
                state,
                float(slack[0]) if single else float(np.linalg.norm(slack)),
                float(multiplier[0]) if single else float(np.linalg.norm(multiplier)),
                float(point.margins[unit]),
            )
        )
    return tuple(out)


def residuals_by_constraint(point: LocalPoint) -> dict[str, float]:
    """Largest of |Ax + s − b| and |sᵢyᵢ|, relative to the data, over the rows of each constraint or attribute."""
    sigma_s, sigma_y = point.scales
    error = np.abs(point.instance.AT.T @ point.x + point.s - point.data.b) / sigma_s
    gap = np.bincount(point.unit_of_row, weights=point.s * point.y / (sigma_s * sigma_y), minlength=point.cones.units)
    worst = np.maximum(error, np.abs(gap)[point.unit_of_row]) if point.structure.m else error
    out: dict[str, float] = {}
    for row, value in enumerate(worst):
        name = point.program.row_labels[row].text.split(", entry")[0].split(", cone")[0]
        out[name] = max(out.get(name, 0.0), float(value))
    return out
