"""Moreau: interior-point and active-set methods, on the CPU and, for batches, on CUDA; used where it is installed.

Its form, signs and svec are ours: Ax + s = b, Px + q + Aᵀz = 0. Matrices come row by row and second-order cones have
at least two rows, so those of one row are moved to the nonneg cone. Its compiled solver has a fixed batch size: a
session keeps one for single instances and one for the size of the last batch, which it solves in one call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from cvxift._types import Floats
from cvxift.errors import ProgramError
from cvxift.program.structure import Structure
from cvxift.solvers.base import BatchSession, Raw, Session, Solver, Status
from cvxift.solvers.clarabel import STATUS
from cvxift.solvers.layout import RowOrder
from cvxift.solvers.settings import optional

moreau = optional("moreau")

# Ours to set (batch size, no gradients), or without meaning for a solution that must be accurate.
_HIDDEN = frozenset({"batch_size", "enable_grad", "yolo", "yolo_num_iters", "ipm_settings", "active_set_settings"})


class Moreau(Solver):
    """Moreau through its Python package `moreau`, which solves outside Python's lock.

    Options are the fields of its `Settings`, `IPMSettings` and `ActiveSetSettings`, all by their plain names.
    """

    name = "moreau"
    package = moreau
    verbose_options = MappingProxyType({"verbose": True})
    defaults = MappingProxyType({"tol_gap_abs": 1e-9, "tol_gap_rel": 1e-9, "tol_feas": 1e-9, "primal_tol": 1e-9})

    @property
    def options(self) -> Mapping[str, Any]:
        """The fields of Moreau's settings that a user may set."""
        found = {}
        for settings in _settings_classes().values():
            found.update(
                {
                    name: info.default
                    for name, info in settings.model_fields.items()
                    if name not in _HIDDEN and not name.startswith("diff_")
                }
            )
        return {**found, **self.defaults}

    def _session(self, structure: Structure, options: Mapping[str, Any]) -> Session:
        return MoreauSession(structure, options)


def _settings_classes() -> dict[str, Any]:
    return {"": moreau.Settings, "ipm_settings": moreau.IPMSettings, "active_set_settings": moreau.ActiveSetSettings}


class MoreauSession(BatchSession):
    """Compiled solvers for one batch size each."""

    releases_gil = True

    def __init__(self, structure: Structure, options: Mapping[str, Any]) -> None:
        super().__init__(structure, options)
        cones = structure.cones
        single = [block.start for block in cones.blocks() if block.kind == "soc" and block.stop - block.start == 1]
        rows = np.arange(structure.m)
        end = cones.zero + cones.nonneg
        rest = np.setdiff1d(rows[end:], single)
        self._rows = RowOrder(structure, np.concatenate([rows[:end], single, rest]).astype(np.intp))
        self._cones = moreau.Cones(
            num_zero_cones=cones.zero,
            num_nonneg_cones=cones.nonneg + len(single),
            so_cone_dims=[dim for dim in cones.soc if dim > 1],
            psd_dims=list(cones.psd),
            num_exp_cones=cones.exp,
            power_alphas=list(cones.pow),
        )
        # Entries row by row; P is symmetric with a symmetric pattern, so its columns are its rows.
        moved = np.empty(structure.m, dtype=np.intp)
        moved[self._rows.rows] = rows
        entry_rows = moved[structure.A_rows]
        self._by_rows = np.lexsort((structure.A_cols, entry_rows))
        self._A_cols = structure.A_cols[self._by_rows].astype(np.int64)
        self._A_offsets = np.concatenate([[0], np.cumsum(np.bincount(entry_rows, minlength=structure.m))])
        self._compiled: dict[int, Any] = {}
        self._compile(1)

    def _compile(self, size: int) -> Any:
        """The solver for batches of this size; only those of size 1 and of the last size are kept."""
        if size not in self._compiled:
            structure = self.structure
            self._compiled = {1: self._compiled[1]} if 1 in self._compiled else {}
            self._compiled[size] = moreau.CompiledSolver(
                structure.n,
                structure.m,
                structure.P_indptr,
                structure.P_rows,
                self._A_offsets,
                self._A_cols,
                self._cones,
                self._settings(size),
            )
        return self._compiled[size]

    def _settings(self, size: int) -> Any:
        parts: dict[str, dict[str, Any]] = {}
        for part, settings in _settings_classes().items():
            parts[part] = {name: self.options[name] for name in settings.model_fields if name in self.options}
        try:
            return moreau.Settings(
                **parts[""],
                batch_size=size,
                ipm_settings=moreau.IPMSettings(**parts["ipm_settings"]),
                active_set_settings=moreau.ActiveSetSettings(**parts["active_set_settings"]),
            )
        except ValueError as error:
            raise ProgramError(f"Solver 'moreau' refuses one of the options {self.options}: {error}") from error

    def _solve(self, P: Floats, q: Floats, A: Floats, b: Floats, warm: Raw | None) -> Raw:
        return self._solve_finite(P[None], q[None], A[None], b[None], None if warm is None else [warm])[0]

    def _solve_batch(self, P: Floats, q: Floats, A: Floats, b: Floats, warm: Sequence[Raw] | None) -> list[Raw]:
        return self._solve_finite(P, q, A, b, warm)

    def _solve_finite(self, P: Floats, q: Floats, A: Floats, b: Floats, warm: Sequence[Raw] | None) -> list[Raw]:
        solver = self._compile(len(q))
        solver.setup(np.ascontiguousarray(P), A[:, self._by_rows])
        start = None
        if warm is not None:
            start = moreau.BatchedWarmStart(
                x=np.stack([raw.x for raw in warm]),
                z=np.stack([self._rows.there(raw.y) for raw in warm]),
                s=np.stack([self._rows.there(raw.s) for raw in warm]),
            )
        solution = solver.solve(np.ascontiguousarray(q), self._rows.there(b), warm_start=start)
        info = solver.info
        results = []
        for i, word in enumerate(info.status):
            status = STATUS.get(word.name, Status.FAILED)
            if status.has_point:
                s, y = self._rows.back(solution.s[i]), self._rows.back(solution.z[i])
                iterations = int(np.atleast_1d(info.iterations)[min(i, np.size(info.iterations) - 1)])
                results.append(Raw(np.array(solution.x[i]), np.array(s), np.array(y), status, word.name, iterations))
            else:
                results.append(self.failure(word.name, status))
        return results
