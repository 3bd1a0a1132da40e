"""The table of solvers: which exist, and which to try first for a program of a given structure.

Measured on two cores of one machine, each solver with the defaults of its file here. Relative residuals: primal, dual
and gap, each divided by one plus its largest term.

Maros–Mészáros, 69 problems, solved to 1e-6 (limit 30 s):
    PIQP 69 (all to 1e-8, the largest in 23 s; 46 of them to an absolute 1e-6), Clarabel 62 (two out of time, one called
    infeasible), DAQP 35 of the 39 with n ≤ 1100 (two called infeasible), OSQP 25 of those 39 (two called unbounded)
Random QPs with n < 25 (definite, low-rank, weakly active, badly scaled, duplicate rows) and LPs, 300 of each kind:
    PIQP solves all; DAQP all but 5 of 900 LPs, which it calls unbounded; Clarabel all but one low-rank QP; OSQP 95 % of
    the LPs and all QPs; infeasible and unbounded ones are all recognized by DAQP, Clarabel and OSQP, few by PIQP, which
    ends at its iteration limit
Milliseconds, variables × inequalities × equalities, dense:
    10×10×5     DAQP 0.03   PIQP 0.05   SCS 0.11   Clarabel 0.15   OSQP 0.18   HiGHS through CVXPY 8
    100×100×50  DAQP 0.6    PIQP 1.1    SCS 2.7    OSQP 5.9        Clarabel 16
    100×400×20  DAQP 2.6    PIQP 2.4;    300×300×100  DAQP 16  PIQP 18;    500×2000×50  DAQP 617  PIQP 254
Milliseconds, small programs of Maros–Mészáros whose factors stay sparse:
    PRIMALC5  DAQP 5.5, PIQP 0.8;   QE226  79, 4.4;   QBRANDY  149, 3.2;      where they fill in: DUAL2  0.4, 0.8
Milliseconds, sparse:
    simplex projection   n = 100: PIQP 0.17, DAQP 0.32;   1000: PIQP 0.9, Clarabel 4.7;   10⁵: PIQP 150, Clarabel 740
    total variation      n = 1000: PIQP 3.3, SCS 18, Clarabel 29;   10⁴: PIQP 46
    LP, 1000 × 500       PIQP 190, Clarabel 240, DAQP 350, HiGHS 3000
Milliseconds, one semidefinite cone, SCS to 1e-6 (Newton's steps then reach 1e-12 from either point):
    nearest correlation matrix  order 30: Clarabel 120, SCS 8;      maximum cut     order 20: 30, 5;   order 30: 100, 13
    matrix inequality           order 10: 1.8, 1.2; order 30: 670, 9;    λ_max      order 10: 6, 1;   order 30: 740, 6
    ‖·‖_nuc, 15×15              Clarabel 330, SCS 20;     random, 30 equalities, order 20: Clarabel 114, SCS fails (70)
So: small programs whose factors are about dense DAQP, whose active set is exact; all other QPs PIQP; Clarabel next,
which proves infeasibility; OSQP last. Where factorizations fill in, OSQP comes first, to 1e-5: CVXQP2_L, OSQP 6.0 s (to
1e-6 8.2), PIQP 26; 4000 rows with three entries each, least squares in a box, OSQP 0.5 s, PIQP 4.1. For other cones
Clarabel, then SCS, which is quicker on easy programs and slow on hard ones; for matrices of order 10 and more SCS is
tried for a few hundred iterations first.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Any

import cvxpy as cp
import numpy as np

from cvxift.errors import ProgramError
from cvxift.program.structure import Structure
from cvxift.solvers.base import Solver
from cvxift.solvers.fill import most, pattern, predict
from cvxift.solvers.layout import singletons, very_sparse

ENTRY_POINTS = "cvxift.solvers"
"""Entry-point group under which another package offers a solver: a name, and a callable that returns a `Solver`."""

_BUILT_IN = {
    "daqp": "cvxift.solvers.daqp:Daqp",
    "piqp": "cvxift.solvers.piqp:Piqp",
    "osqp": "cvxift.solvers.osqp:Osqp",
    "clarabel": "cvxift.solvers.clarabel:Clarabel",
    "scs": "cvxift.solvers.scs:Scs",
    "moreau": "cvxift.solvers.moreau:Moreau",
}
_MATRIX = 10  # order of a matrix from which SCS is the quicker one
_QUICK_SCS = MappingProxyType({"eps_abs": 1e-6, "eps_rel": 1e-6, "max_iters": 500})
_ALWAYS_DENSE = 40
_MOST_ROWS = 2000
_MOST_VARIABLES = 300
_MOST_TOGETHER = 700
# Measured on the Maros–Mészáros set: dense work over that of a sparse factorization is 1 to 49 where DAQP is the faster
# one or level, and 79 to 360 where PIQP is, 4 to 50 times.
_SPARES = 60.0
# Measured: a multiplication takes 0.4 ns in a factorization of PIQP, of which it makes 13; an entry of L takes 2.4 ns
# in an iteration of OSQP. So 2 iterations cost as much for each multiplication that an entry of L takes, its "width".
_LEVEL = 2
_SPARSE = 20  # entries a row; what has more is no surprise: its factor is about as dense, and predicting costs more
_HEAVY = 450.0  # width from which these are 900 iterations; programs with a quadratic cost take 75 to 700
_QUICK_OSQP = MappingProxyType({"eps_abs": 1e-5, "eps_rel": 1e-5})  # steps on active sets do the rest

_registered: dict[str, Callable[[], Solver]] = {}
_open: dict[str, Solver] = {}


def register(name: str, factory: Callable[[], Solver]) -> None:
    """Add a solver, or replace one.

    Args:
        name: the name it is asked for by, in any case.
        factory: called without arguments when the solver is first used; returns the `Solver`.

    Example:
        >>> from cvxift.solvers.clarabel import Clarabel
        >>> register("my_clarabel", Clarabel)
        >>> get("my_clarabel").name
        'clarabel'
    """
    _registered[name.lower()] = factory
    _open.pop(name.lower(), None)


def names() -> list[str]:
    """The names `get` knows without asking CVXPY: built in, registered, and from installed packages.

    Returns:
        Names in lower case.

    Example:
        >>> "osqp" in names()
        True
    """
    return sorted({*_BUILT_IN, *_registered, *_entry_points()})


def get(name: str | Solver) -> Solver:
    """The solver of that name.

    Args:
        name: a name in any case; besides `names()`, any solver that CVXPY has installed, such as ``"HIGHS"``. A
            `Solver` is returned as it is.

    Returns:
        The solver; its package may still be missing (`Solver.missing`).

    Raises:
        ProgramError: nobody knows the name; lists the known ones.

    Example:
        >>> get("Clarabel").name
        'clarabel'
    """
    if isinstance(name, Solver):
        return name
    key = name.lower()
    if key not in _open:
        _open[key] = _load(key)
    return _open[key]


def _load(key: str) -> Solver:
    if key in _registered:
        return _registered[key]()
    if key in _BUILT_IN:
        module, _, attribute = _BUILT_IN[key].partition(":")
        return getattr(importlib.import_module(module), attribute)()
    if key in _entry_points():
        return _entry_points()[key].load()()
    from cvxift.solvers.cvxpy import Cvxpy, installed

    if key.upper() in installed():
        return Cvxpy(key.upper())
    if getattr(cp, key.upper(), None) == key.upper():  # CVXPY's own constant
        raise ProgramError(
            f"Solver '{key.upper()}' is known to CVXPY, but cp.installed_solvers() does not list it. Install its "
            "package, or leave solver=None."
        )
    others = ", ".join(sorted(other for other in installed() if other.lower() not in _BUILT_IN))
    close = difflib.get_close_matches(key, [*names(), *map(str.lower, installed())], n=1)
    hint = f"Did you mean '{close[0]}'? " if close else ""
    raise ProgramError(f"No solver is called '{key}'. {hint}Known: {', '.join(names())}; through CVXPY: {others}.")


@lru_cache(maxsize=1)
def _entry_points() -> dict:
    return {point.name.lower(): point for point in entry_points(group=ENTRY_POINTS)}


def choose(structure: Structure) -> list[str]:
    """The solvers to try for programs of this structure, best first; only those installed that can solve it.

    Args:
        structure: sizes, cones and patterns.

    Returns:
        Names for `get`, at least one wherever Clarabel is installed.

    Example:
        >>> from cvxift.program.cones import Cones
        >>> from cvxift.program.structure import Structure
        >>> choose(Structure.from_patterns(1, Cones(nonneg=1), P=([0], [0]), A=([0], [0])))[0]
        'daqp'
    """
    ranking = _ranking(structure)
    solvers = [get(name) for name in ranking]
    return [name for name, solver in zip(ranking, solvers, strict=True) if solver.supports(structure) is None]


def quick(structure: Structure) -> tuple[str, Mapping[str, Any]] | None:
    """A solver to try before those of `choose`: quick where it succeeds, told to give up early where it does not.

    Args:
        structure: sizes, cones and patterns.

    Returns:
        Its name and options; None where the robust solvers are as quick.

    Example:
        >>> from cvxift.program.cones import Cones
        >>> variable = Structure.from_patterns(210, Cones(psd=(20,)), P=([], []), A=(range(210), range(210)))
        >>> quick(variable)[0]
        'scs'
    """
    cones = structure.cones
    if cones.polyhedral:
        return _instead_of_factorizations(structure)
    wanted = max(cones.psd, default=0) >= _MATRIX and not cones.exp and not cones.pow
    return ("scs", _QUICK_SCS) if wanted and get("scs").supports(structure) is None else None


def _instead_of_factorizations(structure: Structure) -> tuple[str, Mapping[str, Any]] | None:
    """OSQP, which factorizes once or twice, where factorizations are what an interior-point method spends its time on.

    It gets as many iterations as take the interior-point method's time. Without a quadratic cost on most columns it
    needs more.
    """
    quadratic = np.count_nonzero(structure.P_rows == structure.P_cols)
    if structure.n + structure.m <= _HEAVY or 2 * quadratic < structure.n or prefers_active_set(structure):
        return None
    K = pattern(structure)
    if K.nnz > _SPARSE * (len(K.indptr) - 1) or most(K).width <= _HEAVY:
        return None
    width = predict(K).width
    if width <= _HEAVY or get("osqp").supports(structure) is not None:
        return None
    return "osqp", {**_QUICK_OSQP, "max_iter": int(_LEVEL * width)}


def _ranking(structure: Structure) -> Sequence[str]:
    if not structure.cones.polyhedral:
        return "clarabel", "scs"
    if prefers_active_set(structure):
        return "daqp", "piqp", "clarabel", "osqp"
    return "piqp", "clarabel", "osqp"


def prefers_active_set(structure: Structure) -> bool:
    """Whether a dense active-set method beats a sparse interior-point method: small, and its factors about dense.

    Args:
        structure: the structure of a quadratic program.

    Returns:
        True up to 40 variables, and up to 300 where variables and general rows together are at most 700, columns hold
        more than six entries on average, and sparse factorizations take no small part of dense ones' work.
    """
    n = structure.n
    rows = structure.m - singletons(structure)
    if n <= _ALWAYS_DENSE:
        return rows <= _MOST_ROWS
    if n > _MOST_VARIABLES or n + rows > _MOST_TOGETHER or very_sparse(structure):
        return False
    dense = n**3 / 3 + n**2 * rows
    K = pattern(structure)
    least = (K.nnz / 2) ** 2 / (len(K.indptr) - 1)  # the work if nothing fills in, by Cauchy and Schwarz
    return dense <= _SPARES * least or dense <= _SPARES * predict(K).work
