"""Expressions and constraints in messages read as a user writes them, and cost little."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
import scipy.sparse as sp

from cvxift.program import labels
from cvxift.program.messages import LONGEST_TEXT, short
from cvxift.program.program import Program

x, X, t = cp.Variable(4, name="x"), cp.Variable((2, 2), name="X", symmetric=True), cp.Parameter(name="t", nonneg=True)
Z = cp.Variable((3, 2), name="Z")


@pytest.mark.parametrize(
    ("thing", "text"),
    [
        (cp.norm(x) <= 1, "norm(x, 2) <= 1"),
        (cp.norm(x - np.ones(4), 3) <= t, "norm(x - 1, 3) <= t"),
        (cp.norm1(x) + t * cp.norm_inf(x), "norm1(x) + t * norm_inf(x)"),
        (cp.norm(X, "nuc") <= 1, 'norm(X, "nuc") <= 1'),
        (x >= 0, "x >= 0"),
        (x[1:3] <= x[:2], "x[1:3] <= x[:2]"),
        (cp.sum(X, axis=1) == np.ones(2), "sum(X, axis=1) == 1"),
        (0.5 * cp.sum_squares(x - t), "0.5 * sum_squares(x - t)"),
        (
            cp.square(x) + cp.sqrt(x) + cp.inv_pos(x) + cp.power(x, 1.5),
            "square(x) + sqrt(x) + inv_pos(x) + power(x, 1.5)",
        ),
        (cp.geo_mean(x) >= t, "geo_mean(x) >= t"),
        (cp.pos(-(x + 1)), "pos(-(x + 1))"),
        (np.ones((3, 4)) @ x <= np.arange(3), "(3×4 matrix) @ x <= [0, 1, 2]"),
        (np.ones((9, 4)) @ x <= np.arange(9), "(9×4 matrix) @ x <= (vector of 9)"),
        (cp.multiply(sp.csc_array(np.full((3, 2), 2.0)), Z), "multiply(2, Z)"),  # a number, whatever holds it
        (cp.multiply(sp.csc_array(2.0 * np.eye(3, 2)), Z), "multiply((3×2 matrix), Z)"),
        (cp.multiply(np.arange(4), x), "multiply([0, 1, 2, 3], x)"),
        (X >> np.eye(2), "X >> (2×2 matrix)"),
        (X << 0, "X << 0"),
        (X.T[0], "X.T[0]"),
        (2 * (x - 1) - (x - 2), "2 * (x - 1) - (x - 2)"),
        (sum(x[k] for k in range(4)) + t + 2 == 0, "x[0] + x[1] + x[2] + … + 2 == 0"),
        (cp.hstack([x, x]), "hstack([x, x])"),
        (cp.quad_form(x, np.eye(4)), "quad_form(x, (4×4 matrix))"),
        (cp.huber(x, 2), "huber(x, 2)"),
        ("a\n  b", "a b"),
    ],
)
def test_words(thing, text) -> None:
    assert short(thing) == text


def test_a_long_text_loses_its_innermost_parts_first() -> None:
    inner = cp.exp(cp.exp(x) + cp.exp(2 * x) + cp.exp(3 * x))
    text = short(cp.sum(inner + cp.exp(inner) + cp.exp(cp.exp(inner))) <= t)
    assert len(text) <= LONGEST_TEXT and text.startswith("sum(exp(") and text.endswith(") <= t") and "…" in text


def test_names_of_rows_write_no_large_constant_out_and_each_constraint_once(monkeypatch) -> None:
    rng = np.random.default_rng(0)
    z, b = cp.Variable(400, name="z"), cp.Parameter(300, name="b")
    program = Program(cp.Problem(cp.Minimize(cp.sum(z)), [rng.standard_normal((300, 400)) @ z <= b, z >= 0]))
    written, once = [], labels.short
    monkeypatch.setattr(labels, "short", lambda thing: written.append(thing) or once(thing))
    monkeypatch.setattr(cp.Constant, "name", lambda self: pytest.fail("a constant was written out"))
    texts = [label.text for label in program.row_labels]
    assert len(written) == 2
    assert texts[3] == "constraint 0 ((300×400 matrix) @ z <= b), entry (3,)"
    assert texts[-1] == "constraint 1 (z >= 0), entry (399,)"
