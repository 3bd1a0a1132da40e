"""What users are told of instances without a solution, and of derivatives that do not exist."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal

import numpy as np

from cvxift.errors import ApplicabilityError, ApplicabilityWarning, SolveError
from cvxift.kkt.engine import Solution
from cvxift.kkt.factor import Certificate
from cvxift.kkt.policy import Singular
from cvxift.program.structure import Floats
from cvxift.solvers.base import Status

OnFailure = Literal["raise", "nan"]

_LEVEL = 4  # calls between a warning here and the user's own: a product, the map, the adapter

_CHECK = "Check the parameters' values and scaling, or name another solver with solver=."
_ADVICE = {
    Status.INFEASIBLE: (
        "No point satisfies the constraints at these parameters: relax one, or check the parameters' signs."
    ),
    Status.UNBOUNDED: (
        "The objective has no lower bound on the feasible set at these parameters: add a constraint or curvature."
    ),
    Status.ITERATION_LIMIT: ("Raise the solver's limit through solver_args=, or check the scaling of the parameters."),
}


def unsolved(
    solutions: Sequence[Solution], batch_shape: tuple[int, ...], outputs: Floats, on_failure: OnFailure
) -> None:
    """Raise, or warn, of the instances that have no solution.

    Args:
        solutions: all instances in C order, one of them without a point at least.
        batch_shape: leading dimensions; () when unbatched.
        outputs: flat outputs of all instances, NaN in the failed ones.
        on_failure: ``"raise"``, or ``"nan"`` to warn.

    Raises:
        SolveError: under ``"raise"``; says which instances, why, what was tried, and carries the outputs.
    """
    bad = [i for i, solution in enumerate(solutions) if not solution.ok]
    indices = [tuple(int(k) for k in np.unravel_index(i, batch_shape)) if batch_shape else () for i in bad]
    first = solutions[bad[0]]
    where = f"Instance {indices[0]} of the batch" if batch_shape else "The problem"
    count = f" ({len(bad)} of {len(solutions)} instances failed)" if len(solutions) > 1 else ""
    advice = _ADVICE.get(first.status, _CHECK)
    message = f"{where} was not solved: {first.status.value}{count}. Tried {first.describe()}. {advice}"
    if on_failure == "nan":
        warning = message + " Its outputs are NaN and its gradients zero."
        warnings.warn(warning, ApplicabilityWarning, stacklevel=_LEVEL)
        return
    failures = {
        index: (solutions[i].status.value, {name: residual for name, _, _, residual in solutions[i].attempts})
        for index, i in zip(indices, bad, strict=True)
    }
    raise SolveError(message, status=first.status.value, failures=failures, solutions=outputs)


def certify(certificate: Certificate | None, singular: Singular) -> None:
    """Warn of, or refuse, a derivative whose linear system has no solution.

    Args:
        certificate: of the linear solve; None if there was none.
        singular: the policy for singular systems.

    Raises:
        ApplicabilityError: under ``"raise"``.
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
    warnings.warn(message, ApplicabilityWarning, stacklevel=_LEVEL)
