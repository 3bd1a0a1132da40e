"""Reduced systems of active sets that were met lately, kept with their factorizations where matrices are constants."""

from __future__ import annotations

from cvxift.kkt.instance import Instance
from cvxift.kkt.policy import Singular
from cvxift.kkt.system.cone_basis import Rotation
from cvxift.kkt.system.reduced import ReducedSystem
from cvxift.kkt.system.sparse_factor import KEPT_ENTRIES

KEPT_SYSTEMS = 8  # of a layout: a walk over active sets, and back at the next call; of large ones fewer


def kept_system(instance: Instance, rotation: Rotation, singular: Singular = "least_squares") -> ReducedSystem:
    """The reduced system of an active set; the same one where the matrices are constants, and it was met lately.

    Args:
        instance: the program's matrices.
        rotation: the kept directions at the point.
        singular: see `ReducedSystem`.
    """
    layout = instance.layout
    if layout is None or rotation.spectrum is not None or rotation.h is not None:
        return ReducedSystem(instance, rotation, singular)
    key = (singular, rotation.rows.tobytes())
    for known, system in layout.systems:
        if known == key and system.instance.matrices is instance.matrices:
            return system
    system = ReducedSystem(instance, rotation, singular)
    entries = instance.structure.nnzP + 2 * instance.structure.nnzA
    layout.systems = ((key, system), *layout.systems[: min(KEPT_SYSTEMS - 1, KEPT_ENTRIES // max(entries, 1))])
    return system
