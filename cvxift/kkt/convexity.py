"""Whether a point is a minimum where P was vouched for: CVXPY checks a constant P, not one that depends on parameters.

A convex cost has P ≽ 0, which a Cholesky factorization of P, equilibrated and shifted by rounding, shows at a fraction
of what the KKT system costs. Where it breaks down, P is looked at along what rows leave free: with Z a basis of the
null space of the rows that fix a direction, and H the curvature of the others,

    Zᵀ (P + A_hᵀ H⁻¹ A_h) Z ≽ 0

A sparse KKT matrix shows that by its inertia: as many negative pivots as rows (Gould 1985). Where it has more, and the
null space is too large for dense matrices, Lanczos steps look for negative curvature; each projects by a factorization.

Along what the equalities leave free it says that the cost is convex on them, which is enough; along what the active
rows leave free, that the point is a minimum and no saddle (the second-order condition; Nocedal & Wright 2006, Theorem
12.5).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as sla
from scipy.linalg import lapack, null_space

from cvxift.kkt.instance import Instance
from cvxift.kkt.system.assembly import equilibrate, kkt_matrix
from cvxift.kkt.system.cone_basis import Rotation
from cvxift.kkt.system.reduced import ReducedSystem
from cvxift.kkt.system.sparse_factor import LU_DELTA, SparseFactor
from cvxift.program.products import dense
from cvxift.program.structure import Floats

NEGATIVE = 1e-9  # eigenvalue of an equilibrated matrix, negative, from which curvature is not rounding
DENSE_NULL_SPACE = 2000  # columns up to which the null space of rows is a dense matrix
EIGENVALUE_ACCURACY = 0.05  # relative accuracy of the least eigenvalue, whose sign alone is wanted
RESTARTS = 40  # of Lanczos

_lapack: Any = lapack  # its functions are made at import, unseen by type checkers
_linear_operator: Any = sla.LinearOperator  # its __new__ dispatches, likewise


def semidefinite(P: Floats | sp.csc_array, margin: float = NEGATIVE) -> bool:
    """Whether P, equilibrated, is ≽ −margin I, by default up to rounding; P symmetric, shape (n, n)."""
    dense = isinstance(P, np.ndarray)
    diagonal = P.diagonal()
    if not len(diagonal) or np.minimum.reduce(diagonal) < 0.0:
        return not len(diagonal)
    scale = 1.0 / np.sqrt(np.where(diagonal > 0.0, diagonal, 1.0))
    if dense:
        scaled = P * scale[:, None] * scale
        scaled.reshape(-1)[:: len(scaled) + 1] += margin
        return _lapack.dpotrf(scaled, lower=1, overwrite_a=1)[1] == 0
    scaled = sp.csc_array(sp.diags_array(scale) @ P @ sp.diags_array(scale) + margin * sp.eye_array(len(scale)))
    try:  # a symmetric elimination order keeps pivots on the diagonal, whose signs are the inertia
        factor = sla.splu(scaled, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    except RuntimeError:  # exactly singular
        return False
    return bool(np.array_equal(factor.perm_r, factor.perm_c) and (factor.U.diagonal() > 0.0).all())


def descent(instance: Instance, turn: Rotation) -> Floats | None:
    """A direction of negative curvature that the point's active rows leave free, shape (n,); None if there is none.

    Args:
        instance: a program whose P is not positive semidefinite.
        turn: the kept directions at the point.

    Returns:
        The direction; None where the point is a minimum, the cost is convex on the equalities, or no direction was
        found in a program of more than `DENSE_NULL_SPACE` columns.
    """
    system = ReducedSystem(instance, turn)
    if not instance.dense and _surplus(system) == 0:
        return None
    P, fixed = _along(instance, turn, system)
    if instance.structure.n > DENSE_NULL_SPACE:
        return _lanczos(sp.csc_array(P), sp.csr_array(fixed))
    return None if convex_on_equalities(instance) else _negative(P, fixed)


def convex_on_equalities(instance: Instance) -> bool:
    """Whether the cost is convex along what the equalities leave free, so that there is no minimum but the global one.

    Args:
        instance: a program whose P is not positive semidefinite.
    """
    rows: Any = instance.A[: instance.structure.cones.zero]
    if instance.structure.n > DENSE_NULL_SPACE:
        return _lanczos(sp.csc_array(instance.P), sp.csr_array(rows)) is None
    return _negative(dense(instance.P), dense(rows)) is None


def flat(instance: Instance, turn: Rotation) -> Floats:
    """Directions without curvature that the point's active rows leave free, shape (n, k).

    None are looked for where the inertia of a sparse KKT matrix excludes them, nor in a program of more than
    `DENSE_NULL_SPACE` columns.
    """
    none = np.zeros((instance.structure.n, 0))
    if instance.structure.n > DENSE_NULL_SPACE or semidefinite(instance.P, -NEGATIVE):
        return none
    system = ReducedSystem(instance, turn)
    if not instance.dense and _surplus(system) == 0:
        return none
    found = _curvature(*_along(instance, turn, system))
    return none if found is None else found[1][:, np.abs(found[0]) <= NEGATIVE]


def _along(instance: Instance, turn: Rotation, system: ReducedSystem) -> tuple[Any, Any]:
    """P with the curvature of cones, and the rows that fix a direction; dense but in a large program."""
    A_r: Any = system.A_r
    P: Any = instance.P
    h = np.zeros(A_r.shape[0])
    h[len(h) - (0 if turn.h is None else len(turn.h)) :] = 0.0 if turn.h is None else turn.h
    fixed, curved, h = A_r[np.flatnonzero(h == 0.0)], A_r[np.flatnonzero(h)], h[h != 0.0]
    if len(h):
        P = P + curved.T @ (curved / h[:, None] if isinstance(curved, np.ndarray) else sp.diags_array(1.0 / h) @ curved)
    return (P, fixed) if instance.structure.n > DENSE_NULL_SPACE else (dense(P), dense(fixed))


def surplus(instance: Instance, turn: Rotation) -> int | None:
    """How many negative eigenvalues a sparse KKT matrix has beyond one for each row: none at a minimum (Gould 1985).

    Returns:
        None where the matrix is dense, lifted, or a pivot of it is zero.
    """
    return None if instance.dense else _surplus(ReducedSystem(instance, turn))


def _surplus(system: ReducedSystem) -> int | None:
    if system.special is not None:
        return None
    if not system.K.shape[0]:  # rows have fixed all columns
        return 0
    try:
        return SparseFactor(system.K, system.first_block).negative - (system.K.shape[0] - system.first_block)
    except RuntimeError:
        return None


def _lanczos(P: Any, A: Any) -> Floats | None:
    """A direction of negative curvature of a sparse P along the null space of A, (n,); None if Lanczos finds none."""
    n, t = P.shape[0], A.shape[0]
    scale = equilibrate(kkt_matrix(P, A, np.zeros(n + t)))
    columns = sp.diags_array(scale[:n])
    P, A = sp.csc_array(columns @ P @ columns), sp.csr_array(sp.diags_array(scale[n:]) @ A @ columns)
    diagonal = np.concatenate([np.ones(n), np.full(t, -LU_DELTA)])
    factor = sla.splu(kkt_matrix(sp.csc_array((n, n)), A, diagonal))

    def project(vector: Floats) -> Floats:
        return factor.solve(np.concatenate([vector, np.zeros(t)]))[:n]

    eigsh: Any = sla.eigsh  # its stub takes whole tolerances alone
    along = _linear_operator((n, n), matvec=lambda v: project(P @ project(np.ravel(v))), dtype=float)
    start = project(np.random.default_rng(0).standard_normal(n))
    try:
        vectors = eigsh(along, k=1, which="SA", v0=start, tol=EIGENVALUE_ACCURACY, maxiter=RESTARTS)[1]
    except sla.ArpackNoConvergence as error:
        vectors = error.eigenvectors
    for vector in np.asarray(vectors).T:
        free = project(vector)
        if float(free @ (P @ free)) < -NEGATIVE * float(free @ free):
            return scale[:n] * free
    return None


def least_curvature(instance: Instance, turn: Rotation) -> tuple[float, Floats] | None:
    """The least curvature, equilibrated, along what the point's active rows leave free, and its direction, (n,).

    Returns:
        None where the rows leave nothing free, or the program has more than `DENSE_NULL_SPACE` columns.
    """
    if instance.structure.n > DENSE_NULL_SPACE:
        return None
    found = _curvature(*_along(instance, turn, ReducedSystem(instance, turn)))
    return None if found is None else (float(found[0][0]), found[1][:, 0])


def _negative(M: Floats, rows: Floats) -> Floats | None:
    """The direction of least curvature of M along the rows' null space, shape (n,), if that is negative."""
    found = _curvature(M, rows)
    return found[1][:, 0] if found is not None and found[0][0] < -NEGATIVE else None


def _curvature(M: Floats, rows: Floats) -> tuple[Floats, Floats] | None:
    """Eigenvalues of the equilibrated M along the rows' null space, rising, (k,), and their directions, (n, k)."""
    diagonal = np.abs(M).max(axis=0, initial=0.0)
    scale = 1.0 / np.sqrt(np.where(diagonal > 0.0, diagonal, 1.0))
    Z = null_space(rows * scale) if len(rows) else np.eye(len(M))
    if not Z.shape[1]:
        return None
    values, vectors = np.linalg.eigh(Z.T @ (scale[:, None] * M * scale) @ Z)
    return values, scale[:, None] * (Z @ vectors)
