"""CVXPY's expression tree with a variable in place of each nonlinear atom, and the atoms by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import cvxpy as cp
import numpy as np
import scipy.sparse as sp
from cvxpy.atoms.affine.affine_atom import AffAtom
from cvxpy.atoms.affine.binary_operators import MulExpression
from cvxpy.expressions.leaf import Leaf

from cvxift.atoms.base import Regularizer

OTHER_ATTRIBUTES = ("symmetric", "PSD", "NSD", "diag", "sparsity", "hermitian", "imag", "complex", "boolean", "integer")


class Unknown(Exception):
    """The problem is not of the form; says where it departs."""


def need(fact: Any, what: str) -> None:
    """Go on if it is so.

    Raises:
        Unknown: it is not.
    """
    if not fact:
        raise Unknown(what)


class Atom(NamedTuple):
    """A nonlinear atom: the variable in its place, and rows of its arguments among all.

    Attributes:
        kind: "square", "power", "entropy", all entry by entry, or "largest".
        variable: the variable.
        rows: of each entry's first and last argument, (2, size); those of a largest entry's argument begin there.
        number: an exponent, or how many entries are summed.
        length: of the first argument.
    """

    kind: str
    variable: cp.Variable
    rows: np.ndarray
    number: float
    length: int


class Tree:
    """Rewrites expressions with variables in place of their nonlinear atoms, which are collected."""

    def __init__(self) -> None:
        self.atoms: list[Atom] = []
        self.args: list[Any] = []
        self._rows: dict[int, np.ndarray] = {}
        self.domain: list[Any] = []
        self._done: dict[int, tuple[Any, Any]] = {}

    def rewrite(self, expr: Any) -> Any:
        """The expression, affine in the user's variables and in those of atoms.

        Raises:
            Unknown: an atom is of no known kind.
        """
        if isinstance(expr, Leaf):
            return expr
        known = self._done.get(id(expr))
        if known is None:
            known = self._done[id(expr)] = expr, self._rewritten(expr)  # keeps the expression, hence its id
        return known[1]

    def _rewritten(self, expr: Any) -> Any:
        args = [self.rewrite(arg) for arg in expr.args]
        if isinstance(expr, AffAtom):
            if isinstance(expr, MulExpression) and any(map(_mixes, args, reversed(args))):
                raise Unknown("a product with a full matrix")
            return expr if all(a is b for a, b in zip(args, expr.args, strict=True)) else expr.copy(args)
        if not expr.variables():
            need(not expr.parameters(), "a function of parameters")
            return cp.Constant(expr.value)
        if isinstance(expr, Regularizer):
            definition, domain = expr.definition(args)
            self.domain += domain
            return self.rewrite(definition)
        read = getattr(self, f"_{type(expr).__name__.lower()}", None)
        if read is None:
            raise Unknown(f"the atom {type(expr).__name__}")
        return read(expr, args)

    def _new(self, kind: str, shape: tuple[int, ...], args: Sequence[Any], number: float = 0.0) -> Any:
        for arg in args:
            if id(arg) not in self._rows:  # its entries in Fortran order, after those of other arguments
                start = sum(known.size for known in self.args)
                self._rows[id(arg)] = start + np.arange(arg.size).reshape(arg.shape, order="F")
                self.args.append(arg)
        rows = [self._rows[id(arg)] for arg in (args[0], args[-1])]
        rows = [part.min() if kind == "largest" else np.broadcast_to(part, shape) for part in rows]
        places = np.stack([part.ravel(order="F") for part in rows])
        self.atoms.append(Atom(kind, cp.Variable(shape), places, number, args[0].size))
        return self.atoms[-1].variable

    def _entr(self, expr: Any, args: list[Any]) -> Any:
        return -self._new("entropy", expr.shape, [args[0], cp.Constant(1.0)])

    def _rel_entr(self, expr: Any, args: list[Any]) -> Any:
        return self._new("entropy", expr.shape, args)

    def _kl_div(self, expr: Any, args: list[Any]) -> Any:
        return self._new("entropy", expr.shape, args) - args[0] + args[1]

    def _power(self, expr: Any, args: list[Any]) -> Any:
        need(not expr.parameters() or isinstance(expr.p, cp.Constant), "an exponent that is a parameter")
        exponent = float(expr.p_used)
        if exponent == 2.0:
            return self._new("square", expr.shape, args, 2.0)
        need(exponent > 1.0, "a power that is not convex")
        if exponent % 2.0 != 0.0:
            self.domain.append(args[0] >= 0)
        return self._new("power", expr.shape, args, exponent)

    _powerapprox = _power

    def _quad_over_lin(self, expr: Any, args: list[Any]) -> Any:
        need(not args[1].variables() and not args[1].parameters(), "a quotient that moves")
        squares = self._new("square", args[0].shape, args[:1], 2.0)
        total = cp.sum(squares, axis=expr.axis, keepdims=expr.keepdims) if hasattr(expr, "axis") else cp.sum(squares)
        return total / float(np.ravel(args[1].value)[0])

    def _quadform(self, expr: Any, args: list[Any]) -> Any:
        need(not args[1].parameters(), "a quadratic form whose matrix moves")
        P = sp.coo_array(args[1].value)
        diagonal = P.diagonal()
        off = P.data[P.row != P.col]
        need(not off.any(), "a quadratic form that is not diagonal")
        squares = self._new("square", args[0].shape, args[:1], 2.0)
        return cp.vec(squares, order="F") @ diagonal

    def _sum_largest(self, expr: Any, args: list[Any]) -> Any:
        need(expr.k == int(expr.k) and getattr(expr, "axis", None) is None, "no whole number of largest entries")
        return self._new("largest", expr.shape, args, int(expr.k))

    def _max(self, expr: Any, args: list[Any]) -> Any:
        need(expr.axis is None, "several maxima")
        return self._new("largest", expr.shape, args, 1)

    def _min(self, expr: Any, args: list[Any]) -> Any:
        need(expr.axis is None, "several minima")
        return -self._new("largest", expr.shape, [-args[0]], 1)


def _mixes(factor: Any, other: Any) -> bool:
    """Whether a constant factor has more entries than sums of rows and columns do; tells other problems at once."""
    if not isinstance(factor, cp.Constant) or not other.variables():
        return False
    value = factor.value
    count = value.nnz if sp.issparse(value) else np.count_nonzero(value)
    return bool(count > 2 * max(factor.shape, default=1))


def attribute_bounds(variable: cp.Variable) -> list[Any]:
    """Bounds that a variable's attributes state, as constraints.

    Raises:
        Unknown: it has other attributes.
    """
    attributes = variable.attributes
    need(not any(attributes.get(name) for name in OTHER_ATTRIBUTES), "a variable with other attributes than bounds")
    out = []
    if attributes["nonneg"] or attributes["pos"]:
        out.append(variable >= 0)
    if attributes["nonpos"] or attributes["neg"]:
        out.append(variable <= 0)
    for bound, sign in zip(attributes["bounds"] or (None, None), (1.0, -1.0), strict=True):
        if bound is not None:
            bound = bound if isinstance(bound, cp.Expression) else np.asarray(bound, dtype=float)
            out.append(variable >= bound if sign > 0 else variable <= bound)
    return out
