"""The canonical point's part in cones that hold entropies: epigraphs, slacks, multipliers.

At the boundary p = p(r, β) of a cone the multiplier is a multiple of its normal, y_p (1, −∂p/∂r, −∂p/∂β), and
y_p = −q/gain from the stationarity of the epigraph's column, which has the coefficient gain and the cost q:

    exp cones (p, r, β):   p = r log(β/r),         ∂p/∂r = log(β/r) − 1,     ∂p/∂β = r/β
    pow cones (p, β, r):   p = |r|^α β^{1−α},      ∂p/∂r = α |r/β|^{α−1},    ∂p/∂β = (1 − α) p/β

Trees of second-order cones have their own, see `power_trees`.
"""

from __future__ import annotations

import numpy as np

from cvxift.argmax.recognition.form import Epigraphs
from cvxift.program.structure import Data, Floats, Structure


def place_entropies(
    structure: Structure,
    epigraphs: Epigraphs,
    data: Data,
    x: Floats,
    s: Floats,
    y: Floats,
    log: Floats | None = None,
) -> None:
    """Fill in what belongs to the cones.

    Args:
        structure: the program's structure.
        epigraphs: the cones.
        data: the program's data, unbatched.
        x: columns; the epigraphs', zero until now, are filled in.
        s: slacks without the epigraphs; the cones' are filled in.
        y: multipliers; the cones' are filled in.
        log: log(β/r) for each exponential cone, where r and β may be rounded to zero; None to take it from s.
    """
    if not len(epigraphs.rows):
        return
    trees, omega = epigraphs.trees, epigraphs.omega
    columns = epigraphs.columns if trees is None else trees.columns[trees.top]
    weight = data.q[columns]
    if omega is not None:
        y[omega.row] = -data.q[omega.column] / omega.gain
        weight = weight + omega.weight * y[omega.row]
    if trees is not None:
        trees.fill(x, y, weight)
        cones = slice(structure.cones.zero + structure.cones.nonneg, structure.m)
        s[cones] = (data.b - structure.A_matrix(data.A) @ x)[cones]
    else:
        first = epigraphs.rows
        y[first] = -weight / epigraphs.gain
        p = _logs(first, s, y, log) if structure.cones.exp else _powers(structure.cones.pow, first, s, y)
        x[columns] = (s[first] - p) / epigraphs.gain
        s[first] = p
    if omega is not None:
        x[omega.column] = (s[omega.row] - omega.weight @ x[columns]) / omega.gain
        s[omega.row] = 0.0


def _logs(first: np.ndarray, s: Floats, y: Floats, log: Floats | None) -> Floats:
    """p of exponential cones; their other multipliers are filled in."""
    r, beta = s[first + 1], s[first + 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        log = np.log(beta / r) if log is None else log
        p = np.where(r > 0, r * log, 0.0)
    y[first + 1] = y[first] * (1.0 - log)
    y[first + 2] = -y[first] * np.exp(-log)
    return p


def _powers(exponents: tuple[float, ...], first: np.ndarray, s: Floats, y: Floats) -> Floats:
    """p of power cones; their other multipliers are filled in."""
    alpha = 1.0 / np.asarray(exponents)
    beta, r = s[first + 1], s[first + 2]
    size = np.abs(r)
    p = size**alpha * beta ** (1.0 - alpha)
    y[first + 1] = y[first] * (alpha - 1.0) * p / beta
    y[first + 2] = -np.sign(r) * y[first] * alpha * (size / beta) ** (alpha - 1.0)
    return p
