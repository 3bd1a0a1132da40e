"""Matrix stuffing: the tensors of a conic problem, from the first of CVXPY's backends that makes them.

The backends are tried in this order:

    COO      the fastest, or close to it, on every problem measured, with few parameters or many; pure Python
    SCIPY    pure Python as well, by another code: its faults are other ones
    CPP      CVXPY's compiled code; it ends the process on input that it does not expect, so a process of its own tries
             the problem first

A fault of the first two is an exception, which is told only if no backend is left.

Coefficients that are only the rounding error of what they were summed from count as zero.
K + Kᵀ − (K + Kᵀ)ᵀ is zero; a backend that sums its terms in another order for each half returns entries of 10⁻¹⁷, and
the equality that CVXPY adds for a symmetric matrix then says something about x. Such an entry is told by the magnitudes
that were summed: the tensors are built a second time from absolute values, every constant replaced by its modulus and
every difference by a sum. With t the entry and T ≥ |t| the same entry of the second tensor, the rounding error of t is
at most a small multiple of ε T (N. Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1; the
multiple grows like the number of summands in the worst case, and stays of order one for errors of random sign).
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from copy import copy as duplicate
from importlib.metadata import version
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp
from cvxpy.atoms.affine.add_expr import AddExpression
from cvxpy.atoms.affine.unary_operators import NegExpression
from cvxpy.atoms.quad_form import QuadForm, SymbolicQuadForm
from cvxpy.cvxcore.python import canonInterface
from cvxpy.lin_ops import lin_op as lo
from cvxpy.lin_ops.lin_op import CONSTANT_ID
from cvxpy.reductions.dcp2cone.cone_matrix_stuffing import ConeMatrixStuffing, ParamConeProg
from cvxpy.settings import COO_CANON_BACKEND, CPP_CANON_BACKEND, SCIPY_CANON_BACKEND
from cvxpy.utilities.coeff_extractor import CoeffExtractor

from cvxift._types import EPS
from cvxift.errors import ProgramError

OLD = tuple(map(int, version("cvxpy").split(".")[:2])) < (1, 9)
BACKENDS = (COO_CANON_BACKEND, SCIPY_CANON_BACKEND, CPP_CANON_BACKEND)
TRIAL_SECONDS = 120  # for the process that tries the compiled backend; importing CVXPY takes it a few
COEFFICIENT_ROUNDING = 32 * EPS  # relative to the magnitudes summed: 7e-15
SUSPECT = 1e-6  # an entry this small beside the largest may be rounding; others are not looked at
LARGE_CONSTANT = 1e3  # constants from which products of two may hide rounding errors above `SUSPECT`
_TRIAL = (
    "import pickle, sys\n"
    "from cvxift.program.stuffing import stuff_with\n"
    "stuff_with(pickle.load(sys.stdin.buffer), sys.argv[1])\n"
)


def backends(problem: cp.Problem, named: str | None) -> tuple[str, ...]:
    """The backends to try for a problem, in order.

    Before CVXPY 1.9, "COO" and "SCIPY" take vec(Θ, order="C") @ vec(X, order="C") for another sum, without a word; such
    problems go to the compiled backend alone.

    Args:
        problem: the user's problem.
        named: the backend that the user named, which is tried first; or None.

    Returns:
        Names of CVXPY's backends.
    """
    if named is not None:
        return (named, *(name for name in BACKENDS if name != named))
    stack: list[Any] = [problem.objective.expr, *(arg for c in problem.constraints for arg in c.args)] if OLD else []
    while stack:
        node = stack.pop()
        if isinstance(node, cp.reshape) and node.order == "C" and node.parameters():
            return (CPP_CANON_BACKEND,)
        stack.extend(node.args)
    return BACKENDS


def stuff(problem: cp.Problem, order: tuple[str, ...]) -> ParamConeProg:
    """The stuffed program of a conic problem.

    Args:
        problem: Minimize, with affine arguments of cones and a quadratic objective.
        order: the backends to try.

    Returns:
        CVXPY's program, its rounding-level coefficients removed.

    Raises:
        ProgramError: no backend made the tensors; names each and what it said.
    """
    faults = []
    for place, backend in enumerate(order):
        if place and backend == CPP_CANON_BACKEND:
            fault = _trial(problem, backend)
            if fault is not None:
                faults.append(f"{backend}: {fault}")
                continue
        try:
            return stuff_with(problem, backend)
        except ProgramError:
            raise
        except Exception as error:  # noqa: BLE001  # CVXPY's backends raise whatever NumPy and SciPy raise inside them
            faults.append(f"{backend}: {type(error).__name__} {error}".strip())
    raise ProgramError(
        "CVXPY's canonicalization backends could not build the problem's matrices. " + "; ".join(faults) + ". "
        "This is a fault of CVXPY's: write the expression in another way, or report it there."
    )


def stuff_with(problem: cp.Problem, backend: str) -> ParamConeProg:
    """The stuffed program by one backend; see `stuff`."""
    program, _ = _SparseStuffing(quad_obj=True, canon_backend=backend).apply(problem)
    if len(program.constraints) != len(problem.constraints):  # stuffing leaves out, in silence, kinds it does not know
        raise ProgramError("CVXPY's matrix stuffing lost a constraint; this version of CVXPY is not supported.")
    return program


def _trial(problem: cp.Problem, backend: str) -> str | None:
    """What a process of its own says of a backend that may end its process; None if it comes through."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _TRIAL, backend],
            input=pickle.dumps(problem),
            capture_output=True,
            timeout=TRIAL_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError, pickle.PicklingError, TypeError, AttributeError) as error:
        return f"could not be tried in a process of its own ({type(error).__name__})"
    if done.returncode == 0:
        return None
    words = done.stderr.decode(errors="replace").strip().splitlines()
    return words[-1] if words else f"ended its process with code {done.returncode}"


class _SparseStuffing(ConeMatrixStuffing):
    """Matrix stuffing that takes memory for the objective's non-zeros alone.

    CVXPY writes the coefficients of a quadratic objective out as a dense array, its columns × all entries of all of the
    problem's parameters (48 GB for 40 000 variables with parametric cost and bounds). Here the affine terms of a sum
    are stuffed by themselves, sparse, and the others with the parameters that they hold.
    """

    def stuffed_objective(self, problem: cp.Problem, extractor: Any) -> tuple[Any, Any, cp.Variable]:
        expr: Any = problem.objective.expr
        terms = _terms(expr)
        # Not `is_affine`: 0 · ‖x‖² is affine in CVXPY's eyes, yet only the extraction of quadratic forms can read it.
        affine = [term for term in terms if not _holds_quadratic_form(term)]
        curved: Any = sum((term for term in terms if _holds_quadratic_form(term)), cp.Constant(0.0))

        few, held, places = duplicate(extractor), 0, []
        few.param_to_size, few.param_id_map = {CONSTANT_ID: 1}, {}
        for parameter in sorted(curved.parameters(), key=lambda p: extractor.param_id_map[p.id]):
            few.param_to_size[parameter.id], few.param_id_map[parameter.id] = parameter.size, held
            places.append(extractor.param_id_map[parameter.id] + np.arange(parameter.size))
            held += parameter.size
        few.param_id_map[CONSTANT_ID] = held
        last = extractor.param_id_map[CONSTANT_ID]
        columns = np.concatenate([*places, [last]])

        P, q, x = super().stuffed_objective(cp.Problem(cp.Minimize(curved), problem.constraints), few)
        whole: Any = sum(affine[1:], affine[0]) if affine else None
        P, linear = definite_without_rounding(P, x.size), extractor.affine(whole) if affine else None
        linear = without_rounding(linear, [whole], extractor) if affine else None
        P, q = _spread(P, columns, last + 1), _spread(q, columns, last + 1)
        q = q if linear is None else q + linear
        return P, sp.csr_array(q), x

    def apply(self, problem: cp.Problem) -> tuple[ParamConeProg, Any]:
        program, inverse = super().apply(problem)
        expressions = [arg for constraint in program.constraints for arg in constraint.args]
        program.A = without_rounding(program.A, expressions, CoeffExtractor(inverse, self.canon_backend))
        return program, inverse


def _holds_quadratic_form(expr: Any) -> bool:
    """Whether a quadratic form stands anywhere in a canonicalized expression."""
    return isinstance(expr, QuadForm | SymbolicQuadForm) or any(map(_holds_quadratic_form, expr.args))


def _terms(expr: Any) -> list[Any]:
    """The terms of a sum, those of a negated sum too: ``Maximize(a + b)`` is ``Minimize(−(a + b))``."""
    if isinstance(expr, AddExpression):
        return [term for arg in expr.args for term in _terms(arg)]
    if isinstance(expr, NegExpression):
        return [-term for term in _terms(expr.args[0])]
    return [expr]


def _spread(tensor: Any, columns: np.ndarray, width: int) -> sp.csc_array:
    """The tensor's columns put at increasing places among `width`; never by rows, of which P's has columns squared."""
    tensor = sp.csc_array(tensor)
    counts = np.zeros(width + 1, dtype=np.int64)
    counts[columns + 1] = np.diff(tensor.indptr)
    return sp.csc_array((tensor.data, tensor.indices, np.cumsum(counts)), shape=(tensor.shape[0], width))


def without_rounding(tensor: Any, expressions: list[Any], extractor: Any) -> sp.csc_array:
    """A tensor of affine expressions without the entries that are rounding errors.

    Args:
        tensor: coefficients of the expressions' entries, shape (rows · (columns + 1), parameters + 1).
        expressions: affine CVXPY expressions.
        extractor: CVXPY's extractor of coefficients, which made the tensor.

    Returns:
        The tensor; entries at rounding level are gone.
    """
    tensor = sp.csc_array(tensor)
    tensor.eliminate_zeros()
    operators = [expression.canonical_form[0] for expression in expressions]
    size = np.abs(tensor.data)
    largest = max(size.max(initial=0.0), 1.0)
    if not np.any(size < SUSPECT * largest) and _largest_constant(operators) < LARGE_CONSTANT:
        return tensor
    magnitudes = canonInterface.get_problem_matrix(
        _Magnitudes()(operators),
        extractor.x_length,
        extractor.id_map,
        extractor.param_to_size,
        extractor.param_id_map,
        sum(expression.size for expression in expressions),
        extractor.canon_backend,
    )
    magnitudes = sp.csc_array(magnitudes)
    kept = sp.coo_array(tensor)
    summed = np.asarray(magnitudes[kept.coords]).ravel()
    # An infinite bound has no rounding error, and its magnitude may be NaN (0 · ∞).
    real = ~(np.abs(kept.data) <= COEFFICIENT_ROUNDING * summed) | ~np.isfinite(kept.data)
    coords = tuple(index[real] for index in kept.coords)
    return sp.csc_array((kept.data[real], coords), shape=tensor.shape)


def definite_without_rounding(tensor: Any, n: int) -> sp.csc_array:
    """A tensor of the objective's matrix P without off-diagonal entries that are rounding errors.

    A sum of positive semidefinite matrices Pₖ has Σₖ |(Pₖ)ᵢⱼ| ≤ (PᵢᵢPⱼⱼ)^½ by Cauchy's inequality, so P itself bounds
    the magnitudes that were summed. P that depends on parameters is left as it is: its entries may be anything later.

    Args:
        tensor: coefficients of P's entries, column by column, shape (n², parameters + 1).
        n: order of P.

    Returns:
        The tensor; entries at rounding level are gone.
    """
    tensor = sp.csc_array(tensor)
    entries = sp.coo_array(tensor)
    place, parameter = (np.asarray(index, dtype=np.int64) for index in entries.coords)
    if not len(place) or np.any(parameter < tensor.shape[1] - 1):
        return tensor
    row, column = place % n, place // n
    on = row == column
    diagonal = np.bincount(row[on], np.abs(entries.data[on]), minlength=n)
    tiny = np.abs(entries.data) <= COEFFICIENT_ROUNDING * np.sqrt(diagonal[row] * diagonal[column])
    if not tiny.any():
        return tensor
    kept = ~tiny
    return sp.csc_array((entries.data[kept], (place[kept], parameter[kept])), shape=tensor.shape)


class _Magnitudes:
    """Trees of linear operators with every constant replaced by its modulus and every negation left out."""

    def __init__(self) -> None:
        self._made: dict[int, Any] = {}

    def __call__(self, operators: list[Any]) -> list[Any]:
        return [self._of(operator) for operator in operators]

    def _of(self, operator: Any) -> Any:
        if id(operator) not in self._made:
            self._made[id(operator)] = self._make(operator)
        return self._made[id(operator)]

    def _make(self, operator: Any) -> Any:
        if operator.type in _CONSTANTS:
            return lo.LinOp(operator.type, operator.shape, operator.args, abs(operator.data))
        kind = lo.SUM if operator.type == lo.NEG else operator.type
        data = self._of(operator.data) if isinstance(operator.data, lo.LinOp) else operator.data
        return lo.LinOp(kind, operator.shape, [self._of(arg) for arg in operator.args], data)


_CONSTANTS = (lo.SCALAR_CONST, lo.DENSE_CONST, lo.SPARSE_CONST)


def _largest_constant(operators: list[Any]) -> float:
    """The largest modulus of a finite constant in trees of linear operators."""
    stack, seen, largest = list(operators), set(), 0.0
    while stack:
        operator = stack.pop()
        if id(operator) in seen:
            continue
        seen.add(id(operator))
        if operator.type in _CONSTANTS:
            data = operator.data.data if hasattr(operator.data, "tocsc") else np.asarray(operator.data)
            largest = max(largest, float(np.abs(data[np.isfinite(data)]).max(initial=0.0)))
        else:
            stack += operator.args
            if isinstance(operator.data, lo.LinOp):
                stack.append(operator.data)
    return largest
