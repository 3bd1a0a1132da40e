"""One block of a sweep: instances solved, differentiated and reported together, and apart where one of them fails.

A block is tried whole. Where that raises (a value that a parameter does not admit, a derivative that does not exist),
its halves are tried, down to the instances that are the cause: each keeps its own reason, the others are not affected.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from cvxift.argmax.closed_form.closed_map import ClosedMap, ClosedSolved
from cvxift.diagnostics.call_check import relative_margins
from cvxift.diagnostics.diagnosis import report_at
from cvxift.errors import ApplicabilityError, ApplicabilityWarning
from cvxift.kkt.batch.solutions import DenseBatch
from cvxift.kkt.conflict import first_agrees
from cvxift.kkt.instance_products import JACOBIAN_CHUNK
from cvxift.kkt.solution_map import Solved
from cvxift.program.parameters import logged
from cvxift.program.structure import Floats

Columns = dict[str, Any]
"""Column -> its entries, one an instance: an array whose first dimension numbers them, or a list of strings."""

OK, FAILED = "ok", "failed"


@dataclass(frozen=True)
class Column:
    """A column of derivatives or values.

    Attributes:
        name: of the column.
        outputs: its entries among the flat outputs.
        theta: its entries of θ; None for values.
    """

    name: str
    outputs: slice
    theta: slice | None = None


@dataclass(eq=False)
class BlockSolver:
    """Solves blocks of instances; pickled once, and opened anew for each block.

    A solver keeps what it learned from one call for the next, so that a point depends on those before it to rounding.
    A block that begins with new sessions gives the same bits wherever and whenever it is solved.

    Attributes:
        map: the problem's solution map; its policy and options are the sweep's.
        values: columns of variables.
        jacobians: columns of Jacobians.
        gradients: columns of vector-Jacobian products.
        report: whether the verdict on each instance is recorded.
    """

    map: ClosedMap
    values: Sequence[Column]
    jacobians: Sequence[Column]
    gradients: Sequence[Column]
    report: bool

    def __call__(self, theta: Floats, bars: Floats | None) -> Columns:
        """Solve a block.

        Args:
            theta: shape (b, N), in the user's units.
            bars: cotangents of the flat outputs, shape (b, K); None without gradients.

        Returns:
            The columns, each of length b.
        """
        return self._apart(theta, bars)

    def _apart(self, theta: Floats, bars: Floats | None) -> Columns:
        """The block, or its halves where the whole raises."""
        try:
            return self._whole(theta, bars)
        except Exception as error:  # noqa: BLE001  # an instance's failure, of whatever kind, is its record
            if len(theta) > 1:
                middle = len(theta) // 2
                parts = [slice(0, middle), slice(middle, None)]
                return joined([self._apart(theta[part], None if bars is None else bars[part]) for part in parts])
            if not isinstance(error, ApplicabilityError) or self.map.policy.singular == "raise":
                return self.failed(f"{type(error).__name__}: {error}")
            reason = str(error)
        try:
            with self._unchecked():
                return {**self._whole(theta, bars), "reason": [reason]}
        except Exception as error:  # noqa: BLE001  # the same
            return self.failed(f"{type(error).__name__}: {error}")

    @contextmanager
    def _unchecked(self) -> Any:
        """Derivatives are taken where they do not exist, as a layer takes them after its warning."""
        check = self.map.applicability
        self.map.applicability = "off"
        try:
            yield
        finally:
            self.map.applicability = check

    def _whole(self, theta: Floats, bars: Floats | None) -> Columns:
        mapping = self.map
        mapping.check(theta)
        canonical, scale = logged(theta, mapping.log_mask), None
        if mapping.log_mask is not None:
            scale = np.where(mapping.log_mask, 1.0 / theta, 1.0)  # d canonical θ / d θ
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ApplicabilityWarning)  # of failed instances, which are recorded
            solved = mapping.solve(canonical)
        if not isinstance(solved, ClosedSolved):
            order = mapping._permutation
            first_agrees(mapping.program, solved.solutions, canonical if order is None else canonical[:, order])
        outputs, growth = solved.outputs, None
        if mapping.exp_mask is not None:
            outputs = np.where(mapping.exp_mask, np.exp(np.where(mapping.exp_mask, outputs, 0.0)), outputs)
            growth = np.where(mapping.exp_mask, outputs, 1.0)  # d output / d canonical output
        bad = np.asarray(np.isnan(outputs).any(axis=-1))
        columns = _status(solved, bad)
        columns |= {column.name: outputs[:, column.outputs] for column in self.values}
        products = {column.name: self._jacobian(solved, column, growth, scale) for column in self.jacobians}
        if bars is not None:
            bar = mapping.vjp(solved, bars if growth is None else bars * np.where(bad[:, None], 1.0, growth))
            bar = bar if scale is None else bar * scale
            products |= {column.name: bar[:, column.theta] for column in self.gradients}
        for product in products.values():
            product[bad] = np.nan
        return columns | products | (self._reports(solved, theta) if self.report else {})

    def _jacobian(self, solved: Solved, column: Column, growth: Floats | None, scale: Floats | None) -> Floats:
        """Shape (b, rows, columns); by whichever mode needs fewer products."""
        mapping, rows, columns = self.map, column.outputs, column.theta
        assert columns is not None
        count, height, width = len(solved.solutions), rows.stop - rows.start, columns.stop - columns.start
        out = np.empty((count, height, width))
        reverse = height <= width
        eye = np.eye(mapping.output_size)[rows] if reverse else np.eye(mapping.theta_size)[columns]
        chunk = max(1, JACOBIAN_CHUNK // max(1, count * (mapping.output_size + mapping.theta_size)))
        for start in range(0, len(eye), chunk):
            part = slice(start, start + chunk)
            vectors = np.repeat(eye[part, None, :], count, axis=1)
            if reverse:
                out[:, part] = mapping.vjp(solved, vectors)[..., columns].swapaxes(0, 1)
            else:
                out[:, :, part] = mapping.jvp(solved, vectors)[..., rows].transpose(1, 2, 0)
        if growth is not None:
            out *= growth[:, rows, None]
        return out if scale is None else out * scale[:, None, columns]

    def _reports(self, solved: Solved, theta: Floats) -> Columns:
        mapping = self.map
        order = mapping._permutation
        own = theta if order is None else theta[:, order]
        verdicts, faults, conditions = [], [], np.full(len(theta), np.nan)
        for i, row in enumerate(own):
            report = report_at(mapping.program.problem, mapping.program, solved.solutions[i], row)
            verdicts.append(report.verdict.value)
            faults.append("; ".join(f"{f.cause}: {', '.join(f.where[:3])}" for f in report.faults))
            conditions[i] = report.condition
        return {"verdict": verdicts, "faults": faults, "condition": conditions}

    def failed(self, reason: str) -> Columns:
        """The row of an instance that has no result."""
        columns: Columns = {"status": [FAILED], "reason": [reason]}
        columns |= {"residual": np.full(1, np.nan), "margin": np.full(1, np.nan)}
        for column in (*self.values, *self.jacobians, *self.gradients):
            columns[column.name] = np.full((1, *self.shape(column)), np.nan)
        if self.report:
            columns |= {"verdict": [""], "faults": [""], "condition": np.full(1, np.nan)}
        return columns

    def shape(self, column: Column) -> tuple[int, ...]:
        """Shape of one entry of a column."""
        own = column.outputs if column.theta is None else column.theta
        parts = (column.outputs, own) if column in self.jacobians else (own,)
        return tuple(part.stop - part.start for part in parts)


def _status(solved: Solved, bad: np.ndarray) -> Columns:
    """How each instance ended."""
    solutions = solved.solutions
    reasons = [""] * len(bad)
    for i in map(int, np.flatnonzero(bad)):
        reasons[i] = f"{solutions[i].status.value}. Tried {solutions[i].describe()}."
    if isinstance(solved, ClosedSolved):
        residual = np.full(len(bad), np.nan)  # nothing was solved to a tolerance
    elif isinstance(solutions, DenseBatch):
        residual = np.array(solutions.residuals).max(axis=-1)
        for i, single in solutions.singles.items():
            residual[i] = single.worst if single.ok else np.nan
    else:
        residual = np.array([solution.worst if solution.ok else np.nan for solution in solutions])
    status = [FAILED if failed else OK for failed in bad]
    margin = np.where(bad, np.nan, relative_margins(solved))
    return {"status": status, "reason": reasons, "residual": residual, "margin": margin}


def joined(parts: Sequence[Mapping[str, Any]]) -> Columns:
    """The columns of several blocks, one after the other."""
    join: Callable[[list[Any]], Any]
    out: Columns = {}
    for name, first in parts[0].items():
        join = (
            np.concatenate if isinstance(first, np.ndarray) else lambda lists: [v for values in lists for v in values]
        )
        out[name] = join([part[name] for part in parts])
    return out
