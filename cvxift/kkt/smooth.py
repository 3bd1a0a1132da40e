"""The log-barrier central path of a program with linear constraints: a derivative where the solution map has none.

On the central path sᵢ yᵢ = μ, so with v = s − y

    s = φ(v) = (v + √(v² + 4μ))/2,    y = φ(v) − v = μ/s,    φ'(v) = s/(s + y) ∈ (0, 1),

and the normal map with φ for Π is smooth, its Jacobian nonsingular wherever the barrier problem has one solution. In
the reduced system every inequality row stays, with H = φ'/(1 − φ') = s/y.
"""

from __future__ import annotations

import numpy as np

from cvxift.errors import ApplicabilityError, ProgramError
from cvxift.kkt.instance import Instance
from cvxift.kkt.newton import Point
from cvxift.kkt.system.reduced import ReducedSystem, Rotation
from cvxift.program.structure import Floats

CENTRED = 1e-10
PATH_STEPS = 100


def central_point(instance: Instance, x: Floats, v: Floats, mu: float) -> Point:
    """The central path's point for μ, by Newton from the solution with a decreasing merit ‖F_μ‖₂.

    Args:
        instance: the program; only zero and nonneg rows.
        x: columns of the solution, shape (n,).
        v: s − y of the solution, shape (m,).
        mu: the path's parameter, positive.

    Returns:
        The point, with its reduced system.

    Raises:
        ProgramError: the program has other cones.
        ApplicabilityError: Newton does not converge: the feasible set has no interior, or the barrier problem no
            solution.
    """
    cones = instance.structure.cones
    if not cones.polyhedral:
        raise ProgramError(
            "singular='smooth' needs a program with linear constraints only; "
            "choose 'least_squares' or 'regularize' for other cones."
        )
    zero = cones.zero

    def evaluate(x: Floats, v: Floats):
        root = np.sqrt(v * v + 4.0 * mu)
        s = np.where(v > 0.0, 0.5 * (v + root), 2.0 * mu / (root - v))  # without cancellation on either side
        s[:zero] = 0.0
        y = s - v
        y[zero:] = mu / s[zero:]
        dual, primal, residuals = instance.errors(x, s, y)
        return s, y, dual, primal, residuals, float(np.sqrt(dual @ dual + primal @ primal))

    s, y, dual, primal, residuals, merit = evaluate(x, v)
    for step in range(PATH_STEPS):
        system = ReducedSystem(instance, _rotation(zero, s, y))
        if residuals.worst <= CENTRED:
            return Point(x, s, y, v, residuals, residuals.worst, step, system)
        dx, dy, _ = system.solve(-dual, -primal)
        dv = -primal - instance.A @ dx - dy
        length = 1.0
        while True:
            trial = evaluate(x + length * dx, v + length * dv)
            if trial[5] <= (1.0 - 0.1 * length) * merit:
                break
            length *= 0.5
            if length < 1e-8:
                raise ApplicabilityError(_FAILED.format(mu=mu, residual=residuals.worst))
        x, v = x + length * dx, v + length * dv
        s, y, dual, primal, residuals, merit = trial
    raise ApplicabilityError(_FAILED.format(mu=mu, residual=residuals.worst))


class CentralPath:
    """D = φ'(v) on the inequality rows of a point of the path, and its derivative; as `Spectrum` has them.

    Args:
        v: s − y, shape (m,).
        mu: the path's parameter.
        zero: number of equality rows, where φ = 0.
    """

    def __init__(self, v: Floats, mu: float, zero: int) -> None:
        self._v, self._mu, self._zero = v, mu, zero

    def bend(self, a: Floats, b: Floats) -> Floats:
        """D²φ(v)[a, b], with φ''(v) = 2μ/(v² + 4μ)^{3/2}."""
        curved = 2.0 * self._mu * (self._v * self._v + 4.0 * self._mu) ** -1.5
        curved[: self._zero] = 0.0
        return curved * a * b

    def split(self, v_bar: Floats) -> tuple[Floats, Floats]:
        """A cotangent of v as w on slack directions, of which there are none, and a cotangent ȳ of y."""
        # 1 − φ' = (1 − v/√(v² + 4μ))/2, written without cancellation where v > 0.
        v, root = self._v, np.sqrt(self._v * self._v + 4.0 * self._mu)
        complement = np.where(v > 0.0, 2.0 * self._mu / (root * (root + v)), 0.5 * (1.0 - v / root))
        return np.zeros_like(v_bar), -v_bar / complement


_FAILED = (
    "No point of the central path was found for mu={mu:g} (residual {residual:.1e}): the inequalities may have no "
    "strictly feasible point, or the set of solutions may be unbounded. Bound the variables, write pairs of "
    "inequalities as equalities, or choose singular='regularize'."
)


def _rotation(zero: int, s: Floats, y: Floats) -> Rotation:
    """Every inequality row stays, with H = s/y."""
    return Rotation(np.arange(len(s)), s[zero:] / y[zero:])
