"""Parameters at the end of their own domain, such as a weight of zero that is declared nonneg=True.

There the parameter can move one way only, so that a derivative from that side is all there is to ask for. The point is
then looked at a small step inside the domain: if the theorem applies there, nothing but the bound is in the way.
"""

from __future__ import annotations

import numpy as np

from cvxift.diagnostics.findings import Finding, listed
from cvxift.kkt.regularity.point import LocalPoint
from cvxift.kkt.regularity.theta import ThetaJacobian
from cvxift.program.messages import subscript
from cvxift.program.program import Program
from cvxift.program.structure import Floats

KINKS = ("weakly active", "torn apart", "vanishing curvature", "infinite speed")  # what the bound alone may cause
INSIDE = 1e-4  # step inside, as part of the size of the row or column that it moves most
SIGNS = {"nonneg": 1.0, "pos": 1.0, "nonpos": -1.0, "neg": -1.0}


def inward(program: Program, theta: Floats) -> Floats:
    """For each entry of θ that lies at the end of its domain the direction inside, 0 for the others, shape (N,)."""
    out = np.zeros(program.theta_size)
    for parameter, part in program.offsets.items():
        for name, sign in SIGNS.items():
            if parameter.attributes[name]:
                out[part] = np.where(theta[part] == 0.0, sign, 0.0)
    return out if program.log_mask is None else np.where(program.log_mask, 0.0, out)


def inside(point: LocalPoint, direction: Floats) -> Floats:
    """θ a small step inside the domain, shape (N,).

    Args:
        point: the point.
        direction: what `inward` returned.
    """
    rows, columns = point.balance(1.0)
    sizes = ThetaJacobian.at(point.program, point.x, point.y).sizes(columns, rows)
    return point.theta + direction * INSIDE / np.where(sizes > 0.0, sizes, 1.0)


def told(program: Program, direction: Floats) -> Finding:
    """The finding that only the side inside the domain exists."""
    names = []
    for parameter, part in program.offsets.items():
        for k in np.flatnonzero(direction[part]):
            entry = subscript(tuple(int(i) for i in np.unravel_index(int(k), parameter.shape)))
            name = next(name for name in SIGNS if parameter.attributes[name])
            sign = ">=" if SIGNS[name] > 0 else "<="
            names.append(f"{parameter.name()}{entry} {sign} 0 ({name}=True)")
    return Finding(
        "parameter at its bound",
        f"One-sided: {listed(names)} {'is' if len(names) == 1 else 'are'} at the bound, and only changes that keep it "
        "are admissible. Along those the derivative exists.",
        "Take it with report.one_sided(direction), or give the parameter a small value inside its domain.",
        True,
        tuple(names),
    )
