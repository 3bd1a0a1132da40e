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
    out = run("unrolled_or_implicit.py", "--steps", "300", "--n", "20", cwd=tmp_path)
    names, counts = ("unrolled", "implicit"), (30, 100, 300)
    kept = {name: [numbers(out, f"{name} {count} steps")[2] for count in counts] for name in names}
    few, more, most = kept["unrolled"]  # linear in the number of steps, above what is kept once
    assert abs((most - more) / (more - few) - 200 / 70) < 0.05 * 200 / 70
    assert max(kept["implicit"]) <= 1.05 * min(kept["implicit"])
    assert numbers(out, "implicit 300 steps")[1] < 1e-6 and "report: applies" in out
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
