"""The table: names, registration, entry points, and which solver is tried first."""

from __future__ import annotations

import importlib.metadata
import sys
from types import MappingProxyType

import numpy as np
import pytest
import scipy.sparse as sp
from planted_programs import plant, structure_of

from cvxift.errors import ProgramError
from cvxift.program.cones import Cones
from cvxift.program.structure import Structure
from cvxift.solvers import Session, Solver, choose, get, names, register, table


class Fake(Solver):
    """A solver of another package."""

    name = "fake"
    options = MappingProxyType({"depth": 1})

    def missing(self):
        return None

    def unsupported(self, structure):
        return None if structure.n < 5 else "it takes fewer than five variables"

    def _session(self, structure, options):
        return FakeSession(structure, options)


class FakeSession(Session):
    def _solve(self, P, q, A, b, warm):
        return self.failure(f"depth {self.options.get('depth')}")


@pytest.fixture
def clean(monkeypatch):
    """Registrations of a test end with it."""
    monkeypatch.setattr(table, "_registered", {})
    monkeypatch.setattr(table, "_open", {})
    table._entry_points.cache_clear()
    yield
    table._entry_points.cache_clear()


@pytest.mark.usefixtures("clean")
def test_register():
    register("Fake", Fake)
    assert "fake" in names()
    assert get("FAKE").name == "fake"
    assert get("fake") is get("Fake")
    small, large = (plant(Cones(nonneg=2), n, 0).structure for n in (3, 6))
    raw = get("fake").session(small, depth=7).solve(np.ones(9), np.ones(3), np.ones(6), np.ones(2))
    assert raw.message == "depth 7"
    with pytest.raises(ProgramError, match="fewer than five"):
        get("fake").session(large)
    with pytest.raises(ProgramError, match=r"has no option 'dept'\. Did you mean 'depth'"):
        get("fake").session(small, dept=7)


@pytest.mark.usefixtures("clean")
def test_registration_replaces():
    before = get("scs")
    register("scs", Fake)
    assert get("scs") is not before
    assert isinstance(get("scs"), Fake)


@pytest.mark.usefixtures("clean")
def test_entry_point(monkeypatch):
    point = importlib.metadata.EntryPoint("faraway", "test_table:Fake", table.ENTRY_POINTS)
    monkeypatch.setattr(table, "entry_points", lambda group: [point] if group == table.ENTRY_POINTS else [])
    monkeypatch.setitem(sys.modules, "test_table", sys.modules[__name__])
    assert "faraway" in names()
    assert isinstance(get("faraway"), Fake)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ProgramError, match=r"'nosuch'.*clarabel, daqp.*through CVXPY: .*HIGHS"):
        get("nosuch")


def test_names_are_read_in_any_case_and_cvxpy_is_asked_last():
    assert get("CLARABEL") is get("clarabel")
    assert get("highs").name == "highs"
    solver = get("daqp")
    assert get(solver) is solver


def diagonal_plus_row(n):
    """Projection on the simplex."""
    every = np.arange(n)
    A = sp.csc_array(sp.vstack([np.ones((1, n)), -sp.eye_array(n)]))
    A.sort_indices()
    coo = A.tocoo()
    return Structure.from_patterns(n, Cones(zero=1, nonneg=n), (every, every), (coo.row, coo.col))


def test_small_and_dense_programs_go_to_the_active_set_method():
    assert choose(plant(Cones(zero=5, nonneg=10), 10, 0).structure)[0] == "daqp"
    assert choose(plant(Cones(zero=50, nonneg=100), 100, 0).structure)[0] == "daqp"
    assert choose(diagonal_plus_row(20))[0] == "daqp"


def test_large_and_sparse_programs_go_to_the_interior_point_method():
    assert choose(diagonal_plus_row(100))[0] == "piqp"
    assert choose(diagonal_plus_row(2000))[0] == "piqp"
    assert choose(structure_of(np.eye(400), np.ones((2, 400)), Cones(nonneg=2))[0])[0] == "piqp"
    wide, _, _ = structure_of(np.eye(200), np.ones((600, 200)), Cones(nonneg=600))
    assert choose(wide)[0] == "piqp"


@pytest.mark.parametrize(("rows", "first"), [(8, "piqp"), (80, "daqp")])
def test_a_few_full_rows_are_sparse_to_an_interior_point_method(rows, first):
    """A diagonal cost under full rows: factors of 8 columns' width beside dense ones, or of a third of it."""
    n = 200
    structure, _, _ = structure_of(np.eye(n), np.ones((rows, n)), Cones(nonneg=rows))
    assert choose(structure)[0] == first


@pytest.mark.parametrize("n", [10, 100, 1000])
def test_every_quadratic_program_has_a_way_back(n):
    order = choose(diagonal_plus_row(n))
    assert "clarabel" in order  # recognizes infeasible programs
    assert len(order) == len(set(order)) >= 3


def test_cones_go_to_clarabel():
    assert choose(plant(Cones(soc=(3,), exp=1), 6, 0).structure) == ["clarabel", "scs"]
    assert choose(plant(Cones(psd=(2,)), 4, 0).structure) == ["clarabel", "scs"]


@pytest.mark.usefixtures("clean")
def test_choosing_opens_only_what_it_chooses_from():
    choose(plant(Cones(soc=(3,)), 6, 0).structure)
    assert set(table._open) == {"clarabel", "scs"}
