"""CVXPY's smoothing of nonlinear problems, with a record of the columns that it adds and of what they stand for.

An atom that is not smooth becomes an epigraph, one with a bounded domain gets a column for its argument. From a point
of the user's variables each of these columns has a value that makes its defining equality, or its epigraph, tight. The
values are set in the order in which the atoms were canonicalized, so that what one needs is set before it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
from cvxpy.atoms.affine.unary_operators import NegExpression
from cvxpy.atoms.elementwise.huber import huber
from cvxpy.atoms.sum_largest import sum_largest
from cvxpy.constraints.nonpos import Inequality
from cvxpy.constraints.zero import Equality

from cvxift.errors import ProgramError
from cvxift.program.canonicalize import Origin
from cvxift.program.messages import short
from cvxift.program.smooth.norms import NORMS, Norm
from cvxift.program.smooth.rewrite import Rewritten
from cvxift.program.structure import Floats

try:
    from cvxpy.reductions.dnlp2smooth.dnlp2smooth import Dnlp2Smooth
except ImportError:  # CVXPY before 1.9, which `check_nonlinear` refuses
    Dnlp2Smooth: Any = object

INSIDE = 1e-3  # distance from the end of an atom's domain at which a column starts whose argument lies outside


@dataclass(frozen=True, eq=False)
class Stated:
    """An equality or inequality of the smooth problem.

    Attributes:
        expr: its left side minus its right one.
        equality: whether that is zero; else it is not positive.
        origin: whose it is.
        id: of the block of rows it becomes.
    """

    expr: Any
    equality: bool
    origin: Origin
    id: int


@dataclass(frozen=True, eq=False)
class Atom:
    """An atom that was canonicalized.

    Attributes:
        columns: the variables that it added.
        expr: the atom of its canonicalized arguments.
        result: what stands for it.
        constraints: the constraints that came with it.
    """

    columns: tuple[cp.Variable, ...]
    expr: Any
    result: Any
    constraints: tuple[Any, ...]

    def start(self) -> None:
        """Give the columns the values that make their constraints tight, at the values that its arguments hold."""
        unset = {column.id: column for column in self.columns}
        if isinstance(self.expr, huber):
            self._start_huber(unset)
        elif isinstance(self.expr, sum_largest):
            self._start_sum_largest(unset)
        core = _core(self.result)
        if isinstance(self.expr, NORMS):  # which may start on its bound
            self.result.save_value(np.reshape(_value(self.expr), self.result.shape))
            unset.pop(self.result.id)
        elif core is not None and core[0].id in unset and core[0].shape == self.expr.shape:
            _set(unset.pop(core[0].id), core[1] * _value(self.expr))
        for constraint in self.constraints:
            for one, other in (constraint.args, constraint.args[::-1]):
                if isinstance(constraint, Equality) and isinstance(one, cp.Variable) and one.id in unset:
                    _set(unset.pop(one.id), _value(other))
        for column in list(unset.values()):
            ends = [
                np.broadcast_to(_value(c.args[0]), column.shape)
                for c in self.constraints
                if isinstance(c, Inequality) and (_core(c.args[1]) or (None,))[0] is column
            ]
            _set(column, np.max(ends, axis=0) if ends else np.zeros(column.shape))

    def _start_huber(self, unset: dict[int, cp.Variable]) -> None:
        """x = s + n with |n| up to the threshold."""
        x, limit = _value(self.expr.args[0]), _value(self.expr.M)
        n, s = self._sum_of_two()
        small = np.clip(x, -limit, limit)
        _set(unset.pop(n.id), small)
        _set(unset.pop(s.id), x - small)

    def _sum_of_two(self) -> tuple[cp.Variable, cp.Variable]:
        s, n = next(c for c in self.constraints if isinstance(c, Equality) and _pair(c) is not None).args[1].args
        return n, s

    def _start_sum_largest(self, unset: dict[int, cp.Variable]) -> None:
        """x ≤ t + q with q the k-th largest entry."""
        x = _value(self.expr.args[0])
        t = next(column for column in self.columns if column.shape == x.shape)
        q = next(column for column in self.columns if column is not t)
        ordered = np.sort(x.ravel()) if self.expr.axis is None else np.sort(x, axis=self.expr.axis)
        kth = ordered[-self.expr.k] if self.expr.axis is None else np.take(ordered, -self.expr.k, axis=self.expr.axis)
        _set(unset.pop(q.id), np.reshape(kth, q.shape))
        level = kth if self.expr.axis is None else np.expand_dims(kth, self.expr.axis)
        _set(unset.pop(t.id), np.maximum(x - level, 0.0))


class _Recorder(Dnlp2Smooth):
    """CVXPY's reduction, which keeps the atoms that add columns."""

    def __init__(self) -> None:
        super().__init__()
        self.atoms: list[Atom] = []
        self.norms: list[Norm] = []
        self.known: set[int] = set()

    def canonicalize_expr(self, expr: Any, args: Any, affine_above: bool) -> tuple[Any, list[Any]]:
        """As the reduction's; refuses what the engine cannot smooth."""
        try:
            if isinstance(expr, NORMS) and expr.p == 2:
                norm, constraints = Norm.of(expr, args[0])
                self.norms.append(norm)
                result: Any = norm.t
            else:
                result, constraints = super().canonicalize_expr(expr, args, affine_above)
        except (ValueError, NotImplementedError, AttributeError) as error:
            raise ProgramError(f"CVXPY cannot smooth {short(expr)}: {error}") from error
        if isinstance(expr, cp.Expression):
            found = {v.id: v for item in (result, *constraints) for v in item.variables()}
            added = tuple(v for key, v in found.items() if key not in self.known)
            if added:
                self.known.update(v.id for v in added)
                self.atoms.append(Atom(added, expr.copy(args), result, tuple(constraints)))
        return result, constraints


@dataclass(frozen=True, eq=False)
class Smoothed:
    """A smooth problem in variables alone.

    Attributes:
        objective: the expression to minimize.
        stated: its equalities and inequalities.
        norms: the Euclidean norms, whose constraints are among them.
        atoms: the atoms that added columns, in order.
        added: the columns that atoms added, and whose they are.
        user: for each of the user's constraints, the id of the statement that is it.
    """

    objective: Any
    stated: tuple[Stated, ...]
    norms: tuple[Norm, ...]
    atoms: tuple[Atom, ...]
    added: tuple[tuple[cp.Variable, Origin], ...]
    user: tuple[int, ...]


def smooth(problem: Rewritten) -> Smoothed:
    """Smooth a problem whose parameters are swapped.

    Raises:
        ProgramError: CVXPY does not know how to smooth an atom; names it.
    """
    recorder = _Recorder()
    leaves = (*problem.variables, *(data.column for data in problem.data))
    recorder.known.update(leaf.id for leaf in leaves)
    for leaf in leaves:  # some canonicalizers look at values
        if leaf.value is None:
            leaf.save_value(np.ones(leaf.shape))
    stated: list[Stated] = []
    added: list[tuple[cp.Variable, Origin]] = []
    user: dict[int, int] = {}

    def take(item: Any, owner: int | None, variable: int | None) -> Any:
        before = len(recorder.atoms)
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # of denominators, whose sign this program checks at its point
            result, constraints = recorder.canonicalize_tree(item, True)
        whose: dict[int, Any] = {}
        for atom in recorder.atoms[before:]:
            whose.update((id(c), atom.expr) for c in atom.constraints if id(c) not in whose)
            added.extend((column, Origin(constraint=owner, atom=atom.expr)) for column in atom.columns)
        for constraint in constraints:
            origin = Origin(constraint=owner, atom=whose.get(id(constraint), item))
            stated.append(_stated(constraint, origin))
        if owner is not None or variable is not None:
            stated.append(_stated(result, Origin(constraint=owner, variable=variable)))
            if owner is not None:
                user[owner] = stated[-1].id
        return result

    objective = take(problem.objective, None, None)
    for constraint, owner, variable in problem.constraints:
        take(constraint, owner, variable)
    return Smoothed(
        objective,
        tuple(stated),
        tuple(recorder.norms),
        tuple(recorder.atoms),
        tuple(added),
        tuple(user[k] for k in range(len(user))),
    )


def _stated(constraint: Any, origin: Origin) -> Stated:
    left, right = constraint.args
    return Stated(left - right, isinstance(constraint, Equality), origin, constraint.id)


def start(atoms: Sequence[Atom]) -> None:
    """Set the columns that atoms added, at the values that the user's variables and parameters hold."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for atom in atoms:
            atom.start()


def inside(column: cp.Variable, value: Floats) -> Floats:
    """A value moved inside the bounds that a column has."""
    low, high = (np.broadcast_to(np.asarray(end, dtype=float), column.shape) for end in column.get_bounds())
    gap = np.minimum(INSIDE, 0.1 * np.where(np.isfinite(high - low), high - low, np.inf))
    value = np.where(np.isfinite(value), value, np.clip(0.0, low + gap, high - gap))
    return np.where(value <= low, low + gap, np.where(value >= high, high - gap, value))


def _set(column: cp.Variable, value: Floats) -> None:
    column.save_value(inside(column, np.reshape(np.asarray(value, dtype=float), column.shape)))


def _value(expr: Any) -> Floats:
    value = expr.value
    return np.asarray(value.toarray() if hasattr(value, "toarray") else value, dtype=float)


def _core(expr: Any) -> tuple[cp.Variable, float] | None:
    """The variable that an expression is but for wrappers, and its sign; None if it is more than that."""
    sign = 1.0
    while not isinstance(expr, cp.Variable):
        if len(getattr(expr, "args", ())) != 1 or not expr.is_affine() or type(expr).__name__ not in WRAPPERS:
            return None
        sign = -sign if isinstance(expr, NegExpression) else sign
        expr = expr.args[0]
    return expr, sign


WRAPPERS = ("NegExpression", "nonneg_wrap", "nonpos_wrap")


def _pair(constraint: Any) -> Any:
    """The two variables whose sum the right side of an equality is; None if it is not."""
    args = getattr(constraint.args[1], "args", ())
    return args if len(args) == 2 and all(isinstance(arg, cp.Variable) for arg in args) else None
