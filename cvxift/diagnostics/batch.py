"""Reports of a batch of instances and what they have in common."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cvxift.diagnostics.findings import Verdict
from cvxift.diagnostics.report import Report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WORST = (
    Verdict.NOT_OPTIMAL,
    Verdict.DOES_NOT_APPLY,
    Verdict.ONE_SIDED,
    Verdict.PRIMAL_ONLY,
    Verdict.APPLIES,
)


@dataclass(frozen=True, eq=False)
class BatchReport(Sequence):
    """Reports of the instances of a batch, in C order of its leading dimensions.

    Attributes:
        title: what was diagnosed.
        batch_shape: the leading dimensions.
        reports: one report an instance.
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
        """The reports as JSON text."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False)

    def plot(self) -> Figure:
        """Verdicts, and every instance by its margin and condition number, in one figure; needs matplotlib.

        Raises:
            ProgramError: matplotlib is not installed.
        """
        from cvxift.diagnostics.plot import batch_figure

        return batch_figure(self)

    def __str__(self) -> str:
        count = len(self.reports)
        lines = [f"{self.title}: batch of {count}"]
        lines += [f"  {number:6d} of {count}  {verdict}" for verdict, number in self.verdicts.items()]
        lines += [f"  {number:6d} of {count}  ✗ {fault}" for fault, number in self.faults.items()]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return "".join(report._repr_html_() for report in self.reports[:8])
