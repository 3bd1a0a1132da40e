"""What users are told of instances without a solution, and of derivatives that do not exist."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cvxift.errors import ApplicabilityError, SolveError, warn_user
from cvxift.kkt import conflict
from cvxift.kkt.engine import TOLERANCE, Solution
from cvxift.kkt.policy import Check, Singular
from cvxift.kkt.regularity.weak_rows import unsettled_rows
from cvxift.kkt.system.factor import Certificate
from cvxift.program.program import Program
from cvxift.program.structure import Floats
from cvxift.solvers.base import Status

if TYPE_CHECKING:
    from cvxift.kkt.batch.solutions import Solved
    from cvxift.kkt.regularity.account import Regularity

__all__ = [
    "Check",
    "OnFailure",
    "certify",
    "inaccurate",
    "saddle",
    "speak_once",
    "tell_endless",
    "tell_flat",
    "tell_kink",
    "tell_nonsmooth",
    "tell_steep",
    "unsolved",
]

OnFailure = Literal["raise", "nan"]
Mode = Literal["reverse", "forward"]
"""Of differentiation: what is said in one is said in the other as well."""
LISTED = 3  # names of a list that a message gives

_CHECK = "Check the parameters' values and scaling, or name another solver with solver=."
_ADVICE = {
    Status.INFEASIBLE: ("No point satisfies the constraints: relax one, or check the parameters' signs and values."),
    Status.UNBOUNDED: (
        "The objective has no bound on the feasible set at these parameters: add a constraint or curvature."
    ),
    Status.NONCONVEX: (
        "CVXPY took P for positive semidefinite because it was told to (assume_PSD=True, psd_wrap): make it so, for "
        "example as B.T @ B with a learned B, or project it."
    ),
    Status.ITERATION_LIMIT: ("Raise the solver's limit through solver_args=, or check the scaling of the parameters."),
}

LOCAL = (
    "The point is a local minimum, and another one may be lower: P is indefinite although it was said to be positive "
    "semidefinite (assume_PSD=True, psd_wrap). Make it so, for example as B.T @ B."
)
ELSEWHERE = (
    "Start elsewhere: set the variables' values, or solver_args={'best_of': 10} with sample_bounds on variables."
)


def unsolved(
    solutions: Sequence[Solution],
    batch_shape: tuple[int, ...],
    outputs: Floats,
    on_failure: OnFailure,
    program: Program | None = None,
) -> None:
    """Raise, or warn, of the instances that have no solution.

    Args:
        solutions: all instances in C order, one of them without a point at least.
        batch_shape: leading dimensions; () when unbatched.
        outputs: flat outputs of all instances, NaN in the failed ones.
        on_failure: ``"raise"``, or ``"nan"`` to warn.
        program: the program, to name the user's variables.

    Raises:
        SolveError: under ``"raise"``; says which instances, why, what was tried, and carries the outputs.
    """
    bad = [i for i, solution in enumerate(solutions) if not solution.ok]
    indices = [tuple(int(k) for k in np.unravel_index(i, batch_shape)) if batch_shape else () for i in bad]
    first = solutions[bad[0]]
    where = f"Instance {indices[0]} of the batch" if batch_shape else "The problem"
    count = f" ({len(bad)} of {len(solutions)} instances failed)" if len(solutions) > 1 else ""
    advice = _ADVICE.get(first.status, _CHECK)
    nonlinear = program is not None and program.nonlinear
    if not nonlinear:
        advice = conflict.why(first, program) + advice
    if first.descent is not None and nonlinear:
        advice = f"The point found is stationary, but no local minimum: {_falls(first.descent, program)} {ELSEWHERE}"
    elif first.descent is not None:
        advice = saddle(first.descent, program) + " " + advice
    message = f"{where} was not solved: {first.status.value}{count}. Tried {first.describe()}. {advice}"
    if on_failure == "nan":
        warning = message + " Its outputs are NaN and its gradients zero."
        warn_user(warning)
        return
    failures = {
        index: (solutions[i].status.value, {name: residual for name, _, _, residual in solutions[i].attempts})
        for index, i in zip(indices, bad, strict=True)
    }
    raise SolveError(message, status=first.status.value, failures=failures, solutions=outputs)


def inaccurate(solved: Solved, program: Program, check: Check) -> None:
    """Warn of, or refuse, points that are accepted although they are not at a search's goal, or may be local minima.

    Args:
        solved: a solved batch, or a single call.
        program: the program, to name the user's constraints.
        check: what is done about it.

    Raises:
        ApplicabilityError: under ``check="raise"``.
    """
    if check == "off":
        return
    # A batch's instances are at the goal, but those that were taken one by one.
    batch: Any = solved.solutions
    looked = getattr(batch, "singles", None)
    found: dict[int, Solution] = dict(enumerate(batch)) if looked is None else looked
    local = [index for index, s in found.items() if s.local]
    if local:
        _say((f"Instance {local[0]} of the batch: " if solved.batch_shape else "") + LOCAL, check)
    bad = {index: s for index, s in found.items() if s.ok and s.worst > TOLERANCE}
    if not bad:
        return
    index = max(bad, key=lambda index: bad[index].worst)
    kind, place, residual = bad[index].worst_place()
    label = (program.row_labels if kind == "row" else program.column_labels)[place].text
    batched = solved.batch_shape
    at = f"Instance {tuple(map(int, np.unravel_index(index, batched)))}" if batched else "The point"
    count = f" ({len(bad)} of {len(batch)} instances are)" if len(batch) > 1 else ""
    message = (
        f"{at} is accurate only to a relative residual of {bad[index].worst:.1e}{count}: no solver's point "
        f"could be improved to {TOLERANCE:g}. The largest, {residual:.1e} of what is balanced there, is in {label}. "
        "Values and derivatives are off by at least as much: constraints that are nearly inconsistent, or nearly "
        "dependent, are the usual cause."
    )
    if check == "raise":
        raise ApplicabilityError(message)
    warn_user(message)


def saddle(descent: Floats, program: Program | None) -> str:
    """What a direction of negative curvature means, in the user's variables.

    Args:
        descent: the direction, shape (n,).
        program: the program; None to number the columns.
    """
    return "The point found satisfies the first-order conditions, but it is a saddle: P is indefinite, and " + _falls(
        descent, program
    )


def falls_along(solution: Solution, program: Program) -> str:
    """Where the objective falls from a stationary point that is no minimum, in the user's variables."""
    assert solution.descent is not None
    return _falls(solution.descent, program, both=not program.nonlinear)


def _falls(descent: Floats, program: Program | None, both: bool = True) -> str:
    largest, columns = np.abs(descent).max(), conflict.entries(descent)[: conflict.NAMED_PLACES]
    names = "column {}".format if program is None else lambda j: program.column_labels[j].text
    direction = ", ".join(f"{descent[j] / largest:+.2g} in {names(j)}" for j in columns)
    return f"the objective falls from there along {direction}{', and along the opposite direction' if both else ''}."


def certify(certificate: Certificate | None, singular: Singular, check: Check = "warn") -> None:
    """Warn of, or refuse, a derivative whose linear system has no solution.

    Args:
        certificate: of the linear solve; None if there was none.
        singular: the policy for singular systems.
        check: what is done about it.

    Raises:
        ApplicabilityError: under ``singular="raise"`` or ``check="raise"``.
    """
    if certificate is None or certificate.consistent:
        return
    message = (
        "The derivative of the solution map does not exist, or could not be computed, at this point: the KKT system "
        f"leaves a relative residual of {certificate.residual:.1e} (condition number ≈ {certificate.condition:.1e}; "
        f"{certificate.method}). The value returned is the least-squares one. A flat direction of the objective that "
        "no active constraint fixes is the usual cause: add curvature (for example ½ε‖x‖²), or choose "
        "singular='regularize' or 'smooth'."
    )
    if singular == "raise":
        raise ApplicabilityError(message)
    _say(message, check)


def tell_kink(
    account: Regularity,
    check: Check,
    entries: np.ndarray | None,
    index: int | None = None,
    mode: Mode = "reverse",
) -> None:
    """Say that the pieces of the solution map that meet at a point have different derivatives.

    Args:
        account: of the point.
        check: what is done about it.
        entries: the entries of θ with respect to which they differ; None if that is not known.
        index: of the instance in its batch, if it is in one.
        mode: of differentiation.

    Raises:
        ApplicabilityError: under ``check="raise"`` or ``singular="raise"``.
    """
    names = account.program.row_labels.grouped(unsettled_rows(account))
    verb = "are" if len(names) > 1 or any(", entries " in name for name in names) else "is"
    where = (
        f" {_listed(names)} {verb} weakly active (slack and multiplier vanish together), or dependent." if names else ""
    )
    theta = _listed(_theta_names(account.program, entries)) if entries is not None and len(entries) else ""
    by = f" with respect to {theta}" if theta else ""
    if account.ended:
        ends = [parameter.name() for parameter in account.ends]
        changes = f"changes of {_listed(ends)} to one side" if ends else "some changes of the parameters"
        what = f"{changes} lead to no solution near it, and the derivative{by} is that of the other side"
    else:
        what = f"the derivative{by} depends on the side from which the parameters come"
    instance = "" if index is None else f"Instance {index} of the batch: "
    smoothed = "singular='smooth'" if account.local.cones.polyhedral else "by an entropy in the objective"
    message = (
        f"{instance}The solution map has a kink at this point: {what}.{where} The value returned is the derivative of "
        "one piece. Move the parameters off the kink, take one side with report.one_sided(direction), or use a "
        f"smoothed map, for example {smoothed}."
    )
    speak_once(account, message, check, mode)


def tell_steep(account: Regularity, check: Check, mode: Mode = "reverse") -> None:
    """Say that derivatives beside a point do not tend to one at it.

    Raises:
        ApplicabilityError: under ``check="raise"`` or ``singular="raise"``.
    """
    message = (
        "The solution map may have no derivative at this point: derivatives at nearby parameters depend on how near "
        "they are, as where the solution moves infinitely fast, or where curvature vanishes at the point alone. The "
        "value returned is that of a neighbour. Move the parameters off the point, or add curvature (for example "
        "½ε‖x‖²)."
    )
    speak_once(account, message, check, mode)


def tell_nonsmooth(account: Regularity, names: Sequence[str], check: Check, mode: Mode = "reverse") -> None:
    """Say that expressions of parameters alone have no derivative.

    Raises:
        ApplicabilityError: under ``check="raise"`` or ``singular="raise"``.
    """
    message = (
        f"{_listed(list(names))} has a kink at the parameters' values: with respect to parameters in it the solution "
        "has derivatives from each side at most, and the value returned is one of them. Move the parameters off the "
        "kink, or make a parameter of the expression's value."
    )
    speak_once(account, message, check, mode)


def tell_endless(account: Regularity, check: Check, mode: Mode = "reverse") -> None:
    """Say that the minimum is not attained, or the set of solutions has no end.

    Raises:
        ApplicabilityError: under ``check="raise"`` or ``singular="raise"``.
    """
    assert account.endless is not None
    named = _moved(account, account.endless.u)
    message = (
        f"The minimum is not attained, or solutions have no end: however far the outputs ({named}) go, the "
        "objective does not rise. The value returned is where the solver stopped, and its derivative is that of no "
        "solution. Add curvature (for example ½ε‖x‖²), or bounds."
    )
    speak_once(account, message, check, mode)


def tell_flat(account: Regularity, check: Check, mode: Mode = "reverse") -> None:
    """Say that outputs can move at no cost.

    Raises:
        ApplicabilityError: under ``check="raise"`` or ``singular="raise"``.
    """
    flat = account.flat
    named = "" if flat is None else _moved(account, flat.u)
    which = f" ({named})" if named else ""
    smooth = " or 'smooth'" if account.local.cones.polyhedral else ""  # other cones have no such policy
    message = (
        f"The solution is not unique, or not to second order: the outputs{which} can move along a flat direction of "
        "the objective that no active constraint fixes. The value returned is the derivative of least norm. Add "
        f"curvature (for example ½ε‖x‖²), or choose singular='regularize'{smooth}."
    )
    speak_once(account, message, check, mode)


def speak_once(account: Regularity, message: str, check: Check, mode: Mode) -> None:
    """Raise, or warn once for an account and mode."""
    if check != "off" and account.policy.singular == "raise":
        raise ApplicabilityError(message)
    if check == "raise" or (mode, message) not in account.told:
        account.told.add((mode, message))
        _say(message, check)


def _say(message: str, check: Check) -> None:
    if check == "raise":
        raise ApplicabilityError(message)
    if check == "warn":
        warn_user(message)


def _moved(account: Regularity, u: Floats) -> str:
    """The entries of the user's variables that a direction of the columns moves, those that move most first."""
    size = np.where(account.program.user_columns, np.abs(u) / account.local.units[0], 0.0)
    order = np.argsort(-size, kind="stable")[: np.count_nonzero(size > 1e-6 * size.max(initial=0.0))]
    labels = account.program.column_labels
    return _listed([labels[int(j)].text.removeprefix("variable ") for j in order[:LISTED]], len(order))


def _theta_names(program: Program, entries: np.ndarray) -> list[str]:
    """Entries of θ as the user's parameters and indices."""
    names = []
    for parameter in program.parameters:
        part = program.offsets[parameter]
        for entry in entries[(entries >= part.start) & (entries < part.stop)]:
            index = np.unravel_index(int(entry) - part.start, parameter.shape) if parameter.shape else ()
            at = f"[{', '.join(map(str, map(int, index)))}]" if index else ""
            names.append(f"{parameter.name()}{at}")
    return names


def _listed(names: Sequence[str], count: int | None = None) -> str:
    """The first names, and how many more there are of a count; of these names, each once, if none is given."""
    if count is None:
        names = list(dict.fromkeys(names))
        count = len(names)
    return ", ".join(names[:LISTED]) + (f" and {count - LISTED} more" if count > LISTED else "")
