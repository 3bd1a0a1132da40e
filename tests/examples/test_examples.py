"""The examples run as a reader would run them, shortened where they take a number of steps."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")

ROOT = Path(__file__).resolve().parents[2]


def run(name: str, *arguments: str, cwd: Path) -> str:
    """Standard output of an example; fails with its error otherwise."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}
    command = [sys.executable, str(ROOT / "examples" / name), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=300)
    assert result.returncode == 0, result.stderr
    return result.stdout


def numbers(text: str, line: str) -> list[float]:
    """The numbers on the first line that begins with a word."""
    found = next(row for row in text.splitlines() if row.startswith(line))
    return [float(word) for word in re.findall(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?", found)]


def test_sparse_attention(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    out = run("sparse_attention.py", "--steps", "3", cwd=tmp_path)
    assert numbers(out, "closed form against")[-1] < 1e-9 and (tmp_path / "sparse_attention.png").exists()


def test_multilabel(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    out = run("multilabel.py", "--steps", "30", cwd=tmp_path)
    for name in ("softmax", "1.5-entmax", "sparsemax"):
        score, _, _, error = numbers(out.replace("1.5-entmax", "entmax"), name.replace("1.5-", ""))
        assert score > 0.5 and error < 1e-8
    assert (tmp_path / "multilabel.png").exists()


def test_one_problem_regression(tmp_path: Path) -> None:
    out = run("one_problem_regression.py", "--steps", "2", cwd=tmp_path)
    for name in ("logistic", "entmax", "sparsemax"):
        _, first, last, accuracy, error = numbers(out.replace("1.5-entmax", "entmax"), name)
        assert last < first and accuracy > 0.6 and error < 1e-6
    assert (tmp_path / "one_problem_regression.png").exists()


def test_crf_tagging(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    out = run("crf_tagging.py", "--steps", "10", cwd=tmp_path)
    assert max(numbers(out, "gradient against counts")) < 1e-12
    chained, alone = (numbers(out, f"test words tagged right {how}")[-1] for how in ("by the chain", "each alone"))
    assert chained > alone > 0.5 and (tmp_path / "crf_tagging.png").exists()


def test_hmm(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    out = run("hmm.py", "--steps", "3", "--length", "300", cwd=tmp_path)
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
    assert (tmp_path / "hmm.png").exists()


def test_soft_ranking(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    out = run("soft_ranking.py", "--steps", "40", cwd=tmp_path)
    assert numbers(out, "gradient of rank_loss")[-1] < 1e-12
    squares, ranked = (numbers(out, name)[-1] for name in ("least squares", "rank_loss"))
    assert ranked > squares and (tmp_path / "soft_ranking.png").exists()


def test_unit_circle(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    out = run("unit_circle.py", cwd=tmp_path)
    assert numbers(out, "slopes against")[-1] < 1e-12 and "singular along x" in out
    assert (tmp_path / "unit_circle.png").exists()


def test_unrolled_or_implicit(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    out = run("unrolled_or_implicit.py", "--steps", "300", "--n", "50", "--largest", "100", cwd=tmp_path)
    names, counts = ("unrolled", "checkpointed", "truncated", "implicit"), (30, 100, 300)
    held = {name: [numbers(out, f"{name} {count} steps 50 variables")[3] for count in counts] for name in names}
    few, more, most = held["unrolled"]  # linear in the number of steps, above what is held once
    assert abs((most - more) / (more - few) - 200 / 70) < 0.05 * 200 / 70
    assert max(held["implicit"]) <= 1.05 * min(held["implicit"])
    assert held["implicit"][2] < held["checkpointed"][2] < held["unrolled"][2]
    errors = {name: numbers(out, f"{name} 300 steps 50 variables")[2] for name in names}
    assert errors["implicit"] < 1e-10 and errors["unrolled"] < 1e-10 < 1e-3 < errors["truncated"]
    assert "report: applies" in out
    assert (tmp_path / "unrolled_or_implicit.png").exists()


def test_influence(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    out = run("influence.py", "--examples", "80", cwd=tmp_path)
    assert numbers(out, "correlation")[-1] > 0.95 and "report: applies" in out
    assert (tmp_path / "influence.png").exists()


def test_hyperparameters(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    out = run("hyperparameters.py", "--steps", "40", "--features", "60", cwd=tmp_path)
    first, last = numbers(out, "validation loss")
    useful, others = numbers(out, "median penalty")
    assert last < first and useful < others and "report: applies" in out
    assert (tmp_path / "hyperparameters.png").exists()


def test_softmax_four_ways(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    out = run("softmax_four_ways.py", cwd=tmp_path)
    for name in ("closed form", "full KKT system", "reduced KKT system", "layer"):
        assert numbers(out, name)[-1] < 1e-9
    assert "report: applies, active bounds: 0" in out and (tmp_path / "softmax_four_ways.png").exists()


def test_conserved_mass(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    out = run("conserved_mass.py", "--points", "12", cwd=tmp_path)
    assert numbers(out, "slopes against differences")[-1] < 1e-6 and numbers(out, "mass conserved to")[-1] < 1e-12
    assert "report: applies" in out and (tmp_path / "conserved_mass.png").exists()


def test_argmax_lp(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    out = run("argmax_lp.py", "--points", "21", cwd=tmp_path)
    assert numbers(out, "linear program")[0] == 0.0
    assert all(numbers(out, name)[0] > 0.5 for name in ("entropy", "central path"))
    assert "away from the tie: applies; at it: does not apply" in out and (tmp_path / "argmax_lp.png").exists()


def test_structured_energy(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    out = run("structured_energy.py", "--steps", "8", "--length", "24", cwd=tmp_path)
    first, last = numbers(out, "training error from")
    assert numbers(out, "dL/dw against differences")[-1] < 1e-6 and last < first
    assert "report: applies" in out and (tmp_path / "structured_energy.png").exists()


def test_deep_equilibrium(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    out = run("deep_equilibrium.py", "--steps", "20", "--width", "8", "--points", "20", cwd=tmp_path)
    first, last, _ = numbers(out, "loss from")
    assert numbers(out, "gradient against unrolling")[-1] < 1e-9 and last < first
    assert "report: applies" in out and (tmp_path / "deep_equilibrium.png").exists()


def test_penalties(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    out = run("penalties.py", "--steps", "30", "--degree", "2", cwd=tmp_path)
    for name in ("ridge", "LASSO"):
        grid, _, implicit = numbers(out, f"{name}: grid")
        assert implicit < grid + 1e-3 and f"report of {name}: applies" in out
    assert numbers(out, "Neumann series against")[-1] < 0.1 and (tmp_path / "penalties.png").exists()


def test_mpc(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    out = run("mpc.py", "--steps", "3", "--length", "6", cwd=tmp_path)
    first, last = numbers(out, "closed-loop cost from")
    assert numbers(out, "gradient through the closed loop")[-1] < 1e-6 and last < first
    assert "report: applies" in out and (tmp_path / "mpc.png").exists()


def test_semi_amortized(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    out = run("semi_amortized.py", "--steps", "10", "--documents", "40", cwd=tmp_path)
    first, last = numbers(out, "loss on unseen words")
    alone, refined, _ = numbers(out, "fresh documents")
    assert last < first and refined < alone
    assert "report: applies" in out and (tmp_path / "semi_amortized.png").exists()


def test_portfolio(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    out = run("portfolio.py", "--steps", "5", "--days", "60", cwd=tmp_path)
    first, last = numbers(out, "training utility a day")
    assert last > first and "report: applies" in out and (tmp_path / "portfolio.png").exists()


def test_maml(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    out = run("maml.py", "--steps", "4", "--tasks", "2", cwd=tmp_path)
    assert all(value > 0.0 for value in numbers(out, "test loss after ten points")[-2:])
    assert "report: applies" in out and (tmp_path / "maml.png").exists()


def test_sudoku(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    out = run("sudoku.py", "--steps", "60", "--batch", "16", "--held-out", "20", cwd=tmp_path)
    first, last = numbers(out, "training loss from")[:2]
    assert last < 0.4 * first and numbers(out, "share of the rules")[-1] > 0.7
    assert "report: applies" in out and (tmp_path / "sudoku.png").exists()


def test_optnet(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    out = run("optnet.py", "--steps", "20", cwd=tmp_path)
    first, last = numbers(out, "error of the decisions")[:2]
    assert last < 0.7 * first and numbers(out, "gradients against differences")[-1] < 1e-5
    assert "report: applies" in out and (tmp_path / "optnet.png").exists()


def test_shortest_path(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    out = run("shortest_path.py", "--steps", "12", "--days", "80", "--batch", "40", cwd=tmp_path)
    plain, trained = (numbers(out, f"{name}: regret")[0] for name in ("two-stage", "end to end"))
    assert trained < plain and "report: applies" in out and (tmp_path / "shortest_path.png").exists()


def test_kfac(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    out = run("kfac.py", "--width", "4", "--steps", "2", cwd=tmp_path)
    plain, preconditioned = (numbers(out, f"{name}: gradient")[:3] for name in ("CG", "CG preconditioned by K-FAC"))
    assert preconditioned[2] < plain[2] and max(plain[1], preconditioned[1]) < 1e-5
    assert "report: applies" in out and (tmp_path / "kfac.png").exists()


def test_ddp(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    out = run("ddp.py", "--steps", "5", cwd=tmp_path)
    assert numbers(out, "weights of 2 processes")[-1] < 1e-14
    first, last = numbers(out, "loss")
    assert last < first


def test_shard_map(tmp_path: Path) -> None:
    pytest.importorskip("jax")
    lines = [line for line in run("shard_map.py", cwd=tmp_path).splitlines() if line.startswith("process")]
    assert len(lines) == 2 and all("1 of 2 devices" in line for line in lines)
    assert all(float(line.split()[-1]) < 1e-5 for line in lines)  # JAX's default is float32
