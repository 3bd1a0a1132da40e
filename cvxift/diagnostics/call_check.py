"""What a layer checks at every call, and what it remembers of the last one.

The cheap check looks at the margins alone: a row or cone whose slack and multiplier nearly vanish together. Only then
is the instance judged (`cvxift.kkt.regularity`), which its derivatives would do as well: a call away from kinks pays a
few microseconds. `Recorder` keeps margins and conditioning over the steps of a training loop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from cvxift.diagnostics.analysis import distance_to_kink, judged_kinks
from cvxift.errors import ProgramError
from cvxift.kkt.batch.solutions import DenseBatch
from cvxift.kkt.failures import tell_kink
from cvxift.kkt.policy import Check, Policy
from cvxift.kkt.regularity.account import Regularity
from cvxift.kkt.regularity.kinks import Kinks
from cvxift.kkt.regularity.point import KINK, LocalPoint
from cvxift.kkt.regularity.products import differs_somewhere, entries_that_differ
from cvxift.kkt.regularity.thresholds import CLEAR
from cvxift.kkt.solution import relative_margin
from cvxift.kkt.solution_map import SolutionMap, Solved
from cvxift.kkt.system.reduced import ReducedSystem
from cvxift.program.structure import Floats

if TYPE_CHECKING:
    from matplotlib.figure import Figure

JUDGED_SETS = 32  # sets of weak rows that are judged in a layer's life before a derivative is asked for
CONDITIONED = 8  # instances of a batch whose condition number is computed


@dataclass(eq=False)
class CallReport:
    """Statistics of a layer's last call; each is computed when it is asked for.

    What the variables do not feel does not count: an instance near a kink is judged as `diagnose` judges it.

    Attributes:
        solved: the call.
        policy: the layer's policy.
        path: which way the call went, in words.
        account: what is known of the solution map at an instance's solution.
    """

    solved: Solved = field(repr=False)
    policy: Policy = field(repr=False)
    path: str
    account: Callable[[Any], Regularity] = field(repr=False)
    _found: dict[int, tuple[LocalPoint, Kinks]] = field(default_factory=dict, repr=False)

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
        return max((solution.worst for solution in solutions if solution.ok), default=float("nan"))

    @cached_property
    def margins(self) -> Floats:
        """Smallest relative distance to a kink of each instance, shape (instances,); NaN where one failed."""
        margins = relative_margins(self.solved).copy()
        for index in np.flatnonzero(margins <= KINK) if self._judges else ():
            margins[index] = distance_to_kink(*self._kinks(int(index)))
        return margins

    @property
    def _judges(self) -> bool:
        return not hasattr(self.solved.solutions, "margins")  # closed forms know their kinks

    def _kinks(self, index: int) -> tuple[LocalPoint, Kinks]:
        if index not in self._found:
            account = self.account(self.solved.solutions[index])
            if account.policy.singular != "least_squares":  # which alone says what is singular
                account = account.with_policy("least_squares")
            self._found[index] = account.local, judged_kinks(account, account.local)[0]
        return self._found[index]

    @property
    def margin(self) -> float:
        """The smallest of `margins`."""
        finite = self.margins[~np.isnan(self.margins)]
        return float(finite.min(initial=np.inf))

    @property
    def weak(self) -> int:
        """Instances on a kink; of a closed form, which is not judged for it, those within `KINK` of one."""
        weak = np.flatnonzero(relative_margins(self.solved) <= KINK)
        return sum(len(self._kinks(int(index))[1].real) > 0 for index in weak) if self._judges else len(weak)

    @cached_property
    def condition(self) -> float:
        """Largest condition estimate of the KKT systems of the first instances; NaN where none was factorized.

        A closed form factorizes nothing: to do it for this number alone would cost far more than the call.
        """
        found = [float("nan")]
        if not self._judges:
            return found[0]
        for index in range(min(self.instances, CONDITIONED)):
            solution = self.solved.solutions[index]
            if solution.ok:
                system = solution.linearization(self.policy).system
                if isinstance(system, ReducedSystem):
                    found.append(float(system.factor.condition))
                    if not np.isfinite(found[-1]):  # of auxiliary variables perhaps
                        local, kinks = self._kinks(index)
                        found[-1] = float(local.kernel(kinks.shift).condition)
        return float(np.nanmax(found)) if len(found) > 1 else found[0]

    def __str__(self) -> str:
        told = np.isfinite(self.condition) or self._judges
        condition = f", condition {self.condition:.1e}" if told else ""
        return (
            f"{self.instances} instance(s), {self.failed} failed, {self.weak} on a kink; "
            f"worst residual {self.residual:.1e}, smallest margin {self.margin:.1e}{condition}; path: {self.path}"
        )

    def _repr_html_(self) -> str:
        from cvxift.diagnostics.render import html_table

        facts = {
            "instances": str(self.instances),
            "failed": str(self.failed),
            "on a kink": str(self.weak),
            "worst residual": f"{self.residual:.1e}",
            "smallest margin": f"{self.margin:.1e}",
            "condition": f"{self.condition:.1e}",
            "path": self.path,
        }
        return html_table("Last call", facts)


def relative_margins(solved: Solved) -> Floats:
    """Smallest distance of v to a kink, relative to 1 + ‖v‖∞, of each instance, shape (instances,)."""
    solutions = solved.solutions
    own = getattr(solutions, "margins", None)  # of solutions in closed form, whose points need not be made for it
    if own is not None:
        return own
    if isinstance(solutions, DenseBatch):
        v, cones = solutions.v, solutions.engine.cones
    elif len({id(solution.engine) for solution in solutions}) > 1:  # of programs of their own, integers held
        return np.concatenate([relative_margins(Solved((), (solution,), solution.x)) for solution in solutions])
    else:
        m = next((len(s.point.v) for s in solutions if s.point is not None), 0)
        v = np.array([np.full(m, np.nan) if s.point is None else s.point.v for s in solutions])
        if not m:
            return np.where([s.ok for s in solutions], np.inf, np.nan)
        cones = solutions[0].engine.cones
    if len(v) == 1 and solutions[0].point is not None:
        return relative_margin(cones, v[0], solutions[0].point.spectrum)[None]
    return relative_margin(cones, v)


class Watch:
    """Looks at every call of a layer.

    Args:
        mapping: the layer's solution map.
        check: ``"warn"``, or ``"raise"`` an `ApplicabilityError`.
    """

    def __init__(self, mapping: SolutionMap, check: Check) -> None:
        self.map = mapping
        self.check: Check = check
        self._seen: set[bytes] = set()

    def look(self, solved: Solved) -> None:
        """Check a call.

        Raises:
            ApplicabilityError: under ``"raise"``, where an instance lies on a kink that its outputs feel.
        """
        for index in np.flatnonzero(relative_margins(solved) <= CLEAR):
            solution = solved.solutions[int(index)]
            if solution.ok and self._to_be_judged(solution):  # of one that failed a batch may hold a point
                account, check = self.map.account(solution), self.check
                if account.policy.singular == "raise":  # it refuses the system before it can say what is singular
                    account, check = account.with_policy("least_squares"), "raise"
                if differs_somewhere(account) and not account.only_flat:  # which a derivative tells
                    number = int(index) if solved.batch_shape else None
                    tell_kink(account, check, entries_that_differ(account), number)

    def _to_be_judged(self, solution: Any) -> bool:
        """Whether a call is judged before a derivative is asked for: under ``"warn"`` the first of a kind only.

        A derivative taken at the point is judged in any case.
        """
        if self.check == "raise":
            return True
        v = solution.point.v
        part = np.abs(v) / (1.0 + np.abs(v).max(initial=0.0))
        # A set that was near a kink and found smooth says nothing of the kink itself.
        kind = np.where(part <= KINK, 0, np.where(part <= CLEAR, 2, np.sign(v))).astype(np.int8).tobytes()
        if kind in self._seen or len(self._seen) >= JUDGED_SETS:
            return False
        self._seen.add(kind)
        return True


@dataclass(frozen=True)
class Step:
    """One step's numbers.

    Attributes:
        margin: smallest relative distance to a kink.
        condition: largest condition estimate.
        residual: worst relative residual.
        weak: instances on a kink.
        failed: instances without a solution.
    """

    margin: float
    condition: float
    residual: float
    weak: int
    failed: int


class Recorder:
    """Records a layer's margins and conditioning.

    Args:
        layer: a layer of cvxift.

    Raises:
        ProgramError: the object keeps no report of its last call.

    Example:
        >>> import cvxpy as cp, numpy as np
        >>> from cvxift.diagnostics import Recorder
        >>> from cvxift.layers.core import LayerCore
        >>> x, t = cp.Variable(2), cp.Parameter(2)
        >>> layer = LayerCore(cp.Problem(cp.Minimize(cp.sum_squares(x - t)), [x >= 0]), [t], [x])
        >>> recorder = Recorder(layer)
        >>> for scale in (1.0, 0.1):
        ...     _ = layer.solve([scale * np.array([1.0, -1.0])], None, False)
        ...     _ = recorder.step()
        >>> bool(recorder.steps[1].margin < recorder.steps[0].margin)
        True
    """

    def __init__(self, layer: Any) -> None:
        if not hasattr(type(layer), "last_report"):
            raise ProgramError(f"Recorder expects a cvxift layer; got {type(layer).__name__}.")
        self.layer = layer
        self.steps: list[Step] = []

    def step(self) -> Step:
        """Record the layer's last call.

        Raises:
            ProgramError: the layer was not called yet.
        """
        report = self.layer.last_report
        if report is None:
            raise ProgramError("The layer was not called yet; call recorder.step() after the forward pass.")
        step = Step(report.margin, report.condition, report.residual, report.weak, report.failed)
        self.steps.append(step)
        return step

    def arrays(self) -> dict[str, np.ndarray]:
        """Every number over the steps, name -> shape (steps,)."""
        return {name: np.array([getattr(step, name) for step in self.steps]) for name in Step.__dataclass_fields__}

    def plot(self) -> Figure:
        """Margins and condition numbers over the steps, on a log scale.

        Raises:
            ProgramError: matplotlib is not installed.
        """
        try:
            from matplotlib.figure import Figure
            from matplotlib.ticker import MaxNLocator
        except ImportError:
            raise ProgramError("recorder.plot() needs matplotlib: pip install 'cvxift[plot]'.") from None
        values = self.arrays()
        fig = Figure(figsize=(8, 3), layout="constrained")
        left, right = fig.subplots(1, 2)
        for axes, name, label in ((left, "margin", "smallest margin"), (right, "condition", "condition number")):
            shown = np.where(np.isfinite(values[name]), np.maximum(values[name], 1e-16), np.nan)
            axes.semilogy(shown, color="#1d4ed8")
            axes.set(xlabel="step", title=label)
            axes.spines[["top", "right"]].set_visible(False)
        if self.steps and np.isnan(values["condition"]).all():
            right.text(0.5, 0.5, "no KKT system was solved", ha="center", va="center", transform=right.transAxes)
        kinks = np.flatnonzero(values["weak"] > 0)
        left.semilogy(kinks, np.maximum(values["margin"][kinks], 1e-16), "o", ms=3, color="#dc2626", label="on a kink")
        if len(kinks):
            fig.legend(loc="outside lower left", fontsize=8, frameon=False)
        for axes in (left, right):
            axes.set_xlim(-0.5, max(len(self.steps), 1) - 0.5)
            low, high = axes.get_ylim()
            axes.set_ylim(10.0 ** np.floor(np.log10(low)), 10.0 ** np.ceil(np.log10(high)))
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        return fig
