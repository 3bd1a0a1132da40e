"""A solved point on the scale of its own data, and the choices of D = DΠ_K(v) that a kink leaves open.

Slacks and multipliers of one cone may differ by many orders of magnitude, so both are divided by what they balance at
the point before their distance to a kink is measured. With c the units of columns and rows
(`cvxift.kkt.equilibration.Equilibration.of_matrices`) and φ = `FLOOR`,

    R_i = Σ_j |A_ij| ξ_j + |b_i|,                     ξ_j = max(|x_j|, φ c_j ξ),   ξ = max(|x_j|/c_j, |b_i| c_i)
    C_j = max(|q_j| + Σ_k |P_jk| ξ_k + Σ_i |A_ij| |y_i|, φ η/c_j),   Y_i = min_j C_j/|A_ij|
    margin = dist( s/σ_s − y/σ_y , kinks of Π_K ),    σ_s = R,   σ_y = Y   (the largest R, the least Y of a cone's rows)

so that neither the units of variables, rows and cost nor other rows have a say. A positive scaling of s and of y each
keeps a complementary pair complementary, and leaves it on a kink or off it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from cvxift import cones as cone
from cvxift.kkt.engine import Solution
from cvxift.kkt.instance import Instance
from cvxift.kkt.products import DataEntries
from cvxift.kkt.regularity.constants import Constants
from cvxift.kkt.regularity.kernel import NULL_EIGENVALUE, Kernel
from cvxift.kkt.regularity.theta import ThetaJacobian
from cvxift.kkt.regularity.thresholds import CLEAR
from cvxift.kkt.residuals import FLOOR
from cvxift.kkt.system.reduced import rotation
from cvxift.program.program import Program
from cvxift.program.recover import Output
from cvxift.program.structure import Floats

KINK = 1e-7  # relative margin under which a cone counts as lying on a kink
NO_SIZE = 1e-11  # size, in its units, under which a solution is zero to rounding and has no scale of its own
PROBED = 20  # parameters that are probed one by one


class LocalPoint:
    """A solution with its matrices, scales and margins.

    Args:
        program: the program.
        solution: a solution of it that has a point.
        theta: the parameters it was solved at, logarithms taken, shape (N,); needed where tangents are scaled by it.
        outputs: the program's maps to the variables (and dual variables) that the point is judged by; without a
            variable among them, all of the user's variables.

    Attributes:
        x, s, y: the point, shapes (n,), (m,), (m,).
        asked: columns that determine the variables asked for, shape (n,).
        tolerance: relative margin under which a cone lies on a kink: `KINK`, or what the residuals allow.
    """

    def __init__(
        self, program: Program, solution: Solution, theta: Floats | None = None, outputs: Sequence[Output] = ()
    ) -> None:
        self.program, self.solution = program.at(solution), solution
        self.theta = np.zeros(program.theta_size) if theta is None else theta
        self.structure, self.data = solution.structure, solution.data
        self.cones = self.structure.cones
        self.x, self.s, self.y = solution.x, solution.s, solution.y
        self.v = self.s - self.y
        self.asked, primal = program.user_columns, [output for output in outputs if output.kind == "primal"]
        if primal:
            self.asked = np.zeros(self.structure.n, dtype=bool)
            for output in primal:
                self.asked[output.matrix.indices] = True
            if np.array_equal(self.asked, program.user_columns):
                self.asked = program.user_columns
        self.tolerance = min(max(KINK, 10.0 * solution.residuals.worst), CLEAR)

    @cached_property
    def instance(self) -> Instance:
        """The program's matrices."""
        return self.constants.layout.instance(self.data)

    @cached_property
    def constants(self) -> Constants:
        """What does not depend on θ."""
        return Constants.of(self.program)

    @cached_property
    def magnitudes(self) -> tuple[Any, Any]:
        """|A| and |P|, CSR."""
        make = lambda: (sp.csr_array(abs(self.instance.rows)), sp.csr_array(abs(self.instance.P)))  # noqa: E731
        return self.constants.once("magnitudes", make)

    @cached_property
    def connected(self) -> tuple[np.ndarray, np.ndarray]:
        """Columns and rows that constraints and cost tie to those asked for, masks (n,) and (m,).

        The others are a problem of their own, whatever happens there.
        """
        n, m = self.structure.n, self.structure.m
        if self.asked is self.program.user_columns:
            return np.ones(n, dtype=bool), np.ones(m, dtype=bool)
        s, unit = self.structure, self.cones.unit_of_row
        ends = (
            np.concatenate([s.P_rows, n + s.A_rows, n + np.arange(m)]),
            np.concatenate([s.P_cols, s.A_cols, n + m + unit]),  # the rows of a cone belong together
        )
        size = n + m + self.cones.units
        graph = sp.csr_array((np.ones(len(ends[0])), ends), shape=(size, size))
        part = connected_components(graph, directed=False)[1]
        tied = np.isin(part, part[:n][self.asked])
        return tied[:n], tied[n : n + m]

    @cached_property
    def units(self) -> tuple[Floats, Floats]:
        """Units of columns and of rows, shapes (n,) and (m,)."""
        return self.constants.once("units", lambda: self.constants.equilibration.of_matrices(self.data))

    @cached_property
    def _size(self) -> float:
        """ξ: the whole solution's size, in units of columns."""
        columns, rows = self.units
        xi = max(_largest(np.abs(self.x) / columns), _largest(np.abs(self.data.b) * rows))
        return xi if xi > NO_SIZE else 1.0

    @cached_property
    def sizes(self) -> tuple[Floats, Floats]:
        """Sizes of x and y, shapes (n,) and (m,), where one that is zero has the size that it could have."""
        columns, _ = self.units
        return np.maximum(np.abs(self.x), self._size * columns), np.maximum(np.abs(self.y), self.scales_of(1.0)[1])

    @cached_property
    def jacobian_of_sizes(self) -> ThetaJacobian:
        """F_θ at `sizes`: where x and y are zero, entries of A move nothing at the point, but something beside it."""
        return ThetaJacobian.at(self.program, *((self.x, self.y) if self.constants.fixed else self.sizes))

    def theta_sizes(self, jacobian: ThetaJacobian | None = None) -> Floats:
        """The largest part of what a row or column balances that a unit of each entry of θ moves, shape (N,)."""
        rows, columns = self.balance(1.0)
        return (self.jacobian_of_sizes if jacobian is None else jacobian).sizes(columns, rows)

    def balance(self, floor: float) -> tuple[Floats, Floats]:
        """What each row and each column balances at the point: R (m,) and C (n,).

        Args:
            floor: φ, the part of the whole solution's size under which an entry has no size of its own.
        """
        columns, rows = self.units
        A, P = self.magnitudes
        xi = self._size
        x = np.maximum(np.abs(self.x), floor * xi * columns)
        cost = np.abs(self.data.q) + P @ x + A.T @ np.abs(self.y)
        eta = max(_largest(cost * columns), xi * _largest((P @ columns) * columns)) or 1.0
        R = A @ x + np.abs(self.data.b)
        return np.where(R > 0.0, R, xi / rows), np.maximum(cost, floor * eta / columns)

    def scales_of(self, floor: float) -> tuple[Floats, Floats]:
        """σ_s and σ_y of each row, shape (m,), for a part φ of the whole solution's size."""
        R, C = self.balance(floor)
        rows, cols = self.structure.A_rows, self.structure.A_cols
        pull = np.zeros(self.structure.m)  # 1/Y
        np.maximum.at(pull, rows, np.abs(self.data.A) / C[cols])
        slack, force = np.zeros(self.cones.units), np.zeros(self.cones.units)
        np.maximum.at(slack, self.cones.unit_of_row, R)
        np.maximum.at(force, self.cones.unit_of_row, pull)
        force[force == 0.0] = 1.0
        return slack[self.cones.unit_of_row], (1.0 / force)[self.cones.unit_of_row]

    @cached_property
    def scales(self) -> tuple[Floats, Floats]:
        """σ_s and σ_y of each row, shape (m,); equal in the rows of one cone."""
        return self.scales_of(FLOOR)

    @cached_property
    def row_errors(self) -> Floats:
        """|Ax + s − b| beside what each row balances, shape (m,)."""
        return np.abs(self.instance.rows @ self.x + self.s - self.data.b) / self.scales[0]

    @cached_property
    def near(self) -> np.ndarray:
        """Units that lie on no kink, but near one beside the size of the whole solution (φ = 1)."""
        return np.flatnonzero((self.margins > self.tolerance) & (self.margins_of_whole <= CLEAR) & self.tied_units)

    @cached_property
    def margins_of_whole(self) -> Floats:
        """The margins beside the size of the whole solution (φ = 1), shape (units,)."""
        sigma_s, sigma_y = self.scales_of(1.0)
        return cone.margin(self.cones, self.s / sigma_s - self.y / sigma_y)

    @property
    def doubtful(self) -> bool:
        """Whether a row or second-order cone that counts as off its kink lies on one beside the whole solution's size.

        Columns that only its force holds are known to the root of the accuracy there.
        """
        end = self.cones.zero + self.cones.nonneg + sum(self.cones.soc)
        near = self.near[self.cones.unit_starts[self.near] < end]
        return bool((self.margins_of_whole[near] <= KINK).any())

    @cached_property
    def scaled_v(self) -> Floats:
        """s/σ_s − y/σ_y, shape (m,)."""
        sigma_s, sigma_y = self.scales
        return self.s / sigma_s - self.y / sigma_y

    @cached_property
    def margins(self) -> Floats:
        """Relative distance of each unit to its nearest kink, shape (units,); infinite for zero rows."""
        return cone.margin(self.cones, self.scaled_v)

    @cached_property
    def weak(self) -> np.ndarray:
        """Units on a kink, of those that the outputs are tied to."""
        return np.flatnonzero((self.margins <= self.tolerance) & self.tied_units)

    @cached_property
    def weak_is_linear(self) -> bool:
        """Whether all units on a kink are rows, not cones."""
        return bool((self.cones.unit_starts[self.weak] < self.cones.zero + self.cones.nonneg).all())

    @cached_property
    def tied_units(self) -> np.ndarray:
        """Units that the outputs are tied to, mask of shape (units,)."""
        return self.connected[1][self.cones.unit_starts] if self.cones.units else np.zeros(0, dtype=bool)

    def rows_of(self, unit: int) -> np.ndarray:
        """The rows of a unit."""
        starts = self.cones.unit_starts
        stop = starts[unit + 1] if unit + 1 < len(starts) else self.structure.m
        return np.arange(starts[unit], stop)

    def interior(self, unit: int) -> Floats:
        """A direction into the interior of the unit's cone, of its dual too, shape (rows,)."""
        rows = self.rows_of(unit)
        linear = self.cones.zero + self.cones.nonneg
        if rows[0] < linear:
            return np.ones(1)
        kind, _, _, order = next(block for block in self.cones.blocks() if block.start == rows[0])
        if kind == "soc":
            return np.eye(len(rows))[0]
        if kind == "psd":
            out, at = np.zeros(len(rows)), 0
            for k in range(int(order or 0)):
                at += k + 1
                out[at - 1] = 1.0
            return out
        return np.array([-1.0, 1.0, 1.0]) if kind == "exp" else np.array([1.0, 1.0, 0.0])

    def moved(self, shift: Floats) -> Floats:
        """v after a shift of the scaled point, shape (m,)."""
        if not shift.any():
            return self.v
        rows = np.flatnonzero(np.isin(self.cones.unit_of_row, np.unique(self.cones.unit_of_row[shift != 0.0])))
        sigma_s, sigma_y = self.scales
        moved = self.scaled_v + shift
        s = cone.project(self.cones, moved)
        out = self.v.copy()
        out[rows] = (sigma_s * s - sigma_y * (s - moved))[rows]
        return out

    def kernel(self, shift: Floats | None = None) -> Kernel:
        """K on the piece of the solution map that a shift of the scaled point selects.

        Args:
            shift: shape (m,); None for the point itself.
        """
        singular = min(max(NULL_EIGENVALUE, 10.0 * self.solution.residuals.worst), 1e-7)
        return Kernel(self.instance, rotation(self.cones, self.v if shift is None else self.moved(shift)), singular)

    @cached_property
    def probes(self) -> tuple[Floats, Floats]:
        """Right-hand sides (g, h) of random tangents: one for each of the first parameters alone, two for all of them.

        A problem without parameters is probed along changes of its linear cost in the user's variables.
        """
        program, rng = self.program, np.random.default_rng(0)
        if not program.theta_size:
            g = rng.standard_normal((3, self.structure.n)) * self.asked
            return g, np.zeros((3, self.structure.m))
        scaled = self.theta_size_of_entry * rng.standard_normal((2, program.theta_size))
        rows = [*scaled]
        for parameter in program.parameters[:PROBED]:
            alone = np.zeros(program.theta_size)
            part = program.offsets[parameter]
            alone[part] = scaled[0][part]
            rows.append(alone)
        g, h = self.tangents(np.stack(rows))
        columns, tied = self.connected
        return g * columns, h * tied

    @property
    def theta_size_of_entry(self) -> Floats:
        """Typical magnitude of each entry of θ: the largest of its parameter, or 1 where that is 0, shape (N,)."""
        out = np.ones(self.program.theta_size)
        for part in self.program.offsets.values():
            size = float(np.abs(self.theta[part]).max(initial=0.0))
            out[part] = size if 0.0 < size < np.inf else 1.0
        return out

    def tangents(self, theta_dot: Floats) -> tuple[Floats, Floats]:
        """Right-hand sides (g, h) of the tangent system, shapes (k, n) and (k, m), for tangents of θ, shape (k, N)."""
        return DataEntries(self.structure).residual_tangent(self.program.jvp(theta_dot), self.x, self.y)


def _largest(values: Floats) -> float:
    return float(np.max(values, initial=0.0))
