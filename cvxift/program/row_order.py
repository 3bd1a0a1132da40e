"""From the rows that CVXPY stuffs to the rows of A: order within a cone, signs, triangles, split power cones.

CVXPY stuffs each cone constraint as the affine pieces of its arguments, one argument after the other, each column by
column: F x + g ∈ K. We want  A x + s = b, s ∈ K, hence A = −F, b = g; for a zero cone A = F, b = −g, which is the sign
that makes y CVXPY's dual variable. Every stuffed row goes to one row of A, with a weight:

    SOC     t₁ … t_k, x₁ … x_k            →  (t₁, x₁), (t₂, x₂), …
    Exp     x…, y…, z…                    →  (x₁, y₁, z₁), …          (Pow likewise)
    PSD     X column by column            →  upper triangle column by column, ½(X_ij + X_ji) times √2 off the diagonal
    PowND   (w₁ … w_p, z)                 →  a chain of three-dimensional cones with auxiliary columns between them
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from cvxpy.constraints.constraint import Constraint
from cvxpy.constraints.exponential import ExpCone
from cvxpy.constraints.nonpos import NonNeg
from cvxpy.constraints.power import PowCone3D, PowConeND
from cvxpy.constraints.psd import PSD
from cvxpy.constraints.second_order import SOC
from cvxpy.constraints.zero import Zero

from cvxift.errors import ProgramError
from cvxift.program.messages import short
from cvxift.program.structure import Cones, Floats

SQRT2 = np.sqrt(2.0)


@dataclass(frozen=True)
class RowBlock:
    """The rows of A that one stuffed constraint became.

    Args:
        id: the stuffed constraint's id.
        kind: "zero", "nonneg", "soc", "psd", "exp" or "pow".
        start: first row.
        stop: one past the last row.
        dim: rows of each of its cones (1 for zero and nonneg).
    """

    id: int
    kind: str
    start: int
    stop: int
    dim: int


@dataclass(frozen=True)
class Rows:
    """Where each stuffed row goes.

    Args:
        target: row of A, for each stuffed row.
        weight: its weight there.
        sign: +1 for a zero row and −1 for the others (A = sign · F, b = −sign · g).
        cones: the product cone of the rows of A.
        blocks: one for each stuffed constraint, in row order.
        links: for each auxiliary column that joins two power cones, the two rows of A that hold −1 in it.
        links_block: position in `blocks` of each link's constraint.
    """

    target: np.ndarray
    weight: Floats
    sign: Floats
    cones: Cones
    blocks: tuple[RowBlock, ...]
    links: np.ndarray  # (number of auxiliary columns, 2)
    links_block: np.ndarray  # (number of auxiliary columns,)


@dataclass(frozen=True)
class _Place:
    """Rows of one constraint, counted from its first one; `sizes` lists what its cones add to `Cones`."""

    kind: str
    dim: int
    length: int
    target: np.ndarray
    sizes: list
    weight: Floats | None = None
    links: np.ndarray | None = None


def arrange(constraints: list[Constraint]) -> Rows:
    """Place the rows of stuffed constraints.

    Args:
        constraints: lowered constraints in stuffing order (zero, nonneg, soc, psd, exp, pow, n-dimensional pow).

    Returns:
        The placement of every stuffed row.

    Raises:
        ProgramError: for a power cone of a single factor.
    """
    targets, weights, signs, links = (
        [np.zeros(0, dtype=np.int64)],
        [np.zeros(0)],
        [np.zeros(0)],
        [np.zeros((0, 2), dtype=np.int64)],
    )
    blocks, links_block = [], []
    sizes: dict[str, list] = {kind: [] for kind in ("zero", "nonneg", "soc", "psd", "exp", "pow")}
    start = 0
    for constraint in constraints:
        place = _place(constraint)
        stop = start + place.length
        sizes[place.kind] += place.sizes
        targets.append(place.target + start)
        weights.append(np.ones(len(place.target)) if place.weight is None else place.weight)
        signs.append(np.full(len(place.target), 1.0 if place.kind == "zero" else -1.0))
        if place.links is not None:
            links.append(place.links + start)
            links_block += [len(blocks)] * len(place.links)
        blocks.append(RowBlock(constraint.id, place.kind, start, stop, place.dim))
        start = stop
    return Rows(
        target=np.concatenate(targets),
        weight=np.concatenate(weights),
        sign=np.concatenate(signs),
        cones=Cones(
            zero=sum(sizes["zero"]),
            nonneg=sum(sizes["nonneg"]),
            soc=tuple(sizes["soc"]),
            psd=tuple(sizes["psd"]),
            exp=sum(sizes["exp"]),
            pow=tuple(sizes["pow"]),
        ),
        blocks=tuple(blocks),
        links=np.concatenate(links),
        links_block=np.array(links_block, dtype=np.int64),
    )


def triangle(order: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column indices of the upper triangle, column by column.

    Returns:
        Two arrays of length order (order + 1) / 2, starting (0, 0), (0, 1), (1, 1), (0, 2).
    """
    column, row = np.tril_indices(order)
    return row, column


def _place(constraint: Constraint) -> _Place:
    size = constraint.size
    if isinstance(constraint, Zero | NonNeg):
        return _Place("zero" if isinstance(constraint, Zero) else "nonneg", 1, size, np.arange(size), [size])
    if isinstance(constraint, SOC):
        count, dims = constraint.num_cones(), constraint.cone_sizes()
        dim = dims[0] if count else 1
        rows = np.arange(size).reshape(count, dim)
        return _Place("soc", dim, size, np.concatenate([rows[:, 0], rows[:, 1:].ravel()]), [int(k) for k in dims])
    if isinstance(constraint, PSD):
        return _triangles(constraint.args[0].shape)
    if type(constraint).__name__ == "SvecPSD":  # since CVXPY 1.9, from atoms that canonicalize a problem of their own
        orders = [int(order) for order in constraint.cone_sizes()]  # pyright: ignore[reportAttributeAccessIssue]  # known by name alone
        return _Place("psd", orders[0] * (orders[0] + 1) // 2, size, np.arange(size), orders)
    if isinstance(constraint, ExpCone | PowCone3D):
        count = constraint.num_cones()
        target = np.arange(3 * count).reshape(count, 3).T.ravel()
        if isinstance(constraint, ExpCone):
            return _Place("exp", 3, 3 * count, target, [count])
        return _Place("pow", 3, 3 * count, target, _floats(constraint.alpha.value).ravel(order="F").tolist())
    if isinstance(constraint, PowConeND):
        return _chains(constraint)
    raise TypeError(f"no placement for {type(constraint).__name__}")


def _triangles(shape: tuple[int, ...]) -> _Place:
    """Place the entries of square matrices, stuffed with the matrix's number running fastest."""
    count, order = int(np.prod(shape[:-2])), int(shape[-1])
    row, column = triangle(order)
    dim = len(row)
    place = np.empty((order, order), dtype=np.int64)
    place[row, column] = place[column, row] = np.arange(dim)
    weight = np.full((order, order), SQRT2 / 2)
    np.fill_diagonal(weight, 1.0)
    target = place.ravel(order="F")[:, None] + dim * np.arange(count)
    return _Place("psd", dim, dim * count, target.ravel(), [order] * count, np.repeat(weight.ravel(order="F"), count))


def _chains(constraint: PowConeND) -> _Place:
    """Split  ∏ w_i^α_i ≥ |z|  into three-dimensional power cones.

    With σ_i = α_i + … + α_p and u_1 = z:  w_i^(α_i/σ_i) · u_{i+1}^(1 − α_i/σ_i) ≥ |u_i|,  u_p = w_p. Each u_i but the
    first and the last is a column of its own, standing in the second row of cone i − 1 and in the third row of cone i.
    """
    alpha = _floats(constraint.alpha.value)
    if alpha.ndim == 1:
        alpha = alpha[:, None]
    factors, count = alpha.shape
    if factors < 2:
        raise ProgramError(f"Power cone {short(constraint)} has a single factor: write -W <= z and z <= W instead.")
    per_cone = 3 * (factors - 1)
    # stuffed: all factors of each cone in turn (W column by column), then every z
    w = np.append(3 * np.arange(factors - 1), 3 * (factors - 2) + 1)
    offset = per_cone * np.arange(count)
    target = np.concatenate([(w + offset[:, None]).ravel(), offset + 2])
    sigma = np.cumsum(alpha[::-1], axis=0)[::-1]
    inner = offset[:, None] + 3 * np.arange(factors - 2)
    links = np.stack([(inner + 1).ravel(), (inner + 5).ravel()], axis=1)
    exponents = (alpha / sigma)[:-1].ravel(order="F").tolist()
    return _Place("pow", 3, per_cone * count, target, exponents, links=links)


def _floats(value) -> Floats:
    return np.asarray(value, dtype=float)
