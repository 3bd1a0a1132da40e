"""A convex problem by its terms, read from CVXPY's expression tree: what the closed forms look at.

    minimize   qᵀx + Σ w x_i^α + Σ w y log(y/β),     y = x_i or 1 − x_i,  β = g x_j + r
    subject to E x = b,   G x ≤ h,   bounds on the sum of the k largest entries of αx

q, w, r, b and h are affine in the parameters θ; g, α and the rows of E and G are numbers. Every nonlinear atom is
replaced by a variable of its own, so that one extraction of affine coefficients gives the weights of the atoms along
with everything else. Nothing is canonicalized: a problem with another atom or cone is refused at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise

import cvxpy as cp
import numpy as np
import scipy.sparse as sp
from cvxpy.constraints.nonpos import Inequality, NonNeg, NonPos
from cvxpy.constraints.zero import Equality, Zero
from numpy.typing import NDArray

from cvxift._types import Indices
from cvxift.argmax.closed_form.affine import Coefficients, Rows, Sparse, gathered
from cvxift.argmax.closed_form.tree import Atom, Tree, attribute_bounds, need
from cvxift.program.attributes import fortran_order
from cvxift.program.parameters import side_by_side
from cvxift.program.structure import Floats
from cvxift.program.stuffing import backends


@dataclass(frozen=True, eq=False)
class Terms:
    """Summands w x_i^α, where α is 2 or x_i ≥ 0, and w y log(y/β).

    Attributes:
        exponent: α; 1 of entropies.
        weight: w.
        entry: i.
        far: whether y is 1 − x_i.
        base: β of entropies, but for x_j.
        base_entry: j of entropies; −1 where there is none.
        base_gain: g.
    """

    exponent: Floats
    weight: Rows
    entry: Indices
    far: NDArray[np.bool_]
    base: Rows
    base_entry: Indices
    base_gain: Floats

    def __len__(self) -> int:
        return len(self.entry)

    def __getitem__(self, at: Indices) -> Terms:
        parts = (getattr(self, one.name) for one in fields(self))
        return Terms(*(part[at] for part in parts))


@dataclass(frozen=True, eq=False)
class Tops:
    """Bounds on the sums of the k largest entries.

    Attributes:
        size: k of each bound.
        bound: the bounds.
        rest: which bound minus the sum of the n − k smallest in its place.
    """

    size: Indices
    bound: Rows
    rest: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Problem:
    """A problem by its terms.

    Attributes:
        n: number of entries.
        N: length of θ.
        variables: the user's variables, whose entries, each in C order, are x; without that of an epigraph.
        linear: q, n rows.
        terms: the nonlinear ones.
        E: rows of equalities.
        b: their right-hand sides.
        G: rows of inequalities.
        h: their right-hand sides.
        tops: the bounds on sums of largest entries.
    """

    n: int
    N: int
    variables: tuple[cp.Variable, ...]
    linear: Rows
    terms: Terms
    E: Sparse
    b: Rows
    G: Sparse
    h: Rows
    tops: Tops


def read_terms(problem: cp.Problem, parameters: Sequence[cp.Parameter]) -> Problem:
    """A problem by its terms.

    Args:
        problem: convex and DPP.
        parameters: its parameters in the order of θ.

    Raises:
        Unknown: it has others.

    Example:
        >>> z, theta = cp.Variable(3), cp.Parameter(3)
        >>> problem = cp.Problem(cp.Maximize(theta @ z + cp.sum(cp.entr(z))), [cp.sum(z) == 1])
        >>> read_terms(problem, [theta]).E.toarray()
        array([[1., 1., 1.]])
    """
    # CVXPY's coefficients of a sparse parameter have a column for every entry, zero or not.
    need(not any(p.attributes["sparsity"] for p in parameters), "a sparse parameter")
    variables = problem.variables()
    tree, equal, below = Tree(), [], []
    objective = tree.rewrite(problem.objective.args[0])
    for constraint in [*problem.constraints, *(bound for v in variables for bound in attribute_bounds(v))]:
        need(isinstance(constraint, Equality | Zero | Inequality | NonPos | NonNeg), "a constraint of another kind")
        expr = tree.rewrite(constraint.expr)
        if isinstance(constraint, Equality | Zero):
            equal.append(expr)
        else:
            below.append(-expr if isinstance(constraint, NonNeg) else expr)
    below += [constraint.expr for constraint in tree.domain]
    groups = [
        [-objective if isinstance(problem.objective, cp.Maximize) else objective],
        equal,
        below,
        tree.args,
    ]
    columns = [*variables, *(atom.variable for atom in tree.atoms)]
    known = {v.id for v in columns}
    expressions = [e for group in groups for e in group]
    need(all(v.id in known for e in expressions for v in e.variables()), "an atom with variables of its own")
    found = Coefficients(expressions, columns, side_by_side(parameters), backends(problem, None)[0])
    places = [slice(int(i), int(j)) for i, j in pairwise(np.cumsum([0, *(sum(e.size for e in g) for g in groups)]))]
    return _Reader(found, tree.atoms, variables, places).read()


class _Reader:
    """Sorts the coefficients into terms and constraints.

    Columns are the entries of the user's variables, n of them, and then those of the atoms.
    """

    def __init__(
        self, found: Coefficients, atoms: Sequence[Atom], variables: Sequence[cp.Variable], places: Sequence[slice]
    ) -> None:
        self.atoms, self.variables, self.N = atoms, variables, found.N
        starts = np.cumsum([0, *(v.size for v in variables)])
        self.n = int(starts[-1])
        c_order = [start + fortran_order(v.shape) for start, v in zip(starts, variables, strict=False)]
        self.order = np.concatenate([*c_order, np.arange(self.n, found.n)])
        objective, equal, below, args = places
        self.q = found.of_row(objective.start)[np.argsort(self.order)]
        self.E, self.b = self._matrix(found, equal), found.offset(equal).times(-1.0)
        self.G, self.h = self._matrix(found, below), found.offset(below).times(-1.0)
        self.args, self.shift = self._matrix(found, args), found.offset(args)

    def _matrix(self, found: Coefficients, rows: slice) -> Sparse:
        """Coefficients with the variables' entries in C order; those that cancel are gone."""
        matrix = sp.coo_array(found.matrix(rows))
        out = sp.csr_array((matrix.data, (matrix.row, self.order[matrix.col])), shape=matrix.shape)
        out.eliminate_zeros()
        return out

    def read(self) -> Problem:
        """The problem.

        Raises:
            Unknown: it has no such terms.
        """
        n = self.n
        need(not self.E[:, n:].nnz and not self.args[:, n:].nnz, "a nonlinear term in a term or an equality")
        self._read_atoms()
        free = np.isposinf(self.h.c) & ~self.h.varies  # bounds that bind nothing
        self.G, self.h = self.G[~free], self.h[~free]
        nonlinear = np.diff(self.G[:, n:].indptr) > 0
        largest = np.concatenate([np.zeros(n, dtype=bool), self.kind == "largest"])
        need(not self.q.c[largest].any() and not self.q.varies[largest].any(), "largest entries in the objective")
        top = nonlinear & (np.diff(self.G[:, largest].indptr) > 0)
        weights, omega = self.q, -1
        need(np.count_nonzero(nonlinear & ~top) <= 1, "several epigraphs")
        for row in np.flatnonzero(nonlinear & ~top):
            omega, weights = self._epigraph(self.G[[row]], self.h[[row]])
        G, h = self.G[~nonlinear][:, :n], self.h[~nonlinear]
        numbers = np.diff(G.indptr) == 0
        need(not h.varies[numbers].any() and (h.c[numbers] >= 0).all(), "an inequality of numbers")
        numbers_read = (self.q.c, self.E.data, self.b.c, G.data, h.c, self.h.c[top], self.args.data, self.shift.c)
        need(all(np.isfinite(array).all() for array in numbers_read), "numbers that are not finite")
        x = np.delete(np.arange(n), omega) if omega >= 0 else np.arange(n)
        position = np.full(n, -1)
        position[x] = np.arange(len(x))
        shift, terms = self._terms(weights, position)
        return Problem(
            len(x),
            self.N,
            tuple(v for v, start in self._starts() if start != omega),
            gathered(len(x), self.N, [(np.arange(len(x)), self.q[x]), shift]),
            terms,
            self.E[:, x],
            self.b,
            G[~numbers][:, x],
            h[~numbers],
            self._tops(self.G[top], self.h[top], len(x)),
        )

    def _starts(self) -> list[tuple[cp.Variable, int]]:
        return list(zip(self.variables, np.cumsum([0, *(v.size for v in self.variables)])[:-1].tolist(), strict=True))

    def _read_atoms(self) -> None:
        """Kind, arguments' rows and exponent of each atom's column; the entry of each argument's row."""
        sizes = np.array([atom.variable.size for atom in self.atoms], dtype=int)
        self.kind = np.repeat(np.array([atom.kind for atom in self.atoms], dtype=object), sizes)
        self.exponent = np.repeat([atom.number for atom in self.atoms], sizes)
        self.length = np.repeat([atom.length for atom in self.atoms], sizes)
        self.arg_rows = np.concatenate([np.zeros((2, 0), dtype=int), *(atom.rows for atom in self.atoms)], axis=1)
        count = np.diff(self.args.indptr)
        self.entry, self.gain = np.full(len(count), -1), np.zeros(len(count))
        single = np.flatnonzero(count == 1)
        first = self.args.indptr[single]
        self.entry[single], self.gain[single] = self.args.indices[first], self.args.data[first]
        need((count <= 1).all(), "a function of several entries")

    def _tops(self, lines: Sparse, bound: Rows, n: int) -> Tops:
        """The bounds on sums of largest entries."""
        need(lines.nnz == lines.shape[0] and (lines.data > 0).all(), "a sum of largest entries with something beside")
        columns = lines.indices
        starts = self.arg_rows[0, columns - self.n]
        for start in np.unique(starts):
            rows = np.arange(start, start + n)
            need(rows[-1] < len(self.gain) and np.all(self.gain[rows] == self.gain[start]), "weighted largest entries")
            need(self.gain[start] != 0.0 and len(np.unique(self.entry[rows])) == n, "largest of some entries")
            need(not self.shift.c[rows].any() and not self.shift.varies[rows].any(), "largest of shifted entries")
        need((self.length[columns - self.n] == n).all(), "largest of some entries")
        size, alpha = self.exponent[columns - self.n].astype(int), self.gain[starts]
        need(((size >= 1) & (size < n)).all(), "no largest entries")
        return Tops(np.where(alpha > 0, size, n - size), bound.times(1.0 / (lines.data * np.abs(alpha))), alpha < 0)

    def _epigraph(self, line: Sparse, bound: Rows) -> tuple[int, Rows]:
        """The entry w of an inequality Σ (terms) ≤ w, and the weights of terms with it in place of w.

        Where w has no other use the inequality is tight, and the terms stand in the objective with the weight of w.
        """
        own = line.indices < self.n
        need(np.count_nonzero(own) == 1 and bound.c[0] == 0.0 and not bound.varies[0], "an epigraph of something more")
        w, gain, terms = int(line.indices[own][0]), float(line.data[own][0]), line.indices[~own]
        uses = sum(matrix[:, [w]].nnz for matrix in (self.E, self.G, self.args))
        need(
            gain < 0 and uses == 1 and (w, 1) in [(start, v.size) for v, start in self._starts()],
            "an entry above terms",
        )
        need(not self.q.c[terms].any() and not self.q.varies[terms].any(), "a term inside and outside of an epigraph")
        need(np.isin(self.n + np.flatnonzero(self.kind != "largest"), terms).all(), "an epigraph of some terms")
        spread = self.q[np.full(len(terms), w)].times(line.data[~own] / -gain)
        return w, gathered(len(self.q.c), self.N, [(terms, spread)])

    def _terms(self, weights: Rows, position: Indices) -> tuple[tuple[Indices, Rows], Terms]:
        """The nonlinear terms w f(g x_i + t), each as one of x_i, and what is linear in it, at its entry."""
        at = np.flatnonzero(self.kind != "largest")
        a, b = self.arg_rows[:, at]
        place, gain, shift = np.append(position, -1), self.gain[a], self.shift[a]  # −1 stays
        entropy, square, alpha = self.kind[at] == "entropy", self.kind[at] == "square", self.exponent[at]
        weight = weights[self.n + at]
        need((weight.varies | (weight.c > 0)).all(), "a term without weight")
        need((self.entry[a] >= 0).all(), "a function of no entry")
        # w (g x + t)² is w g² x² + 2 w g t x and a constant; w y log(y/β) with y = g v is w g v log(v/(β/g)).
        moved = np.flatnonzero(shift.varies | (shift.c != 0.0))
        bent = moved[square[moved]]
        linear = weight[bent].times(2.0 * gain[bent]).times(shift[bent])
        far = entropy & (gain < 0)
        known = square | ~(shift.varies | (shift.c != np.where(far, -gain, 0.0)))
        need(known.all(), "a term of another shifted entry")
        size = np.abs(gain)
        has_base = entropy & (self.entry[b] >= 0)
        terms = Terms(
            np.where(entropy, 1.0, alpha),
            weight.times(np.where(entropy, size, size**alpha)),
            place[self.entry[a]],
            far,
            self.shift[b].times(np.where(entropy, 1.0 / size, 0.0)),
            np.where(has_base, place[self.entry[b]], -1),
            np.where(has_base, self.gain[b] / size, 0.0),
        )
        return (place[self.entry[a[bent]]], linear), terms
