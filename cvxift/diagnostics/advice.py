"""What findings say, and what can be done about each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cvxift.diagnostics.findings import Finding, listed
from cvxift.solvers.base import Status

if TYPE_CHECKING:
    from cvxift.diagnostics.null_space import Dependence
    from cvxift.kkt.regularity.point import LocalPoint

SCALING = (
    "Scale the parameters and constraints to similar magnitudes, or add a little curvature (½ε‖x‖²) to the objective."
)
RESOLVE = "Solve it again to a tighter tolerance, or let cvxift solve it: cvxift.diagnose(problem, solver='clarabel')."
REMEDY = {
    Status.INFEASIBLE: "Relax a constraint, or check the signs and values of the parameters.",
    Status.UNBOUNDED: "Add a constraint or curvature that bounds the objective from below.",
}


def no_parameters() -> Finding:
    """The note that a problem has nothing to differentiate by."""
    text = "The problem has no parameters; it was judged along changes of its cost."
    remedy = "Declare what should vary as cp.Parameter; without parameters there is nothing to differentiate by."
    return Finding("no parameters", text, remedy, False)


def weak_text(names: list[str]) -> str:
    """The text of a kink."""
    verb = "is" if len(names) == 1 else "are"
    return (
        f"{listed(names)} {verb} weakly active: slack and multiplier vanish together, so the solution map has a kink "
        "here and its derivative depends on the side."
    )


def weak(point: LocalPoint, names: list[str]) -> str:
    """Advice on a kink."""
    smooth = ", or singular='smooth'" if point.cones.polyhedral else ""  # other cones have no such policy
    return (
        "Move the parameters off the kink, take one side with report.one_sided(direction), or use a smoothed map: an "
        f"entropy term (−ε·cp.sum(cp.entr(x))) instead of bounds at zero{smooth}."
    )


def flat(point: LocalPoint) -> str:
    """Advice on a flat direction."""
    linear = not point.data.P.any() and point.cones.polyhedral
    return "Add curvature, for example + 0.5 * eps * cp.sum_squares(x), to the objective" + (
        "; a linear program can also be smoothed with an entropy term or singular='smooth'." if linear else "."
    )


def vanishing(names: Sequence[str], along: str = "") -> Finding:
    """The finding of a curvature that vanishes at the point alone."""
    where = f"along {along}" if along else f"at {listed(list(names))}"
    return Finding(
        "vanishing curvature",
        f"The second-order condition fails: the curvature vanishes {where}. The solution may be unique all the same, "
        "but its derivative may be infinite or undefined, and the one computed need not be it.",
        "Add curvature, for example + 0.5 * eps * cp.sum_squares(x), to the objective, or move the parameters off this "
        "point.",
        True,
        tuple(names),
    )


def infinite(names: Sequence[str]) -> Finding:
    """The finding of a solution that leaves with infinite speed."""
    return Finding(
        "infinite speed",
        f"The solution changes infinitely fast here, as a root does at zero, because of {listed(list(names))}: it has "
        "no derivative, not even from one side.",
        "Add curvature, for example + 0.5 * eps * cp.sum_squares(x), to the objective, or move the parameters off this "
        "point.",
        True,
        tuple(names),
    )


def dependent_text(group: Dependence | None) -> str:
    """The text of dependent constraints."""
    if group is None:
        return "Active constraints are dependent, so their multipliers are not unique."
    return _what(group) + ", so " + ("its" if len(group.names) == 1 else "their") + " multipliers are not unique."


def dependent(group: Dependence | None, applies: bool, apart: bool) -> str:
    """Advice on dependent constraints, where derivatives apply or not: following it leaves the solution where it is.

    Where a change of the parameters moves constraints apart, it does so at these parameters alone.
    """
    if apart and group is not None and group.kind != "crossing":
        return f"If they are to say the same at every parameter: {_uncapped(_remedy(group))}"
    right = "The variables' derivative is right as it is under singular='least_squares', the default."
    return f"{_remedy(group)} {right if applies else ''}".strip()


def torn_text(group: Dependence | None) -> str:
    """The text of constraints that the parameters move apart."""
    what = _what(group) if group is not None else "Active constraints are dependent"
    return f"{what}, and a change of the parameters moves them apart: the solution map has a kink here, or ends."


def torn(group: Dependence | None) -> str:
    """Advice on constraints that the parameters move apart."""
    others = "make them depend on the same parameters, or move the parameters off this point."
    if group is None or group.kind == "crossing":
        return others.capitalize()
    return f"If they are to say the same at every parameter: {_uncapped(_remedy(group))} Otherwise {others}"


def _what(group: Dependence) -> str:
    """What makes the group dependent."""
    alike = f" (and {group.alike} more such groups of entries)" if group.alike else ""
    names = listed(group.names, 6)
    if group.kind == "pinned":
        if len(group.names) == 1:
            return f"{names}{alike} has no interior and holds with equality only: it pins what it bounds"
        return f"{names}{alike} oppose each other and hold with equality only"
    if len(group.names) == 1:
        return f"{names}{alike} restates what holds anyway"
    return f"{names}{alike} are dependent where they are active"


def _uncapped(text: str) -> str:
    return text[0].lower() + text[1:]


def _remedy(group: Dependence | None) -> str:
    """What to change in a group so that it is dependent no longer, without moving the solution."""
    if group is None:
        return ""
    if group.kind == "redundant":
        if len(group.names) == 1:
            return f"Remove {group.removable[-1]}."
        return f"Remove one that follows from the others, for example {group.removable[-1]}."
    if group.kind == "crossing":
        return "Each of them bounds the feasible set for itself: keep them all."
    if len(group.names) == 1:
        return "Write it as an equality of what it bounds, such as x == 0 for cp.norm(x) <= 0."
    if len(group.names) == 2 and len(group.inequalities) == 2:
        return "Write them as one equality of all that they pin."
    return (
        f"Write {listed(group.inequalities, 6)} as equalities, and then remove one of the group that follows from the "
        "others."
    )
