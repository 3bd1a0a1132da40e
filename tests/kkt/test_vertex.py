"""Active sets that a solver's point tells but for a few rows: Newton's whole steps find the others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cvxift.kkt import search
from cvxift.kkt.instance import Instance, Layout
from cvxift.kkt.newton import evaluate, polish
from cvxift.kkt.vertex import settle
from cvxift.program.structure import Cones, Data, Structure
from cvxift.solvers.base import Raw, Status

N, ROWS = 20, 50
FAINT = 6  # rows with multipliers, and others with slacks, that a solver's accuracy hides


def planted(rng: np.random.Generator, dense: bool, curvature: float = 0.0) -> tuple[Instance, np.ndarray, np.ndarray]:
    """A program with its solution at a vertex, where N rows are tight; the instance, x and v = s − y."""
    A, x = rng.standard_normal((ROWS, N)), rng.standard_normal(N)
    s, y = np.zeros(ROWS), np.zeros(ROWS)
    y[:N], s[N:] = rng.uniform(0.5, 2.0, N), rng.uniform(0.5, 2.0, ROWS - N)
    y[:FAINT] *= 1e-5
    s[-FAINT:] *= 1e-5
    P: Any = np.diag(curvature * (np.arange(N) % 2))
    rows, cols = np.nonzero(np.ones_like(A.T))[::-1]
    at = np.arange(N)
    structure = Structure.from_patterns(N, Cones(nonneg=ROWS), P=(at, at), A=(rows, cols))
    data = Data(np.array(P.diagonal(), dtype=float), -P @ x - A.T @ y, A.T.reshape(-1), A @ x + s, np.zeros(()))
    return Layout(structure, dense).instance(data, moderate=True), x, s - y


@pytest.mark.parametrize("curvature", [0.0, 1.0], ids=["linear", "quadratic"])
@pytest.mark.parametrize("dense", [True, False], ids=["dense", "sparse"])
@pytest.mark.parametrize("missing", [1, 3])
def test_missing_rows_become_tight(missing: int, dense: bool, curvature: float, rng: np.random.Generator) -> None:
    instance, x, v = planted(rng, dense, curvature)
    start = np.where(np.arange(ROWS) < missing * (1 if curvature else 2), 1e-6, v)  # odd columns have curvature
    x_off = x + 1e-6 * rng.standard_normal(N)
    assert curvature or polish(instance, x_off, start).worst > 1e-6  # damped steps on the set as read do not find them
    found = settle(instance, evaluate(instance, x_off, start))
    assert found.worst <= 1e-12
    np.testing.assert_allclose(found.x, x, atol=1e-9)
    np.testing.assert_array_equal(found.v < 0.0, v < 0.0)


@pytest.mark.parametrize("dense", [True, False], ids=["dense", "sparse"])
@pytest.mark.parametrize("wrong", [1, 3])
def test_dependent_rows_that_cannot_all_be_tight_are_let_go(wrong: int, dense: bool, rng: np.random.Generator) -> None:
    instance, x, v = planted(rng, dense)
    start = np.where(np.arange(ROWS) >= ROWS - wrong, -1e-6, v)
    found = settle(instance, evaluate(instance, x, start))
    assert found.worst <= 1e-12
    np.testing.assert_allclose(found.x, x, atol=1e-9)


def test_a_cost_without_end_along_a_flat_direction_is_no_point() -> None:
    zero = np.zeros(1, dtype=int)
    structure = Structure.from_patterns(2, Cones(nonneg=1), P=(zero, zero), A=(zero, zero))
    one = np.ones(1)
    data = Data(one, np.array([1.0, -1.0]), one, one, np.zeros(()))  # nothing holds the second column
    instance = Layout(structure).instance(data, moderate=True)
    start = polish(instance, np.zeros(2), one)
    assert settle(instance, evaluate(instance, np.zeros(2), one)).worst <= start.worst
    assert settle(instance, evaluate(instance, np.zeros(2), one)).worst > 1e-3


def test_an_active_set_is_tried_once(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    instance, x, v = planted(rng, True)
    s, y = np.maximum(v, 0.0), np.maximum(-v, 0.0)
    raw = Raw(x + 1.0, s[rng.permutation(ROWS)], y[rng.permutation(ROWS)], Status.SOLVED, "")  # a point of nothing
    seen: list[bytes] = []
    monkeypatch.setattr(search, "polish", lambda at, x, v: seen.append((v < 0.0).tobytes()) or polish(at, x, v))
    search.polished(instance, raw)
    assert len(seen) == len(set(seen)) > 0
