"""Fixtures shared by all tests; one BLAS thread a process, set before NumPy is loaded."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

for _variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np  # noqa: E402  # the thread counts are read when NumPy loads
import pytest  # noqa: E402


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A generator seeded by the test's own name: reproducible alone, in any order and in any worker."""
    return np.random.default_rng(zlib.crc32(request.node.nodeid.encode()))


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Keep doctest collection out of the helpers beside the tests: they are imported by those who use them."""
    if collection_path.suffix == ".py" and not collection_path.name.startswith("test_"):
        return True
    return None
