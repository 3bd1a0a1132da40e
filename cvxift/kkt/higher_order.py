"""Derivatives of any order of the solution map, contracted with directions: one multilinear form and its transpose.

    forward   Dᵏz(θ)[θ̇₁, …, θ̇ₖ]                       shape of the outputs
    adjoint   ∇_θ ⟨z̄, Dᵏ⁻¹z(θ)[θ̇₁, …, θ̇ₖ₋₁]⟩          shape of θ:  the transpose of the first in any one direction

The data are affine in θ. Where the cones are polyhedral, D is constant about the point as well, so differentiating
F = 0 along a set S of directions leaves, by Leibniz' rule, one linear system with the same matrix for every S. With
M_i(x, y) = (Ṗᵢx + Ȧᵢᵀy, Ȧᵢx) and c_i = (q̇ᵢ, −ḃᵢ),

    K z_S = −Σ_{i∈S} M_i z_{S∖i} − [S = {i}] c_i,      z_∅ = (x, y),
    K λ_S = −Σ_{i∈S} M_i λ_{S∖i},                      λ_∅ = −K⁻¹ z̄,

and the adjoint form is Σ_S outer(z_S, λ_{∁S}) pulled back to θ: 2ᵏ systems, one factorization. Curved cones add
derivatives of Π_K of the same order, of which the first two are known: there k ≤ 2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from cvxift.errors import ProgramError
from cvxift.kkt.derivatives import Solved
from cvxift.kkt.engine import Solution
from cvxift.kkt.failures import certify
from cvxift.kkt.linearization import Linearization, act, outer
from cvxift.kkt.solution_map import SolutionMap
from cvxift.program.structure import Data, Floats

Pair = tuple[Floats, Floats]


def check_order(mapping: SolutionMap, order: int) -> None:
    """Refuse an order of differentiation that the map does not have, or that is not known in closed form.

    Args:
        mapping: the solution map.
        order: how many times it is to be differentiated.

    Raises:
        ProgramError: the order is above 2 and the cones are curved, or the derivative is the central path's.
    """
    if order <= 2:
        return
    if mapping.policy.singular == "smooth":
        raise ProgramError(
            f"A derivative of order {order} was asked for under singular='smooth'; orders 1 and 2 are supported there. "
            "Choose another policy, or differentiate less often."
        )
    cones = mapping.program.structure.cones
    if not cones.polyhedral:
        curved = ", ".join(sorted({block.kind for block in cones.blocks()} - {"zero", "nonneg"}))
        raise ProgramError(
            f"A derivative of order {order} was asked for of a problem with curved cones ({curved}); orders 1 and 2 "
            "are supported there, any order where all constraints are linear. Differentiate less often, or state the "
            "problem as a quadratic program."
        )


def derivative(mapping: SolutionMap, solved: Solved, tangents: Sequence[Floats], bar: Floats | None = None) -> Floats:
    """The derivative of some order in given directions, or its transpose.

    Args:
        mapping: the solution map.
        solved: what its `solve` returned.
        tangents: directions θ̇ᵢ, shapes (k, *batch, N) or (1, *batch, N).
        bar: cotangent z̄ of the outputs, shape (k or 1, *batch, K), for the adjoint form; None for the forward form.

    Returns:
        Shape (k, *batch, K) for the forward form, (k, *batch, N) for the adjoint one; zero for failed instances.

    Raises:
        ProgramError: the order is not supported; see `check_order`.
        ApplicabilityError: under ``singular="raise"``, where the derivative does not exist.
    """
    order = len(tangents) + (bar is not None)
    check_order(mapping, order)
    vectors = list(tangents) if bar is None else [*tangents, bar]
    if order > 2:
        return _higher(mapping, solved, vectors, bar is not None)
    if all(len(v) == 1 for v in vectors):
        return _low(mapping, solved, [v[0] for v in vectors], bar is not None)[None]
    return _low(mapping, solved, vectors, bar is not None)


def _low(mapping: SolutionMap, solved: Solved, vectors: Sequence[Floats], adjoint: bool) -> Floats:
    """Orders one and two."""
    if len(vectors) == 1:
        return mapping.vjp(solved, vectors[0]) if adjoint else mapping.jvp(solved, vectors[0])
    if adjoint:
        return mapping.second(solved, vectors[1], vectors[0])
    return mapping.second_tangent(solved, vectors[0], vectors[1])


def _higher(mapping: SolutionMap, solved: Solved, vectors: Sequence[Floats], adjoint: bool) -> Floats:
    """Orders from three on, instance by instance, with as many right-hand sides at once as memory allows."""
    count, k = len(solved.solutions), max(len(v) for v in vectors)
    if adjoint:
        vectors = [*vectors[:-1], mapping._recover.alive(solved.outputs, vectors[-1])]
    stacks = [np.broadcast_to(v, (k, *v.shape[1:])).reshape(k, count, v.shape[-1]) for v in vectors]
    out = np.zeros((k, count, mapping.theta_size if adjoint else mapping.output_size))
    for i, solution in enumerate(solved.solutions):
        for part in mapping._chunks(k) if solution.ok else ():
            out[part, i] = _instance(mapping, solution, [stack[part, i] for stack in stacks], adjoint)
    out = out.reshape(k, *solved.batch_shape, out.shape[-1])
    return out if adjoint else mapping._recover.alive(solved.outputs, out)


def _instance(mapping: SolutionMap, solution: Solution, vectors: list[Floats], adjoint: bool) -> Floats:
    """One instance's products, vectors of shape (k, ·)."""
    linear = solution.linearization(mapping.policy)
    tangents = [mapping._tangent(dot) for dot in (vectors[:-1] if adjoint else vectors)]
    points = _along(linear, tangents, (linear.x, linear.y), constants=True)
    full = (1 << len(tangents)) - 1
    if not adjoint:
        certify(linear.certificate, mapping.policy.singular)
        return mapping._recover.linear(*points[full])
    multipliers = _along(linear, tangents, linear.adjoint(*mapping._recover.transpose(vectors[-1])), constants=False)
    certify(linear.certificate, mapping.policy.singular)
    total = outer(linear.structure, *points[0], *multipliers[full])
    for S in range(1, full + 1):  # q̄ and b̄ do not multiply the point: they have the part of S = ∅ alone
        term = outer(linear.structure, *points[S], *multipliers[full ^ S])
        total = Data(total.P + term.P, total.q, total.A + term.A, total.b, total.d)
    return mapping._theta_bar(total)


def _along(linear: Linearization, tangents: Sequence[Data], start: Pair, constants: bool) -> dict[int, Pair]:
    """z_S (with the constants c_i) or λ_S (without) for every set S of directions, a bit mask.

    Args:
        linear: the point's linearization.
        tangents: the data's tangents, with one leading dimension.
        start: the value for the empty set.
        constants: whether q̇ and ḃ act.
    """
    found = {0: start}
    for S in range(1, 1 << len(tangents)):
        g: Floats | float = 0.0
        h: Floats | float = 0.0
        for i in _members(S):
            columns, rows = act(linear.structure, tangents[i], *found[S & ~(1 << i)])
            g, h = g - columns, h - rows
            if constants and 1 << i == S:
                g, h = g - tangents[i].q, h + tangents[i].b
        assert isinstance(g, np.ndarray) and isinstance(h, np.ndarray)  # S has a member
        found[S] = linear.solve(g, h)
    return found


def _members(S: int) -> Iterator[int]:
    """The positions of the bits of S."""
    return (i for i in range(S.bit_length()) if S >> i & 1)
