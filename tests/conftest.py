"""Fixtures shared by all tests, and what is set before NumPy and JAX are loaded, here and in processes of tests.

One BLAS thread a process. JAX compiles thousands of small programs that run once: XLA optimizes none of them, and what
one process of a run has compiled the others find in a folder that the run shares and removes.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import zlib
from pathlib import Path

for _variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
os.environ.setdefault("MPLBACKEND", "Agg")
_UNOPTIMIZED = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"  # a quarter of the time to compile
)
if _UNOPTIMIZED not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_UNOPTIMIZED}"
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import numpy as np  # noqa: E402  # the thread counts are read when NumPy loads
import pytest  # noqa: E402

_compiled = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """A folder of compiled programs, made by the process that starts the run; its workers find it named."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = tempfile.mkdtemp(prefix="cvxift-tests-")
        os.environ["JAX_COMPILATION_CACHE_DIR"] = config.stash[_compiled] = folder


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove it, by the process that made it."""
    folder = config.stash.get(_compiled, None)
    if folder is not None:
        del os.environ["JAX_COMPILATION_CACHE_DIR"]
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A generator seeded by the test's own name: reproducible alone, in any order and in any worker."""
    return np.random.default_rng(zlib.crc32(request.node.nodeid.encode()))


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Keep doctest collection out of the helpers beside the tests: they are imported by those who use them."""
    if collection_path.suffix == ".py" and not collection_path.name.startswith("test_"):
        return True
    return None
