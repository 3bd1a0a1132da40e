"""What type checkers make of a user's script."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tests" / "compat" / "typed_script.py"


@pytest.mark.parametrize(
    "command",
    [
        ["pyright", "--pythonpath", sys.executable],
        ["mypy", "--strict", "--allow-untyped-calls", "--implicit-reexport", "--follow-imports=silent"],
    ],
    ids=lambda command: command[0],
)
def test_a_checker_finds_every_type_as_declared(command, tmp_path):
    pytest.importorskip(command[0])
    cache = ["--cache-dir", str(tmp_path)] if command[0] == "mypy" else []
    found = subprocess.run(
        [sys.executable, "-m", *command, *cache, str(SCRIPT)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "MYPYPATH": str(ROOT)},  # mypy would take an installed cvxift before this one
        timeout=240,
    )
    assert found.returncode == 0, found.stdout + found.stderr


def test_diagnose_is_no_module():
    import cvxift
    import cvxift.diagnostics

    assert callable(cvxift.diagnose) and cvxift.diagnostics.diagnose is cvxift.diagnose
    assert not (ROOT / "cvxift" / "diagnostics" / "diagnose.py").exists()
