"""What counts as F = 0, on each side of the thresholds that decide it."""

import numpy as np
import pytest

from cvxift.implicit.residual import CURVED, ROUNDINGS_OF_ZERO, relative_residual, tolerance_of, weights

pytest.importorskip("torch")
import torch  # after the skip

from cvxift.errors import ApplicabilityWarning
from cvxift.torch import implicit_argmin

EPS = float(np.finfo(float).eps)


def worst(F, x, t):
    along = [weights(len(x)), weights(len(t))]
    return relative_residual(np, F, x, [t], F(x, t), along, 0).max()


@pytest.mark.parametrize(("factor", "told"), [(0.5, False), (2.0, True)])
def test_an_entry_is_zero_up_to_some_roundings_of_the_largest(factor, told):
    """x₂² = t₂² has a unit of its own at any size; below the threshold x₂ beside x₁ = 1 may be what rounding left."""
    small = factor * ROUNDINGS_OF_ZERO * EPS
    t = np.array([1.0, small])
    ratio = worst(lambda x, t: np.array([x[0] - t[0], x[1] ** 2 - t[1] ** 2]), t * [1.0, 1.001], t)
    assert (ratio > 1e-4) if told else (ratio < tolerance_of(EPS) / 10)


@pytest.mark.parametrize(("bend", "told"), [(0.5 * CURVED, False), (2.0 * CURVED, True)])
def test_a_small_entry_counts_as_it_is_where_the_function_bends_over_half_of_it(bend, told):
    """x₂ + κ x₂²/s bends by κs/2 over half of x₂ = s, where it changes by s(1 + 2κ): κ is twice the bend, nearly."""
    small, kappa = 1e-9, 2.0 * bend / (1.0 - 4.0 * bend)
    t = np.array([1.0, small * (1.0 + kappa)])

    def F(x, t):
        return np.array([x[0] - t[0], x[1] + kappa * x[1] ** 2 / small - t[1]])

    ratio = worst(F, np.array([1.0, small * (1.0 + 1e-4)]), t)
    assert (ratio > 1e-5) if told else (ratio < tolerance_of(EPS) / 10)


@pytest.mark.parametrize(
    ("unit", "shared", "right"), [(1e-11, False, True), (1e-13, True, True), (1e-13, False, False)]
)
def test_tiny_constrained_unknowns_are_right_or_told(unit, shared, right):
    """The nearest point of x >= 0, sum x = unit, to t in a unit that is θ's own or not: dx/dt = I − ½ 1 1ᵀ."""
    scale = 1.0 if shared else unit
    t = unit / scale * torch.tensor([1.2, 0.9, -5.0], dtype=torch.float64)
    solve = implicit_argmin(
        lambda x, t: 0.5 * ((x - scale * t) ** 2).sum(),
        lambda t: torch.tensor([0.65 * unit, 0.35 * unit, 0.0], dtype=torch.float64),
        equality=lambda x, t: x.sum() - unit,
        inequality=lambda x, t: -x,
    )
    if not right:
        with pytest.warns(ApplicabilityWarning, match="state them in a larger one"):
            torch.func.jacrev(solve)(t)
        return
    J = torch.func.jacrev(solve)(t).numpy() / scale
    assert np.allclose(J, [[0.5, -0.5, 0.0], [-0.5, 0.5, 0.0], [0.0, 0.0, 0.0]], atol=1e-9)
