"""F as a program whose closed-over arrays are operands too, and what is compiled of equal programs once.

A call traces F anew, since what F closes over may have changed since the last one. The arrays that it closes over
become operands, so that the program itself says the same from call to call; then what was compiled for it serves again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import eval_jaxpr
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from cvxift.implicit.residual import beside_zero, relative_residual, solves
from cvxift.jax.implicit_active import weights_of
from cvxift.jax.implicit_rule import Rule, attached
from cvxift.jax.trees import floating

Array = Any
KEPT = 8  # programs that a function keeps; more than one only where shapes or F's own branches change


@dataclass(frozen=True, eq=False)
class Traced:
    """F of flat vectors as a program.

    Attributes:
        jaxpr: of (x, *operands), the arrays that F closes over among the operands, last.
        count: how many of these there are.
    """

    jaxpr: Jaxpr
    count: int

    def __call__(self, x: Array, *operands: Array) -> Array:
        """F at x."""
        own, consts = (operands[: -self.count], operands[-self.count :]) if self.count else (operands, ())
        return eval_jaxpr(self.jaxpr, consts, x, *own)[0]


def trace(function: Callable[..., Array], x: Array, operands: Sequence[Array]) -> tuple[Traced, list[Array]]:
    """F as a program, and the arrays that it closes over."""
    closed = jax.make_jaxpr(function)(x, *operands)
    return Traced(closed.jaxpr, len(closed.consts)), list(closed.consts)


@dataclass(frozen=True, eq=False)
class Compiled:
    """What is compiled for a program.

    Attributes:
        function: the program.
        solves: (limit, x, *operands) ↦ whether F is that small beside what x balances.
        judge: (x, *operands) ↦ F and its relative size, entry by entry, as rows of one array.
        attach: (x, *operands) ↦ x with its derivative.
    """

    function: Traced
    solves: Callable[..., Array]
    judge: Callable[..., Array]
    attach: Callable[..., Array]

    @classmethod
    def of(cls, function: Traced, rule: Rule, parts: Sequence[int]) -> Compiled:
        """Nothing is compiled before it is called."""

        def scales(w: Array, operands: Sequence[Array]) -> tuple[list[Array], int]:
            along = [weights_of(w), *(weights_of(t) if floating(t) else None for t in operands)]
            return along, rule.minimum if rule.minimum < w.size else 0  # beside multipliers

        def small(limit: Array, w: Array, *operands: Array) -> Array:
            residual, (along, own) = function(w, *operands), scales(w, operands)
            return solves(jnp, function, w, operands, residual, along, own, parts, limit)

        def judge(w: Array, *operands: Array) -> Array:
            residual, (along, own) = function(w, *operands), scales(w, operands)
            ratio = relative_residual(jnp, function, w, operands, residual, along, own, parts)
            return jnp.stack([residual, beside_zero(jnp, function, w, operands, residual, ratio)])

        attach = jax.jit(lambda w, *operands: attached(function, rule, w, operands))
        return cls(function, jax.jit(small), jax.jit(judge), attach)


class Programs:
    """The programs that a function has met, the latest ones."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Any, list[Compiled]] = OrderedDict()

    def compiled(self, function: Traced, key: Any, make: Callable[[], Rule], parts: Sequence[int]) -> Compiled:
        """What is compiled for a program equal to this one, or would be.

        Args:
            function: the program.
            key: what else the rule depends on, hashable; None if the program shall not be kept.
            make: the rule of linear systems.
            parts: numbers of entries of x's leaves.
        """
        if key is None:
            return Compiled.of(function, make(), parts)
        variables = (*function.jaxpr.constvars, *function.jaxpr.invars)
        key = (key, function.count, tuple(str(v.aval) for v in variables), len(function.jaxpr.eqns))
        kept = self._kept.setdefault(key, [])
        self._kept.move_to_end(key)
        for compiled in kept:
            if same(compiled.function.jaxpr, function.jaxpr):
                return compiled
        kept.insert(0, Compiled.of(function, make(), parts))
        del kept[KEPT:]
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return kept[0]


def same(one: Jaxpr, other: Jaxpr) -> bool:
    """Whether two programs are equal but for the names of variables; False where that cannot be known."""
    place: dict[Any, Any] = {}

    def bound(ours: Sequence[Any], theirs: Sequence[Any]) -> bool:
        place.update(zip(ours, theirs))
        return len(ours) == len(theirs) and all(a.aval == b.aval for a, b in zip(ours, theirs))

    def read(a: Any, b: Any) -> bool:
        if isinstance(a, Literal) or isinstance(b, Literal):
            return isinstance(a, Literal) and isinstance(b, Literal) and a.aval == b.aval and _equal(a.val, b.val)
        return place.get(a) is b

    def both(ours: Sequence[Any], theirs: Sequence[Any]) -> bool:
        return len(ours) == len(theirs) and all(map(read, ours, theirs))

    if len(one.eqns) != len(other.eqns) or not bound([*one.constvars, *one.invars], [*other.constvars, *other.invars]):
        return False
    for ours, theirs in zip(one.eqns, other.eqns):
        if ours.primitive is not theirs.primitive or not both(ours.invars, theirs.invars):
            return False
        if not _equal(ours.params, theirs.params) or not bound(ours.outvars, theirs.outvars):
            return False
    return both(one.outvars, other.outvars)


def _equal(a: Any, b: Any) -> bool:
    """Whether two parameters of an operation are equal; False where that cannot be known."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, Jaxpr):
        return same(a, b)
    if isinstance(a, ClosedJaxpr):
        return same(a.jaxpr, b.jaxpr) and _equal(list(a.consts), list(b.consts))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(_equal, a, b))
    if isinstance(a, np.ndarray | np.generic | float | complex):  # by their bits: NaN is NaN, and −0 is not 0
        one, other = np.asarray(a), np.asarray(b)
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    if isinstance(a, jax.Array):
        return False
    return bool(a == b)
