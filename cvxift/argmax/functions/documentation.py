"""One docstring for a function of several frameworks.

The functions here are documented in PyTorch's words; `documented` gives an adapter's function the same docstring in
the words of its own framework.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

JAX = {
    "a tensor": "an array",
    "tensor": "array",
    "tensors": "arrays",
    "dimension": "axis",
    "dimensions": "axes",
    "dim": "axis",
    "dims": "axes",
    "import torch": "import jax.numpy as jnp",
    "from cvxift.torch": "from cvxift.jax",
    "torch.tensor": "jnp.array",
    "torch.zeros": "jnp.zeros",
    "torch.eye": "jnp.eye",
}

_texts: dict[str, str] = {}


def public(function: Function) -> Function:
    """Keep the docstring for the adapters; its example is theirs, so that the function itself keeps the summary."""
    text = function.__doc__ or ""
    _texts[function.__name__] = text
    function.__doc__ = text.partition("\n")[0]
    return function


def documented(words: dict[str, str] | None = None) -> Callable[[Function], Function]:
    """A decorator that gives an adapter's function the docstring of the function of its name.

    Args:
        words: of PyTorch, and what stands for them; None for PyTorch itself.
    """

    def decorate(function: Function) -> Function:
        text = _texts[function.__name__]
        for word, other in sorted((words or {}).items(), key=lambda pair: -len(pair[0])):
            text = re.sub(rf"\b{re.escape(word)}\b", other, text)
        function.__doc__ = text
        return function

    return decorate
