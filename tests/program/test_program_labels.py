"""Rows and columns are named after the user's own constraints, variables and atoms."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
from cvxpy.constraints.zero import Equality
from problem_zoo import NEEDS_1_9, OLD, ZOO

from cvxift.program import Program


def texts(labels) -> list[str]:
    return [label.text for label in labels]


def atom_name(label) -> str:
    return label.atom.split("(")[0]


def test_entries_of_constraints_and_variables():
    X, b = cp.Variable((2, 2), name="X"), cp.Parameter((2, 2), name="b")
    total = cp.sum(X) == 3
    program = Program(cp.Problem(cp.Minimize(cp.sum(X)), [b <= X, total]))
    columns = ["variable X[0, 0]", "variable X[1, 0]", "variable X[0, 1]", "variable X[1, 1]"]
    assert texts(program.column_labels) == columns
    assert texts(program.row_labels) == [
        "constraint 1 (sum(X) == 3)",
        "constraint 0 (X >= b), entry (0, 0)",
        "constraint 0 (X >= b), entry (1, 0)",
        "constraint 0 (X >= b), entry (0, 1)",
        "constraint 0 (X >= b), entry (1, 1)",
    ]
    assert program.row_labels[2].index == (1, 0)
    assert program.row_labels[2].constraint is program.problem.constraints[0]
    assert program.column_labels[-1].variable is X


def test_rows_are_the_entries_that_they_name(rng):
    """Row i of A and b is the entry of the constraint that its label names, at a random point."""
    X, B = cp.Variable((2, 3)), cp.Parameter((2, 3))
    problem = cp.Problem(cp.Minimize(cp.sum(X)), [X @ np.ones((3, 2)) >= 1, X.T <= B.T, X[1] == 2])
    program = Program(problem)
    X.value, B.value = rng.normal(size=(2, 3)), rng.normal(size=(2, 3))
    data = program.evaluate(program.pack({}))
    x = np.array([X.value[label.index] for label in program.column_labels])
    slack = data.b - program.structure.A_matrix(data.A) @ x
    for label, value in zip(program.row_labels, slack, strict=True):
        sign = 1 if isinstance(label.constraint, Equality) else -1
        assert abs(value) == pytest.approx(abs(label.constraint.expr.value[label.index]), abs=1e-12)
        assert sign == 1 or value == pytest.approx(-label.constraint.expr.value[label.index], abs=1e-12)


def test_atoms_own_what_they_introduce():
    x = cp.Variable(2, name="x")
    problem = cp.Problem(cp.Minimize(cp.norm1(x - 1)), [cp.norm(x) <= 2, cp.norm(x) + cp.sum(cp.exp(x)) <= 3])
    program = Program(problem)
    for label, user in zip(program.column_labels, program.user_columns, strict=True):
        assert (label.variable is x and label.atom is None) == user
    owners = {atom_name(label) for label in program.column_labels if label.atom is not None}
    assert owners == {"norm1", "norm", "exp"}
    by_atom: dict[str | None, list] = {}
    for label in program.row_labels:
        by_atom.setdefault(label.atom and atom_name(label), []).append(label)
    assert len(by_atom["norm1"]) == 4
    assert all("in the objective" in label.text and label.constraint is None for label in by_atom["norm1"])
    assert all(label.constraint in problem.constraints for label in by_atom["norm"])
    assert len(by_atom["exp"]) == 6
    assert all("in constraint 1" in label.text for label in by_atom["exp"])
    assert {label.text.split(" (")[0] for label in by_atom[None]} == {"constraint 0", "constraint 1"}


def test_attributes_and_bounds():
    u, v = cp.Variable(2, nonneg=True, name="u"), cp.Variable(2, bounds=[0, np.array([np.inf, 5.0])], name="v")
    Z = cp.Variable((2, 2), PSD=True, name="Z")
    program = Program(cp.Problem(cp.Minimize(cp.sum(u) + cp.sum(v) + cp.trace(Z))))
    found = set(texts(program.row_labels))
    assert {"u[0] >= 0 (nonneg=True)", "u[1] >= 0 (nonneg=True)", "v[0] >= 0 (bounds)", "v[1] <= 5 (bounds)"} <= found
    assert not any("v[0] <=" in text for text in found)
    assert "Z >> 0 (PSD=True), entry (0, 1)" in found
    assert {label.variable for label in program.row_labels} == {u, v, Z}


def test_cones_name_cone_and_argument():
    t, X = cp.Variable(2, name="t"), cp.Variable((3, 2), name="X")
    program = Program(cp.Problem(cp.Minimize(cp.sum(t)), [cp.SOC(t, X), X >= 1]))
    cone_rows = [label for label in program.row_labels if label.constraint is program.problem.constraints[0]]
    assert [label.index for label in cone_rows] == [(k, j) for k in range(2) for j in range(4)]
    assert cone_rows[0].text.endswith("cone 0, t")
    assert cone_rows[6].text.endswith("cone 1, X[1]")


def test_symmetric_variables_have_one_column_a_pair():
    S = cp.Variable((3, 3), symmetric=True, name="S")
    program = Program(cp.Problem(cp.Minimize(cp.sum_squares(S - np.ones((3, 3)))), [S >> 0]))
    entries = [label.index for label in program.column_labels if label.variable is S]
    assert entries == [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]


@pytest.mark.parametrize("name", ZOO)
def test_every_row_and_column_has_an_owner(name):
    if OLD and name in NEEDS_1_9:
        pytest.skip("needs CVXPY 1.9")
    case = ZOO[name](np.random.default_rng(0))
    program = Program(case.problem, gp=case.gp)
    assert (len(program.row_labels), len(program.column_labels)) == (program.structure.m, program.structure.n)
    for label in (*program.row_labels, *program.column_labels):
        assert label.constraint is not None or label.variable is not None or "in the objective" in label.text
    for label, user in zip(program.column_labels, program.user_columns, strict=True):
        assert (label.variable is not None) == user


def test_indexing_is_that_of_a_sequence():
    x = cp.Variable(3, name="x")
    labels = Program(cp.Problem(cp.Minimize(cp.sum(x)), [x >= 0])).column_labels
    assert labels[-1] == labels[2]
    assert labels[1:] == [labels[1], labels[2]]
    with pytest.raises(IndexError):
        labels[3]
