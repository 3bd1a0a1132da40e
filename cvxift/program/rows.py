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
from cvxpy.constraints import PSD, SOC, ExpCone, NonNeg, PowCone3D, PowConeND, Zero
from cvxpy.constraints.constraint import Constraint

from cvxift.cones.spec import Cones
from cvxift.errors import ProgramError
from cvxift.program.structure import Floats

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
        links: rows of A that hold −1 in an auxiliary column of their own, one pair of rows (z of a cone, x of the next) a column.
        links_block: position in `blocks` of each link's constraint.
    """

    target: np.ndarray
    weight: Floats
    sign: Floats
    cones: Cones
    blocks: tuple[RowBlock, ...]
    links: np.ndarray        # (number of auxiliary columns, 2)
    links_block: np.ndarray  # (number of auxiliary columns,)


def arrange(constraints: list[Constraint]) -> Rows:
    """Place the rows of stuffed constraints.

    Args:
        constraints: lowered constraints in stuffing order (zero, nonneg, soc, psd, exp, pow, n-dimensional pow).

    Returns:
        The placement of every stuffed row.

    Raises:
        ProgramError: for a power cone of a single factor.
    """
    targets, weights, signs, blocks, links, links_block = [], [], [], [], [], []
    zero = nonneg = exp = 0
    soc: list[int] = []
    psd: list[int] = []
    power: list[float] = []
    start = 0
    for constraint in constraints:
        kind, dim, weight, sign = "", 1, None, -1.0
        if isinstance(constraint, Zero):
            kind, target, sign = "zero", np.arange(constraint.size), 1.0
            zero += constraint.size
        elif isinstance(constraint, NonNeg):
            kind, target = "nonneg", np.arange(constraint.size)
            nonneg += constraint.size
        elif isinstance(constraint, SOC):
            count, dim = constraint.num_cones(), constraint.cone_sizes()[0] if constraint.num_cones() else 1
            rows = np.arange(count * dim).reshape(count, dim)
            kind, target = "soc", np.concatenate([rows[:, 0], rows[:, 1:].ravel()])
            soc += [dim] * count
        elif isinstance(constraint, PSD):
            count, order = constraint.num_cones(), int(constraint.args[0].shape[-1])
            kind, dim = "psd", order * (order + 1) // 2
            target, weight = _triangles(count, order)
            psd += [order] * count
        elif type(constraint).__name__ == "SvecPSD":
            orders = constraint.cone_sizes()
            kind, dim, target = "psd", orders[0] * (orders[0] + 1) // 2, np.arange(constraint.size)
            psd += orders
        elif isinstance(constraint, ExpCone):
            count = constraint.num_cones()
            kind, dim, target = "exp", 3, np.arange(3 * count).reshape(count, 3).T.ravel()
            exp += count
        elif isinstance(constraint, PowCone3D):
            count = constraint.num_cones()
            kind, dim, target = "pow", 3, np.arange(3 * count).reshape(count, 3).T.ravel()
            power += np.asarray(constraint.alpha.value, dtype=float).ravel(order="F").tolist()
        elif isinstance(constraint, PowConeND):
            kind, dim = "pow", 3
            target, alphas, pairs = _chains(constraint)
            power += alphas
            links.append(pairs + start)
            links_block += [len(blocks)] * len(pairs)
        else:
            raise TypeError(f"no placement for {type(constraint).__name__}")
        stop = start + (3 * len(alphas) if isinstance(constraint, PowConeND) else int(target.max(initial=-1)) + 1)
        blocks.append(RowBlock(constraint.id, kind, start, stop, dim))
        targets.append(target + start)
        weights.append(np.ones(len(target)) if weight is None else weight)
        signs.append(np.full(len(target), sign))
        start = stop
    return Rows(
        target=np.concatenate([np.zeros(0, dtype=np.int64), *targets]),
        weight=np.concatenate([np.zeros(0), *weights]),
        sign=np.concatenate([np.zeros(0), *signs]),
        cones=Cones(zero=zero, nonneg=nonneg, soc=tuple(soc), psd=tuple(psd), exp=exp, pow=tuple(power)),
        blocks=tuple(blocks),
        links=np.concatenate([np.zeros((0, 2), dtype=np.int64), *links]),
        links_block=np.array(links_block, dtype=np.int64),
    )


def triangle(order: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column indices of the upper triangle, column by column: (0,0), (0,1), (1,1), (0,2), …"""
    column, row = np.tril_indices(order)
    return row, column


def _triangles(count: int, order: int) -> tuple[np.ndarray, Floats]:
    """Place the entries of `count` square matrices, stuffed with the matrix's number running fastest."""
    row, column = triangle(order)
    place = np.empty((order, order), dtype=np.int64)
    place[row, column] = place[column, row] = np.arange(len(row))
    weight = np.full((order, order), SQRT2 / 2)
    np.fill_diagonal(weight, 1.0)
    target = place.ravel(order="F")[:, None] + len(row) * np.arange(count)
    return target.ravel(), np.repeat(weight.ravel(order="F"), count)


def _chains(constraint: PowConeND) -> tuple[np.ndarray, list[float], np.ndarray]:
    """Split  ∏ w_i^α_i ≥ |z|  into three-dimensional power cones.

    With σ_i = α_i + … + α_p and u_1 = z:  w_i^(α_i/σ_i) · u_{i+1}^(1 − α_i/σ_i) ≥ |u_i|,  u_p = w_p. Each u_i but the first
    and the last is a column of its own, which stands in the second row of cone i − 1 and in the third row of cone i.
    """
    alpha = np.asarray(constraint.alpha.value, dtype=float)
    if alpha.ndim == 1:
        alpha = alpha[:, None]
    factors, count = alpha.shape
    if factors < 2:
        raise ProgramError(f"Power cone {constraint} has a single factor: write -W <= z and z <= W instead.")
    per_cone = 3 * (factors - 1)
    # stuffed: all factors of each cone in turn (W column by column), then every z
    w = np.empty((factors, count), dtype=np.int64)
    w[:-1] = 3 * np.arange(factors - 1)[:, None]
    w[-1] = 3 * (factors - 2) + 1
    offset = per_cone * np.arange(count)
    target = np.concatenate([(w + offset).ravel(order="F"), offset + 2])
    sigma = np.cumsum(alpha[::-1], axis=0)[::-1]
    exponents = (alpha / sigma)[:-1].ravel(order="F").tolist()
    inner = 3 * np.arange(factors - 2)
    pairs = np.stack([(offset[:, None] + inner + 1).ravel(), (offset[:, None] + inner + 5).ravel()], axis=1)
    return target, exponents, pairs
