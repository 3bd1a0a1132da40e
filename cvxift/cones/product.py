"""Projection, derivative, kinks and distances of the product cone: each group of equal cones is computed at once.

All functions take arrays (..., m) with any leading batch dimensions, in the row order of `Cones`.
"""

from __future__ import annotations

import numpy as np

from cvxift._types import Floats
from cvxift.cones.base import Cone
from cvxift.cones.exp import Exponential
from cvxift.cones.nonneg import Nonneg
from cvxift.cones.power import Power
from cvxift.cones.psd import Semidefinite
from cvxift.cones.soc import SecondOrder
from cvxift.cones.spectrum import Spectrum
from cvxift.cones.zero import Zero
from cvxift.errors import ProgramError
from cvxift.program.cones import Cones

CONES: dict[str, Cone] = {
    "zero": Zero(),
    "nonneg": Nonneg(),
    "soc": SecondOrder(),
    "psd": Semidefinite(),
    "exp": Exponential(),
    "pow": Power(),
}


def project(cones: Cones, v: Floats) -> Floats:
    """Nearest point of K.

    Args:
        cones: the product cone.
        v: points, shape (..., m); NaN rows give NaN.

    Returns:
        s = Π_K(v), same shape; s ⊥ s − v, and s − v lies in the dual cone.

    Raises:
        ProgramError: if v has the wrong number of rows.

    Example:
        >>> import numpy as np
        >>> project(Cones(zero=1, nonneg=2, soc=(3,)), np.array([1.0, 2.0, -3.0, 0.0, 3.0, 4.0]))
        array([0. , 2. , 0. , 2.5, 1.5, 2. ])
    """
    v = _checked(cones, "v", v)
    if cones.polyhedral:
        s = np.maximum(v, 0.0)
        s[..., : cones.zero] = 0.0
        return s
    s = np.empty(v.shape)
    for part in cones.parts:
        part.put(s, CONES[part.kind].project(part, part.take(v)))
    return s


def project_dual(cones: Cones, v: Floats) -> Floats:
    """Nearest point of the dual cone K*, by Moreau: Π_{K*}(v) = Π_K(−v) + v.

    Args:
        cones: the product cone.
        v: points, shape (..., m).

    Returns:
        Points of K*, same shape.

    Raises:
        ProgramError: if v has the wrong number of rows.

    Example:
        >>> import numpy as np
        >>> project_dual(Cones(zero=1, nonneg=2), np.array([1.0, 2.0, -3.0]))
        array([1., 2., 0.])
    """
    v = _checked(cones, "v", v)
    return project(cones, -v) + v


def spectrum(cones: Cones, v: Floats, near: Spectrum | None = None) -> Spectrum:
    """Eigenvalues and eigenvectors of D = DΠ_K(v).

    Args:
        cones: the product cone.
        v: points, shape (..., m). At a kink, D is the limit from inside the cone.
        near: the spectrum at nearby points of the same shape, which saves some of the work and changes nothing else.

    Returns:
        The spectrum, with groups in row order; exactly 0.0 and 1.0 for tight and slack directions.

    Raises:
        ProgramError: if v has the wrong number of rows.

    Example:
        >>> import numpy as np
        >>> spectrum(Cones(nonneg=3), np.array([1.0, -2.0, 3.0])).d
        array([1., 0., 1.])
    """
    v = _checked(cones, "v", v)
    known = near.groups if near is not None and near.batch == v.shape[:-1] else (None,) * len(cones.parts)
    groups = tuple(
        CONES[part.kind].spectrum(part, part.take(v), group) for part, group in zip(cones.parts, known, strict=True)
    )
    return Spectrum(cones, v.shape[:-1], groups)


def apply_derivative(cones: Cones, v: Floats, w: Floats) -> Floats:
    """Directional derivative of the projection, D w with D = DΠ_K(v).

    Args:
        cones: the product cone.
        v: points, shape (..., m).
        w: directions, shape (..., m), broadcast against v. For many directions keep `spectrum` and use its `apply`.

    Returns:
        Dw, of the broadcast shape. D is symmetric: this is its transpose too.

    Raises:
        ProgramError: if v or w has the wrong number of rows.

    Example:
        >>> import numpy as np
        >>> apply_derivative(Cones(zero=1, nonneg=2), np.array([1.0, 2.0, -3.0]), np.ones(3))
        array([0., 1., 0.])
    """
    return spectrum(cones, v).apply(_checked(cones, "w", w))


def margin(cones: Cones, v: Floats, known: Spectrum | None = None) -> Floats:
    """Distance of v to the nearest kink of Π_K, for each unit: how far strict complementarity is from failing.

    Args:
        cones: the product cone.
        v: points, shape (..., m).
        known: the spectrum at v, which saves computing it.

    Returns:
        Distances, shape (..., units): each zero row (inf), each nonnegative row (|v_i|), each other cone, in row order.
        `cones.unit_starts` gives the first row of each.

    Raises:
        ProgramError: if v has the wrong number of rows.

    Example:
        >>> import numpy as np
        >>> margin(Cones(zero=1, nonneg=2, soc=(2,)), np.array([1.0, 2.0, -3.0, 0.0, 1.0]))
        array([       inf, 2.        , 3.        , 0.70710678])
    """
    v = _checked(cones, "v", v)
    if known is None:
        return _by_unit(cones, "margin", v)
    out = np.empty((*v.shape[:-1], cones.units))
    for part, where, group in zip(cones.parts, cones.unit_parts, known.groups, strict=True):
        out[..., where] = CONES[part.kind].margin(part, part.take(v), group)
    return out


def distance(cones: Cones, s: Floats) -> Floats:
    """Distance of s to the cone, for each unit.

    Args:
        cones: the product cone.
        s: points, shape (..., m).

    Returns:
        Distances, shape (..., units), in the order of `margin`; zero where s belongs to the cone.

    Raises:
        ProgramError: if s has the wrong number of rows.

    Example:
        >>> import numpy as np
        >>> distance(Cones(zero=1, nonneg=2), np.array([1.0, 2.0, -3.0]))
        array([1., 0., 3.])
    """
    return _by_unit(cones, "distance", _checked(cones, "s", s))


def _by_unit(cones: Cones, method: str, v: Floats) -> Floats:
    """One number for each unit, from the method of that name of each kind of cone."""
    out = np.empty((*v.shape[:-1], cones.units))
    for part, where in zip(cones.parts, cones.unit_parts, strict=True):
        out[..., where] = getattr(CONES[part.kind], method)(part, part.take(v))
    return out


def _checked(cones: Cones, name: str, v: Floats) -> Floats:
    v = np.asarray(v, dtype=np.float64)
    if v.shape[-1:] != (cones.m,):
        raise ProgramError(f"{name} has shape {v.shape}; expected (..., {cones.m}), one entry for each row of K.")
    return v
