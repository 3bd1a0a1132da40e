"""Reports: the verdict at one point with what it rests on, and those of a batch; printable, serializable."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import cvxpy as cp
import numpy as np

from cvxift.diagnostics.analysis import Analysis, analyse
from cvxift.diagnostics.audit import Audit, audit
from cvxift.diagnostics.findings import Check, Finding, Verdict, number
from cvxift.diagnostics.neighbourhood import Radius, one_sided, radii, radius
from cvxift.diagnostics.user_terms import (
    ActiveRow,
    LabelledMatrix,
    active_rows,
    full_system,
    reduced_system,
    residuals_by_constraint,
)
from cvxift.errors import ProgramError
from cvxift.kkt.regularity.point import LocalPoint
from cvxift.kkt.solution_map import SolutionMap

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WORST = (
    Verdict.NOT_OPTIMAL,
    Verdict.DOES_NOT_APPLY,
    Verdict.ONE_SIDED,
    Verdict.PRIMAL_ONLY,
    Verdict.APPLIES,
)


@dataclass(eq=False)
class Report:
    """Whether the implicit function theorem applies at a point, and why.

    Attributes:
        title: what was diagnosed.
        verdict: what the theorem says.
        checks: each condition as a number with its threshold.
        findings: faults and notes, in the user's words, with advice.

    Example:
        >>> import cvxpy as cp, numpy as np, cvxift
        >>> z, theta = cp.Variable(2, name="z"), cp.Parameter(2, name="theta", value=np.array([0.3, 0.9]))
        >>> report = cvxift.diagnose(cp.Problem(cp.Minimize(cp.sum_squares(z - theta)), [cp.sum(z) == 1, z >= 0]))
        >>> report.verdict.value, report.ok
        ('applies', True)
    """

    title: str
    verdict: Verdict
    checks: tuple[Check, ...] = ()
    findings: tuple[Finding, ...] = ()
    map: SolutionMap | None = field(default=None, repr=False)
    point: LocalPoint | None = field(default=None, repr=False)
    analysis: Analysis | None = field(default=None, repr=False)

    @classmethod
    def at(
        cls,
        title: str,
        mapping: SolutionMap,
        point: LocalPoint,
        outputs: Sequence[Any] = (),
        notes: Sequence[Finding] = (),
    ) -> Report:
        """Analyse a point.

        Args:
            title: what is diagnosed.
            mapping: the problem's solution map.
            point: a point that satisfies the optimality conditions.
            outputs: the program's maps to the variables and dual variables whose derivatives are wanted.
            notes: findings known already.
        """
        found = analyse(point, outputs)
        return cls(title, found.verdict, found.checks, (*notes, *found.findings), mapping, point, found)

    @property
    def ok(self) -> bool:
        """Whether the derivatives asked for are valid."""
        return self.verdict.ok and not any(finding.fault for finding in self.findings)

    @property
    def faults(self) -> tuple[Finding, ...]:
        """The findings that keep a derivative from being valid."""
        return tuple(finding for finding in self.findings if finding.fault)

    @property
    def condition(self) -> float:
        """Condition number of the equilibrated KKT system; NaN without a point."""
        return self.analysis.kernel.condition if self.analysis is not None else float("nan")

    @property
    def margin(self) -> float:
        """Smallest relative distance to a kink that the variables feel; NaN without a point."""
        return next((check.value for check in self.checks if check.name == "smoothness"), float("nan"))

    @cached_property
    def active_set(self) -> tuple[ActiveRow, ...]:
        """The user's constraints entry by entry: active, inactive or weakly active, with slack and multiplier."""
        return active_rows(*self._known())

    @cached_property
    def residuals(self) -> dict[str, float]:
        """Largest relative primal residual or complementarity gap of each of the user's constraints."""
        return residuals_by_constraint(self._known()[0])

    def system(self, kind: Literal["full", "reduced"] = "reduced") -> LabelledMatrix:
        """The Jacobian of the optimality conditions in the user's variables and constraints.

        Args:
            kind: ``"full"``: multipliers for all constraints, complementary slackness as equations. ``"reduced"``:
                active constraints only, symmetric. Auxiliary variables are eliminated from both.

        Returns:
            The matrix with its rows and columns named.

        Raises:
            ProgramError: another kind, or no point.
        """
        point, found = self._known()
        if kind not in ("full", "reduced"):
            raise ProgramError(f"kind={kind!r} is not known; choose 'full' or 'reduced'.")
        return full_system(point, found.kinks) if kind == "full" else reduced_system(point, found.kinks)

    def radius(self, direction: Mapping[cp.Parameter, Any]) -> Radius:
        """How far the parameters may move along a direction before the active set changes.

        Args:
            direction: parameter -> direction of its shape; parameters not named do not move.

        Returns:
            The distance, in multiples of the direction, and what changes there; to first order.

        Raises:
            ProgramError: a parameter is not of the problem, a shape is wrong, or no point.
        """
        return radius(*self._known(), direction)

    @cached_property
    def radii(self) -> dict[str, Radius]:
        """For each parameter alone, the Euclidean distance it may move in any direction; to first order.

        In a geometric program the distance of a parameter that enters through its logarithm is that of the logarithm.
        Empty above 2000 entries of θ.
        """
        return radii(*self._known())

    def one_sided(self, direction: Mapping[cp.Parameter, Any]) -> dict[cp.Variable, np.ndarray]:
        """Derivative of every variable along a direction, from that side; exists at kinks too.

        Infinite, with its sign, where a variable leaves with infinite speed; NaN where the derivatives beside the point
        are not the slope of the solutions, so that none can be told.

        Args:
            direction: parameter -> direction of its shape.

        Returns:
            variable -> derivative of its shape.

        Raises:
            ProgramError: as for `radius`; or the direction leaves the domain of a parameter that is at its end, such as
                a weight of zero with nonneg=True.
            SolveError: the problem has no solution on that side.
        """
        return one_sided(self._mapped(), self._known()[0], direction)

    def audit(self, directions: int = 3, seed: int = 0) -> Audit:
        """Compare the implicit derivative with central differences along random directions.

        Args:
            directions: how many.
            seed: of the random generator.

        Returns:
            The differences, and what explains them.
        """
        return audit(self._mapped(), *self._known(), directions, seed)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain types, ready for JSON."""
        out: dict[str, Any] = {
            "title": self.title,
            "verdict": self.verdict.value,
            "ok": self.ok,
            "checks": [check.to_dict() for check in self.checks],
            "findings": [finding.to_dict() for finding in self.findings],
        }
        if self.analysis is not None and self.point is not None:
            out["unique"] = {"primal": self.analysis.primal_unique, "dual": self.analysis.dual_unique}
            out["solver"] = self.point.solution.solver
            out["radii"] = {name: number(r.distance) for name, r in self.radii.items()}
        return out

    def to_json(self, indent: int | None = 2) -> str:
        """The report as JSON text; `indent` as for `json.dumps`."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False)

    def plot(self) -> Figure:
        """Active set, margins and singular values in one figure; needs matplotlib.

        Raises:
            ProgramError: no point, or matplotlib is not installed.
        """
        from cvxift.diagnostics.render import figure

        return figure(self, *self._known())

    def show(self) -> None:
        """Print: a rich table on a terminal where rich is installed, plain text otherwise."""
        from cvxift.diagnostics.render import show

        show(self)

    def __str__(self) -> str:
        from cvxift.diagnostics.render import text

        return text(self)

    def __rich__(self) -> Any:
        from cvxift.diagnostics.render import rich_table

        return rich_table(self)

    def _repr_html_(self) -> str:
        from cvxift.diagnostics.render import html_of

        return html_of(self)

    def _known(self) -> tuple[LocalPoint, Analysis]:
        if self.point is None or self.analysis is None:
            raise ProgramError(f"{self.title} has no optimal point to look at: {self.verdict.value}.")
        return self.point, self.analysis

    def _mapped(self) -> SolutionMap:
        if self.map is None:
            raise ProgramError(f"{self.title} has no optimal point to look at: {self.verdict.value}.")
        return self.map


@dataclass(frozen=True, eq=False)
class BatchReport(Sequence):
    """Reports of the instances of a batch, in C order of its leading dimensions.

    Attributes:
        title: what was diagnosed.
        batch_shape: the leading dimensions.
        reports: one report an instance.

    Example:
        >>> import cvxpy as cp, torch
        >>> from cvxift.torch import CvxpyLayer
        >>> x, t = cp.Variable(2, name="x"), cp.Parameter(2, name="t")
        >>> layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - t)), [x >= 0]), [t], [x])
        >>> batch = layer.diagnose(torch.tensor([[1.0, 2.0], [1.0, 0.0]], dtype=torch.float64))
        >>> [report.verdict.value for report in batch.reports], batch[1].ok
        (['applies', 'one-sided'], False)
    """

    title: str
    batch_shape: tuple[int, ...]
    reports: tuple[Report, ...]

    def __len__(self) -> int:
        return len(self.reports)

    def __getitem__(self, index: Any) -> Any:
        return self.reports[index]

    def __iter__(self) -> Iterator[Report]:
        return iter(self.reports)

    @property
    def ok(self) -> bool:
        """Whether every instance's report is."""
        return all(report.ok for report in self.reports)

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of the batch."""
        return next((v for v in _WORST if any(report.verdict is v for report in self.reports)), Verdict.APPLIES)

    @property
    def verdicts(self) -> dict[str, int]:
        """How many instances have each verdict."""
        return dict(Counter(report.verdict.value for report in self.reports))

    @property
    def faults(self) -> dict[str, int]:
        """How many instances have each fault: cause and place -> count, most frequent first."""
        counts: Counter[str] = Counter()
        for report in self.reports:
            counts.update({f"{f.cause}: {', '.join(f.where[:3])}" if f.where else f.cause for f in report.faults})
        return dict(counts.most_common())

    def to_dict(self) -> dict[str, Any]:
        """Plain types only."""
        return {
            "title": self.title,
            "batch_shape": list(self.batch_shape),
            "ok": self.ok,
            "verdict": self.verdict.value,
            "verdicts": self.verdicts,
            "faults": self.faults,
            "reports": [report.to_dict() for report in self.reports],
        }

    def to_json(self, indent: int | None = 2) -> str:
        """The reports as JSON text; `indent` as for `json.dumps`."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False)

    def plot(self) -> Figure:
        """Verdicts, and every instance by its margin and condition number, in one figure; needs matplotlib.

        Raises:
            ProgramError: matplotlib is not installed.
        """
        from cvxift.diagnostics.render import batch_figure

        return batch_figure(self)

    def __str__(self) -> str:
        count = len(self.reports)
        lines = [f"{self.title}: batch of {count}"]
        lines += [f"  {number:6d} of {count}  {verdict}" for verdict, number in self.verdicts.items()]
        lines += [f"  {number:6d} of {count}  ✗ {fault}" for fault, number in self.faults.items()]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return "".join(report._repr_html_() for report in self.reports[:8])
