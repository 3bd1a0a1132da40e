"""Fixtures shared by all tests; one BLAS thread a process, set before NumPy is loaded."""

from __future__ import annotations

import os
import zlib

for _variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np  # noqa: E402  # the thread counts are read when NumPy loads
import pytest  # noqa: E402


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A generator seeded by the test's own name: reproducible alone, in any order and in any worker."""
    return np.random.default_rng(zlib.crc32(request.node.nodeid.encode()))
