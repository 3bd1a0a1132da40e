"""What every solver gives: `Solver` (what it solves, its options), `Session` (solves instances) and `Raw` (a point).

Every adapter solves the canonical program and returns a point in these signs, whatever the solver's own are:

    minimize   ½ xᵀPx + qᵀx   subject to   Ax + s = b,  s ∈ K              K = zero × nonneg × soc… × psd… × exp… × pow…
    Px + q + Aᵀy = 0,  y ∈ K*,  sᵀy = 0

A value that is not finite is refused before a solver sees it, with a `Raw` of status FAILED that names the array and
the first entry; rows whose right-hand side is +∞ bind nothing, and `cvxift.program` leaves them out.

Nothing that a solver does is believed: an exception, another type than `Raw`, arrays of other shapes and values that
are not finite become a `Raw` of status FAILED or NUMERICAL that says so; solvers of other packages get copied data.
"""

from __future__ import annotations

import abc
import enum
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from cvxift._types import Floats
from cvxift.errors import ProgramError
from cvxift.program.structure import Structure
from cvxift.solvers.settings import check_options


class Status(enum.Enum):
    """How a solver ended; the value is the word that messages use."""

    has_point: bool
    """Whether the solver left a point that may be close to a solution (it need not be)."""

    SOLVED = "solved", True
    INACCURATE = "solved inaccurately", True
    INFEASIBLE = "infeasible", False
    UNBOUNDED = "unbounded", False
    ITERATION_LIMIT = "iteration or time limit", True
    NUMERICAL = "numerical trouble", True
    NONCONVEX = "not a minimum", False
    FAILED = "failed", False

    def __new__(cls, word: str, has_point: bool) -> Status:
        """A member whose value is the word alone."""
        member = object.__new__(cls)
        member._value_ = word
        member.has_point = has_point
        return member


@dataclass(slots=True)
class Raw:
    """What one solver returned for one instance, unchecked.

    Args:
        x: primal point, shape (n,); NaN where the solver has none.
        s: slacks, shape (m,).
        y: multipliers, shape (m,).
        status: how the solver ended.
        message: the solver's own words.
        iterations: number of iterations the solver reports.
        seconds: wall time of the solver's call, conversions included.

    Example:
        >>> import numpy as np
        >>> Raw(np.zeros(1), np.zeros(0), np.zeros(0), Status.SOLVED, "optimal", 3, 1e-5).status.has_point
        True
    """

    x: Floats  # (n,)
    s: Floats  # (m,)
    y: Floats  # (m,)
    status: Status
    message: str
    iterations: int = 0
    seconds: float = 0.0

    def copy(self) -> Raw:
        """The same point in arrays of its own."""
        return Raw(self.x.copy(), self.s.copy(), self.y.copy(), self.status, self.message, self.iterations)


class Session(abc.ABC):
    """Solves instances of one structure one after the other; what depends on the structure alone is done once.

    A session holds the solver's workspace: use it from one thread at a time.

    Args:
        structure: sizes, cones and patterns of the instances.
        options: the solver's options, already checked against `Solver.options`.
    """

    structure: Structure
    releases_gil: ClassVar[bool] = False
    """Whether the solver runs outside Python's lock, so that threads solve in parallel."""
    solves_batches: ClassVar[bool] = False
    """Whether a whole batch goes to the solver in one call; see `BatchSession`."""
    _copies: ClassVar[bool] = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Sessions of this package are known not to write into the data."""
        super().__init_subclass__(**kwargs)
        cls._copies = not cls.__module__.startswith("cvxift.solvers.")

    def __init__(self, structure: Structure, options: Mapping[str, Any]) -> None:
        self.structure = structure
        self.options = dict(options)

    @abc.abstractmethod
    def _solve(self, P: Floats, q: Floats, A: Floats, b: Floats, warm: Raw | None) -> Raw:
        """Solve one instance whose values are finite."""

    def solve(self, P: Floats, q: Floats, A: Floats, b: Floats, warm: Raw | None = None) -> Raw:
        """Solve one instance.

        Args:
            P: values of P's stored entries, shape (nnzP,), float64.
            q: linear cost, shape (n,).
            A: values of A's stored entries, shape (nnzA,).
            b: right-hand side, shape (m,).
            warm: a point to start from, where the solver can make use of one.

        Returns:
            The solver's point and status. Trouble with the numbers, or with the solver, is a status, never an
            exception.
        """
        start = time.perf_counter()
        # A sum of squares is finite unless an entry is not (or overflows, which `_refused` then tells apart).
        if not math.isfinite(_total(P) + _total(q) + _total(A) + _total(b)):
            raw = self._refused(P, q, A, b) or self._try(P, q, A, b, warm)
        else:
            raw = self._try(P, q, A, b, warm)
        raw.seconds = time.perf_counter() - start
        return raw

    def solve_batch(
        self, P: Floats, q: Floats, A: Floats, b: Floats, warm: Sequence[Raw | None] | None = None
    ) -> list[Raw]:
        """Solve a batch in this thread, instance by instance.

        Args:
            P: values of P's stored entries, shape (size, nnzP).
            q: linear cost, shape (size, n).
            A: values of A's stored entries, shape (size, nnzA).
            b: right-hand side, shape (size, m).
            warm: for each instance a point to start from, or None.

        Returns:
            One `Raw` for each instance.
        """
        points: Sequence[Raw | None] = [None] * len(q) if warm is None else warm
        return [self.solve(*instance) for instance in zip(P, q, A, b, points)]

    def _try(self, P: Floats, q: Floats, A: Floats, b: Floats, warm: Raw | None) -> Raw:
        if self._copies:
            P, q, A, b = P.copy(), q.copy(), A.copy(), b.copy()
            warm = warm and warm.copy()
        try:
            return self._sound(self._solve(P, q, A, b, warm))
        except ProgramError:  # an option that the solver refuses at its first solve is the user's to know
            raise
        except Exception as error:  # noqa: BLE001  # the next solver is asked, and messages quote it
            return self.failure(f"{type(error).__name__}: {error}")

    def _sound(self, raw: Any) -> Raw:
        """What a solver returned if it is a finite point of this structure, or a status without one; else a failure."""
        if not isinstance(raw, Raw):
            return self.failure(f"the solver returned {type(raw).__name__}, not a Raw")
        if not isinstance(raw.status, Status):
            return self.failure(f"the solver returned the status {raw.status!r}, not a Status")
        if not raw.status.has_point:
            return raw
        if self._copies and not self._shapely(raw):  # sessions of this package are tested to keep the shapes
            shapes = ", ".join(str(part.shape) for part in (raw.x, raw.s, raw.y))
            n, m = self.structure.n, self.structure.m
            return self.failure(f"x, s, y of shapes {shapes}; expected ({n},), ({m},), ({m},)")
        if not math.isfinite(_total(raw.x) + _total(raw.y)) or math.isnan(_total(raw.s)):
            return self.failure(f"{raw.message}; the point is not finite", Status.NUMERICAL)
        return raw

    def _shapely(self, raw: Raw) -> bool:
        """Whether x, s and y have their shapes, once they are arrays of float64."""
        raw.x, raw.s, raw.y = (np.asarray(part, dtype=np.float64) for part in (raw.x, raw.s, raw.y))
        n, m = self.structure.n, self.structure.m
        return raw.x.shape == (n,) and raw.s.shape == raw.y.shape == (m,)

    def failure(self, message: str, status: Status = Status.FAILED) -> Raw:
        """A result without a point: a status and the solver's message."""
        n, m = self.structure.n, self.structure.m
        return Raw(np.full(n, np.nan), np.full(m, np.nan), np.full(m, np.nan), status, message)

    def _refused(self, P: Floats, q: Floats, A: Floats, b: Floats) -> Raw | None:
        """A failure that names what is not finite; None where all is."""
        for name, values in (("P", P), ("q", q), ("A", A), ("b", b)):
            bad = np.flatnonzero(~np.isfinite(values))
            if len(bad):
                first = f"{self._place(name, bad[0])} = {values[bad[0]]}"
                return self.failure(f"{name} is not finite: {len(bad)} entries, the first is {first}.")
        return None

    def _place(self, name: str, index: int) -> str:
        if name in "qb":
            return f"{name}[{index}]"
        rows, cols = getattr(self.structure, f"{name}_rows"), getattr(self.structure, f"{name}_cols")
        return f"{name}[{rows[index]}, {cols[index]}]"


class BatchSession(Session):
    """A session whose solver takes a whole batch in one call."""

    solves_batches = True

    @abc.abstractmethod
    def _solve_batch(self, P: Floats, q: Floats, A: Floats, b: Floats, warm: Sequence[Raw] | None) -> list[Raw]:
        """Solve a batch of finite instances in one call."""

    def solve_batch(
        self, P: Floats, q: Floats, A: Floats, b: Floats, warm: Sequence[Raw | None] | None = None
    ) -> list[Raw]:
        """Solve a batch in one call; instance by instance where a value is not finite. See `Session.solve_batch`."""
        if not len(q) or not all(np.isfinite(part).all() for part in (P, q, A, b)):
            return super().solve_batch(P, q, A, b, warm)
        start = time.perf_counter()
        starts = [point for point in warm or () if point is not None]
        given = starts if len(starts) == len(q) else None
        if self._copies:
            P, q, A, b = P.copy(), q.copy(), A.copy(), b.copy()
            given = given and [point.copy() for point in given]
        try:
            found: Any = self._solve_batch(P, q, A, b, given)
            if not isinstance(found, Sequence) or len(found) != len(q):
                raise ValueError(f"the solver returned no list of {len(q)} points")
            raws = [self._sound(raw) for raw in found]
        except ProgramError:
            raise
        except Exception as error:  # noqa: BLE001  # as in `Session`
            raws = [self.failure(f"{type(error).__name__}: {error}") for _ in range(len(q))]
        for raw in raws:
            raw.seconds = (time.perf_counter() - start) / len(raws)
        return raws


class Solver(abc.ABC):
    """A solver as cvxift sees it: what it can solve, its options, and a way to open a session."""

    name: str
    """The name that `get` knows it by."""
    defaults: Mapping[str, Any] = MappingProxyType({})
    """The options that cvxift sets unless told otherwise, where they differ from the solver's own defaults."""
    tight: Mapping[str, Any] = MappingProxyType({})
    """The options of a second call, made where the first one's point is not good enough; empty for none."""
    together: Mapping[str, Any] = MappingProxyType({})
    """The options for batches whose points are polished together, where less is asked of the solver; empty for none."""
    active_set: ClassVar[bool] = False
    """Whether it starts from a point's active set and solves small programs in less than a Newton step takes."""
    patient: bool = False
    """Whether the second call may take long: it is made after all other solvers were asked."""
    brief: Mapping[str, Any] = MappingProxyType({})
    """The options of a call that gives up early, for a second opinion on infeasibility; empty where none is needed."""
    verbose_options: Mapping[str, Any] = MappingProxyType({})
    """The options that make the solver print its progress; empty where it has none."""
    package: ClassVar[Any] = None
    """The solver's Python package, imported; None where it is not installed."""
    conic: ClassVar[bool] = True
    """Whether it takes other cones than zero and nonneg."""

    def missing(self) -> str | None:
        """None if the solver's package is importable, else what to install."""
        return None if self.package else f"the package {self.name} is not installed; pip install {self.name}"

    def unsupported(self, structure: Structure) -> str | None:
        """None if the solver takes the structure's cones and cost, else the reason; does not look at `missing`."""
        if self.conic or structure.cones.polyhedral:
            return None
        kinds = sorted({block.kind for block in structure.cones.blocks()} - {"zero", "nonneg"})
        return f"it solves quadratic programs, and the problem has cones of kind {', '.join(kinds)}"

    @property
    @abc.abstractmethod
    def options(self) -> Mapping[str, Any]:
        """The options it accepts and their defaults here; read from the solver's own settings where it has such."""

    @abc.abstractmethod
    def _session(self, structure: Structure, options: Mapping[str, Any]) -> Session:
        """Open a session; the names of the options were checked."""

    def supports(self, structure: Structure) -> str | None:
        """Whether the solver is installed and can solve programs of this structure.

        Args:
            structure: sizes, cones and patterns.

        Returns:
            None if it can, else the reason why not.
        """
        return self.missing() or self.unsupported(structure)

    def session(self, structure: Structure, **options: Any) -> Session:
        """Open a session: check the options, do everything that depends on the structure alone.

        Args:
            structure: sizes, cones and patterns of the instances to come.
            options: the solver's options by its own names.

        Returns:
            A session whose `solve` takes the numbers.

        Raises:
            ProgramError: an option is unknown or its value is refused, or the solver cannot solve this structure.
        """
        reason = self.supports(structure)
        if reason is not None:
            raise ProgramError(f"Solver '{self.name}' cannot solve this problem: {reason}.")
        check_options(self.name, options, self.options)
        try:
            return self._session(structure, {**self.defaults, **options})
        except ProgramError:
            raise
        except Exception as error:  # whatever a library raises: the message quotes it
            raise ProgramError(f"Solver '{self.name}' cannot be set up: {type(error).__name__}: {error}.") from error

    def __repr__(self) -> str:
        return f"<cvxift solver '{self.name}'>"


def _total(values: Floats) -> float:
    """A number that is finite only if all values are; a long dot product would start BLAS threads, a sum does not."""
    return float(values.dot(values)) if values.size < 8192 else float(values.sum())
