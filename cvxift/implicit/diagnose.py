"""The conditions of the implicit function theorem at a point, as numbers with thresholds, and the verdict."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from cvxift.diagnostics.audit import AUDIT_AGREES, Audit
from cvxift.diagnostics.findings import Check, Finding, Verdict, listed, number
from cvxift.diagnostics.report import Report
from cvxift.diagnostics.user_terms import LARGEST_WRITTEN, LabelledMatrix
from cvxift.errors import CvxiftError, ProgramError
from cvxift.implicit.oracle import EXACT, Oracle
from cvxift.implicit.probe import JUMP, Probe, probe
from cvxift.implicit.residual import beside_zero, relative_residual, tolerance_of, weights
from cvxift.implicit.spectrum import Spectrum, curvature, spectrum

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEPS = (1e-3, 5e-4)  # relative steps of these


@dataclass(eq=False)
class ImplicitReport(Report):
    """The report of an implicit function that is no CVXPY problem.

    Attributes:
        oracle: the function at the point.
        spectrum: extreme singular values of ∂F/∂x, or of the KKT matrix.
        probe: what was found on F's smoothness.
        error_bound: bound on the derivative's relative error.
    """

    oracle: Oracle | None = field(default=None, repr=False)
    spectrum: Spectrum | None = field(default=None, repr=False)
    probe: Probe | None = field(default=None, repr=False)
    error_bound: float = float("nan")

    @property
    def condition(self) -> float:
        """Condition number of the Jacobian."""
        return self.spectrum.condition if self.spectrum is not None else float("nan")

    @property
    def singular_values(self) -> tuple[float, float]:
        """The largest and the smallest singular value of the Jacobian."""
        return (self.spectrum.largest, self.spectrum.smallest) if self.spectrum else (float("nan"), float("nan"))

    @property
    def active(self) -> tuple[str, ...]:
        """Names of the active inequality constraints."""
        if self.oracle is None:
            return ()
        start = self.oracle.variables + self.oracle.sizes[0]
        return tuple(self.oracle.entry(start + int(i)) for i in np.flatnonzero(self.oracle.active))

    @property
    def multipliers(self) -> dict[str, float]:
        """The multiplier of every constraint, by its name."""
        if self.oracle is None:
            return {}
        n = self.oracle.variables
        return {self.oracle.entry(i): float(self.oracle.w[i]) for i in range(n, len(self.oracle.w))}

    def audit(self, directions: int = 3, seed: int = 0) -> Audit:
        """Compare the implicit derivative with central differences of the user's solver, along random directions.

        With central differences D(h) = f′ + c h² + O(h⁴), (4 D(h/2) − D(h))/3 leaves O(h⁴).

        Args:
            directions: how many.
            seed: of the random generator.

        Returns:
            The differences, and what explains them.
        """
        oracle = self._point()
        if not len(oracle.theta):
            return Audit(True, 0.0, "The function has no floating arguments, so there is nothing to compare.")
        rng = np.random.default_rng(seed)
        size = np.maximum(np.abs(oracle.theta), np.abs(oracle.theta).max(initial=0.0) or 1.0)
        worst = 0.0
        for _ in range(directions):
            d = size * rng.standard_normal(len(size))
            try:
                implicit = oracle.derivative(d)
                wide, close = (
                    (oracle.solver(oracle.theta + h * d) - oracle.solver(oracle.theta - h * d)) / (2.0 * h)
                    for h in STEPS
                )
            except (CvxiftError, ArithmeticError, ValueError) as error:
                return Audit(False, float("inf"), f"The solver or the derivative failed near the point: {error}")
            difference = (4.0 * close - wide) / 3.0
            scale = max(float(np.abs(implicit).max(initial=0.0)), float(np.abs(difference).max(initial=0.0)))
            floor = 1e-9 * float(np.abs(oracle.w[: oracle.variables]).max(initial=0.0)) / STEPS[1]
            error = float(np.abs(implicit - difference).max(initial=0.0))
            worst = max(worst, error / max(scale, floor) if scale > 0.0 else 0.0)
        if worst <= max(AUDIT_AGREES, oracle.eps**0.5):
            return Audit(True, worst, "The implicit derivative and central differences of the solver agree.")
        why = (
            "the theorem does not promise a derivative here"
            if not self.ok
            else "the solver stops early, jumps between solutions, or solves another problem than F states"
        )
        return Audit(False, worst, f"They differ by {worst:.1e} (relative); the cause: {why}.")

    @property
    def margin(self) -> float:
        """Smallest relative distance of an inequality to a change of the active set; NaN without inequalities."""
        return (
            float(self.oracle.margins.min()) if self.oracle is not None and len(self.oracle.margins) else float("nan")
        )

    @property
    def residuals(self) -> dict[str, float]:  # type: ignore[override]  # of equations, not of constraints
        """Size of every equation of the system, relative to what balances in it, by its name."""
        oracle = self._point()
        return {oracle.entry(i): float(ratio) for i, ratio in enumerate(_residual(oracle))}

    def system(self, kind: str = "full") -> LabelledMatrix:
        """The Jacobian ∂F/∂x, or the KKT matrix, with its rows and columns named.

        Args:
            kind: ``"full"``: all unknowns. ``"reduced"``: without the multipliers of inactive constraints.

        Raises:
            ProgramError: another kind, or too many unknowns to write out.
        """
        oracle = self._point()
        if kind not in ("full", "reduced"):
            raise ProgramError(f"kind={kind!r} is not known; choose 'full' or 'reduced'.")
        if len(oracle.w) > LARGEST_WRITTEN:
            raise ProgramError(f"The system has {len(oracle.w)} unknowns; it is written out up to {LARGEST_WRITTEN}.")
        keep = np.arange(len(oracle.w))
        if kind == "reduced":
            start = oracle.variables + oracle.sizes[0]
            keep = np.concatenate([keep[:start], start + np.flatnonzero(oracle.active)])
        names = tuple(oracle.entry(int(i)) for i in keep)
        return LabelledMatrix(oracle.matrix()[np.ix_(keep, keep)], names, names)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain types, ready for JSON."""
        out = super().to_dict()
        if self.oracle is not None:
            out["error_bound"] = number(self.error_bound)
            out["singular_values"] = [number(value) for value in self.singular_values]
            out["active"], out["multipliers"] = list(self.active), self.multipliers
        return out

    def plot(self) -> Figure:
        """Residuals or multipliers, singular values, and the probe of smoothness in one figure; needs matplotlib.

        Raises:
            ProgramError: matplotlib is not installed.
        """
        from cvxift.implicit.plot import figure

        self._point()
        return figure(self)

    def _point(self) -> Oracle:
        if self.oracle is None:
            raise ProgramError(f"{self.title} has no point to look at: {self.verdict.value}.")
        return self.oracle

    def _known(self) -> tuple[Any, Any]:  # nothing of a cone program is known here
        raise ProgramError(f"{self.title} is no CVXPY problem: there are no cones, radii or rows to look at.")


def diagnose(oracle: Oracle) -> ImplicitReport:
    """Check the conditions at a point.

    Args:
        oracle: the function at the point.

    Returns:
        The report.
    """
    settings = oracle.settings
    limit = settings.tolerance or tolerance_of(oracle.eps)
    findings: list[Finding] = []
    verdict = Verdict.APPLIES

    ratio = _residual(oracle)
    worst = float(ratio.max(initial=0.0))
    J = oracle.matrix() if len(oracle.w) <= EXACT else None
    found = spectrum(oracle, J)
    smooth = probe(oracle)
    top = oracle.eps**-0.8
    singular = not found.condition <= top

    if singular and _dual_only(oracle, found, J):
        verdict = Verdict.PRIMAL_ONLY
        text = "Active constraints are dependent, so their multipliers are not unique."
        findings.append(Finding("dependent constraints", text, "Remove one, or use linear_solver='lsmr'.", False))
    elif singular:
        verdict = Verdict.DOES_NOT_APPLY
        names = _largest(oracle, found.null)
        along = f" along {listed(names)}" if names else ""
        text = f"The Jacobian is singular{along}: the solution is not isolated, or moves infinitely fast there."
        advice = "Move the parameters, add curvature (½ε‖x‖²) or damping=, or fix the free direction by an equation."
        findings.append(Finding("singular Jacobian", text, advice, True, tuple(names)))
    if smooth.jump > JUMP:
        verdict = Verdict.ONE_SIDED if verdict is not Verdict.DOES_NOT_APPLY else verdict
        findings.append(_kink(smooth))
    lowest = float("nan")
    if settings.kind == "argmin":
        lowest = curvature(oracle, J)
        if lowest < -(oracle.eps**0.5):
            verdict = Verdict.NOT_OPTIMAL
            text = "The point is stationary, but no minimum: the Hessian has a negative eigenvalue on the constraints."
            findings.append(Finding("no minimum", text, "Start the solver elsewhere; check the sign of the energy."))
    weak = _weak(oracle)
    if weak:
        verdict = Verdict.ONE_SIDED if verdict.ok else verdict
        text = f"{listed(weak)} is weakly active: tight, with a multiplier of zero, so the solution map has a kink."
        findings.append(Finding("weakly active", text, "Move the parameters off the kink.", True, tuple(weak)))
    if not worst <= limit:
        verdict = Verdict.NOT_OPTIMAL
        names = [oracle.entry(int(i)) for i in np.argsort(-ratio)[:4] if not ratio[i] <= limit]
        text = f"The point is no solution: the equations of {listed(names)} are off by up to {worst:.0e} of their size."
        findings.append(Finding("no solution", text, "Let the solver converge further.", True, tuple(names)))
    bound = min(1.0, found.condition * (oracle.eps + (worst if np.isfinite(worst) else 1.0)))
    if bound > 1e-3 and verdict.ok:
        text = f"The derivative's relative error may be as large as {bound:.0e} (condition {found.condition:.0e})."
        findings.append(
            Finding("ill-conditioned", text, "Let the solver converge further, or scale the problem.", False)
        )
    kind = "exact" if found.exact else "Lanczos's method"
    checks = [
        Check("residual", worst <= limit, worst, limit, "largest |F_i| over what balances in it"),
        Check("smoothness", smooth.jump <= JUMP, smooth.jump, JUMP, "relative jump of F's derivative across the point"),
        Check("condition", not singular, found.condition, top, f"of the Jacobian; singular values {kind}"),
    ]
    if settings.kind == "argmin":
        passed = None if np.isnan(lowest) else lowest > oracle.eps**0.5
        note = "least over largest curvature" + (" on the active constraints" if settings.constrained else "")
        checks.append(Check("minimum", passed, lowest, oracle.eps**0.5, note))
    checks.append(Check("error bound", bound <= 1e-3, bound, 1e-3, "condition times relative residual"))
    return ImplicitReport(
        settings.title, verdict, tuple(checks), tuple(findings), None, None, None, oracle, found, smooth, bound
    )


def _residual(oracle: Oracle) -> np.ndarray:
    along = [weights(len(oracle.w)), weights(len(oracle.theta))]
    residual = oracle.function(oracle.w, oracle.theta)
    variables = oracle.variables if oracle.settings.constrained else 0
    arguments = (np, oracle.function, oracle.w, [oracle.theta], residual)
    return beside_zero(*arguments, relative_residual(*arguments, along, variables, oracle.parts))


def _dual_only(oracle: Oracle, found: Spectrum, J: np.ndarray | None) -> bool:
    """Whether every null vector of the KKT matrix moves multipliers alone."""
    if J is None or not oracle.settings.constrained:
        return False
    n = oracle.variables
    _, values, right = np.linalg.svd(J)
    null = right[values <= values[0] / oracle.eps**-0.8]
    return bool(len(null)) and float(np.abs(null[:, :n]).max(initial=0.0)) < oracle.eps**0.5


def _largest(oracle: Oracle, null: np.ndarray | None) -> list[str]:
    if null is None:
        return []
    size = np.abs(null)
    return [oracle.entry(int(i)) for i in np.argsort(-size)[:4] if size[i] > 1e-3 * size.max()]


def _kink(found: Probe) -> Finding:
    if found.outside:
        text = "F is not a finite number on both sides of the point: the point lies on the edge of F's domain."
        return Finding("edge of the domain", text, "Keep the solution inside the domain, or state F without the edge.")
    where = f" along {listed(found.arguments)}" if found.arguments else ""
    text = f"F is not continuously differentiable here{where}: the derivative of {listed(found.equations)} jumps."
    advice = "Move the parameters off the kink, or smooth F; the derivative returned is that of one side."
    return Finding("kink", text, advice, True, (*found.arguments, *found.equations))


def _weak(oracle: Oracle) -> list[str]:
    """Tight inequality rows without a multiplier."""
    start = oracle.variables + oracle.sizes[0]
    return [oracle.entry(start + int(i)) for i in np.flatnonzero(oracle.weak)]
