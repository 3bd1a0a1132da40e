"""Compares what cvxift gave with what is true, and says what kind of answer it was."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import cvxpy as cp
import numpy as np

import cvxift

from .families import build
from .kit import Case
from .modes import MODES, Answer, Asked, modes_of
from .oracle import Oracle
from .reference import KINK, SMALLEST_SCALE, Along, Reference

VALUE = 1e-5  # share of the solution's size that a value may be off; the reference's own points are good to 3e-6
SLOPE = 1e-4  # share of its size that a derivative may be off, beside what the reference leaves open
PAIR = 1e-6  # what ⟨x̄, J d⟩ of forward and of reverse mode may differ by: the promise of docs/design.md
ENTRY = 1e-6  # relative error of each entry where a family asks for it,
SMALLEST_ENTRY = 1e-12  # down to entries of this size

NEARBY = (12, 60)  # points that are tried; of four pieces alike one is at none of the first 12 in 1 of 8 cases
FEW = 3  # pieces among them from which there may be more

KINDS = {
    "right": "value and derivative are those of the reference",
    "told": "no derivative exists there, and it was said",
    "undecided": "the reference cannot be trusted, or a second one disagrees",
    "silent": "a wrong number without a word",
    "untold": "a number where no derivative exists, without a word",
    "crash": "a foreign exception where CVXPY solves",
    "alarm": "a warning or refusal where the map is smooth and unique",
    "unsolved": "an error of cvxift's where CVXPY solves",
    "wrong told": "a wrong number on a smooth point, with a warning",
    "no piece": "told, but the number is no derivative at nearby points either",
    "hang": "no answer within the time of a case",
    "broken": "the adversary itself failed",
}


@dataclass(frozen=True)
class Finding:
    """How one mode answered.

    Attributes:
        mode: the mode.
        kind: one of KINDS.
        detail: numbers and words.
    """

    mode: str
    kind: str
    detail: str = ""


def judge(case: Case) -> tuple[str, list[Finding]]:
    """Ask cvxift in the case's modes; what another reference does not confirm is undecided.

    Returns:
        The truth's kind, and a finding for each mode and direction of differentiation.
    """
    reference = Reference(case)
    truth = reference.kind
    if truth == "unclear":
        return truth, [Finding(mode, "undecided") for mode in modes_of(case)]
    asked = Asked(case, reference)
    findings, second = [], None
    for name in modes_of(case):
        answer = MODES[name](Asked(case, reference) if name != "numpy" else asked)
        found = list(findings_of(answer, reference))
        if any(finding.kind not in ("right", "told") for finding in found):
            second = second or Reference(case, reference)
            other = {finding.mode: finding for finding in findings_of(answer, second)}
            found = [_confirmed(finding, other.get(finding.mode), second) for finding in found]
        findings += found
    return truth, findings


def _confirmed(finding: Finding, other: Finding | None, second: Reference) -> Finding:
    if finding.kind in ("right", "told") or (other is not None and other.kind == finding.kind):
        return finding
    return Finding(finding.mode, "undecided", f"{finding.kind}, but the second reference says {second.kind}")


def findings_of(answer: Answer, reference: Reference) -> Iterator[Finding]:
    """A finding for the answer's value, and one for each of its directions of differentiation."""
    mode, truth, words = answer.mode, reference.kind, _brief(answer.words)
    if answer.error is not None:
        if isinstance(answer.error, cvxift.ProgramError) and str(answer.error).startswith("Solver '"):
            return  # the solver named for this mode does not take such problems
        kind = _kind_of_error(answer.error, truth)
        yield Finding(mode, kind, f"truth {truth}; {type(answer.error).__name__}: {_brief([str(answer.error)])}")
        return
    assert answer.x is not None
    if truth in ("infeasible", "unbounded", "unclear"):
        kind = "undecided" if truth == "unclear" else ("told" if answer.words else "silent")
        yield Finding(mode, kind, f"truth {truth}; a point was returned; {words}")
        return
    wrong = _value_fault(answer, reference)
    if wrong and _better(answer, reference):
        yield Finding(mode, "undecided", f"value: {wrong}, but it costs less than the reference's")
        return
    if wrong:
        yield Finding(mode, "wrong told" if answer.words else "silent", f"value: {wrong}; {words}")
        return
    for name, numbers in (("forward", answer.forward), ("reverse", answer.reverse)):
        if numbers is not None:
            kind, detail = _kind_of_numbers(name, numbers, answer, reference)
            yield Finding(f"{mode} {name}", kind, f"truth {truth}; {detail}; {words}" if kind != "right" else "")
    pair = _pair_fault(answer, reference)
    if pair:
        yield Finding(f"{mode} pair", "wrong told" if answer.words else "silent", pair)


def _kind_of_error(error: Exception, truth: str) -> str:
    if not isinstance(error, cvxift.CvxiftError):
        return "crash"
    if truth in ("infeasible", "unbounded"):
        return "right"
    if isinstance(error, cvxift.ApplicabilityError):
        return "alarm" if truth == "smooth" else "told"
    return "unsolved"


def _value_fault(answer: Answer, reference: Reference) -> str:
    """What is wrong with the outputs' values; empty if nothing is."""
    x, x0 = answer.x, reference.point.x
    assert x is not None and x0 is not None
    if not np.all(np.isfinite(x)):
        return "not finite"
    if answer.twin is not None and np.abs(answer.twin[0] - answer.twin[1]).max(initial=0.0) > VALUE * _size(x0):
        return "the same instance differs in a batch"
    if reference.kind == "flat":
        return _suboptimal(x, reference)
    if reference.stated.entrywise:
        worst = float(np.max(np.abs(x - x0) / np.maximum(np.abs(x0), SMALLEST_ENTRY)))
        return f"an entry is off by {worst:.1e} of itself" if worst > ENTRY else ""
    off = float(np.abs(x - x0).max(initial=0.0)) / _size(x0)
    return f"off by {off:.1e}" if off > VALUE * (1.0 if reference.oracle.vertex else 10.0) else ""


def _better(answer: Answer, reference: Reference) -> bool:
    """Whether the answer is feasible and costs less than the point of the reference, which is no optimum then."""
    stated = reference.stated
    asked = {variable.id for variable, _ in stated.variables.values()}
    if stated.gp or {variable.id for variable in stated.problem.variables()} != asked or answer.x is None:
        return False
    stated.set(reference.values)
    costs = []
    for x in (answer.x, reference.point.x):
        start = 0
        for variable, _ in stated.variables.values():
            variable.save_value(x[start : start + variable.size].reshape(variable.shape))  # type: ignore[index]
            start += variable.size
        violation = max((float(np.max(c.violation(), initial=0.0)) for c in stated.problem.constraints), default=0.0)
        if x is answer.x and violation > 1e-9 * _size(answer.x):
            return False
        costs.append(float(stated.problem.objective.value))
    sign = 1.0 if isinstance(stated.problem.objective, cp.Minimize) else -1.0
    return sign * (costs[1] - costs[0]) > 1e-12 * (1.0 + abs(costs[1]))


def _suboptimal(x: np.ndarray, reference: Reference) -> str:
    """Where several outputs are optimal, CVXPY's cost there decides: minimized with the outputs held fixed."""
    stated = build(reference.case, scaled=False)
    start, held = 0, []
    for variable, _ in stated.variables.values():
        part = x[start : start + variable.size].reshape(variable.shape)
        held.append(cp.abs(variable - part) <= 1e-6 * _size(x))
        start += variable.size
    problem = cp.Problem(stated.problem.objective, [*stated.problem.constraints, *held])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            problem.solve(solver=cp.CLARABEL)
        except cp.SolverError:
            return ""
    if problem.status not in ("optimal", "optimal_inaccurate"):
        return f"the point is {problem.status}"
    best = Oracle(build(reference.case, scaled=False)).at(reference.values)
    gap = abs(float(problem.value) - best.optimum)
    return f"the cost is off by {gap:.1e}" if gap > 1e-4 * (1.0 + abs(best.optimum)) else ""


def _kind_of_numbers(name: str, numbers: np.ndarray, answer: Answer, reference: Reference) -> tuple[str, str]:
    """The kind of a derivative's numbers, row by row; the worst decides.

    A word once said may not be said again, so that any word tells; a false alarm is one that was raised by this
    direction of differentiation, about the outputs asked for.
    """
    told, truth = bool(answer.words), reference.kind
    raised = bool(answer.said.get(name) or (answer.said.get("solve") and not answer.whole))
    if answer.whole and name == "forward":  # it gives the variables that were not asked for, too
        raised = False
    if not np.all(np.isfinite(numbers)):
        return ("told" if told else "silent"), "not finite"
    if truth == "flat":
        return ("told" if told else "untold"), f"the solution is not unique; numbers {_short(numbers)}"
    worst, detail = ("alarm", "smooth") if raised and truth == "smooth" else ("right", "")
    for index, along in enumerate(reference.along):
        views = [np.eye(len(reference.point.x))] if name == "forward" else reference.cotangents  # type: ignore[arg-type]
        for row, view in enumerate(views):
            found = numbers[index] if name == "forward" else numbers[row, index : index + 1]
            kind, text = _one(found, np.atleast_2d(view), along, told, truth, reference, index)
            if _ORDER.index(kind) > _ORDER.index(worst):
                worst, detail = kind, f"direction {index}{'' if name == 'forward' else f', cotangent {row}'}: {text}"
    if worst == "right" and told and truth != "smooth":
        worst = "told"
    return worst, detail


_ORDER = ["right", "told", "alarm", "undecided", "no piece", "wrong told", "untold", "silent"]


def _one(
    found: np.ndarray, view: np.ndarray, along: Along, told: bool, truth: str, reference: Reference, index: int
) -> tuple[str, str]:
    """One number (or vector) against the sides of one direction, both seen through the view."""
    if along.kind == "unclear":
        return "right", ""
    size = np.abs(view).sum(axis=1).max()
    sides = [view @ side.slope for side in (along.right, along.left) if side.slope is not None]
    error = sum(side.error for side in (along.right, along.left) if side.slope is not None)
    allowed = max(SLOPE * along.scale, 3 * error) * size

    def near(value: np.ndarray, times: float = 1.0) -> bool:
        return bool(np.abs(found - value).max(initial=0.0) <= times * allowed)

    if along.kind in ("smooth", "sided"):
        expected = view @ along.value  # type: ignore[operator]
        if reference.stated.entrywise and along.kind == "smooth" and len(view) > 1:
            return _entries(found, expected, told, np.abs(reference.point.x))  # type: ignore[arg-type]
        if near(expected):
            return ("told" if told and along.kind == "sided" else "right"), ""
        text = f"{_short(found)}, right is {_short(expected)}"
        if told:
            return ("wrong told" if truth == "smooth" else _piece(found, view, reference, index, allowed)), text
        return "silent", text
    if along.kind == "kink":
        apart = np.abs(sides[0] - sides[1]).max(initial=0.0)
        if apart <= max(KINK * SMALLEST_SCALE * size, 2 * allowed):  # this view does not feel it
            fits = near(sides[0], 2.0) or near(sides[1], 2.0)
            return (
                "right" if fits else ("told" if told else "silent")
            ), f"{_short(found)}, right is {_short(sides[0])}"
        text = f"{_short(found)}, sides {_short(sides[0])} and {_short(sides[1])}"
        if not told:
            return "untold", text
        return (
            "told" if any(near(side, 3.0) for side in sides) else _piece(found, view, reference, index, allowed)
        ), text
    text = f"{_short(found)}, right side {along.right.kind}, left side {along.left.kind}"
    return ("told" if told else "untold"), text


def _piece(found: np.ndarray, view: np.ndarray, reference: Reference, index: int, allowed: float) -> str:
    """Whether the number is the derivative at some nearby point; more are tried where it is at none of the first."""
    return "told" if any(_fits(found, view, reference, index, allowed, count) for count in NEARBY) else "no piece"


def _fits(found: np.ndarray, view: np.ndarray, reference: Reference, index: int, allowed: float, count: int) -> bool:
    """Whether the number is the derivative at one of so many nearby points, as far as these tell.

    The points that were tried show all pieces only if these are few. Where kinks of several outputs meet, each entry
    is compared with the pieces' by itself, and sums of outputs are not. Between nearby points of a curved cone
    (matrices with a multiple eigenvalue) the derivatives fill a continuum: there, a number among them is one of them.
    The derivatives to both sides are the continuum's, too: they are limits of those at points along the direction.
    """
    near = np.array([view @ slopes[index] for slopes in reference.pieces(count)])
    if len(near) < count / 2:
        return True
    close = np.abs(found - near) <= 20 * allowed
    if reference.oracle.polyhedral:
        few = len(np.unique(np.round(near / (20 * allowed)), axis=0)) <= FEW
        return bool(close.all(axis=1).any() if few else len(view) == 1 or close.any(axis=0).all())
    along = reference.along[index]
    sides = [view @ side.slope for side in (along.right, along.left) if side.slope is not None]
    near = np.array([*near, *sides])
    low, high = near.min(axis=0), near.max(axis=0)
    slack = 0.2 * (high - low) + 20 * allowed
    return bool(np.all((found >= low - slack) & (found <= high + slack)))


def _entries(found: np.ndarray, expected: np.ndarray, told: bool, x: np.ndarray) -> tuple[str, str]:
    rounding = 1e-11 * x  # over the reference's step
    off = np.abs(found - expected) > SLOPE * np.maximum(np.abs(expected), SMALLEST_ENTRY) + rounding
    if not off.any():
        return "right", ""
    return ("wrong told" if told else "silent"), f"{_short(found)}, right is {_short(expected)}"


def _pair_fault(answer: Answer, reference: Reference) -> str:
    if answer.forward is None or answer.reverse is None or reference.kind != "smooth":
        return ""
    cotangents = np.array(reference.cotangents)
    forward = cotangents @ answer.forward.T
    size = np.abs(cotangents) @ np.abs(answer.forward).T + SMALLEST_SCALE
    off = float((np.abs(forward - answer.reverse) / size).max())
    return f"forward and reverse differ by {off:.1e} of their terms" if off > PAIR else ""


def _size(x: np.ndarray) -> float:
    return 1.0 + float(np.abs(x).max(initial=0.0))


def _short(numbers: np.ndarray) -> str:
    return np.array2string(np.ravel(numbers)[:4], precision=5, suppress_small=False)


def _brief(words: list[str]) -> str:
    return f"said: {' '.join(words[0].split())[:160]!r}" if words else "said nothing"
