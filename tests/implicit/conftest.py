"""Implicit functions are tested in 64 bits, in JAX too; other tests of the same process are not."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def x64() -> Iterator[None]:
    """JAX with 64-bit types for the length of a test, where JAX is installed."""
    if importlib.util.find_spec("jax") is None:
        yield
        return
    import jax

    with jax.enable_x64(True):
        yield
