"""The words of the benchmark: a case, its formulation, its data as a bare QP, its reference.

Conventions: a QP is min ½xᵀPx + qᵀx subject to l ≤ Ax ≤ u, with multiplier y, Px + q + Aᵀy = 0, y > 0 at u and y < 0
at l. A cotangent dz is the gradient of a scalar with respect to x; a gradient is that of the same scalar with respect
to a parameter.
"""

from __future__ import annotations

import abc
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import cvxpy as cp
import numpy as np
import scipy.sparse as sp

Array = np.ndarray


@dataclass(frozen=True)
class Formulation:
    """A case as a CVXPY user writes it.

    Attributes:
        problem: DPP problem.
        parameters: all parameters, in the order of a draw.
        variable: the variable that the layer returns.
    """

    problem: cp.Problem
    parameters: tuple[cp.Parameter, ...]
    variable: cp.Variable


@dataclass(frozen=True)
class QP:
    """A convex quadratic program with two-sided rows; infinite bounds mean none, l = u an equality."""

    P: sp.csc_array  # (n, n), symmetric, both triangles
    q: Array  # (n,)
    A: sp.csc_array  # (m, n)
    l: Array  # (m,)
    u: Array  # (m,)


@dataclass(frozen=True)
class Reference:
    """The answer that contenders are held against.

    Attributes:
        x: solution, in the shape of the variable.
        gradients: one for each parameter, in its shape; NaN where the map has no derivative with respect to that
            parameter, and empty where it has none at all.
        regular: whether the solution map is differentiable here, with margins that double precision resolves.
        note: why not, or how the reference was obtained.
        extra: further arrays that a group of cases reports (the finite difference of a Maros–Mészáros problem).
    """

    x: Array
    gradients: tuple[Array, ...]
    regular: bool = True
    note: str = ""
    extra: dict[str, Array] | None = None


class ReferenceFailed(RuntimeError):
    """A reference could not be certified; the case is reported without errors rather than with doubtful ones."""


@dataclass(frozen=True)
class Case(abc.ABC):
    """One problem family at one size; instances are picklable and rebuild everything from their fields.

    Attributes:
        batch: instances in one call; ``None`` for an unbatched call.
    """

    batch: int | None = None

    group: ClassVar[str]  # heading under which the report shows the case
    draws: ClassVar[int] = 3  # different parameter values that timing cycles through
    reference_draws: ClassVar[int] = 3  # draws that errors are taken over
    floors: ClassVar[tuple[str, ...]] = ("clarabel",)  # bare solvers that make sense here
    closed_form: ClassVar[bool] = False  # whether cvxift recognizes the problem and needs no solver

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """Short identifier, unique in the table."""

    def sized(self, size: str) -> str:
        """A name that ends in the batch's size, where there is a batch."""
        return size if self.batch is None else f"{size}_batch{self.batch}"

    @abc.abstractmethod
    def formulate(self, bounds_as_rows: bool = False) -> Formulation:
        """Write the case in CVXPY.

        Args:
            bounds_as_rows: write bounds such as x ≥ 0 as 2x ≥ 0, which CVXPY does not recognize. Same set, same map.
        """

    @abc.abstractmethod
    def sample(self, rng: np.random.Generator) -> tuple[Array, ...]:
        """Random parameter values of one instance, at which the solution map is differentiable."""

    @abc.abstractmethod
    def solve(self, values: tuple[Array, ...], cotangent: Array) -> Reference:
        """The certified solution of one instance and its vector-Jacobian products."""

    def qp(self, values: tuple[Array, ...]) -> QP | None:
        """The instance as a bare QP in its leanest form, or ``None`` where it is none."""
        return None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the variable."""
        return self.formulate().variable.shape

    def judge(self, reference: Reference, found: Mapping[str, Array]) -> dict[str, Any]:
        """What else a group reports about a contender's answer to the first draw: x_0 and gradients g0_0, g1_0, …"""
        return {}

    def _rng(self, draw: int) -> np.random.Generator:
        return np.random.default_rng([zlib.crc32(self.name.encode()), draw])

    def instances(self, draw: int) -> list[tuple[Array, ...]]:
        """Parameter values of every instance of a draw."""
        rng = self._rng(draw)
        return [tuple(np.asarray(v, float) for v in self.sample(rng)) for _ in range(self.batch or 1)]

    def values(self, draw: int) -> tuple[Array, ...]:
        """Parameter values of a draw, stacked along a leading axis when the case is batched."""
        instances = self.instances(draw)
        return instances[0] if self.batch is None else tuple(np.stack(v) for v in zip(*instances, strict=True))

    def cotangent(self, draw: int) -> Array:
        """Random dz of a draw, in the shape of the (batched) variable."""
        lead = () if self.batch is None else (self.batch,)
        return np.random.default_rng([zlib.crc32(self.name.encode()), draw, 1]).standard_normal(lead + self.shape)

    def reference(self, draw: int) -> Reference:
        """Reference for a whole draw; stacked when batched."""
        cotangent = self.cotangent(draw)
        if self.batch is None:
            return self.solve(self.values(draw), cotangent)
        parts = [self.solve(v, c) for v, c in zip(self.instances(draw), cotangent, strict=True)]
        irregular = next((part for part in parts if not part.regular), None)
        return Reference(
            x=np.stack([part.x for part in parts]),
            gradients=tuple(np.stack(g) for g in zip(*(part.gradients for part in parts), strict=True)),
            regular=irregular is None,
            note=parts[0].note if irregular is None else irregular.note,
        )


NOTHING = 1e-12  # a gradient this small beside the whole one is zero and its digits are rounding


def relative_error(value: Array, reference: Array, whole: Array) -> float:
    """Worst relative error over instances.

    Args:
        value: (instances, k), under test.
        reference: (instances, k).
        whole: (instances,), the norm that stands in where the reference of an instance is zero beside it.
    """
    if value.shape != reference.shape:
        raise ValueError(f"shape {value.shape}; expected {reference.shape}")
    difference = np.linalg.norm(value - reference, axis=1)
    size = np.linalg.norm(reference, axis=1)
    size = np.where(size > NOTHING * whole, size, np.maximum(whole, np.finfo(float).tiny))
    return float(np.max(difference / size, initial=0.0))


def errors(case: Case, reference: Reference, x: Array, gradients: list[Array] | None) -> dict[str, float]:
    """Errors of x (key ``"x"``) and of the gradient with respect to each parameter (key: its name)."""
    instances = case.batch or 1

    def flat(array: Array) -> Array:
        return np.asarray(array, float).reshape(instances, -1)

    found = {"x": relative_error(flat(x), flat(reference.x), np.ones(instances))}
    if gradients is None or not reference.regular:
        return found
    whole = np.sqrt(sum(np.nansum(flat(g) ** 2, axis=1) for g in reference.gradients))
    names = [parameter.name() for parameter in case.formulate().parameters]
    for name, value, expected in zip(names, gradients, reference.gradients, strict=True):
        if not np.isnan(expected).all() or not expected.size:
            found[name] = relative_error(flat(value), flat(expected), whole)
    return found
