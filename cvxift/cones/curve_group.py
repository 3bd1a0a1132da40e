"""The spectrum of three-dimensional cones on their curved boundary, in the frame of `cvxift.cones.curve`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvxift._types import Floats, cached_property
from cvxift.cones.base import Group
from cvxift.program.cones import Part

INSIDE, CURVED, POLAR, FACE = 1, 0, -1, 2  # Π(v) = v; on the curved boundary; 0; on a flat face
Regimes = NDArray[np.int8]


class Frame(NamedTuple):
    """The frame at some rays: p, q, n as axes[0], axes[1], axes[2], each (3, N), and the speeds θ, ψ, each (N,)."""

    axes: Floats
    theta: Floats
    psi: Floats


class Curved(NamedTuple):
    """The points of a group that project to the curved boundary; N of them.

    Attributes:
        chosen: their positions among all points.
        rho: their rays, shape (N,).
        alpha: their exponents, shape (N,).
        frame: the frame there, in the signs of the points.
        sigma: ‖Π(v)‖, shape (N,).
        tau: ‖Π(v) − v‖, shape (N,).
    """

    chosen: NDArray[np.intp]
    rho: Floats
    alpha: Floats
    frame: Frame
    sigma: Floats
    tau: Floats


EMPTY = np.empty(0)
NONE = Curved(np.empty(0, np.intp), EMPTY, EMPTY, Frame(np.empty((3, 3, 0)), EMPTY, EMPTY), EMPTY, EMPTY)


class Between(NamedTuple):
    """The eigenvalue d between 0 and 1, 1 − d without cancellation, and (log θ/ψ)', each (N,)."""

    d: Floats
    complement: Floats
    twist: Floats


class CurveGroup(Group):
    """Spectrum of three-dimensional cones: eigenvalues 1, d, 0 at p, q, n on the curved boundary; Q = I elsewhere.

    Attributes:
        regime: 1 inside, 0 on the curved boundary, −1 in the polar cone, 2 on a flat face, shape (..., count).
    """

    def __init__(self, part: Part, v: Floats, regime: Regimes, curved: Curved, between: Between) -> None:
        self._between = between
        self.part, self.s, self.regime = part, projections(v, regime, curved), regime.reshape(v.shape[:-1])
        self.curved = curved
        size = regime.size
        d, complement = np.zeros((size, 3)), np.zeros((size, 3))
        if curved.chosen.size == size:
            d[:, 0], d[:, 1] = 1.0, between.d
            complement[:, 1], complement[:, 2] = between.complement, 1.0
            Q = np.ascontiguousarray(curved.frame.axes.T)
        else:
            d[regime == INSIDE] = 1.0
            face = regime == FACE
            d[face, 0] = 1.0
            d[face, 2] = v.reshape(-1, 3)[face, 2] >= 0.0
            complement = 1.0 - d
            Q = np.zeros((size, 3, 3))
            Q[:, range(3), range(3)] = 1.0
            d[curved.chosen, 0], d[curved.chosen, 1] = 1.0, between.d
            complement[curved.chosen, 0], complement[curved.chosen, 1] = 0.0, between.complement
            Q[curved.chosen] = curved.frame.axes.T
        self.d, self.complement = d.reshape(v.shape), complement.reshape(v.shape)
        self._Q = Q.reshape(*v.shape, 3)

    @cached_property
    def mixed(self) -> NDArray[np.bool_]:
        """Cones on the curved boundary or a flat face."""
        return (self.regime == CURVED) | (self.regime == FACE)

    @property
    def Q(self) -> Floats:
        """Eigenvectors, shape (..., count, 3, 3)."""
        return self._Q

    def rotate(self, w: Floats) -> Floats:
        """Product Qᵀw."""
        return self.xp.sum(self._Q * w[..., :, None], axis=-2)

    def restore(self, w: Floats) -> Floats:
        """Product Qw."""
        return self.xp.sum(self._Q * w[..., None, :], axis=-1)

    def rotate_rows(self, A: Floats) -> Floats:
        """Product QᵀA."""
        return self.xp.matrix_transpose(self._Q) @ A

    @cached_property
    def coefficients(self) -> Floats:
        """c_p, c_q and c_n of the module's first lines, zero off the curved boundary, shape (..., count, 3)."""
        curved, between = self.curved, self._between
        both = between.d * between.complement
        speed = curved.frame.theta * curved.sigma + curved.frame.psi * curved.tau
        with np.errstate(over="ignore"):  # the curvature itself may be out of range
            turn = np.divide(between.twist, speed, out=np.zeros_like(speed), where=speed > 0.0)
        c = np.zeros((self.regime.size, 3))
        c[curved.chosen] = np.stack([both / curved.sigma, both * turn, both / curved.tau], axis=-1)
        return c.reshape(self.d.shape)

    def bend(self, a: Floats, b: Floats) -> Floats:
        """The last formula of the module's first lines; zero off the curved boundary."""
        return self.restore(_bent(self.xp, self.coefficients, self.rotate(a), self.rotate(b)))


def _bent(xp: Any, c: Floats, a: Floats, b: Floats) -> Floats:
    """The last formula of the module's first lines in the frame's coordinates, p, q and n.

    Args:
        xp: the namespace of the arrays.
        c: c_p, c_q and c_n, shape (..., 3).
        a: shape (..., 3).
        b: shape (..., 3).
    """
    (c_p, c_q, c_n), (a_p, a_q, a_n), (b_p, b_q, b_n) = ([w[..., i] for i in range(3)] for w in (c, a, b))
    along_q = c_p * (a_q * b_p + a_p * b_q) + c_n * (a_q * b_n + a_n * b_q) + c_q * a_q * b_q
    return xp.stack([c_p * a_q * b_q, along_q, c_n * a_q * b_q], axis=-1)


def projections(v: Floats, regime: Regimes, curved: Curved) -> Floats:
    """The projections."""
    flat = v.reshape(-1, 3)
    if curved.chosen.size == regime.size:
        return (curved.sigma * curved.frame.axes[0]).T.reshape(v.shape)
    s = np.where((regime == INSIDE)[:, None], flat, 0.0)
    face = regime == FACE
    if face.any():
        s[face, 0] = flat[face, 0]
        s[face, 2] = np.maximum(flat[face, 2], 0.0)
    s[curved.chosen] = (curved.sigma * curved.frame.axes[0]).T
    return s.reshape(v.shape)


class CurveArrays(CurveGroup):
    """The spectrum of three-dimensional cones as arrays of another place.

    Args:
        table: s, d, 1 − d and Q of each cone side by side, shape (..., count, 18).
        source: the spectrum on the host.
        xp: the namespace of the place's arrays.
        put: makes arrays of the place from NumPy's.
    """

    def __init__(self, table: Any, source: CurveGroup, xp: Any, put: Callable[[Floats], Any]) -> None:
        self.part, self.source, self.xp, self._put = source.part, source, xp, put
        self.s, self.d, self.complement = (table[..., i : i + 3] for i in (0, 3, 6))
        self._Q = xp.reshape(table[..., 9:], (*table.shape[:-1], 3, 3))

    mixed = Group.mixed

    @cached_property
    def coefficients(self) -> Any:
        """As `CurveGroup.coefficients`; copied from the host when first asked for."""
        return self._put(self.source.coefficients)
