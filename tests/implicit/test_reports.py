"""The report of a function without a solver, of a batch, as a matrix and as a figure, in both frameworks."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from implicit_faces import Face

import cvxift
from cvxift.errors import ProgramError


def circle(x: Any, t: Any) -> Any:
    return t**2 + x**2 - 1.0


def projection(face: Face) -> Any:
    return face.implicit.implicit_argmin(
        lambda x, t: 0.5 * ((x - t) ** 2).sum(), lambda t: np.maximum(np.asarray(t), 0.0), inequality=lambda x, t: -x
    )


def test_an_equation_at_a_point(face: Face) -> None:
    report = cvxift.diagnose(circle, face.array(0.8), face.array(0.6))
    assert report.ok and report.audit().agrees and report.title == "implicit_root(circle)"
    vertical = cvxift.diagnose(circle, face.array(0.0), face.array(1.0))
    assert vertical.faults[0].cause == "singular Jacobian"
    elsewhere = cvxift.diagnose(circle, face.array(0.8), face.array(0.5))
    assert elsewhere.verdict.value == "point not optimal" and "x" in elsewhere.faults[0].text


def test_an_equation_of_structures(face: Face) -> None:
    x, t = {"a": face.array([1.0, 2.0]), "b": face.array(3.0)}, (face.array([2.0, 3.0]), 4)

    def F(x: Any, t: Any) -> Any:
        return {"a": x["a"] - t[0] + 1.0, "b": x["b"] ** 2 - (t[0].sum() + t[1])}

    report = cvxift.diagnose(F, x, t)
    assert report.ok and set(report.residuals) == {"x['a'][0]", "x['a'][1]", "x['b']"}
    assert np.allclose(report.system().matrix, np.diag([1.0, 1.0, 6.0]))


def test_plain_numbers_are_refused_since_nothing_differentiates_them() -> None:
    with pytest.raises(ProgramError, match=r"torch tensors or as JAX arrays.*float"):
        cvxift.diagnose(circle, 0.8, 0.6)
    with pytest.raises(ProgramError, match="Cannot diagnose"):
        cvxift.diagnose(3.0)


def test_a_batch(face: Face) -> None:
    solve = projection(face)
    report = solve.diagnose(face.array([[-1.0, 2.0], [0.0, 1.0], [3.0, -1e-3]]), batch=True)
    assert report.batch_shape == (3,) and report.verdicts == {"applies": 2, "one-sided": 1}
    assert report.faults == {"weakly active: inequality[0]": 1} and not report.ok
    assert report[1].margin == 0.0 < report[0].margin
    with pytest.raises(ProgramError, match=r"leading dimension.*theta\[0\] \(\)"):
        solve.diagnose(face.array(1.0), batch=True)


def test_the_matrix_and_the_dictionary(face: Face) -> None:
    report = projection(face).diagnose(face.array([-1.0, 2.0]))
    full, reduced = report.system("full"), report.system("reduced")
    assert full.rows == ("x[0]", "x[1]", "inequality[0]", "inequality[1]") and reduced.rows == full.rows[:3]
    assert np.allclose(reduced.matrix, [[1.0, 0.0, -1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
    with pytest.raises(ProgramError, match="kind"):
        report.system("half")
    told = json.loads(report.to_json())
    assert told["active"] == ["inequality[0]"] and told["multipliers"]["inequality[0]"] == pytest.approx(1.0)
    assert told["singular_values"][0] >= told["singular_values"][1] > 0.0


def test_figures(face: Face) -> None:
    pytest.importorskip("matplotlib")
    batch = projection(face).diagnose(face.array([[-1.0, 2.0], [3.0, -1e-3]]), batch=True)
    names = [axes.get_title() for axes in batch[0].plot().axes]
    assert names == ["residuals", "multipliers", "singular values"]
    points = sum(len(line.get_xdata()) for line in batch.plot().axes[1].lines)
    assert points == 2
    root = cvxift.diagnose(circle, face.array(0.8), face.array(0.6))
    assert [text.get_text() for text in root.plot().axes[1].texts] == ["no constraints"]
