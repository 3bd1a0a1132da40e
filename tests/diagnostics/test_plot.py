"""Figures that a paper can print: zero multipliers have no bars, no legend covers data, names are whole."""

from __future__ import annotations

import warnings

import cvxpy as cp
import numpy as np
import pytest

import cvxift
from cvxift.diagnostics import Recorder
from cvxift.layers.core import LayerCore

pytest.importorskip("matplotlib")

x, theta = cp.Variable(4, name="x"), cp.Parameter(4, name="theta")
LONG = (
    np.random.default_rng(0).standard_normal((2, 4)) @ (x + cp.multiply(theta, np.arange(4))) <= cp.sum(theta[:2]) + 9
)


def drawn(figure):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of what does not fit
        figure.canvas.draw()
    return figure


def whole(axis) -> bool:
    low, high = sorted(axis.get_view_interval())
    return all(float(tick).is_integer() for tick in axis.get_ticklocs() if low <= tick <= high)


@pytest.fixture
def report():
    theta.value = np.array([0.5, 0.5, 0.0, -1.0])
    constraints = [cp.sum(x) == 1, x >= 0, cp.norm(x) <= 3, LONG]
    return cvxift.diagnose(cp.Problem(cp.Minimize(cp.sum_squares(x - theta)), constraints))


def test_zero_multipliers_are_no_bars(report) -> None:
    figure = drawn(report.plot())
    active = figure.axes[0]
    multipliers = np.array([abs(row.multiplier) for row in report.active_set])
    bars = {round(bar.get_y() + bar.get_height() / 2): bar.get_x() + bar.get_width() for bar in active.patches}
    counted = np.flatnonzero(multipliers > 1e-9)
    assert sorted(bars) == list(counted)
    np.testing.assert_allclose([bars[k] for k in counted], multipliers[counted], rtol=1e-12)
    assert active.get_xscale() == "log" and len(active.collections[0].get_offsets()) == len(multipliers) - len(counted)


def test_names_are_whole_and_inside_the_figure(report) -> None:
    figure = drawn(report.plot())
    shown = [label.get_text().replace("\n", " ") for label in figure.axes[0].get_yticklabels()]
    assert shown == [row.name for row in report.active_set] and not any("…" in text for text in shown)
    for label in figure.axes[0].get_yticklabels():
        assert label.get_window_extent().x0 >= 0


def test_legends_lie_outside_the_axes(report) -> None:
    figure = drawn(report.plot())
    assert all(axes.get_legend() is None for axes in figure.axes)
    below = figure.legends[0].get_window_extent()
    assert all(below.y1 <= axes.get_window_extent().y0 for axes in figure.axes)
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {row.state for row in report.active_set}


def test_indices_are_integers(report) -> None:
    figure = drawn(report.plot())
    assert whole(figure.axes[1].xaxis) and whole(figure.axes[2].xaxis)
    assert figure.axes[1].get_yscale() == figure.axes[2].get_yscale() == "log"


@pytest.mark.parametrize("count", [1, 40])
def test_few_and_many_constraints(count) -> None:
    y, t = cp.Variable(count, name="y"), cp.Parameter(count, name="t", value=np.linspace(-1.0, 1.0, count))
    figure = drawn(cvxift.diagnose(cp.Problem(cp.Minimize(cp.sum_squares(y - t)), [y >= -0.1])).plot())
    assert count < 25 or whole(figure.axes[0].yaxis)
    free = drawn(cvxift.diagnose(cp.Problem(cp.Minimize(cp.sum_squares(y - t)))).plot())
    assert "no constraints" in {text.get_text() for text in free.axes[0].texts}


def test_a_batch_and_a_recorder_have_integer_ticks_and_no_legend_over_data() -> None:
    layer = LayerCore(cp.Problem(cp.Minimize(cp.sum_squares(x - theta)), [cp.sum(x) == 1, x >= 0]), [theta], [x])
    values = np.random.default_rng(0).standard_normal((3, 4))
    values[0] = [0.5, 0.5, 0.0, -1.0]
    figure = drawn(cvxift.diagnose(layer, values).plot())
    assert whole(figure.axes[0].xaxis) and all(axes.get_legend() is None for axes in figure.axes)
    assert figure.axes[1].get_xscale() == figure.axes[1].get_yscale() == "log"
    recorder = Recorder(layer)
    for k in range(3):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            layer.solve([values[: k + 1]], None, False)
        recorder.step()
    figure = drawn(recorder.plot())
    assert all(whole(axes.xaxis) and axes.get_legend() is None for axes in figure.axes)
