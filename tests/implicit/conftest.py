"""Implicit functions are tested in both frameworks, in 64 bits; other tests of the same process are not."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import pytest
from implicit_faces import FACES, Face


@pytest.fixture(autouse=True)
def x64() -> Iterator[None]:
    """JAX with 64-bit types for the length of a test, where JAX is installed."""
    if importlib.util.find_spec("jax") is None:
        yield
        return
    import jax

    with jax.enable_x64(True):
        yield


@pytest.fixture(params=sorted(FACES))
def face(request: Any) -> Face:
    """Each framework."""
    return FACES[request.param]()
