"""What a layer checks at every call, and what it remembers of the last one.

The cheap check looks at the margins alone: a row or cone whose slack and multiplier nearly vanish together. Only then
is the instance analysed in full, once for each set of such rows: a call away from kinks pays a few microseconds.
Flat directions and contradictions show in the certificate that every derivative carries.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np

from cvxift import cones as cone
from cvxift.diagnostics.diagnose import in_program_order, report_of
from cvxift.diagnostics.findings import Finding
from cvxift.errors import ApplicabilityError, ApplicabilityWarning
from cvxift.kkt.batch import DenseBatch
from cvxift.kkt.policy import Policy
from cvxift.kkt.solution_map import SolutionMap, Solved
from cvxift.kkt.system import ReducedSystem
from cvxift.program.structure import Floats

Check = Literal["off", "warn", "raise"]

TRIGGER = 1e-7  # relative margin under which an instance is analysed
ANALYSES = 32  # different sets of weak rows that are analysed for warnings in a layer's life
LARGE = 300  # rows + columns, and
MANY = 6  # weak rows, above which a warning is given without the full analysis, which would cost more than the call
CONDITIONED = 8  # instances of a batch whose condition number is computed


@dataclass(eq=False)
class CallReport:
    """Statistics of a layer's last call; each is computed when it is asked for.

    Attributes:
        solved: the call.
        policy: the layer's policy.
        path: which way the call went, in words.
    """

    solved: Solved = field(repr=False)
    policy: Policy = field(repr=False)
    path: str = "solver and KKT system"

    @property
    def instances(self) -> int:
        """Number of instances."""
        return len(self.solved.solutions)

    @property
    def failed(self) -> int:
        """Instances without a point."""
        return 0 if self.solved.ok else sum(not solution.ok for solution in self.solved.solutions)

    @cached_property
    def residual(self) -> float:
        """Worst relative residual of the solved instances."""
        solutions = self.solved.solutions
        if isinstance(solutions, DenseBatch):
            return float(np.max(solutions.residuals, initial=0.0))
        own = getattr(solutions, "residual", None)  # solutions that measure themselves
        if own is not None:
            return float(own)
        return max((solution.residuals.worst for solution in solutions if solution.ok), default=float("nan"))

    @cached_property
    def margins(self) -> Floats:
        """Smallest relative distance to a kink of each instance, shape (instances,); NaN where one failed."""
        return relative_margins(self.solved)

    @property
    def margin(self) -> float:
        """The smallest of `margins`."""
        finite = self.margins[~np.isnan(self.margins)]
        return float(finite.min(initial=np.inf))

    @property
    def weak(self) -> int:
        """Instances on a kink."""
        return int(np.count_nonzero(self.margins <= TRIGGER))

    @cached_property
    def condition(self) -> float:
        """Largest condition estimate of the KKT systems of the first instances; NaN where none was factorized."""
        found = [float("nan")]
        for index in range(min(self.instances, CONDITIONED)):
            solution = self.solved.solutions[index]
            structure = solution.structure
            if hasattr(self.solved.solutions, "margins") and structure.n + structure.m > LARGE:
                break  # solved in closed form: nothing was factorized, and it would cost far more than the call
            if solution.ok:
                system = solution.linearization(self.policy).system
                if isinstance(system, ReducedSystem):
                    found.append(float(system.factor.condition))
        return float(np.nanmax(found)) if len(found) > 1 else found[0]

    def __str__(self) -> str:
        # A closed form does not factorize the KKT system, which may be singular in auxiliary variables alone.
        told = np.isfinite(self.condition) or not hasattr(self.solved.solutions, "margins")
        condition = f", condition {self.condition:.1e}" if told else ""
        return (
            f"{self.instances} instance(s), {self.failed} failed, {self.weak} on a kink; "
            f"worst residual {self.residual:.1e}, smallest margin {self.margin:.1e}{condition}; path: {self.path}"
        )


def relative_margins(solved: Solved) -> Floats:
    """Smallest distance of v to a kink, relative to 1 + ‖v‖∞, of each instance, shape (instances,)."""
    solutions = solved.solutions
    own = getattr(solutions, "margins", None)  # of solutions in closed form, whose points need not be made for it
    if own is not None:
        return own
    if isinstance(solutions, DenseBatch):
        v, cones = solutions.v, solutions.engine.cones
    else:
        m = next((len(s.point.v) for s in solutions if s.point is not None), 0)
        v = np.array([np.full(m, np.nan) if s.point is None else s.point.v for s in solutions])
        if not m:
            return np.where([s.ok for s in solutions], np.inf, np.nan)
        cones = solutions[0].engine.cones
    if cones.polyhedral:
        size = np.abs(v[:, cones.zero :])
        return size.min(axis=-1, initial=np.inf) / (1.0 + size.max(axis=-1, initial=0.0))
    if len(v) == 1 and solutions[0].point is not None:
        margin = cone.margin(cones, v[0], solutions[0].point.spectrum)[None]
    else:
        margin = cone.margin(cones, v)
    return margin.min(axis=-1, initial=np.inf) / (1.0 + np.abs(v).max(axis=-1, initial=0.0))


class Watch:
    """Looks at every call of a layer.

    Args:
        mapping: the layer's solution map.
        check: ``"warn"`` once for each cause, or ``"raise"`` an `ApplicabilityError`.
    """

    def __init__(self, mapping: SolutionMap, check: Check) -> None:
        self.map, self.check = mapping, check
        self._analysed: dict[bytes, tuple[Finding, ...]] = {}
        self._warned: set[str] = set()

    def look(self, solved: Solved, theta: Floats) -> None:
        """Check a call.

        Args:
            solved: the call.
            theta: what it was solved at, in the map's order, logarithms taken, shape (*batch, N).

        Raises:
            ApplicabilityError: under ``"raise"``, where an instance lies on a kink that its outputs feel.
        """
        if self._done or (not solved.batch_shape and self._clear(solved.solutions[0])):
            return
        weak = np.flatnonzero(relative_margins(solved) <= TRIGGER)
        for index in weak:
            if self._done:
                return
            for finding in self._faults(solved.solutions[int(index)], theta.reshape(-1, theta.shape[-1])[index]):
                self._tell(finding, int(index) if solved.batch_shape else None)

    @property
    def _done(self) -> bool:
        """Whether nothing more is analysed; what was found has been told."""
        return self.check == "warn" and len(self._analysed) >= ANALYSES

    def _clear(self, solution: Any) -> bool:
        """Whether an unbatched instance is away from kinks; the quick way for linear constraints."""
        if solution.point is None:
            return True
        cones = solution.engine.cones
        if not cones.polyhedral:
            return False
        size = np.abs(solution.point.v[cones.zero :])
        return len(size) == 0 or bool(size.min() > TRIGGER * (1.0 + size.max()))

    def _faults(self, solution: Any, theta: Floats) -> tuple[Finding, ...]:
        v = solution.point.v
        key = (
            np.sign(np.where(np.abs(v) <= TRIGGER * (1.0 + np.abs(v).max(initial=0.0)), 0.0, v))
            .astype(np.int8)
            .tobytes()
        )
        if key not in self._analysed:
            if self.check == "warn" and self._costly(solution):
                self._analysed[key] = self._suspicion(solution)
            else:
                report = report_of(self.map, solution, in_program_order(self.map, theta))
                self._analysed[key] = report.faults
        return self._analysed[key]

    @staticmethod
    def _weak_rows(solution: Any) -> np.ndarray:
        """Weakly active nonneg rows of the original program."""
        engine, v = solution.engine, solution.point.v
        weak = np.abs(v) <= TRIGGER * (1.0 + np.abs(v).max(initial=0.0))
        weak[: engine.cones.zero] = False
        weak[engine.cones.zero + engine.cones.nonneg :] = False
        return np.flatnonzero(engine.condensation.lift(weak.astype(float)))

    def _costly(self, solution: Any) -> bool:
        """Whether deciding the kink would cost far more than the call: every weak row doubles the pieces to compare."""
        structure = solution.engine.condensation.structure
        return structure.n + structure.m > LARGE or len(self._weak_rows(solution)) > MANY

    def _suspicion(self, solution: Any) -> tuple[Finding, ...]:
        """What a warning can say without the analysis; nothing where no row of the user's is weak."""
        labels = self.map.program.row_labels
        rows = [labels[int(row)] for row in self._weak_rows(solution)]
        own = [label.text for label in rows if label.atom is None]
        if not own:
            return ()
        return (
            Finding(
                "suspected kink",
                f"{len(own)} constraint rows are weakly active (slack and multiplier vanish together), {own[0]} the "
                "first: the solution map may have a kink here, and the derivative returned may be one side's.",
                "Call diagnose on the layer with these parameters for the decision, or set check='off'.",
                where=(own[0],),
            ),
        )

    def _tell(self, finding: Finding, index: int | None) -> None:
        where = "" if index is None else f"Instance {index} of the batch: "
        message = f"{where}{finding.text} {finding.advice}"
        if self.check == "raise":
            raise ApplicabilityError(message)
        cause = finding.cause + "".join(finding.where[:1])
        if cause not in self._warned:
            self._warned.add(cause)
            warnings.warn(message, ApplicabilityWarning, stacklevel=6)
