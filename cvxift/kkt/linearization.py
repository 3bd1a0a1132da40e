"""The derivatives at one solved instance: `cvxift.kkt.products` with the instance's own factorization."""

from __future__ import annotations

from cvxift import cones as cone
from cvxift._types import cached_property
from cvxift.kkt.instance import Instance
from cvxift.kkt.products import Curvature, DataEntries, Pair, Products
from cvxift.kkt.smooth import CentralPath
from cvxift.kkt.system.factor import Certificate
from cvxift.kkt.system.iterative import IterativeSystem
from cvxift.kkt.system.reduced import ReducedSystem, rotation
from cvxift.program.structure import Data, Floats, Structure
from cvxift.program.substitution import Way


class Linearization(Products):
    """The solution map's derivatives at a point of a program.

    Args:
        structure: the program's structure.
        data: its data, unbatched.
        x: columns, shape (n,).
        y: multipliers, shape (m,).
        system: the reduced system of the (condensed) instance at the point.
        v: s − y, shape (m,); what substituted rows hold does not matter.
        substitution: the way from the condensed program to this one; None if they are the same.
        mu: the central path's parameter if the point is on that path; None for a solution.
        entries: F_θ on the structure's patterns, if it was made before.

    Attributes:
        certificate: of the last solve; None before the first.
    """

    def __init__(
        self,
        structure: Structure,
        data: Data,
        x: Floats,
        y: Floats,
        system: ReducedSystem | IterativeSystem,
        v: Floats,
        substitution: Way | None = None,
        mu: float | None = None,
        entries: DataEntries | None = None,
    ) -> None:
        self.structure, self.data, self.x, self.y = structure, data, x, y
        self.system, self.v, self.substitution, self.mu = system, v, substitution, mu
        self.entries = DataEntries(structure) if entries is None else entries
        self.certificate: Certificate | None = None

    @classmethod
    def at(cls, structure: Structure, data: Data, instance: Instance, x: Floats, s: Floats, y: Floats) -> Linearization:
        """The linearization of an uncondensed program at (x, s, y)."""
        v = s - y
        return cls(structure, data, x, y, ReducedSystem(instance, rotation(structure.cones, v)), v)

    def prepare(self) -> None:
        """Factorize the reduced system, if there is one."""
        if isinstance(self.system, ReducedSystem):
            _ = self.system.factor

    def solve(self, g: Floats, h: Floats | None) -> Pair:
        """See `Products.solve`; g of shape (n,) or (k, n). Keeps the certificate."""
        return self._inner(g, h) if self.substitution is None else self.substitution.solve(self._inner, g, h)

    def _inner(self, g: Floats, h: Floats | None) -> Pair:
        u, w, self.certificate = self.system.solve(g, h)
        return u, w

    @cached_property
    def curvature(self) -> Curvature | None:
        """See `Products.curvature`; on the central path, where Π is φ of `cvxift.kkt.smooth`, D²φ."""
        if self.mu is None and self.structure.cones.polyhedral:
            return None
        spectrum = self._spectrum if self.mu is None else CentralPath(self.v, self.mu, self.structure.cones.zero)
        return Curvature(self.structure.A_matrix(self.data.A), spectrum)

    @cached_property
    def _spectrum(self) -> cone.Spectrum:
        return cone.spectrum(self.structure.cones, self.v)
