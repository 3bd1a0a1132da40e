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
