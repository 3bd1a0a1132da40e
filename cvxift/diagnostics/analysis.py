"""The checks at one point, and the verdict that follows from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cvxift._types import EPS
from cvxift.diagnostics import advice
from cvxift.diagnostics.domain import edges
from cvxift.diagnostics.findings import Check, Finding, Verdict, listed
from cvxift.diagnostics.neighbourhood import compare_sides
from cvxift.diagnostics.null_space import (
    dependent_groups,
    loose_multipliers,
    steepest,
)
from cvxift.diagnostics.user_terms import direction_text, row_names, unit_names, user_rows
from cvxift.kkt.engine import ACCEPTABLE
from cvxift.kkt.failures import LOCAL
from cvxift.kkt.policy import Policy
from cvxift.kkt.recovery import Recovery
from cvxift.kkt.regularity.account import Regularity
from cvxift.kkt.regularity.kernel import Kernel
from cvxift.kkt.regularity.kinks import Kinks, find_kinks, touches_user
from cvxift.kkt.regularity.point import LocalPoint
from cvxift.kkt.regularity.products import differs_somewhere
from cvxift.kkt.regularity.thresholds import FELT, PULLED
from cvxift.kkt.regularity.weak_rows import unsettled_rows
from cvxift.program.smooth import LocalProgram
from cvxift.program.structure import Floats

ROW_ERROR = 1e-5  # error of a row relative to its own size from which the point is no solution
ERROR = 1e-3  # bound on the gradient's relative error from which it is mentioned


@dataclass(frozen=True, eq=False)
class Analysis:
    """What was found at a point.

    Attributes:
        verdict: what the theorem says.
        checks: the conditions as numbers.
        findings: faults and notes.
        kinks: what the kinks mean.
        kernel: K on the piece that the checks look at.
        primal_unique: whether the user's variables are unique.
        dual_unique: whether the user's multipliers are.
    """

    verdict: Verdict
    checks: tuple[Check, ...]
    findings: tuple[Finding, ...]
    kinks: Kinks
    kernel: Kernel
    primal_unique: bool
    dual_unique: bool


def analyse(point: LocalPoint, outputs: Sequence[Any] = ()) -> Analysis:
    """Run all checks.

    Args:
        point: a point that satisfies the optimality conditions.
        outputs: the program's maps to the variables and dual variables whose derivatives are wanted; without dual
            variables among them, multipliers need not be unique.
    """
    probes = point.probes
    account = account_of(point, outputs)
    kinks, agree = judged_kinks(account, point)
    kernel = point.kernel(kinks.shift)
    residual = point.solution.residuals
    findings: list[Finding] = []
    verdict = Verdict.APPLIES

    flat = touches_user(point, kernel)
    direction = None
    if len(kinks.real):
        names = unit_names(point, kinks.real)
        kinked = Finding("weakly active", advice.weak_text(names), advice.weak(point, names), True, tuple(names))
        sides = ""
        if kinks.flat_pieces > 0.0:
            direction = _flat(account, point)
            sides = compare_sides(point) if direction is None else ""
        if sides == "infinite":
            kinked = advice.infinite(names)
        elif sides in ("equal", "unknown") or (sides and kinks.flat_pieces == 1.0):
            kinked = advice.vanishing(names)
        verdict = Verdict.ONE_SIDED if direction is None and kinked.cause == "weakly active" else Verdict.DOES_NOT_APPLY
        findings.append(kinked)
    elif flat > FELT:
        verdict = Verdict.DOES_NOT_APPLY
        direction = _flat(account, point)
        if direction is None:
            text, names = direction_text(point, steepest(point, kernel))
            findings.append(advice.vanishing(names, text))
    if direction is not None:
        text, names = direction_text(point, direction)
        findings.append(
            Finding(
                "flat direction",
                f"The solution is not unique: the variables can move along {text} at no cost.",
                advice.flat(point),
                True,
                tuple(names),
            )
        )

    curved = verdict is not Verdict.DOES_NOT_APPLY
    user = user_rows(point) & point.connected[1]
    loose = loose_multipliers(kernel, user)
    dual_unique = loose.shape[1] == 0
    groups = dependent_groups(point, kernel, user) if not dual_unique else []
    _, _, lost = kernel.solve(*probes)
    torn = 0.0 if agree else float(lost.max(initial=0.0))
    apart = account.split and (len(account.pieces) > 1 or account.steep)
    if (torn > PULLED or apart) and verdict is Verdict.APPLIES:
        first = groups[0] if groups else None
        where = first.names if first else ()
        pinned = first is not None and first.kind == "pinned" and not point.cones.polyhedral
        if pinned and compare_sides(point) == "infinite":
            verdict = Verdict.DOES_NOT_APPLY
            findings.append(advice.infinite(where))
        else:
            verdict = Verdict.ONE_SIDED
            findings.append(Finding("torn apart", advice.torn_text(first), advice.torn(first), True, where))
    if not dual_unique:
        wanted = _wanted(point, outputs, loose)
        if verdict is Verdict.APPLIES:
            verdict = Verdict.PRIMAL_ONLY
        for group in groups or [None]:
            text, remedy = advice.dependent_text(group), advice.dependent(group, verdict.ok, torn > PULLED)
            findings.append(Finding("dependent constraints", text, remedy, wanted, group.names if group else ()))
    findings += edges(point)
    off = np.flatnonzero(point.row_errors > ROW_ERROR)
    if len(off):  # small beside the largest row, but not beside its own
        verdict = Verdict.NOT_OPTIMAL
        names = row_names(point, off)
        worst = point.row_errors.max()
        text = f"{listed(names)} violated by {worst:.0e} of its own size: its units are far from the others'."
        findings.append(Finding("violated", text, advice.SCALING, True, tuple(names)))
    if point.solution.local:
        verdict = Verdict.NOT_OPTIMAL
        findings.append(Finding("local minimum", LOCAL, "", True))
    near = point.near
    if len(near):
        names = unit_names(point, near)
        findings.append(
            Finding(
                "near a kink",
                f"{listed(names)}: within {point.margins[near].min():.1e} (relative) of a change of the active set.",
                "The derivative is valid in a small neighbourhood only; report.radius(...) says how small.",
                False,
                tuple(names),
            )
        )
    bound = min(1.0, kernel.condition * (EPS + residual.worst))
    if verdict is Verdict.APPLIES and not point.cones.polyhedral and account.fast and account.first_order is None:
        verdict = Verdict.DOES_NOT_APPLY
        findings.append(advice.infinite(row_names(point, unsettled_rows(account))))
    if bound > ERROR and verdict.ok:
        text = (
            f"The linear system is ill-conditioned ({kernel.condition:.1e}): the gradient may be wrong by {bound:.0e}."
        )
        findings.append(Finding("ill-conditioned", text, advice.SCALING, False))
    primal_unique = direction is None
    checks = _checks(point, kinks, kernel, flat, loose.shape[1], torn, bound, curved)
    return Analysis(verdict, checks, tuple(findings), kinks, kernel, primal_unique, dual_unique)


def account_of(point: LocalPoint, outputs: Sequence[Any]) -> Regularity:
    """The account that derivatives of these outputs read; of all variables where none are named."""
    program, solution = point.program, point.solution
    chosen = list(outputs) or [program.output(variable) for variable in program.problem.variables()]
    recover = Recovery(chosen, program.structure.n, program.structure.m)
    return Regularity(program, solution, Policy(), recover)


def _flat(account: Regularity, point: LocalPoint) -> Floats | None:
    """A direction in which the outputs can move at no cost; what a linearization has of them may only be flat here."""
    null = account.flat
    return None if null is None or isinstance(point.program, LocalProgram) else null.u


def _wanted(point: LocalPoint, outputs: Sequence[Any], loose: Any) -> bool:
    """Whether a dual variable among the outputs changes along the multipliers' freedom."""
    return any(m.kind == "dual" and loose.shape[1] and float(abs(m.matrix @ loose).max()) > FELT for m in outputs)


def judged_kinks(account: Regularity, point: LocalPoint) -> tuple[Kinks, bool]:
    """The kinks at a point, and whether its pieces agree: then no change of the parameters tells the sides apart.

    Without parameters nothing tells: a kink is one along changes of the cost.
    """
    if not point.program.theta_size:
        return find_kinks(point, True), False
    differ = account.ended or differs_somewhere(account)
    return find_kinks(point, differ), len(account.pieces) > 1 and not differ


def distance_to_kink(point: LocalPoint, kinks: Kinks) -> float:
    """The smallest relative margin, kinks left out that the variables do not feel."""
    counted = point.tied_units.copy()
    counted[np.concatenate([kinks.opened, kinks.closed, kinks.harmless])] = False
    return float(point.margins[counted].min(initial=np.inf))


def _checks(
    point: LocalPoint,
    kinks: Kinks,
    kernel: Kernel,
    flat: float,
    freedom: int,
    torn: float,
    bound: float,
    curved: bool,
) -> tuple[Check, ...]:
    residual = point.solution.residuals
    how = "exact" if kernel.exact else "estimated by inverse iteration"
    harmless = len(kinks.weak) - len(kinks.real)
    kink_note = "smallest relative distance to a kink" + (
        f"; {harmless} kinks that the variables do not feel left out" if harmless else ""
    )
    return (
        Check("primal residual", residual.primal <= ACCEPTABLE, residual.primal, ACCEPTABLE, "relative"),
        Check("dual residual", residual.dual <= ACCEPTABLE, residual.dual, ACCEPTABLE, "relative"),
        Check(
            "complementarity", residual.complementarity <= ACCEPTABLE, residual.complementarity, ACCEPTABLE, "relative"
        ),
        Check("smoothness", not len(kinks.real), distance_to_kink(point, kinks), point.tolerance, kink_note),
        Check(
            "constraint nondegeneracy",
            freedom == 0,
            float(freedom),
            0.0,
            f"dependent combinations of active constraints ({how})",
        ),
        Check(
            "second-order condition",
            curved,
            flat,
            FELT,
            f"size of the flat directions in the variables ({how})",
        ),
        Check(
            "smallest singular value",
            None,
            kernel.smallest,
            kernel.tolerance * kernel.largest,
            f"of the equilibrated K ({how})",
        ),
        Check(
            "condition number",
            kernel.condition * EPS <= ERROR,
            kernel.condition,
            ERROR / EPS,
            f"of the equilibrated K ({how})",
        ),
        Check("gradient error bound", bound <= ERROR, bound, ERROR, "condition × (rounding + residual), relative"),
        Check(
            "consistency",
            torn <= PULLED,
            torn,
            PULLED,
            "part of a parameter's change that the active constraints cannot follow",
        ),
    )
