"""The command line: exit status, forms of output, and what it says of bad usage."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

import cvxift
from cvxift.cli import main

SCRIPT = """
import cvxpy as cp, numpy as np
print("the script's own words")
x, t = cp.Variable(3, name="x"), cp.Parameter(3, name="t", value=np.array([0.5, 0.4, -1.0]))
good = cp.Problem(cp.Minimize(cp.sum_squares(x - t)), [cp.sum(x) == 1, x >= 0])
flat = cp.Problem(cp.Minimize(cp.sum(x) + 0 * cp.sum(t)), [cp.sum(x) == 1, x >= 0])
def make():
    return good
"""


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "model.py"
    path.write_text(SCRIPT, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("name", "status"), [(":good", 0), (":flat", 1), (":make", 0), ("", 1), (":none", 2), ("x", 2)]
)
def test_exit_status(script: str, name: str, status: int) -> None:
    assert main(["check", script + name]) == status


def test_bad_usage(script: str, tmp_path: Path, capsys) -> None:
    assert main([]) == 2
    assert main(["check"]) == 2
    empty, broken = tmp_path / "empty.py", tmp_path / "broken.py"
    empty.write_text("a = 1\n", encoding="utf-8")
    broken.write_text("raise KeyError('no data')\n", encoding="utf-8")
    assert main(["check", str(empty)]) == 2 and main(["check", str(broken)]) == 2
    told = capsys.readouterr().err
    assert "no cp.Problem at module level" in told and "KeyError: 'no data'" in told
    assert main(["check", script, "--html", str(tmp_path / "missing" / "out.html")]) == 2
    assert main(["check", "--help"]) == 0


def test_outputs(script: str, tmp_path: Path, capsys) -> None:
    page, figure = tmp_path / "out.html", tmp_path / "out.svg"
    arguments = ["check", script, "--json", "--html", str(page)]
    assert main(arguments) == 1
    told = json.loads(capsys.readouterr().out)
    assert list(told) == ["good", "flat"] and told["good"]["ok"] and told["flat"]["verdict"] == "does not apply"
    assert "does not apply" in page.read_text(encoding="utf-8")
    pytest.importorskip("matplotlib")
    assert main(["check", script, "--plot", str(figure)]) == 1
    assert (tmp_path / "out-good.svg").exists() and (tmp_path / "out-flat.svg").exists()


def test_it_prints_what_the_report_prints(script: str, capsys) -> None:
    main(["check", script + ":flat"])
    printed = capsys.readouterr().out
    names = runpy.run_path(script)
    capsys.readouterr()
    report = cvxift.diagnose(names["flat"])
    report.title = f"flat ({report.title})"
    assert [line for line in printed.splitlines() if "solved" not in line] == [
        line for line in [*str(report).splitlines(), ""] if "solved" not in line
    ]
    assert "not unique" in printed and "0.5 * eps * cp.sum_squares(x)" in printed
