"""Docstrings of everything public say what it takes and gives back, what it raises, and how it is called."""

from __future__ import annotations

import abc
import dataclasses
import enum
import importlib
import importlib.util
import inspect
import re
from typing import Any

import pytest
from cvxpy.atoms.atom import Atom

from tests.test_docs import MODULES

RAISE_NOTHING = {"Pool", "choose", "names", "quick", "register"}


def _members() -> list[Any]:
    """Every public function and class, once, with the name that it is imported by."""
    found: dict[int, Any] = {}
    for module in MODULES:
        if module.endswith((".torch", ".jax")) and importlib.util.find_spec(module.rpartition(".")[2]) is None:
            continue
        loaded = importlib.import_module(module)
        for name in loaded.__all__:
            found.setdefault(id(getattr(loaded, name)), pytest.param(getattr(loaded, name), id=f"{module}.{name}"))
    return list(found.values())


def _unnamed(what: Any, text: str) -> list[str]:
    """Parameters that a docstring does not speak of."""
    names = [
        name for name in inspect.signature(what).parameters if not name.startswith("_") and name not in ("self", "cls")
    ]
    return [name for name in names if not re.search(rf"\b{name}\b", text)]


def _is_own(owner: type, name: str) -> bool:
    """Whether a public method is not one that a base class documents, or that CVXPY calls."""
    return not (
        name.startswith("_") or any(hasattr(base, name) for base in owner.__mro__[1:]) or issubclass(owner, Atom)
    )


@pytest.mark.parametrize("member", _members())
def test_the_docstring_is_complete(member: Any) -> None:
    text = inspect.getdoc(member) or ""
    summary, *rest = text.split("\n")
    assert summary.endswith(".") and not (rest and rest[0]), "one line says what it is"
    if inspect.isclass(member) and issubclass(member, Exception | enum.Enum):
        return
    assert "Example:" in text or inspect.isabstract(member)  # docs/solvers.md writes a solver
    if "Attributes:" not in text or "Args:" in text:  # otherwise another function makes it
        assert not _unnamed(member, text)
        calm = dataclasses.is_dataclass(member) or abc.ABC in getattr(member, "__mro__", ())
        assert "Raises:" in text or calm or member.__name__ in RAISE_NOTHING
    if inspect.isfunction(member):
        assert "Returns:" in text or member.__annotations__.get("return") in (None, "None")
    elif inspect.isclass(member):
        for name, value in vars(member).items():
            method = getattr(value, "__func__", value)  # of a class method or static method
            if inspect.isfunction(method) and _is_own(member, name):
                words = inspect.getdoc(method)
                assert words and not _unnamed(method, words), name
