"""The examples run as a reader would run them, shortened where they take a number of steps.

All but those that start processes of their own run in this one: what a program imports takes longer than what it does.
"""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.children import light

matplotlib = pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

Run = Callable[..., str]


def needed(script: Path) -> None:
    """Skip where what a script imports is not installed."""
    for name in re.findall(r"^(?:import|from) (torch|jax|sklearn)\b", script.read_text(encoding="utf-8"), re.MULTILINE):
        pytest.importorskip(name)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """A function that runs an example in an empty folder, sees that it draws, and returns what it prints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(EXAMPLES)

    def here(name: str, *arguments: str) -> str:
        script = EXAMPLES / f"{name}.py"
        needed(script)
        monkeypatch.setattr(sys, "argv", [str(script), *arguments])
        runpy.run_path(str(script), run_name="__main__")
        assert (tmp_path / f"{name}.png").exists()
        return capsys.readouterr().out

    with matplotlib.rc_context():
        yield here
    matplotlib.pyplot.close("all")


def run_alone(name: str, *arguments: str, cwd: Path) -> str:
    """Standard output of an example that starts processes; fails with its error otherwise."""
    script = EXAMPLES / f"{name}.py"
    needed(script)
    command = [sys.executable, str(script), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=light())
    assert result.returncode == 0, result.stderr
    return result.stdout


def numbers(text: str, line: str) -> list[float]:
    """The numbers on the first line that begins with a word."""
    found = next(row for row in text.splitlines() if row.startswith(line))
    return [float(word) for word in re.findall(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?", found)]


def test_sparse_attention(run: Run) -> None:
    out = run("sparse_attention", "--steps", "3")
    assert numbers(out, "closed form against")[-1] < 1e-9


def test_multilabel(run: Run) -> None:
    out = run("multilabel", "--steps", "30")
    for name in ("softmax", "1.5-entmax", "sparsemax"):
        score, _, _, error = numbers(out.replace("1.5-entmax", "entmax"), name.replace("1.5-", ""))
        assert score > 0.5 and error < 1e-8


def test_one_problem_regression(run: Run) -> None:
    out = run("one_problem_regression", "--steps", "2")
    for name in ("logistic", "entmax", "sparsemax"):
        _, first, last, accuracy, error = numbers(out.replace("1.5-entmax", "entmax"), name)
        assert last < first and accuracy > 0.6 and error < 1e-6


def test_crf_tagging(run: Run) -> None:
    out = run("crf_tagging", "--steps", "10")
    assert max(numbers(out, "gradient against counts")) < 1e-12
    chained, alone = (numbers(out, f"test words tagged right {how}")[-1] for how in ("by the chain", "each alone"))
    assert chained > alone > 0.5


def test_hmm(run: Run) -> None:
    out = run("hmm", "--steps", "3", "--length", "300")
    for line in (
        "log-likelihood",
        "posteriors",
        "gradient in the scores",
        "gradient in log moves",
        "gradient of a post",
    ):
        assert numbers(out, line)[-1] < 1e-9
    used = [float(row.split()[-4]) for row in out.splitlines() if row.startswith("memory")]
    assert len(used) == 3 and used[2] < 1.1 * used[0]


def test_soft_ranking(run: Run) -> None:
    out = run("soft_ranking", "--steps", "40")
    assert numbers(out, "gradient of rank_loss")[-1] < 1e-12
    squares, ranked = (numbers(out, name)[-1] for name in ("least squares", "rank_loss"))
    assert ranked > squares


def test_unit_circle(run: Run) -> None:
    out = run("unit_circle")
    assert numbers(out, "slopes against")[-1] < 1e-12 and "singular along x" in out


def test_unrolled_or_implicit(run: Run) -> None:
    out = run("unrolled_or_implicit", "--steps", "300", "--n", "50", "--largest", "100")
    names, counts = ("unrolled", "checkpointed", "truncated", "implicit"), (30, 100, 300)
    held = {name: [numbers(out, f"{name} {count} steps 50 variables")[3] for count in counts] for name in names}
    few, more, most = held["unrolled"]  # linear in the number of steps, above what is held once
    assert abs((most - more) / (more - few) - 200 / 70) < 0.05 * 200 / 70
    assert max(held["implicit"]) <= 1.05 * min(held["implicit"])
    assert held["implicit"][2] < held["checkpointed"][2] < held["unrolled"][2]
    errors = {name: numbers(out, f"{name} 300 steps 50 variables")[2] for name in names}
    assert errors["implicit"] < 1e-10 and errors["unrolled"] < 1e-10 < 1e-3 < errors["truncated"]
    assert "report: applies" in out


def test_influence(run: Run) -> None:
    out = run("influence", "--examples", "80")
    assert numbers(out, "correlation")[-1] > 0.95 and "report: applies" in out


def test_hyperparameters(run: Run) -> None:
    out = run("hyperparameters", "--steps", "40", "--features", "60")
    first, last = numbers(out, "validation loss")
    useful, others = numbers(out, "median penalty")
    assert last < first and useful < others and "report: applies" in out


def test_softmax_four_ways(run: Run) -> None:
    out = run("softmax_four_ways")
    for name in ("closed form", "full KKT system", "reduced KKT system", "layer"):
        assert numbers(out, name)[-1] < 1e-9
    assert "report: applies, active bounds: 0" in out


def test_conserved_mass(run: Run) -> None:
    out = run("conserved_mass", "--points", "12")
    assert numbers(out, "slopes against differences")[-1] < 1e-6 and numbers(out, "mass conserved to")[-1] < 1e-12
    assert "report: applies" in out


def test_argmax_lp(run: Run) -> None:
    out = run("argmax_lp", "--points", "21")
    assert numbers(out, "linear program")[0] == 0.0
    assert all(numbers(out, name)[0] > 0.5 for name in ("entropy", "central path"))
    assert "away from the tie: applies; at it: does not apply" in out


def test_structured_energy(run: Run) -> None:
    out = run("structured_energy", "--steps", "8", "--length", "24")
    first, last = numbers(out, "training error from")
    assert numbers(out, "dL/dw against differences")[-1] < 1e-6 and last < first
    assert "report: applies" in out


def test_deep_equilibrium(run: Run) -> None:
    out = run("deep_equilibrium", "--steps", "20", "--width", "8", "--points", "20")
    first, last, _ = numbers(out, "loss from")
    assert numbers(out, "gradient against unrolling")[-1] < 1e-9 and last < first
    assert "report: applies" in out


def test_penalties(run: Run) -> None:
    out = run("penalties", "--steps", "30", "--degree", "2")
    for name in ("ridge", "LASSO"):
        grid, _, implicit = numbers(out, f"{name}: grid")
        assert implicit < grid + 1e-3 and f"report of {name}: applies" in out
    assert numbers(out, "Neumann series against")[-1] < 0.1


def test_mpc(run: Run) -> None:
    out = run("mpc", "--steps", "3", "--length", "6")
    first, last = numbers(out, "closed-loop cost from")
    assert numbers(out, "gradient through the closed loop")[-1] < 1e-6 and last < first
    assert "report: applies" in out


def test_semi_amortized(run: Run) -> None:
    out = run("semi_amortized", "--steps", "10", "--documents", "40")
    first, last = numbers(out, "loss on unseen words")
    alone, refined, _ = numbers(out, "fresh documents")
    assert last < first and refined < alone
    assert "report: applies" in out


def test_portfolio(run: Run) -> None:
    out = run("portfolio", "--steps", "5", "--days", "60")
    first, last = numbers(out, "training utility a day")
    assert last > first and "report: applies" in out


def test_maml(run: Run) -> None:
    out = run("maml", "--steps", "2", "--tasks", "2")
    assert all(value > 0.0 for value in numbers(out, "test loss after ten points")[-2:])
    assert "report: applies" in out


def test_sudoku(run: Run) -> None:
    out = run("sudoku", "--steps", "60", "--batch", "16", "--held-out", "20")
    first, last = numbers(out, "training loss from")[:2]
    assert last < 0.4 * first and numbers(out, "share of the rules")[-1] > 0.7
    assert "report: applies" in out


def test_optnet(run: Run) -> None:
    out = run("optnet", "--steps", "20")
    first, last = numbers(out, "error of the decisions")[:2]
    assert last < 0.7 * first and numbers(out, "gradients against differences")[-1] < 1e-5
    assert "report: applies" in out


def test_shortest_path(run: Run) -> None:
    out = run("shortest_path", "--steps", "12", "--days", "80", "--batch", "40")
    plain, trained = (numbers(out, f"{name}: regret")[0] for name in ("two-stage", "end to end"))
    assert trained < plain and "report: applies" in out


def test_kfac(run: Run) -> None:
    out = run("kfac", "--width", "4", "--steps", "2")
    plain, preconditioned = (numbers(out, f"{name}: gradient")[:3] for name in ("CG", "CG preconditioned by K-FAC"))
    assert preconditioned[2] < plain[2] and max(plain[1], preconditioned[1]) < 1e-5
    assert "report: applies" in out


def test_ddp(tmp_path: Path) -> None:
    out = run_alone("ddp", "--steps", "5", cwd=tmp_path)
    assert numbers(out, "weights of 2 processes")[-1] < 1e-14
    first, last = numbers(out, "loss")
    assert last < first


def test_shard_map(tmp_path: Path) -> None:
    lines = [line for line in run_alone("shard_map", cwd=tmp_path).splitlines() if line.startswith("process")]
    assert len(lines) == 2 and all("1 of 2 devices" in line for line in lines)
    assert all(float(line.split()[-1]) < 1e-5 for line in lines)  # JAX's default is float32
