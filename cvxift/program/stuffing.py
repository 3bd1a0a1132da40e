"""Matrix stuffing: the tensors of a conic problem, from the first of CVXPY's backends that makes them.

The backends are tried in this order:

    COO      the fastest, or close to it, on every problem measured, with few parameters or many; pure Python
    SCIPY    pure Python as well, by another code: its faults are other ones
    CPP      CVXPY's compiled code; it ends the process on input that it does not expect, so a process of its own tries
             the problem first

A fault of the first two is an exception, which is told only if no backend is left.
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
from cvxpy.lin_ops.lin_op import CONSTANT_ID
from cvxpy.reductions.dcp2cone.cone_matrix_stuffing import ConeMatrixStuffing, ParamConeProg
from cvxpy.settings import COO_CANON_BACKEND, CPP_CANON_BACKEND, SCIPY_CANON_BACKEND
from cvxpy.utilities.coeff_extractor import CoeffExtractor

from cvxift.errors import ProgramError
from cvxift.program.rounding import definite_without_rounding, without_rounding

OLD = tuple(map(int, version("cvxpy").split(".")[:2])) < (1, 9)
BACKENDS = (COO_CANON_BACKEND, SCIPY_CANON_BACKEND, CPP_CANON_BACKEND)
TRIAL_SECONDS = 120  # for the process that tries the compiled backend; importing CVXPY takes it a few
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
