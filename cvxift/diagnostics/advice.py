"""What findings say, and what can be done about each of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cvxift.diagnostics.findings import listed

if TYPE_CHECKING:
    from cvxift.kkt.regularity.kernel import Kernel
    from cvxift.kkt.regularity.point import LocalPoint

SCALING = (
    "Scale the parameters and constraints to similar magnitudes, or add a little curvature (½ε‖x‖²) to the objective."
)
RESOLVE = "Solve it again to a tighter tolerance, or let cvxift solve it: cvxift.diagnose(problem, solver='clarabel')."
PARAMETERS = "Declare what should vary as cp.Parameter; without parameters there is nothing to differentiate by."
INFEASIBLE = "Relax a constraint, or check the signs and values of the parameters."
UNBOUNDED = "Add a constraint or curvature that bounds the objective from below."


def weak_text(names: list[str], point: LocalPoint) -> str:
    """The text of a kink."""
    verb = "is" if len(names) == 1 else "are"
    return (
        f"{listed(names)} {verb} weakly active: slack and multiplier vanish together, so the solution map has a kink "
        "here and its derivative depends on the side."
    )


def weak(point: LocalPoint, names: list[str]) -> str:
    """Advice on a kink."""
    return (
        "Move the parameters off the kink, take one side with report.one_sided(direction), or use a smoothed map: an "
        "entropy term (−ε·cp.sum(cp.entr(x))) instead of bounds at zero, or singular='smooth'."
    )


def flat(point: LocalPoint) -> str:
    """Advice on a flat direction."""
    linear = not point.data.P.any()
    return "Add curvature, for example + 0.5 * eps * cp.sum_squares(x), to the objective" + (
        "; a linear program can also be smoothed with an entropy term or singular='smooth'." if linear else "."
    )


def dependent_text(group: list[str]) -> str:
    """The text of dependent constraints."""
    if not group:
        return "Active constraints are dependent, so their multipliers are not unique."
    if len(group) == 1:
        return f"{group[0]} restates what holds anyway, so its multiplier is not unique."
    return f"{listed(group, 6)} are dependent where they are active, so their multipliers are not unique."


def dependent(group: list[str]) -> str:
    """Advice on dependent constraints."""
    return (
        f"Remove one of them, for example {group[-1]}. " if group else "Remove a redundant constraint. "
    ) + "The variables' derivative is right as it is under singular='least_squares', the default."


def torn_text(group: list[str]) -> str:
    """The text of constraints that the parameters move apart."""
    return (
        f"{listed(group, 6)} are dependent where they are active" if group else "Active constraints are dependent"
    ) + ", and a change of the parameters moves them apart: the solution map has a kink here, or ends."


def torn(group: list[str]) -> str:
    """Advice on constraints that the parameters move apart."""
    return (
        f"Remove one of them, for example {group[-1]}, " if group else "Remove a redundant constraint, "
    ) + "make it depend on the same parameters, or move the parameters off this point."


def conditioned_text(kernel: Kernel, bound: float) -> str:
    """The text of an ill-conditioned system."""
    return f"The linear system is ill-conditioned ({kernel.condition:.1e}): the gradient may be wrong by {bound:.0e}."
