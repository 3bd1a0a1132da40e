"""Reports on a function F that is zero at a point, by the adapter of the framework that the arrays belong to."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from cvxift.diagnostics.report import Report
from cvxift.errors import ProgramError

_FACES = {"torch": "cvxift.torch.implicit", "jax": "cvxift.jax.implicit", "jaxlib": "cvxift.jax.implicit"}


def equation(F: Any, point: Sequence[Any]) -> Report:
    """F(x, *theta) = 0 at a point, by the adapter of the framework that the arrays belong to."""
    modules = {type(leaf).__module__.split(".")[0] for leaf in _leaves(point)}
    faces = {_FACES[module] for module in modules & _FACES.keys()}
    if len(faces) != 1:
        kinds = ", ".join(sorted({type(leaf).__name__ for leaf in _leaves(point)})) or "nothing"
        raise ProgramError(
            f"diagnose(F, x, *theta) needs x and theta as torch tensors or as JAX arrays, which differentiate F; got "
            f"{kinds}."
        )
    face = importlib.import_module(faces.pop())
    return face.ImplicitFunction.at_point(F, point[0], tuple(point[1:]))


def _leaves(tree: Any) -> list[Any]:
    if isinstance(tree, Mapping):
        return [leaf for value in tree.values() for leaf in _leaves(value)]
    if isinstance(tree, tuple | list):
        return [leaf for value in tree for leaf in _leaves(value)]
    return [tree]
