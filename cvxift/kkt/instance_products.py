"""Derivatives of a solved batch instance by instance, each judged by the account of its point."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from cvxift._types import cached_property
from cvxift.kkt.backend import HOST
from cvxift.kkt.batch.products import BatchProducts
from cvxift.kkt.batch.solutions import DenseBatch, Solved
from cvxift.kkt.derivatives import Derivatives
from cvxift.kkt.engine import Solution
from cvxift.kkt.failures import Check, certify
from cvxift.kkt.policy import Policy
from cvxift.kkt.regularity import products
from cvxift.kkt.regularity.account import Regularity
from cvxift.program.program import Program
from cvxift.program.structure import Data, Floats

JACOBIAN_CHUNK = 20_000_000  # numbers held at once while right-hand sides are taken together


class InstanceProducts(Derivatives):
    """The products on the host; those of a batch of small programs at once, where it certifies them.

    Attributes:
        applicability: what is done where a derivative does not exist.
    """

    applicability: Check

    def _product(self, solved: Solved, tangents: Sequence[Floats], bar: Floats | None) -> Floats:
        if isinstance(solved.solutions, DenseBatch) and self.policy == Policy():
            return self._batched._product(solved, tangents, bar)
        vectors = tangents if bar is None else (*tangents, bar)
        batch, solutions = solved.batch_shape, solved.solutions
        if not batch and max(map(np.ndim, vectors)) == 1:
            return self._one(solutions[0], tangents, bar)
        lead = np.broadcast_shapes(*(v.shape[: v.ndim - 1 - len(batch)] for v in vectors))
        k, count = math.prod(lead), len(solutions)
        size = self.output_size if bar is None else self.theta_size
        stacks = [
            np.broadcast_to(_aligned(v, lead, batch), (*lead, *batch, v.shape[-1])).reshape(k, count, v.shape[-1])
            for v in vectors
        ]
        out = np.empty((k, count, size))
        for i, solution in enumerate(solutions):
            for part in self._chunks(k) if k > 1 else (0,):
                rows = [stack[part, i] for stack in stacks]
                out[part, i] = self._one(solution, rows[: len(tangents)], None if bar is None else rows[-1])
        return out.reshape(*lead, *batch, size)

    def _one(self, solution: Solution, tangents: Sequence[Floats], bar: Floats | None) -> Floats:
        """A product of one instance, for vectors of shape (·,) or (k, ·)."""
        vectors = tangents if bar is None else (*tangents, bar)
        if solution.point is None:
            return np.zeros((*vectors[0].shape[:-1], self.output_size if bar is None else self.theta_size))
        program, recover, check = self.program.at(solution), self._recover, self.applicability
        directions = [self._tangent(dot, program) for dot in tangents] if tangents else []
        linear = solution.regular(self.policy)
        if linear is None and len(vectors) < 3:
            account = self.account(solution)
            if bar is None:
                if len(directions) == 1:
                    return products.tangent(account, directions[0], check)
                return products.second_tangent(account, directions[0], directions[1], check)
            if directions:
                theta = products.second(account, bar, directions[0], check)
            else:
                theta = products.transposed(account, bar, program.P_varies, check)
        else:
            linear = solution.linearization(self.policy) if linear is None else linear
            if bar is None:
                out = recover.linear(*linear.forward(directions))
                certify(linear.certificate, self.policy.singular, check)
                return out
            x_bar, y_bar = recover.transpose(bar)
            if directions:
                theta = program.vjp(linear.reverse(x_bar, y_bar, directions))
            else:
                theta = program.vjp(linear.vjp(x_bar, y_bar, program.P_varies))
            certify(linear.certificate, self.policy.singular, check)
        if self._permutation is None:
            return theta
        out = np.empty_like(theta)
        out[..., self._permutation] = theta
        return out

    def account(self, solution: Solution) -> Regularity:
        """What is known of the solution map at a solution that has a point; kept."""
        key = (self.policy, id(self._recover))
        if key not in solution.accounts:
            solution.accounts[key] = Regularity(self.program, solution, self.policy, self._recover)
        return solution.accounts[key]

    def _tangent(self, theta_dot: Floats, program: Program) -> Data:
        return program.jvp(theta_dot if self._permutation is None else theta_dot[..., self._permutation])

    def determined(self, solution: Solution, theta_dot: Floats) -> Floats:
        """As `jvp` of one instance, without warnings; NaN where an output has no derivative."""
        account = self.account(solution)
        return products.determined(account, self._tangent(theta_dot, account.program))

    @cached_property
    def _batched(self) -> BatchProducts:
        return BatchProducts(self, HOST)

    def jacobian_of(self, solved: Solved, columns: slice) -> Floats:
        """Jacobian of the outputs with respect to some entries of θ, shape (K, entries), of an unbatched call."""
        return self.jacobian(solved.solutions[0], columns)

    def jacobian(self, solution: Solution, columns: slice) -> Floats:
        """Jacobian of the outputs with respect to some entries of θ, by whichever mode needs fewer right-hand sides.

        Returns:
            Matrix of shape (K, number of entries).
        """
        theta_size = self.program.theta_size
        width = len(range(*columns.indices(theta_size)))
        if self.output_size <= width:
            eye = np.eye(self.output_size)
            parts = [self._one(solution, (), eye[part])[:, columns] for part in self._chunks(len(eye))]
            return np.concatenate(parts) if parts else np.zeros((0, width))
        eye = np.eye(theta_size)[columns]
        parts = [self._one(solution, (eye[part],), None).T for part in self._chunks(width)]
        return np.concatenate(parts, axis=1) if parts else np.zeros((self.output_size, 0))

    def _chunks(self, count: int) -> list[slice]:
        """Slices of `count` right-hand sides, each within memory."""
        structure = self.program.structure
        chunk = max(1, JACOBIAN_CHUNK // max(1, structure.nnzA + structure.nnzP))
        return [slice(start, start + chunk) for start in range(0, count, chunk)]


def _aligned(v: Floats, lead: tuple[int, ...], batch: tuple[int, ...]) -> Floats:
    """v with dimensions of one inserted so that its own leading dimensions align with `lead` on the right."""
    own = v.shape[: v.ndim - 1 - len(batch)]
    return v.reshape(*(1,) * (len(lead) - len(own)), *v.shape)
