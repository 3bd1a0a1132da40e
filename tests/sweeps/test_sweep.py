"""Sweeps in one process: what is recorded, what fails, folders and resuming, bad input."""

import itertools
import json
import tracemalloc

import cvxpy as cp
import numpy as np
import pytest

import cvxift
from cvxift.errors import ProgramError
from cvxift.layers.sweeps.shards import Folder

pytest.importorskip("pyarrow")


def box():
    """minimize ‖x − t‖² over 0 ≤ x ≤ w: x = clip(t, 0, w)."""
    x, t, w = cp.Variable(3, name="x"), cp.Parameter(3, name="t"), cp.Parameter(name="w", nonneg=True)
    return cp.Problem(cp.Minimize(cp.sum_squares(x - t)), [x >= 0, x <= w]), x, t, w


def values(n, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 3))


@pytest.mark.parametrize("closed_form", ["auto", "never"])
def test_values_jacobians_and_gradients_are_those_of_the_map(closed_form):
    problem, x, t, w = box()
    theta, bar = values(23), np.array([1.0, -2.0, 0.5])
    found = cvxift.sweep(
        problem,
        {t: theta, w: 0.8},
        jacobian=[(x, t), (x, w)],
        vjp={x: bar},
        shard_size=10,
        n_jobs=1,
        closed_form=closed_form,
    )
    inside = (theta > 0) & (theta < 0.8)
    assert len(found) == 23 and found.sizes == (10, 10, 3) and not found.failed and not found.warned
    assert np.allclose(found.value(x), np.clip(theta, 0, 0.8), atol=1e-9)
    assert np.allclose(found.jacobian(x, t), inside[:, :, None] * np.eye(3), atol=1e-9)
    assert np.allclose(found.jacobian(x, w), theta > 0.8, atol=1e-9)
    assert np.allclose(found.gradient(t), inside * bar, atol=1e-9)
    assert np.allclose(found.gradient(w), (theta > 0.8) @ bar, atol=1e-9)
    assert (found.column("margin") > 0).all()


def test_cotangents_and_scalars_by_instance_and_parts_of_a_jacobian_that_memory_allows(monkeypatch):
    from cvxift.layers.sweeps import block

    monkeypatch.setattr(block, "JACOBIAN_CHUNK", 1)  # one right-hand side at a time
    problem, x, t, w = box()
    theta, width, bars = values(7), np.linspace(0.1, 1.0, 7), values(7, 1)
    found = cvxift.sweep(
        problem, {t: theta, w: width}, jacobian=[(x, t), (x, w)], vjp={x: bars}, shard_size=3, n_jobs=1
    )
    inside = (theta > 0) & (theta < width[:, None])
    assert np.allclose(found.value(x), np.clip(theta, 0, width[:, None]), atol=1e-9)
    assert np.allclose(found.jacobian(x, t), inside[:, :, None] * np.eye(3), atol=1e-9)
    assert np.allclose(found.jacobian(x, w), theta > width[:, None], atol=1e-9)
    assert np.allclose(found.gradient(t), inside * bars, atol=1e-9)


def test_a_geometric_program_and_dual_variables_agree_with_differentiate():
    x, y = cp.Variable(pos=True, name="x"), cp.Variable(pos=True, name="y")
    a, b = cp.Parameter(pos=True, name="a"), cp.Parameter(pos=True, name="b")
    problem = cp.Problem(cp.Minimize(a * x + y**2 / x), [x * y >= b, y >= 0.1])
    ab = np.array([[1.0, 2.0], [2.0, 0.3], [0.5, 5.0]])
    found = cvxift.sweep(
        problem, {a: ab[:, 0], b: ab[:, 1]}, gp=True, jacobian=[(x, a), (y, b)], vjp={x: 1.0, y: -1.0}, n_jobs=1
    )
    for i, (a.value, b.value) in enumerate(ab):
        s = cvxift.differentiate(problem, gp=True)
        assert np.isclose(found.value(x)[i], s.value(x)) and np.isclose(found.jacobian(x, a)[i], s.jacobian(x, a))
        assert np.isclose(found.jacobian(y, b)[i], s.jacobian(y, b))
        assert np.isclose(found.gradient(b)[i], s.vjp({x: 1.0, y: -1.0})[b])
    problem, x, t, w = box()
    dual = problem.constraints[1].dual_variables[0]
    found = cvxift.sweep(problem, {t: values(4), w: 0.5}, outputs=[dual], jacobian=[(dual, t)], n_jobs=1)
    assert np.allclose(found.value(dual), 2 * np.maximum(values(4) - 0.5, 0), atol=1e-8)
    assert np.allclose(found.jacobian(dual, t), 2 * (values(4) > 0.5)[:, :, None] * np.eye(3), atol=1e-8)
    assert "dual1" in repr(found)


def test_each_failure_is_recorded_with_its_reason_and_costs_the_others_nothing():
    x, t, w = cp.Variable(3, name="x"), cp.Parameter(3, name="t"), cp.Parameter(name="w")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - t)), [x >= 0, x <= w])
    theta, width = values(40), np.full(40, 0.8)
    theta[5, 1], width[17], theta[29, 0] = np.nan, -1.0, 0.8  # refused; infeasible; on a kink
    found = cvxift.sweep(problem, {t: theta, w: width}, jacobian=[(x, t)], shard_size=16, n_jobs=1)
    assert [remark.index for remark in found.failed] == [5, 17]
    assert "'t'" in found.failed[0].reason and "nan" in found.failed[0].reason
    assert "infeasible" in found.failed[1].reason
    assert [remark.index for remark in found.warned] == [29] and "kink" in found.warned[0].reason
    good = np.setdiff1d(np.arange(40), [5, 17])
    assert np.isnan(found.value(x)[[5, 17]]).all() and np.isnan(found.jacobian(x, t)[[5, 17]]).all()
    assert np.allclose(found.value(x)[good], np.clip(theta[good], 0, 0.8), atol=1e-9)
    one = found.jacobian(x, t)[29]  # the derivative of one piece
    assert np.allclose(one[0], 0) or np.allclose(one[0], [1, 0, 0])
    off = cvxift.sweep(problem, {t: theta[29:30], w: 0.8}, jacobian=[(x, t)], singular="raise", n_jobs=1)
    assert "kink" in off.failed[0].reason


def test_reports_name_the_verdict_and_the_cause():
    x, c = cp.Variable(2, name="x"), cp.Parameter(2, name="c")
    problem = cp.Problem(cp.Minimize(c @ x), [cp.sum(x) == 1, x >= 0])
    found = cvxift.sweep(problem, {c: np.array([[1.0, 2.0], [1.0, 1.0]])}, report=True, n_jobs=1)
    assert found.column("verdict") == ["applies", "does not apply"]
    assert found.column("faults")[0] == "" and found.column("faults")[1].startswith("flat direction")
    assert found.column("condition")[0] < 1e3


def test_a_stream_gives_the_same_shards_as_whole_arrays_bit_for_bit(tmp_path):
    problem, x, t, w = box()
    theta = values(50)
    stream = ({t: theta[i:j], w: 0.8} for i, j in itertools.pairwise((0, 1, 1, 20, 33, 50)))
    asked = {"jacobian": [(x, t)], "shard_size": 12, "n_jobs": 1, "closed_form": "never"}
    whole = cvxift.sweep(problem, {t: theta, w: 0.8}, folder=tmp_path / "whole", **asked)
    streamed = cvxift.sweep(problem, stream, folder=tmp_path / "stream", **asked)
    assert whole.sizes == streamed.sizes == (12, 12, 12, 12, 2)
    for number in range(5):
        first, second = (Folder(tmp_path / name).file(number).read_bytes() for name in ("whole", "stream"))
        assert first == second
    assert np.array_equal(whole.value(x), np.concatenate([shard.value(x) for shard in streamed.shards()]))


class Stop(Exception):
    pass


def test_an_interrupted_sweep_goes_on_and_ends_with_the_same_bits(tmp_path, monkeypatch):
    problem, x, t, w = box()
    theta = values(60)
    asked = {"jacobian": [(x, t)], "shard_size": 10, "n_jobs": 1, "closed_form": "never", "solver": "OSQP"}
    cvxift.sweep(problem, {t: theta, w: 0.8}, folder=tmp_path / "undisturbed", **asked)

    def breaking(after):
        for i in range(0, 60, 10):
            if i == after:
                raise Stop
            yield {t: theta[i : i + 10], w: 0.8}

    for after in (20, 40):
        with pytest.raises(Stop):
            cvxift.sweep(problem, breaking(after), folder=tmp_path / "resumed", **asked)
        assert len(list((tmp_path / "resumed").glob("shard-*"))) == after // 10
    (tmp_path / "resumed" / "left.part").write_bytes(b"half")
    written = []
    write = Folder.write
    monkeypatch.setattr(
        Folder, "write", lambda self, number, *rest: (written.append(number), write(self, number, *rest))
    )
    found = cvxift.sweep(problem, {t: theta, w: 0.8}, folder=tmp_path / "resumed", **asked)
    assert written == [4, 5] and not list((tmp_path / "resumed").glob("*.part"))
    assert np.allclose(found.value(x), np.clip(theta, 0, 0.8), atol=1e-8)
    for number in range(6):
        one, two = (Folder(tmp_path / name).file(number).read_bytes() for name in ("undisturbed", "resumed"))
        assert one == two


class TestFolder:
    def sweep(self, folder, theta=None, **changes):
        problem, _, t, w = box()
        arguments = {"shard_size": 5, "n_jobs": 1, **changes}
        return cvxift.sweep(problem, {t: values(20) if theta is None else theta, w: 0.8}, folder=folder, **arguments)

    def test_a_shard_cut_short_is_named_computed_again_and_the_others_are_kept(self, tmp_path):
        found = self.sweep(tmp_path)
        x = next(iter(found._shapes))
        expected = found.column(x)
        file = Folder(tmp_path).file(2)
        file.write_bytes(file.read_bytes()[:-100])
        with pytest.raises(ProgramError, match=r"Shard 2.*cut short.*Call cvxift\.sweep again"):
            found.column(x)
        times = {number: Folder(tmp_path).file(number).stat().st_mtime_ns for number in (0, 1, 3)}
        with pytest.warns(UserWarning, match=r"Shard 2.*computed again"):
            again = self.sweep(tmp_path)
        assert np.array_equal(again.column(x), expected)
        assert times == {number: Folder(tmp_path).file(number).stat().st_mtime_ns for number in (0, 1, 3)}

    @pytest.mark.parametrize(
        ("changes", "named"),
        [({"shard_size": 4}, "shard_size"), ({"solver": "OSQP"}, "options"), ({"report": True}, "report")],
    )
    def test_another_sweep_in_the_folder_is_refused_and_nothing_is_lost(self, tmp_path, changes, named):
        self.sweep(tmp_path)
        before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
        with pytest.raises(ProgramError, match=rf"holds another sweep \({named}"):
            self.sweep(tmp_path, **changes)
        assert before == {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def test_another_problem_and_other_values_are_refused(self, tmp_path):
        self.sweep(tmp_path)
        with pytest.raises(ProgramError, match=r"Shard 0.*other values.*other digest"):
            self.sweep(tmp_path, values(20, 1))
        with pytest.raises(ProgramError, match=r"Shard 3.*it has 5 instances, and the values now given have 1"):
            self.sweep(tmp_path, values(20)[:16])
        x, t, w = cp.Variable(3, name="x"), cp.Parameter(3, name="t"), cp.Parameter(name="w", nonneg=True)
        other = cp.Problem(cp.Minimize(cp.sum_squares(x - 2 * t)), [x >= 0, x <= w])
        with pytest.raises(ProgramError, match=r"another sweep \(program"):
            cvxift.sweep(other, {t: values(20), w: 0.8}, folder=tmp_path, shard_size=5, n_jobs=1)

    def test_a_folder_that_cannot_be_written_is_refused_before_any_solving(self, tmp_path, monkeypatch):
        from cvxift.layers.sweeps import block

        monkeypatch.setattr(block.BlockSolver, "__call__", lambda *_: pytest.fail("solved"))
        (tmp_path / "file").write_text("")
        with pytest.raises(ProgramError, match=r"cannot be written.*may write to"):
            self.sweep(tmp_path / "file" / "folder")

    def test_columns_of_variables_without_names_are_the_same_in_every_process(self, tmp_path):
        for _ in range(2):  # CVXPY numbers them anew
            x, t = cp.Variable(2), cp.Parameter(2)
            problem = cp.Problem(cp.Minimize(cp.sum_squares(x - t)), [x >= 0])
            found = cvxift.sweep(problem, {t: np.ones((3, 2))}, jacobian=[(x, t)], folder=tmp_path, n_jobs=1)
        assert "value_variable0, jacobian_variable0_parameter0" in repr(found)
        assert set(json.loads((tmp_path / "sweep.json").read_text())["columns"]) == {
            "value_variable0",
            "jacobian_variable0_parameter0",
        }


BAD = [
    (lambda t, w: {t: np.ones((4, 2)), w: 1.0}, r"'t' has values of shape \(4, 2\); expected \(n, 3\), one for each"),
    (lambda t, w: {t: np.ones((4, 3))}, r"lacks parameter 'w'"),
    (lambda t, w: {t: np.ones((4, 3)), w: np.ones(5)}, r"numbers of instances differ: \{'t': 4, 'w': 5\}"),
    (lambda t, w: {t: np.ones(3), w: 1.0}, "dimension that numbers the instances"),
    (lambda t, w: {t: np.ones((4, 3)) * 1j, w: 1.0}, "'t' has values of type complex128"),
    (lambda t, w: {t: np.ones((4, 3)), w: 1.0, cp.Parameter(name="u"): 1.0}, "'u' of values is no parameter"),
    (lambda t, w: {"t": np.ones((4, 3)), w: 1.0}, "'t' of values is no parameter"),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_bad_values_are_refused_before_any_solving(make, message, monkeypatch, tmp_path):
    from cvxift.layers.sweeps import block

    monkeypatch.setattr(block.BlockSolver, "__call__", lambda *_: pytest.fail("solved"))
    problem, _, t, w = box()
    with pytest.raises(ProgramError, match=message):
        cvxift.sweep(problem, make(t, w), n_jobs=1, folder=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_bad_element_of_a_stream_is_named_and_finished_shards_stay(tmp_path):
    problem, _, t, w = box()
    stream = [{t: values(5), w: 1.0}, {t: values(5), w: 1.0}, {t: np.ones((5, 2)), w: 1.0}]
    with pytest.raises(ProgramError, match=r"'t' has values of shape \(5, 2\), element 2 of the stream"):
        cvxift.sweep(problem, iter(stream), n_jobs=1, folder=tmp_path, shard_size=5)
    assert len(list(tmp_path.glob("shard-*"))) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shard_size": 0}, "shard_size=0"),
        ({"n_jobs": 0}, "n_jobs=0"),
        ({"singular": "no"}, "singular='no'"),
        ({"outputs": ["x"]}, "got str"),
        ({"vjp": lambda x, t: {x: np.ones(2)}}, r"vjp of variable 'x' has shape \(2,\); expected \(3,\)"),
        ({"vjp": lambda x, t: {x: np.ones((4, 3))}}, "cotangents of 4 instances, but there are values of 2"),
        ({"jacobian": lambda x, t: [(t, x)]}, "pairs"),
        ({"jacobian": lambda x, t: [(x, cp.Parameter(name="u"))]}, "'u', which is no parameter"),
        ({"outputs": lambda x, t: [cp.Variable(name="y")]}, "'y'"),
        ({"progress": 1, "solver": "no such"}, "no such"),
    ],
)
def test_bad_arguments_are_refused(changes, message):
    problem, x, t, w = box()
    given = {key: value(x, t) if callable(value) else value for key, value in changes.items()}
    with pytest.raises(ProgramError, match=message):
        cvxift.sweep(problem, {t: values(2), w: 1.0}, **{"n_jobs": 1, **given})


def test_what_was_not_recorded_is_named():
    problem, x, t, w = box()
    found = cvxift.sweep(problem, {t: values(2), w: 1.0}, n_jobs=1)
    with pytest.raises(ProgramError, match=r"did not record the Jacobian of 'x' with respect to 't'"):
        found.jacobian(x, t)
    with pytest.raises(ProgramError, match=r"no column 'verdict'"):
        found.column("verdict")


def test_memory_does_not_grow_with_the_number_of_instances(tmp_path):
    problem, x, t, w = box()

    def peak(blocks, folder):
        tracemalloc.start()
        stream = ({t: values(200, seed), w: 0.8} for seed in range(blocks))
        cvxift.sweep(problem, stream, jacobian=[(x, t)], shard_size=200, n_jobs=1, folder=folder)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(2, tmp_path / "first")  # what the first calls keep
    few, many = peak(5, tmp_path / "few"), peak(50, tmp_path / "many")
    assert many < few + 200_000  # 45 more shards of 200 instances hold 4.3 MB


def test_the_progress_bar_counts_what_is_computed_and_what_was_there(tmp_path, capsys):
    pytest.importorskip("tqdm")
    problem, _, t, w = box()
    for _ in range(2):
        cvxift.sweep(problem, {t: values(20), w: 0.8}, shard_size=5, folder=tmp_path, n_jobs=1, progress=True)
        assert "20/20" in capsys.readouterr().err
