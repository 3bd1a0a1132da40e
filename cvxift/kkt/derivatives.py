"""Derivatives of a solved batch between flat arrays: products with the Jacobian and with the second derivative.

z(θ) are the flat outputs, J = dz/dθ. Every product takes vectors with leading dimensions before the batch's own: that
many products with each instance's one factorization. Failed instances have zero derivatives.

    vjp:  Jᵀ z̄        jvp:  J θ̇        second:  ∂/∂θ ⟨z̄, J θ̇⟩        second_tangent:  ∂/∂θ (J θ̇) · θ̇′
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from cvxift.kkt import batch as batch_path
from cvxift.kkt.backend import HOST
from cvxift.kkt.batch_products import BatchProducts
from cvxift.kkt.engine import Engine, Solution
from cvxift.kkt.failures import Check
from cvxift.kkt.linearization import outer, residual_tangent
from cvxift.kkt.policy import Policy
from cvxift.kkt.recovery import Recovery
from cvxift.kkt.regularity.account import Regularity
from cvxift.kkt.regularity.products import determined, second, second_tangent, tangent, transposed
from cvxift.kkt.solved import Solved
from cvxift.program.program import Program
from cvxift.program.structure import Data, Floats

JACOBIAN_CHUNK = 20_000_000  # numbers held at once while right-hand sides are taken together


class Derivatives(abc.ABC):
    """The products; `SolutionMap` brings the map.

    Attributes:
        program: the problem's program.
        engine: the program's engine.
        policy: how derivatives are taken.
        output_size: K, length of the flat outputs.
        applicability: what is done where a derivative does not exist.
    """

    applicability: Check
    program: Program
    engine: Engine
    policy: Policy
    output_size: int
    _recover: Recovery
    _permutation: np.ndarray | None
    _P_varies: bool

    @property
    def theta_size(self) -> int:
        """N, length of θ."""
        return self.program.theta_size

    def vjp(self, solved: Solved, bar: Floats) -> Floats:
        """Vector-Jacobian products.

        Args:
            solved: what `solve` returned.
            bar: cotangents of the outputs, shape (*lead, *batch, K); the leading dimensions are that many products
                with each instance's one factorization.

        Returns:
            Cotangents of θ, shape (*lead, *batch, N); zero for failed instances.

        Raises:
            ApplicabilityError: under ``singular="raise"``, where a derivative does not exist.
        """
        bar = self._recover.alive(solved.outputs, bar)
        if bar.ndim == 1:
            return self._vjp_one(solved.solutions[0], bar)
        if not (isinstance(solved.solutions, batch_path.DenseBatch) and self.policy == Policy()):
            return self._each_product(solved, self._vjp_one, self.theta_size, bar)
        batch = solved.solutions
        flat = bar.reshape(-1, self.output_size)
        x_bar, y_bar = self._recover.transpose(flat)
        stack = self._stack(solved, bar)
        g = -x_bar.reshape(*stack, x_bar.shape[-1])
        h = np.zeros((*g.shape[:-1], self.program.structure.m))
        if y_bar is not None:
            h = -y_bar.reshape(h.shape)
        u, w, certified = batch.solve(g, h)
        theta = self._theta_bar(outer(self.program.structure, batch.full_x, batch.full_y, u, w, self._P_varies))
        self._replace(theta, flat.reshape(*stack, self.output_size), certified, batch, self._vjp_one)
        return theta.reshape(*bar.shape[:-1], self.theta_size)

    @staticmethod
    def _stack(solved: Solved, vectors: Floats) -> tuple[int, ...]:
        """(k, B) for vectors of shape (*lead, *batch, ·), or (B,) where there are no leading dimensions."""
        lead = vectors.shape[: vectors.ndim - 1 - len(solved.batch_shape)]
        return (math.prod(lead), len(solved.solutions)) if lead else (len(solved.solutions),)

    @staticmethod
    def _replace(
        out: Floats,
        vectors: Floats,
        certified: np.ndarray,
        batch: batch_path.DenseBatch,
        product: Callable[[Solution, Floats], Floats],
    ) -> None:
        """Take the instances that the vectorized path cannot certify one by one."""
        for i in sorted({*map(int, np.flatnonzero(~certified | batch.near_kinks)), *batch.singles}):
            out[..., i, :] = product(batch[i], vectors[..., i, :])

    def _each_product(self, solved: Solved, product: Callable[..., Floats], size: int, *vectors: Floats) -> Floats:
        """product(solution, *vectors) for every instance, with as many right-hand sides at once as memory allows.

        Args:
            solved: the batch.
            product: takes vectors of shape (·,) or (k, ·).
            size: length of the products.
            *vectors: shapes (*lead, *batch, ·), whose leading dimensions broadcast.

        Returns:
            Shape (*lead, *batch, size).
        """
        batch, solutions = solved.batch_shape, solved.solutions
        lead = np.broadcast_shapes(*(v.shape[: v.ndim - 1 - len(batch)] for v in vectors))
        if not lead and not batch:
            return product(solutions[0], *vectors)
        k, count = math.prod(lead), len(solutions)
        stacks = [
            np.broadcast_to(_aligned(v, lead, batch), (*lead, *batch, v.shape[-1])).reshape(k, count, v.shape[-1])
            for v in vectors
        ]
        out = np.empty((k, count, size))
        for i, solution in enumerate(solutions):
            for part in self._chunks(k) if lead else (0,):
                out[part, i] = product(solution, *(stack[part, i] for stack in stacks))
        return out.reshape(*lead, *batch, size)

    def account(self, solution: Solution) -> Regularity:
        """What is known of the solution map at a solution that has a point; kept."""
        key = (self.policy, id(self._recover))
        if key not in solution.accounts:
            solution.accounts[key] = Regularity(self.program, solution, self.policy, self._recover)
        return solution.accounts[key]

    def _vjp_one(self, solution: Solution, bar: Floats) -> Floats:
        if not solution.ok:
            return np.zeros((*bar.shape[:-1], self.theta_size))
        return self._ordered_bar(transposed(self.account(solution), bar, self._P_varies, self.applicability))

    def _theta_bar(self, bar: Data) -> Floats:
        return self._ordered_bar(self.program.vjp(bar))

    def _ordered_bar(self, theta: Floats) -> Floats:
        """Cotangents of θ in the map's own order, from the program's."""
        if self._permutation is None:
            return theta
        out = np.empty_like(theta)
        out[..., self._permutation] = theta
        return out

    def jvp(self, solved: Solved, theta_dot: Floats) -> Floats:
        """Jacobian-vector products.

        Args:
            solved: what `solve` returned.
            theta_dot: tangents of θ, shape (*lead, *batch, N).

        Returns:
            Tangents of the outputs, shape (*lead, *batch, K); zero for failed instances.

        Raises:
            ApplicabilityError: as `vjp`.
        """
        return self._recover.alive(solved.outputs, self._jvp(solved, theta_dot))

    def _jvp(self, solved: Solved, theta_dot: Floats) -> Floats:
        if theta_dot.ndim == 1:
            return self._jvp_one(solved.solutions[0], theta_dot)
        if not (isinstance(solved.solutions, batch_path.DenseBatch) and self.policy == Policy()):
            return self._each_product(solved, self._jvp_one, self.output_size, theta_dot)
        batch = solved.solutions
        dots = theta_dot.reshape(*self._stack(solved, theta_dot), self.theta_size)
        u, w, certified = batch.solve(
            *residual_tangent(self.program.structure, batch.full_x, batch.full_y, self._tangent(dots))
        )
        out = self._recover.linear(u.reshape(-1, u.shape[-1]), w.reshape(-1, w.shape[-1]))
        out = out.reshape(*dots.shape[:-1], self.output_size)
        self._replace(out, dots, certified, batch, self._jvp_one)
        return out.reshape(*theta_dot.shape[:-1], self.output_size)

    def _tangent(self, theta_dot: Floats) -> Data:
        return self.program.jvp(theta_dot if self._permutation is None else theta_dot[..., self._permutation])

    def _jvp_one(self, solution: Solution, theta_dot: Floats) -> Floats:
        if not solution.ok:
            return np.zeros((*theta_dot.shape[:-1], self.output_size))
        return tangent(self.account(solution), self._tangent(theta_dot), self.applicability)

    def determined(self, solution: Solution, theta_dot: Floats) -> Floats:
        """As `jvp` of one instance, without warnings; NaN where an output has no derivative."""
        return determined(self.account(solution), self._tangent(theta_dot))

    def second(self, solved: Solved, bar: Floats, theta_dot: Floats) -> Floats:
        """Gradients with respect to θ of ⟨bar, J(θ) theta_dot⟩, shape (*lead, *batch, N).

        Args:
            solved: what `solve` returned.
            bar: cotangents of the outputs, shape (*lead, *batch, K).
            theta_dot: tangents of θ, shape (*lead, *batch, N); the leading dimensions broadcast.
        """
        bar = self._recover.alive(solved.outputs, bar)
        if isinstance(solved.solutions, batch_path.DenseBatch) and self.policy == Policy():
            return self._batched.second(solved, bar, theta_dot)
        return self._each_product(solved, self._second_one, self.theta_size, bar, theta_dot)

    def _second_one(self, solution: Solution, bar: Floats, theta_dot: Floats) -> Floats:
        if not solution.ok:
            return np.zeros((*bar.shape[:-1], self.theta_size))
        return self._ordered_bar(second(self.account(solution), bar, self._tangent(theta_dot), self.applicability))

    def second_tangent(self, solved: Solved, theta_dot: Floats, other: Floats) -> Floats:
        """Second derivatives of the outputs along two tangents of θ, shape (*lead, *batch, K).

        Args:
            solved: what `solve` returned.
            theta_dot: tangents of θ, shape (*lead, *batch, N).
            other: further tangents of θ, shape (*lead, *batch, N); the leading dimensions broadcast.
        """
        if isinstance(solved.solutions, batch_path.DenseBatch) and self.policy == Policy():
            out = self._batched.second_tangent(solved, theta_dot, other)
        else:
            out = self._each_product(solved, self._second_tangent_one, self.output_size, theta_dot, other)
        return self._recover.alive(solved.outputs, out)

    def _second_tangent_one(self, solution: Solution, theta_dot: Floats, other: Floats) -> Floats:
        if not solution.ok:
            return np.zeros((*theta_dot.shape[:-1], self.output_size))
        return second_tangent(
            self.account(solution), self._tangent(theta_dot), self._tangent(other), self.applicability
        )

    @cached_property
    def _batched(self) -> BatchProducts:
        return BatchProducts(self, HOST)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        state.pop("_batched", None)  # holds a namespace, which is not pickled; it is made again where it is asked for
        return state

    def jacobian(self, solution: Solution, columns: slice) -> Floats:
        """Jacobian of the outputs with respect to some entries of θ, by whichever mode needs fewer right-hand sides.

        Args:
            solution: one solved instance.
            columns: the entries of θ.

        Returns:
            Matrix of shape (K, number of entries).
        """
        width = len(range(*columns.indices(self.theta_size)))
        if self.output_size <= width:
            eye = np.eye(self.output_size)
            parts = [self._vjp_one(solution, eye[part])[:, columns] for part in self._chunks(len(eye))]
            return np.concatenate(parts) if parts else np.zeros((0, width))
        eye = np.eye(self.theta_size)[columns]
        parts = [self._jvp_one(solution, eye[part]).T for part in self._chunks(width)]
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
