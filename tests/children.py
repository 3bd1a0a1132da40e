"""Processes that tests start: what they import costs more than what they do."""

from __future__ import annotations

import os
from pathlib import Path

HERE = Path(__file__).resolve().parent


def light(*folders: Path | str) -> dict[str, str]:
    """The environment of a child that imports this tree's cvxift, and no framework that it does not ask for.

    Args:
        folders: what its path has besides.
    """
    path = [str(HERE / "light"), *map(str, folders), str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path).rstrip(os.pathsep)}
