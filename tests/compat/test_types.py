"""What type checkers make of a user's script."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "tests" / "compat"
COMMANDS = {"pyright": ["--pythonpath", sys.executable], "mypy": ["--config-file", str(HERE / "mypy.ini")]}


@pytest.mark.parametrize("checker", COMMANDS)
def test_a_checker_finds_every_type_as_declared(checker):
    pytest.importorskip(checker)
    found = subprocess.run(
        [sys.executable, "-m", checker, *COMMANDS[checker], str(HERE / "typed_script.py")],
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
