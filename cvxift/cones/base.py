"""What every cone provides, for a whole group of equal cones at once.

Arrays have shape (..., count, dim): any leading batch dimensions, the cones of the group, the rows of one cone.

    Π(v)  nearest point of the cone K          D = DΠ(v) = Q diag(d) Qᵀ, symmetric, 0 ≼ D ≼ I
    Moreau:  v = Π(v) − Π*(−v),  where Π* projects onto the dual cone K*

Where Π has a kink, D is one of its limits there, the one from inside the cone: v = 0 counts as slack.

A cone belongs to one namespace `xp` of the array API standard, NumPy unless told otherwise, and works on its arrays.
"""

from __future__ import annotations

import abc
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvxift._types import Floats, cached_property
from cvxift.program.cones import Part

ROOT_HALF = 0.5**0.5
TINY = float(np.finfo(np.float64).tiny)  # the least eigenvalue that is not exactly zero
BELOW_ONE = float(np.nextafter(1.0, 0.0))  # the greatest that is not exactly one


class Group(abc.ABC):
    """The spectrum of D for a group of equal cones.

    Attributes:
        xp: the namespace of its arrays.
        part: which cones and which of the rows.
        s: the projection Π(v), shape (..., count, dim).
        d: eigenvalues, shape (..., count, dim); exactly 0.0 or 1.0 where theory says so, strictly between elsewhere.
        complement: 1 − d without cancellation, same shape.
    """

    xp: Any = np
    part: Part
    s: Floats
    d: Floats
    complement: Floats

    def __getstate__(self) -> dict[str, Any]:
        # A module cannot be pickled or copied; NumPy is the namespace where none is named.
        return {name: value for name, value in vars(self).items() if value is not np}

    @property
    def kind(self) -> str:
        """The kind of cone."""
        return self.part.kind

    @property
    def count(self) -> int:
        """Number of cones."""
        return self.part.count

    @property
    def dim(self) -> int:
        """Rows of each cone."""
        return self.part.dim

    @property
    def rows(self) -> NDArray[np.intp]:
        """Row of every entry, shape (count, dim)."""
        return self.part.index

    @property
    @abc.abstractmethod
    def Q(self) -> Floats | None:
        """Orthogonal matrices (..., count, dim, dim) with D = Q diag(d) Qᵀ; None where they are identities."""

    def eigenvectors(self, chosen: NDArray[np.bool_]) -> Floats:
        """Q of the chosen cones of an unbatched group, shape (chosen, dim, dim)."""
        Q = self.Q
        if Q is None:
            return np.broadcast_to(np.eye(self.dim), (int(chosen.sum()), self.dim, self.dim))
        return Q[chosen]

    def columns(self, k: int, chosen: NDArray[np.bool_]) -> Floats:
        """The chosen eigenvectors of one cone of an unbatched group, as columns, shape (dim, chosen)."""
        Q = self.Q
        return (np.eye(self.dim) if Q is None else Q[k])[:, chosen]

    @abc.abstractmethod
    def rotate(self, w: Floats) -> Floats:
        """Product Qᵀw for w of shape (..., count, dim); the inverse of `restore`."""

    @abc.abstractmethod
    def restore(self, w: Floats) -> Floats:
        """Product Qw for w of shape (..., count, dim)."""

    @abc.abstractmethod
    def bend(self, a: Floats, b: Floats) -> Floats:
        """D²Π(v)[a, b] for a and b of shape (..., count, dim): the derivative of DΠ(v + ta) b at t = 0.

        Symmetric in a and b, and its inner product with c in all three.
        """

    def rotate_rows(self, A: Floats) -> Floats:
        """Product QᵀA for matrices A with as many leading dimensions as the spectrum, shape (..., count, dim, n)."""
        return self.xp.moveaxis(self.rotate(self.xp.moveaxis(A, -1, 0)), 0, -1)

    def apply(self, w: Floats) -> Floats:
        """Product Dw for w of shape (..., count, dim)."""
        return self.restore(self.d * self.rotate(w))

    @cached_property
    def mixed(self) -> NDArray[np.bool_]:
        """Cones whose D is neither 0 nor I, shape (..., count); of the others Q is I."""
        first = self.d[..., :1]
        return ~self.xp.all((self.d == first) & ((first == 0.0) | (first == 1.0)), axis=-1)


class Diagonal(Group):
    """A group whose D is diagonal and piecewise constant."""

    def __init__(self, xp: Any, part: Part, s: Floats, d: Floats) -> None:
        self.xp, self.part, self.s, self.d, self.complement = xp, part, s, d, 1.0 - d

    @property
    def Q(self) -> None:
        """Q = I."""
        return

    def rotate(self, w: Floats) -> Floats:
        """Qᵀw = w."""
        return w

    def restore(self, w: Floats) -> Floats:
        """Qw = w."""
        return w

    def rotate_rows(self, A: Floats) -> Floats:
        """QᵀA = A."""
        return A

    def bend(self, a: Floats, b: Floats) -> Floats:
        """Zero."""
        return self.xp.zeros_like(self.d + a + b)


class Cone(abc.ABC):
    """A kind of cone; its methods take the group's part and arrays (..., count, dim).

    Args:
        xp: the namespace of the arrays.
    """

    def __init__(self, xp: Any = np) -> None:
        self.xp = xp

    @abc.abstractmethod
    def project(self, part: Part, v: Floats) -> Floats:
        """Nearest point s: itself projected to s, s ⊥ s − v, and s − v lies in the dual cone."""

    @abc.abstractmethod
    def spectrum(self, part: Part, v: Floats, near: Group | None = None) -> Group:
        """Spectrum of D: Dv = Π(v), and away from kinks Π(v + tw) = Π(v) + tDw + o(t); that of a near v may help."""

    @abc.abstractmethod
    def margin(self, part: Part, v: Floats, group: Group | None = None) -> Floats:
        """Distance of v to the nearest kink of Π, shape (..., count); for λ > 0, λv is λ times as far as v.

        `group` is the spectrum at v, if it is known.
        """

    def distance(self, part: Part, s: Floats) -> Floats:
        """Distance ‖s − Π(s)‖ of s to the cone, shape (..., count)."""
        return length(s - self.project(part, s))


def length(w: Floats, xp: Any = np) -> Floats:
    """Euclidean norm along the last axis."""
    return xp.sqrt(xp.vecdot(w, w))
