"""Programs with a planted solution, one or more for each kind of cone."""

from __future__ import annotations

import numpy as np
import pytest
from plant import Planted, plant

from cvxift.cones import Cones

CASES = {
    "equality": (Cones(zero=3), 6),
    "quadratic": (Cones(zero=2, nonneg=7), 6),
    "no rows": (Cones(), 4),
    "soc": (Cones(zero=1, nonneg=2, soc=(3, 4, 4)), 9),
    "psd": (Cones(zero=1, psd=(3, 2)), 8),
    "exp": (Cones(zero=1, nonneg=2, exp=3), 10),
    "pow": (Cones(nonneg=1, pow=(0.3, 0.5, 0.8)), 9),
    "all": (Cones(zero=2, nonneg=3, soc=(1, 2, 5), psd=(1, 3), exp=2, pow=(0.4,)), 24),
}


@pytest.fixture(params=[(name, seed) for name in CASES for seed in range(3)], ids=lambda p: f"{p[0]}-{p[1]}")
def planted(request: pytest.FixtureRequest) -> Planted:
    """Three of each kind."""
    name, seed = request.param
    cones, n = CASES[name]
    return plant(cones, n, np.random.default_rng(seed))
