"""Layers: the check of every call, the last call's statistics, reports of batches, peers' layers, the recorder."""

from __future__ import annotations

import warnings

import cvxpy as cp
import numpy as np
import pytest

import cvxift
from cvxift.diagnostics import Recorder, call_check
from cvxift.errors import ApplicabilityError, ApplicabilityWarning, ProgramError
from cvxift.kkt.engine import Solution

torch = pytest.importorskip("torch")
layers = pytest.importorskip("cvxift.torch")

KINK, SMOOTH = [0.5, 0.5, 0.0], [0.5, 0.4, -1.0]


def make(**options):
    x, t = cp.Variable(3, name="x"), cp.Parameter(3, name="t")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - t)), [cp.sum(x) == 1, x >= 0])
    return layers.CvxpyLayer(problem, [t], [x], **options)


def tensor(value):
    return torch.tensor(value, dtype=torch.float64)


def test_warns_once_for_each_cause() -> None:
    layer = make()
    with pytest.warns(ApplicabilityWarning, match=r"entry \(2,\) is weakly active"):
        layer(tensor(KINK))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer(tensor(KINK))
        layer(tensor(SMOOTH))
    with pytest.warns(ApplicabilityWarning, match=r"entry \(0,\)"):
        layer(tensor([0.0, 0.5, 0.5]))


@pytest.mark.parametrize("bound", [cp.norm, cp.sum_squares])
def test_a_kink_is_not_blamed_on_a_cone_with_slack(bound) -> None:
    x, t = cp.Variable(2), cp.Parameter(2, value=np.array([0.0, 1.0]))
    for radius, names in ((5.0, ["constraint 0"]), (1.0, ["constraint 0", "constraint 1"])):  # 1: it is weakly active
        s = cvxift.differentiate(cp.Problem(cp.Minimize(cp.sum_squares(x - t)), [x >= 0, bound(x) <= radius]))
        with pytest.warns(cvxift.ApplicabilityWarning) as told:
            s.vjp({x: np.ones(2)})
        assert [name for name in ("constraint 0", "constraint 1") if name in str(told[0].message)] == names


@pytest.mark.parametrize("closed_form", ["auto", "never"])
def test_only_so_many_kinks_are_looked_for_ahead_but_every_gradient_speaks(
    closed_form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call_check, "JUDGED_SETS", 2)
    layer = make(closed_form=closed_form)
    kinks = tensor([KINK, [0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])
    with pytest.warns(ApplicabilityWarning) as told:
        layer(kinks)
    assert len(told) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer(kinks)
        layer(kinks[2])
    for row in kinks:  # for the whole of the layer's life
        value = row.clone().requires_grad_()
        with pytest.warns(ApplicabilityWarning, match="depends on the side"):
            layer(value)[0].square().sum().backward()


@pytest.mark.parametrize("batch", [False, True])
def test_raise_and_off(batch: bool) -> None:
    value = tensor([SMOOTH, KINK]) if batch else tensor(KINK)
    strict = make(check="raise")
    for _ in range(2):
        with pytest.raises(ApplicabilityError, match="Instance 1 of the batch" if batch else "weakly active"):
            strict(value)
    strict(tensor(SMOOTH))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(check="off")(value)
    with pytest.raises(ProgramError, match="check='loud'"):
        make(check="loud")


def test_a_harmless_kink_is_not_mentioned() -> None:
    x, t = cp.Variable(2, name="x"), cp.Parameter(2, name="t")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - t)), [x >= 0, x >= 0, cp.max(x) <= 4])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layers.CvxpyLayer(problem, [t], [x])(tensor([[-1.0, 0.5], [0.25, 0.25]]))


def test_last_report_and_recorder() -> None:
    layer = make(check="off", closed_form="never")
    recorder = Recorder(layer)
    assert layer.last_report is None
    with pytest.raises(ProgramError, match="not called yet"):
        recorder.step()
    with pytest.raises(ProgramError, match="expects a cvxift layer"):
        Recorder(3)
    layer(tensor([SMOOTH, KINK]))
    last = layer.last_report
    assert (last.instances, last.failed, last.weak) == (2, 0, 1)
    assert last.margin < 1e-12 and last.residual < 1e-12 and 1.0 <= last.condition < 100.0
    for scale in (1.0, 0.5, 0.1):
        layer(scale * tensor([1.0, 0.5, -0.2]))
        recorder.step()
    told = recorder.arrays()
    assert told["margin"].shape == (3,) and (told["margin"] > 0).all()
    pytest.importorskip("matplotlib")
    assert len(recorder.plot().axes) == 2


ATOMS = {
    "abs": lambda u: cp.abs(u) <= 1,
    "norm_inf": lambda u: cp.norm(u, "inf") <= 1,
    "maximum": lambda u: cp.maximum(u, -u) <= 1,
    "norm1": lambda u: cp.norm1(u) <= 2,
    "norm2": lambda u: cp.norm(u) <= np.sqrt(2),
    "square": lambda u: cp.square(u) <= 1,
}


@pytest.mark.parametrize("atom", ATOMS)
def test_the_last_report_does_not_contradict_the_diagnosis(atom: str) -> None:
    """|u| ≤ 1 inside the box: auxiliary variables are free to move, and the variables do not feel it."""
    u, t = cp.Variable(2, name="u"), cp.Parameter(2, name="t")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(u - t)), [ATOMS[atom](u)])
    layer = layers.CvxpyLayer(problem, [t], [u], check="off")
    points = {"inside": [0.3, 0.2], "at zero": [0.0, 0.0], "on the boundary": [1.0, 1.0], "outside": [1.5, 1.4]}
    layer(tensor(list(points.values())))
    batch = layer.last_report.margins
    for (place, point), margin in zip(points.items(), batch, strict=True):
        layer(tensor(point))
        last, report = layer.last_report, layer.diagnose(tensor(point))
        assert last.weak == (report.verdict is cvxift.Verdict.ONE_SIDED) == (place == "on the boundary"), place
        assert np.isfinite(last.condition) and (last.margin > 1e-2) == (last.weak == 0), place
        assert np.isclose(margin, last.margin, atol=1e-9)


def test_the_report_of_a_closed_form_factorizes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = make(check="off")
    layer(tensor([SMOOTH, KINK]))
    monkeypatch.setattr(Solution, "linearization", lambda *_: pytest.fail("a KKT system was formed"))
    assert "closed form" in layer.last_report.path and layer.last_report.weak == 1
    assert "condition" not in str(layer.last_report) and np.isnan(layer.last_report.condition)


@pytest.mark.parametrize("closed_form", ["auto", "never"])
def test_a_set_that_was_near_a_kink_does_not_hide_the_kink(closed_form: str) -> None:
    layer = make(closed_form=closed_form)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer(tensor([0.5, 0.5 - 1e-5, 1e-5]))  # 5e-6 from the kink: judged, and smooth
        layer(tensor([0.5, 0.5, -1e-5]))
    with pytest.warns(ApplicabilityWarning, match=r"with respect to t\[0\].*entry \(2,\) is weakly active"):
        layer(tensor(KINK))


def test_diagnose_a_batch() -> None:
    report = make().diagnose(tensor([[SMOOTH, KINK], [SMOOTH, SMOOTH]]))
    assert report.batch_shape == (2, 2) and report.verdicts == {"applies": 3, "one-sided": 1}
    assert not report.ok and report.verdict is cvxift.Verdict.ONE_SIDED
    assert next(iter(report.faults)).startswith("weakly active: constraint 1")
    assert report.to_dict()["reports"][1]["verdict"] == "one-sided" and "3 of 4" in str(report)


def test_the_figure_of_a_batch_counts_its_verdicts() -> None:
    pytest.importorskip("matplotlib")
    figure = make().diagnose(tensor([SMOOTH, KINK, SMOOTH])).plot()
    verdicts, instances = figure.axes
    assert [bar.get_width() for bar in verdicts.patches] == [2, 0, 1, 0, 0]
    assert sum(len(line.get_xdata()) for line in instances.lines) == 3
    x, t = cp.Variable(2), cp.Parameter(2)
    infeasible = layers.CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - t)), [x <= 0, cp.sum(x) == 1]), [t], [x])
    failed = infeasible.diagnose(tensor([[1.0, 1.0]]))
    assert [bar.get_width() for bar in failed.plot().axes[0].patches] == [0, 0, 0, 0, 1]


@pytest.mark.parametrize("tensors", [(), ([1.0, 2.0],), ("abc",), ([1.0, np.nan, 0.0],)])
def test_wrong_tensors_make_a_report(tensors) -> None:
    report = cvxift.diagnose(make(), *tensors)
    assert report.verdict is cvxift.Verdict.NOT_OPTIMAL and report.faults[0].cause == "bad input"


def test_a_cvxpylayers_layer_is_compared() -> None:
    peer = pytest.importorskip("cvxpylayers.torch")
    x, t = cp.Variable(3, name="x"), cp.Parameter(3, name="t")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - t)), [cp.sum(x) == 1, x >= 0])
    layer = peer.CvxpyLayer(problem, [t], [x])
    report = cvxift.diagnose(layer, tensor([SMOOTH, [0.3, 0.2, 0.4]]))
    assert report.ok and "agrees" in report[0].findings[0].text
    told = cvxift.diagnose(_named(_Wrong(layer)), tensor(SMOOTH))
    assert not told.ok and told.faults[0].cause == "gradient differs"
    assert cvxift.diagnose(layer, tensor(KINK)).verdict is cvxift.Verdict.ONE_SIDED


def test_a_cvxpylayers_layer_of_a_geometric_program_is_compared() -> None:
    peer = pytest.importorskip("cvxpylayers.torch")
    a, b = cp.Parameter(pos=True, name="a"), cp.Parameter(2, pos=True, name="b")
    x, y = cp.Variable(pos=True, name="x"), cp.Variable(pos=True, name="y")
    problem = cp.Problem(cp.Minimize(a / (x * y) + x), [x * y**0.5 <= b[0], y <= 3 * b[1]])
    layer = peer.CvxpyLayer(problem, [a, b], [x, y], gp=True)
    report = cvxift.diagnose(layer, tensor(2.0), tensor([1.5, 0.7]))
    assert report.ok and "agrees" in report.findings[0].text
    told = cvxift.diagnose(_named(_Wrong(layer)), tensor([2.0, 1.0]), tensor([1.5, 0.7]))
    assert told[0].faults[0].cause == "gradient differs"


def test_a_cvxpylayers_layer_of_jax_is_compared() -> None:
    peer, jax = pytest.importorskip("cvxpylayers.jax"), pytest.importorskip("jax")
    x, t = cp.Variable(3, name="x"), cp.Parameter(3, name="t")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - t)), [cp.sum(x) == 1, x >= 0])
    layer = peer.CvxpyLayer(problem, [t], [x])
    report = cvxift.diagnose(layer, jax.numpy.asarray([SMOOTH, [0.3, 0.2, 0.4]]))
    assert report.ok and "agrees" in report[0].findings[0].text


def test_tightening_a_peers_solver_cures_its_gradient() -> None:
    peer = pytest.importorskip("cvxpylayers.torch")
    x, t = cp.Variable(3, name="x"), cp.Parameter(3, name="t")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - t)), [cp.sum(x) == 1, x >= 0])
    loose = cvxift.diagnose(peer.CvxpyLayer(problem, [t], [x], solver_args={"eps": 0.1}), tensor(SMOOTH))
    assert not loose.ok and "Tighten the layer's solver" in loose.faults[0].advice
    assert cvxift.diagnose(peer.CvxpyLayer(problem, [t], [x], solver_args={"eps": 1e-9}), tensor(SMOOTH)).ok


def _named(wrong):
    type(wrong).__module__ = "cvxpylayers.test"
    return wrong


class _Wrong:
    """A layer whose gradient is twice what it should be."""

    def __init__(self, layer) -> None:
        self.layer, self.ctx = layer, layer.ctx

    def __call__(self, *tensors):
        return tuple(2.0 * out - out.detach() for out in self.layer(*tensors))


def test_a_large_degenerate_call_warns():
    n = 400
    x, theta = cp.Variable(n, name="x"), cp.Parameter(n)
    layer = layers.CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - theta)), [x >= 0]), [theta], [x])
    values = torch.ones(n, dtype=torch.float64)
    values[:50] = 0.0  # on the kink of max(θ, 0)
    with pytest.warns(ApplicabilityWarning, match=r"and 47 more are weakly active"):
        layer(values)
