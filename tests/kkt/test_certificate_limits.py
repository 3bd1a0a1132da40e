"""What a linear solve's certificate lets pass: a case on each side of every limit."""

from __future__ import annotations

import numpy as np
import pytest

from cvxift.cones.product import on_host
from cvxift.kkt.backend import HOST
from cvxift.kkt.batch.programs import DensePrograms
from cvxift.kkt.system.batched import DenseSystems
from cvxift.kkt.system.factor import REFINE_STEPS, Certificate, Factor
from cvxift.program.cones import Cones


@pytest.mark.parametrize(
    ("residual", "rounding", "condition", "consistent"),
    [
        (5e-10, 0.0, 1e12, True),  # solved
        (5e-9, 0.0, 1.0, False),
        (5e-8, 1e-7, 1e12, True),  # no more than rounding leaves of it
        (5e-8, 1e-8, 1e12, False),
        (5e-7, 1e-2, 1e12, True),  # the most that is put down to rounding where K is ill-conditioned
        (5e-6, 1e-2, 1e12, False),
        (5e-6, 1e-2, 5e8, True),  # and where it is not, there is no limit
        (5e-6, 1e-2, 2e9, False),
        (5e-6, 4e-6, 5e8, False),
    ],
)
def test_residuals_up_to_rounding_count_as_solved(
    residual: float, rounding: float, condition: float, consistent: bool
) -> None:
    assert Certificate(residual, condition, "any", rounding=rounding).consistent is consistent


def curvatures(*least: float) -> DenseSystems:
    """Systems without rows whose P is diag(1, least)."""
    B = len(least)
    P = np.zeros((B, 2, 2))
    P[:, 0, 0], P[:, 1, 1] = 1.0, least
    programs = programs_of(P)
    return DenseSystems(programs, programs.cones.spectrum(np.zeros((B, 0))), None)


def programs_of(P: np.ndarray) -> DensePrograms:
    B, n = P.shape[:2]
    return DensePrograms(HOST, P, np.zeros((B, n)), np.zeros((B, 0, n)), np.zeros((B, 0)), on_host(Cones()))


def solved(systems: DenseSystems, g: list[float]) -> tuple[np.ndarray, np.ndarray]:
    u, _, certified = systems.solve(np.tile(g, (len(systems.K), 1)), np.zeros((len(systems.K), 0)))
    return u, certified


def test_solutions_that_grow_are_certified_up_to_a_condition_number() -> None:
    u, certified = solved(curvatures(1e-9, 1e-11), [0.0, 1.0])
    assert certified.tolist() == [True, False]
    np.testing.assert_allclose(u, [[0.0, 1e9], [0.0, 0.0]])


def test_singular_systems_are_solved_by_shifts_and_others_are_not() -> None:
    # Along the first column alone: what the second is divided by does not show in the solution, or in its growth.
    systems = curvatures(1e-12, 1e-15)
    assert systems._singular.tolist() == [False, True]
    u, certified = solved(systems, [1.0, 0.0])
    assert certified.tolist() == [True, True]
    np.testing.assert_allclose(u, [[1.0, 0.0], [1.0, 0.0]], atol=1e-7)


def test_factors_that_err_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = DenseSystems._factorized
    for error, fine in ((1e-7, True), (1e-5, False)):  # refinement leaves its square

        def factorized(self: DenseSystems, f: np.ndarray, error: float = error) -> np.ndarray:
            return (1.0 + error) * exact(self, f)

        monkeypatch.setattr(DenseSystems, "_factorized", factorized)
        u, certified = solved(curvatures(0.5, 0.5), [1.0, 1.0])
        assert certified.tolist() == [fine, fine]
        np.testing.assert_allclose(u, [[1.0, 2.0]] * 2 if fine else np.zeros((2, 2)), rtol=1e-12)


class Damped(Factor):
    """A factorization whose every application leaves a share of the residual."""

    method = "damped"

    def __init__(self, share: float) -> None:
        self.K, self.share = np.diag([2.0, -4.0]), share

    def apply_inverse(self, f: np.ndarray) -> np.ndarray:
        return (1.0 - self.share) * (f / np.diag(self.K))

    def estimate(self) -> float:
        return 2.0


@pytest.mark.parametrize(
    ("share", "further", "steps"),
    [
        (0.0, 0, 0),  # solved at once
        (0.0, 1, 1),
        (1e-3, 0, 4),  # down to the goal of 1e-14, and no step more
        (1e-3, 1, 5),
        (0.4, 0, REFINE_STEPS),  # every step helps, as long as there are any
        (0.6, 0, 1),  # the first leaves more than half
        (1.1, 0, 1),  # and this one harms: it is not taken
    ],
)
def test_refinement_goes_on_while_it_helps(share: float, further: int, steps: int) -> None:
    factor, f = Damped(share), np.array([1.0, 3.0])
    factor.further = further
    u, residual, taken = factor.solve(f)
    assert taken == steps
    kept = 1 if share > 1.0 else 1 + steps
    assert residual == pytest.approx(share**kept, rel=1e-6, abs=1e-15)
    np.testing.assert_allclose(f - factor.K @ u, share**kept * f, rtol=1e-6, atol=1e-14)
