"""The canonical point's part in exponential cones that hold entropies: epigraphs, slacks, multipliers.

At the boundary p = r log(β/r) of a cone (p, r, β) the multiplier is y_p (1, 1 − log(β/r), −r/β), y_p = −q/gain from the
stationarity of the epigraph's column, which has the coefficient gain and the cost q.
"""

from __future__ import annotations

import numpy as np

from cvxift.argmax.recognition.form import Epigraphs
from cvxift.program.structure import Data, Floats


def place_entropies(
    epigraphs: Epigraphs, data: Data, x: Floats, s: Floats, y: Floats, log: Floats | None = None
) -> None:
    """Fill in what belongs to the cones.

    Args:
        epigraphs: the cones.
        data: the program's data, unbatched.
        x: columns; the epigraphs', zero until now, are filled in.
        s: slacks without the epigraphs; the cones' first rows are filled in.
        y: multipliers; the cones' are filled in.
        log: log(β/r) for each cone, where r and β may be rounded to zero; None to take it from s.
    """
    first, columns, omega = epigraphs.rows, epigraphs.columns, epigraphs.omega
    if not len(first):
        return
    weight = data.q[columns]
    if omega is not None:
        y[omega.row] = -data.q[omega.column] / omega.gain
        weight = weight + omega.weight * y[omega.row]
    r, beta = s[first + 1], s[first + 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        log = np.log(beta / r) if log is None else log
        p = np.where(r > 0, r * log, 0.0)
    y[first] = -weight / epigraphs.gain
    y[first + 1] = y[first] * (1.0 - log)
    y[first + 2] = -y[first] * np.exp(-log)
    x[columns] = (s[first] - p) / epigraphs.gain
    s[first] = p
    if omega is not None:
        x[omega.column] = (s[omega.row] - omega.weight @ x[columns]) / omega.gain
        s[omega.row] = 0.0
