"""The cones: projection, its two derivatives, the distance to its kinks, and distances to cone and dual cone.

Convention:
    v = s − y,   s = Π_K(v),   y = Π_K(v) − v,   D = DΠ_K(v),   0 ≼ D ≼ I.
"""

from cvxift.cones.base import Group
from cvxift.cones.product import (
    distance,
    margin,
    project,
    spectrum,
)
from cvxift.cones.spectrum import Spectrum
from cvxift.program.cones import Block, Cones, Part

__all__ = [
    "Block",
    "Cones",
    "Group",
    "Part",
    "Spectrum",
    "distance",
    "margin",
    "project",
    "spectrum",
]
