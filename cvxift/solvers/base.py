"""What every solver gives: `Solver` (what it solves, its options), `Session` (solves instances) and `Raw` (a point).

Every adapter solves the canonical program and returns a point in these signs, whatever the solver's own are:

    minimize   ½ xᵀPx + qᵀx   subject to   Ax + s = b,  s ∈ K              K = zero × nonneg × soc… × psd… × exp… × pow…
    Px + q + Aᵀy = 0,  y ∈ K*,  sᵀy = 0

A row of the nonneg cone with b = +∞ is no constraint: its y is 0 and its s is +∞. Any other value that is not finite
is refused before a solver sees it, with a `Raw` of status FAILED that names the array and the first entry.
"""

from __future__ import annotations

import abc
import difflib
import enum
import importlib
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cvxift.errors import ProgramError
from cvxift.program.structure import Structure

Floats = NDArray[np.float64]


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


class Session(abc.ABC):
    """Solves instances of one structure one after the other; what depends on the structure alone is done once.

    A session holds the solver's workspace: use it from one thread at a time.

    Args:
        structure: sizes, cones and patterns of the instances.
        options: the solver's options, already checked against `Solver.options`.
    """

    structure: Structure
    raises: tuple[type[Exception], ...] = ()
    """What the solver's library raises on data that it cannot take; becomes a `Raw` with status FAILED."""

    infinite_b: ClassVar[bool] = False
    """Whether `_solve` takes b = +∞ in rows of the nonneg cone by itself."""
    releases_gil: ClassVar[bool] = False
    """Whether the solver runs outside Python's lock, so that threads solve in parallel."""
    solves_batches: ClassVar[bool] = False
    """Whether a whole batch goes to the solver in one call; see `BatchSession`."""

    def __init__(self, structure: Structure, options: Mapping[str, Any]) -> None:
        self.structure = structure
        self.options = dict(options)

    @abc.abstractmethod
    def _solve(self, P: Floats, q: Floats, A: Floats, b: Floats, warm: Raw | None) -> Raw:
        """Solve one instance whose values are finite, except for b = +∞ in rows of the nonneg cone if `infinite_b`."""

    def solve(self, P: Floats, q: Floats, A: Floats, b: Floats, warm: Raw | None = None) -> Raw:
        """Solve one instance.

        Args:
            P: values of P's stored entries, shape (nnzP,), float64.
            q: linear cost, shape (n,).
            A: values of A's stored entries, shape (nnzA,).
            b: right-hand side, shape (m,).
            warm: a point to start from, where the solver can make use of one.

        Returns:
            The solver's point and status. Trouble with the numbers is a status, never an exception.
        """
        start = time.perf_counter()
        # A sum of squares is finite unless an entry is not (or overflows, which `_nonfinite` then tells apart).
        if not math.isfinite(_total(P) + _total(q) + _total(A) + _total(b)):
            raw = self._solve_nonfinite(P, q, A, b, warm)
        else:
            raw = self._try(P, q, A, b, warm)
            if raw.status.has_point and not math.isfinite(_total(raw.x) + _total(raw.y)):
                raw = self.failure(f"{raw.message}; the point is not finite", Status.NUMERICAL)
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
        try:
            return self._solve(P, q, A, b, warm)
        except self.raises as error:
            return self.failure(f"{type(error).__name__}: {error}")

    def failure(self, message: str, status: Status = Status.FAILED) -> Raw:
        """A result without a point."""
        n, m = self.structure.n, self.structure.m
        return Raw(np.full(n, np.nan), np.full(m, np.nan), np.full(m, np.nan), status, message)

    def _solve_nonfinite(self, P: Floats, q: Floats, A: Floats, b: Floats, warm: Raw | None) -> Raw:
        """Name what is not finite; leave out the rows that b = +∞ makes void."""
        for name, values in (("P", P), ("q", q), ("A", A)):
            bad = np.flatnonzero(~np.isfinite(values))
            if len(bad):
                first = f"{self._place(name, bad[0])} = {values[bad[0]]}"
                return self.failure(f"{name} is not finite: {len(bad)} entries, the first is {first}.")
        cones = self.structure.cones
        free = np.isposinf(b)
        free[: cones.zero] = False
        free[cones.zero + cones.nonneg :] = False
        bad = np.flatnonzero(~np.isfinite(b) & ~free)
        if len(bad):
            if np.isinf(b[bad]).all() and bad[-1] < cones.zero + cones.nonneg:
                return self.failure(f"row {bad[0]} has b = {b[bad[0]]}: no x satisfies it.", Status.INFEASIBLE)
            return self.failure(f"b is not finite: {len(bad)} entries, the first is b[{bad[0]}] = {b[bad[0]]}.")
        if self.infinite_b or not free.any():
            return self._try(P, q, A, b, warm)
        # 0ᵀx + s = 1 with s ≥ 0 holds for every x: the row stays in the pattern and constrains nothing.
        raw = self._try(P, q, np.where(free[self.structure.A_rows], 0.0, A), np.where(free, 1.0, b), warm)
        raw.s[free], raw.y[free] = np.inf, 0.0
        return raw

    def _place(self, name: str, index: int) -> str:
        if name == "q":
            return f"q[{index}]"
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
        try:
            raws = self._solve_batch(P, q, A, b, starts if len(starts) == len(q) else None)
        except self.raises as error:
            raws = [self.failure(f"{type(error).__name__}: {error}") for _ in q]
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
    """The options of a second call, made where the first one's point does not show the active set; empty for none."""
    verbose_options: Mapping[str, Any] = MappingProxyType({})
    """The options that make the solver print its progress; empty where it has none."""

    @abc.abstractmethod
    def missing(self) -> str | None:
        """None if the solver's package is importable, else what to install."""

    @abc.abstractmethod
    def unsupported(self, structure: Structure) -> str | None:
        """None if the solver takes the structure's cones and cost, else the reason; does not look at `missing`."""

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
        return self._session(structure, {**self.defaults, **options})

    def __repr__(self) -> str:
        return f"<cvxift solver '{self.name}'>"


def optional(package: str) -> Any:
    """A solver's package, or None where it is not installed."""
    try:
        return importlib.import_module(package)
    except ImportError:
        return None


def writable(*arrays: Floats) -> tuple[Floats, ...]:
    """The arrays, those that are read-only copied: some libraries map what they are given as mutable.

    What does not depend on the parameters comes as a read-only view of the program's constants.
    """
    return tuple(values if values.flags.writeable else values.copy() for values in arrays)


def _total(values: Floats) -> float:
    """A number that is finite only if all values are; a long dot product would start BLAS threads, a sum does not."""
    return float(values.dot(values)) if values.size < 8192 else float(values.sum())


def check_options(solver: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse options that a solver does not know.

    Args:
        solver: the solver's name, for the message.
        given: the names the user gave.
        known: the names the solver accepts.

    Raises:
        ProgramError: names an unknown option, the closest known one, and lists all.

    Example:
        >>> check_options("scs", ["max_iters"], ["max_iters", "eps_abs"])
    """
    known = sorted(known)
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean '{close[0]}'?" if close else ""
            raise ProgramError(f"Solver '{solver}' has no option '{name}'.{hint} It accepts: {', '.join(known)}.")


def read_settings(settings: Any) -> dict[str, Any]:
    """The options of a solver that keeps them as attributes of a settings object, with the values they have there."""
    pairs = ((name, getattr(settings, name)) for name in dir(settings) if not name.startswith("_"))
    return {name: value for name, value in pairs if not callable(value)}


def write_settings(solver: str, settings: Any, options: Mapping[str, Any]) -> None:
    """Set options on a settings object.

    Args:
        solver: the solver's name, for the message.
        settings: the solver's settings object.
        options: names that `read_settings` lists, and their values.

    Raises:
        ProgramError: the solver's library refuses a value; names the option.
    """
    for name, value in options.items():
        try:
            setattr(settings, name, value)
        except (TypeError, ValueError, OverflowError, AttributeError) as error:
            raise ProgramError(f"Solver '{solver}' refuses option {name}={value!r}: {error}.") from error
