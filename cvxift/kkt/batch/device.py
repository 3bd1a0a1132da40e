"""The solution map of small dense programs for batches that live on a framework's own device.

    θ ──(one copy to the host)──► solvers ──(one copy back: x, v)──► residuals, Newton, KKT systems, derivatives

Everything but the solvers runs where θ lives: the program's data are one constant sparse affine map of θ, written as
gathers (`cvxift.kkt.sparse_affine`), and products with the derivative are gathers around the batched KKT solve of
`cvxift.kkt.system.batched`. From the device come, besides θ, some numbers an instance at each check of the points, B
flags a product, and the rows of exponential and power cones, whose spectra the host computes; instances that the batch
cannot certify are taken one by one on the host, as NumPy's batches are, and only their rows are moved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cvxift.errors import ProgramError
from cvxift.kkt.backend import Array, Arrays
from cvxift.kkt.batch import solve as batch_path
from cvxift.kkt.batch.device_maps import DataMap
from cvxift.kkt.batch.products import BatchProducts
from cvxift.kkt.batch.solutions import DenseBatch, HostSide
from cvxift.kkt.failures import inaccurate, unsolved
from cvxift.kkt.newton import polish
from cvxift.kkt.solution_map import SolutionMap, Solved
from cvxift.kkt.units import Rescaled
from cvxift.program.structure import Floats
from cvxift.solvers.base import Raw

LARGEST_ON_DEVICE = 512  # rows + columns of a batch's systems on a device


@dataclass(frozen=True, eq=False)
class DeviceSolved(Solved):
    """A batch whose arrays live on a device.

    Attributes:
        theta: the parameters on the host, shape (B, N).
    """

    theta: Floats


class DeviceMap(BatchProducts):
    """A solution map on arrays of one place: `solve` and the products of `SolutionMap`.

    Args:
        mapping: the solution map.
        place: where the arrays live.

    Raises:
        ProgramError: the problem has no batched dense path; see `reason`.

    Example:
        >>> import array_api_compat, cvxpy as cp, numpy as np
        >>> from cvxift.kkt.backend import Arrays
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
        super().__init__(mapping, place)
        self.map: SolutionMap = mapping
        self._data = DataMap(mapping, place)
        order = mapping._permutation
        self._order = None if order is None else place.put(order)  # of the program's parameters among the map's

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
                kept.append(HostSide(data, *engine.condense(data)))
            return kept[0]

        forward = place.solver(engine, solver, solver_args)
        x = v = np.zeros((0, 0))
        if forward is None:
            side = host()
            if isinstance(side.substitution, Rescaled):
                units = side.substitution.units.put(place)
                programs, elimination = programs.scaled(units), Rescaled(units, elimination)
            name, raws, x, v, found = batch_path.forward(
                engine, side.small, side.substitution, solver_args=solver_args, warm=points, solver=solver
            )
            statuses = [raw.status for raw in raws]
            both = place.put(np.concatenate([x, v], axis=1))
            there_x, there_v = both[:, : x.shape[1]], both[:, x.shape[1] :]
        else:
            name, found = forward.name, None
            there_x, there_v, statuses = forward.solve(programs)
        points = polish(programs, there_x, there_v)
        batch = DenseBatch(engine, host, programs, points, elimination, name, statuses)
        if forward is None and points.v is there_v:  # Newton changed nothing: the host has these points already
            batch.know(x, v)
        rest = batch_path.unfinished(batch)
        batch.replace(
            {i: host().solve(engine, i, solver, solver_args, None if found is None else found[i]) for i in rest}
        )
        programs_theta = flat if self._order is None else xp.take(flat, self._order, axis=-1)
        outputs = self._recover(batch.full_x, batch.full_y, programs_theta)
        solved = DeviceSolved(batch_shape, batch, xp.reshape(outputs, (*batch_shape, K)), on_host)
        if not solved.ok:
            unsolved(batch, batch_shape, place.host(solved.outputs), self.map.on_failure, self.map.program)
        inaccurate(solved, self.map.program, self.map.applicability)
        return solved


def reason(mapping: SolutionMap) -> str | None:
    """Why a problem has no batched dense path on a device; None if it has one."""
    condensation = mapping.engine.condensation
    structure = condensation.structure
    if not mapping.engine.vectorized:
        return "nonlinear programs are solved on the host"
    if not condensation.batches:
        return "its least-squares terms are too large to be eliminated in a batch"
    if not 0 < structure.n + structure.m <= LARGEST_ON_DEVICE:
        return f"its KKT systems have {structure.n + structure.m} rows, more than {LARGEST_ON_DEVICE}"
    return None


def _count(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=int))
