"""Layers are tested in both frameworks, in 64 bits; other tests of the same process are not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from frameworks import FRAMEWORKS, Framework


@pytest.fixture(params=sorted(FRAMEWORKS))
def framework(request: Any) -> Iterator[Framework]:
    """Each framework, JAX with 64-bit types for the length of a test."""
    if request.param == "torch":
        yield FRAMEWORKS["torch"]()
        return
    jax = pytest.importorskip("jax")
    with jax.enable_x64(True):
        yield FRAMEWORKS["jax"]()
