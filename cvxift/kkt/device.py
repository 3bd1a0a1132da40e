"""The solution map of small dense quadratic programs for batches that live on a framework's own device.

    θ ──(one copy to the host)──► solvers ──(one copy back: x, v)──► residuals, Newton, KKT systems, derivatives

Everything but the solvers runs where θ lives: the program's data are one constant sparse affine map of θ, written as
gathers (`cvxift.kkt.gather`), and products with the derivative are gathers around the batched KKT solve of
`cvxift.kkt.dense`. From the device come, besides θ, 3B numbers a check of the points and B flags a product; instances
that the batch cannot certify are taken one by one on the host, as NumPy's batches are, and only their rows are moved.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cvxift.errors import ProgramError
from cvxift.kkt import batch as batch_path
from cvxift.kkt.arrays import Array, Arrays
from cvxift.kkt.batch import DenseBatch, HostSide, merged
from cvxift.kkt.device_maps import DataMap, ProductMaps
from cvxift.kkt.failures import unsolved
from cvxift.kkt.policy import Policy
from cvxift.kkt.solution_map import SolutionMap, Solved
from cvxift.program.structure import Floats
from cvxift.solvers.base import Raw

LARGEST = 512  # rows + columns of a batch's systems on a device


@dataclass(frozen=True, eq=False)
class DeviceSolved(Solved):
    """A batch whose arrays live on a device.

    Attributes:
        theta: the parameters on the host, shape (B, N).
    """

    theta: Floats


class DeviceMap:
    """A solution map on arrays of one place: `solve`, `vjp`, `jvp`, `second` and `second_tangent` of `SolutionMap`.

    Args:
        mapping: the solution map.
        place: where the arrays live.

    Raises:
        ProgramError: the problem has no batched dense path; see `reason`.

    Example:
        >>> import array_api_compat, cvxpy as cp, numpy as np
        >>> from cvxift.kkt.arrays import Arrays
        >>> x, target = cp.Variable(2), cp.Parameter(2)
        >>> problem = cp.Problem(cp.Minimize(cp.sum_squares(x - target)), [x >= 0])
        >>> there = DeviceMap(SolutionMap(problem, [target], [x]), Arrays(np))
        >>> solved = there.solve(np.array([[1.0, -1.0]]))
        >>> there.vjp(solved, np.ones((1, 2))).round(6) + 0.0
        array([[1., 0.]])
    """

    def __init__(self, mapping: SolutionMap, place: Arrays) -> None:
        why = reason(mapping)
        if why is not None:
            raise ProgramError(f"This problem is not differentiated on the tensors' device: {why}.")
        self.map, self.place = mapping, place
        self._data = DataMap(mapping, place)
        self._products = ProductMaps(mapping, place)

    def solve(
        self,
        theta: Array,
        *,
        solver_args: Mapping[str, Any] | None = None,
        warm: Sequence[Raw | None] | None = None,
        solver: str | None = None,
        check: bool = True,
    ) -> DeviceSolved:
        """Solve every instance of θ.

        Args:
            theta: shape (..., N), float64, an array of the map's place.
            solver_args: options for this call, over those of the map.
            warm: a point an instance to start from.
            solver: name of the solver to try first in this call.
            check: refuse values that are not finite or contradict a parameter's attributes.

        Returns:
            The solved batch; its outputs are an array of the place.

        Raises:
            ProgramError: a value is refused.
            SolveError: an instance has no solution that passes the check and `on_failure` is ``"raise"``.
        """
        place, xp, engine = self.place, self.place.xp, self.map.engine
        batch_shape, K = tuple(theta.shape[:-1]), self.map.output_size
        flat = xp.reshape(theta, (-1, theta.shape[-1])) if theta.shape[-1] else place.zeros(_count(batch_shape), 0)
        fetched = place.fetch(flat)  # under way while the device evaluates the programs
        if not flat.shape[0]:
            return DeviceSolved(batch_shape, (), place.zeros(*batch_shape, K), np.zeros((0, self.map.theta_size)))
        programs, elimination = self._data(flat)
        on_host = fetched()
        if check:
            self.map.check(on_host)
        points = warm if warm is not None and len(warm) == len(on_host) else None
        kept: list[HostSide] = []

        def host() -> HostSide:
            if not kept:
                data = self.map.data(on_host)
                kept.append(HostSide(data, *engine.condensation.condense(data)))
            return kept[0]

        forward = place.solver(engine, solver, solver_args)
        x = v = np.zeros((0, 0))
        if forward is None:
            name, raws, x, v = batch_path.forward(
                engine, host().small, solver_args=solver_args, warm=points, solver=solver
            )
            statuses, found = [raw.status for raw in raws], raws
            both = place.put(np.concatenate([x, v], axis=1))
            there_x, there_v = both[:, : x.shape[1]], both[:, x.shape[1] :]
        else:
            name, found = forward.name, None
            there_x, there_v, statuses = forward.solve(programs)
        batch = batch_path.checked(engine, host, programs, elimination, name, statuses, there_x, there_v)
        if forward is None and batch.points.v is there_v:  # Newton changed nothing: the host has these points already
            batch.know(x, v)
        rest = batch_path.unfinished(batch)
        batch.replace(
            {
                i: engine.solve(
                    host().data[i], solver=solver, solver_args=solver_args, found=None if found is None else found[i]
                )
                for i in rest
            }
        )
        outputs = self._products.outputs(batch.full_x, batch.full_y)
        solved = DeviceSolved(batch_shape, batch, xp.reshape(outputs, (*batch_shape, K)), on_host)
        if not solved.ok:
            unsolved(batch, batch_shape, solved.outputs, self.map.on_failure)
        return solved

    def vjp(self, solved: Solved, bar: Array) -> Array:
        """Vector-Jacobian products: cotangents of θ, shape (*lead, *batch, N), for `bar` (*lead, *batch, K)."""

        def product(batch: DenseBatch, bar: Array) -> tuple[Array, Array]:
            u, w, certified = batch.solve(*self._products.adjoint_side(bar))
            return self._products.pull_back(batch.full_x, batch.full_y, u, w), certified

        return self._product(solved, product, self.map.vjp, self.map.theta_size, bar)

    def jvp(self, solved: Solved, theta_dot: Array) -> Array:
        """Jacobian-vector products: tangents of the outputs for `theta_dot` (*lead, *batch, N)."""

        def product(batch: DenseBatch, dot: Array) -> tuple[Array, Array]:
            x_dot, y_dot, certified = self._tangent(batch, dot)
            return self._products.linear(x_dot, y_dot), certified

        return self._product(solved, product, self.map.jvp, self.map.output_size, theta_dot)

    def second(self, solved: Solved, bar: Array, theta_dot: Array) -> Array:
        """Gradients with respect to θ of ⟨bar, J(θ) theta_dot⟩, shape (*lead, *batch, N)."""
        maps = self._products

        def product(batch: DenseBatch, bar: Array, dot: Array) -> tuple[Array, Array]:
            # See cvxift.kkt.linearization: polyhedral cones do not bend, so γ = (Ṗu + Ȧᵀw, Ȧu) is all.
            u, w, first = batch.solve(*maps.adjoint_side(bar))
            x_dot, y_dot, certified = self._tangent(batch, dot)
            gamma_x, gamma_y = maps.act(maps.data(dot), u, w)
            u2, w2, last = batch.solve(-gamma_x, -gamma_y)
            out = maps.pull_back(batch.full_x, batch.full_y, u2, w2) + maps.pull_back(x_dot, y_dot, u, w, direct=True)
            return out, certified & first & last

        return self._product(solved, product, self.map.second, self.map.theta_size, bar, theta_dot)

    def second_tangent(self, solved: Solved, theta_dot: Array, other: Array) -> Array:
        """Second derivatives of the outputs along two tangents of θ, shape (*lead, *batch, K)."""
        maps = self._products

        def product(batch: DenseBatch, dot: Array, other: Array) -> tuple[Array, Array]:
            x_dot, y_dot, certified = self._tangent(batch, dot)
            x_other, y_other, good = self._tangent(batch, other)
            columns, rows = maps.act(maps.data(dot), x_other, y_other)
            columns2, rows2 = maps.act(maps.data(other), x_dot, y_dot)
            x, y, last = batch.solve(-(columns + columns2), -(rows + rows2))
            return maps.linear(x, y), certified & good & last

        return self._product(solved, product, self.map.second_tangent, self.map.output_size, theta_dot, other)

    def _tangent(self, batch: DenseBatch, dot: Array) -> tuple[Array, Array, Array]:
        return batch.solve(*self._products.tangent_side(batch.full_x, batch.full_y, dot))

    def _product(
        self,
        solved: Solved,
        product: Callable[..., tuple[Array, Array]],
        single: Callable[..., Floats],
        size: int,
        *vectors: Array,
    ) -> Array:
        """A product of all instances, those that it does not certify replaced by the host's own.

        Args:
            solved: the batch.
            product: takes vectors (B, ·) or (k, B, ·), returns the product and which instances are certified.
            single: the same of `SolutionMap`, for one instance.
            size: length of the product.
            *vectors: shapes (*lead, *batch, ·), with the same leading dimensions.
        """
        place, xp, batch = self.place, self.place.xp, solved.solutions
        shapes = [tuple(v.shape[: v.ndim - 1 - len(solved.batch_shape)]) for v in vectors]
        lead = np.broadcast_shapes(*shapes)
        shape = (*lead, *solved.batch_shape)
        if not isinstance(batch, DenseBatch) or 0 in shape:
            return place.zeros(*shape, size)
        stack = (_count(lead), len(batch)) if lead else (len(batch),)
        rows = [xp.reshape(xp.broadcast_to(v, (*shape, v.shape[-1])), (*stack, v.shape[-1])) for v in vectors]
        if self.map.policy == Policy():
            out, certified = product(batch, *rows)
            rest = sorted({*map(int, np.flatnonzero(~place.host(certified))), *batch.singles})
        else:  # the batched systems are those of the default policy alone
            out, rest = place.zeros(*stack, size), list(range(len(batch)))
        if rest:
            chosen = place.put(np.asarray(rest))
            hosted = [place.host(xp.take(v, chosen, axis=-2)) for v in rows]
            singles = [
                single(Solved((), (batch[i],), np.zeros(0)), *(v[..., j, :] for v in hosted))
                for j, i in enumerate(rest)
            ]
            where = np.arange(len(batch))
            where[rest] = len(batch) + np.arange(len(rest))
            out = merged(xp, out, place.put(np.stack(singles, axis=-2)), place.put(where), axis=-2)
        return xp.reshape(out, (*shape, size))


def reason(mapping: SolutionMap) -> str | None:
    """Why a problem has no batched dense path on a device; None if it has one."""
    condensation = mapping.engine.condensation
    structure = condensation.structure
    if not structure.cones.polyhedral:
        return "its constraints are not all linear"
    if not condensation.batches:
        return "its least-squares terms are too large to be eliminated in a batch"
    if not 0 < structure.n + structure.m <= LARGEST:
        return f"its KKT systems have {structure.n + structure.m} rows, more than {LARGEST}"
    return None


def _count(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=int))
