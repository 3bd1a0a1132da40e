"""What a sweep found: columns read a shard at a time, or whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np

from cvxift.errors import ProgramError
from cvxift.layers.sweeps.block import FAILED, OK, Columns
from cvxift.layers.sweeps.shards import Folder
from cvxift.program.structure import Floats


@dataclass(frozen=True)
class Remark:
    """What is said of one instance.

    Attributes:
        index: of the instance, from 0.
        reason: why it failed, or why its derivative does not exist.
    """

    index: int
    reason: str


@dataclass(frozen=True, eq=False)
class Sweep:
    """The results of `cvxift.sweep`; also those of one shard, as `shards` yields them.

    Values and derivatives of an instance that failed are NaN. Those of a folder are read from there when they are
    asked for, all instances at once; for more than memory holds, go by `shards`, or read the Parquet files with a
    library for tables.

    Attributes:
        sizes: number of instances of each shard.
        folder: where the shards are, or None.

    Example:
        >>> import cvxpy as cp, numpy as np, cvxift
        >>> x, t = cp.Variable(name="x"), cp.Parameter(name="t")
        >>> problem = cp.Problem(cp.Minimize(cp.square(x - t)), [x >= 0, x <= 3 - t])
        >>> found = cvxift.sweep(problem, {t: np.array([1.0, 2.0, 4.0])}, n_jobs=1)
        >>> found.value(x).round(6), [remark.index for remark in found.failed]
        (array([ 1.,  1., nan]), [2])
    """

    _columns: Mapping[tuple[int, ...], str]
    _shapes: Mapping[str, tuple[int, ...]]
    sizes: tuple[int, ...]
    folder: Folder | None
    _kept: Mapping[int, Columns]

    def __len__(self) -> int:
        return sum(self.sizes)

    def __repr__(self) -> str:
        where = "in memory" if self.folder is None else f"in {self.folder.path}"
        return f"Sweep({len(self)} instances in {len(self.sizes)} shards, {where}; columns: {', '.join(self._shapes)})"

    def value(self, variable: cp.Variable) -> Floats:
        """Values of a variable or dual variable, shape ``(n, *variable.shape)``."""
        return self._of((variable.id,), f"the value of '{variable.name()}'")

    def jacobian(self, variable: cp.Variable, parameter: cp.Parameter) -> Floats:
        """Jacobians, shape ``(n, *variable.shape, *parameter.shape)``."""
        words = f"the Jacobian of '{variable.name()}' with respect to '{parameter.name()}'"
        return self._of((variable.id, parameter.id), words)

    def gradient(self, parameter: cp.Parameter) -> Floats:
        """Vector-Jacobian products with the sweep's cotangents, shape ``(n, *parameter.shape)``."""
        return self._of((parameter.id,), f"the gradient with respect to '{parameter.name()}'")

    def column(self, name: str) -> Any:
        """A column by its name.

        Args:
            name: ``"status"``, ``"reason"``, ``"residual"`` (worst relative residual; NaN where a closed form gives the
                solution), ``"margin"`` (smallest relative distance to a kink); with ``report=True``, ``"verdict"``,
                ``"faults"``, ``"condition"``; or one of the columns that `repr` lists, each entry raveled.

        Returns:
            An array whose first dimension numbers the instances; a list for strings.
        """
        parts = [self._shard(number, name) for number in range(len(self.sizes))]
        if not parts:
            return np.zeros(0)
        lists = not isinstance(parts[0], np.ndarray)
        return [value for part in parts for value in part] if lists else np.concatenate(parts)

    @property
    def failed(self) -> list[Remark]:
        """The instances that have no result, and why."""
        return list(self._remarks(FAILED))

    @property
    def warned(self) -> list[Remark]:
        """Instances whose derivative does not exist, or that are inaccurate, and why; see docs/errors.md."""
        return list(self._remarks(OK))

    def shards(self) -> Iterator[Sweep]:
        """The results of one shard after the other, in memory; their indices begin at 0."""
        for number, size in enumerate(self.sizes):
            columns = self._kept[number] if self.folder is None else self.folder.read(number)
            yield Sweep(self._columns, self._shapes, (size,), None, {0: columns})

    def _remarks(self, status: str) -> Iterator[Remark]:
        pairs = zip(self.column("status"), self.column("reason"), strict=True)
        return (Remark(i, reason) for i, (own, reason) in enumerate(pairs) if own == status and reason)

    def _of(self, key: tuple[int, ...], words: str) -> Floats:
        if key not in self._columns:
            raise ProgramError(f"The sweep did not record {words}; its columns: {', '.join(self._shapes)}.")
        name = self._columns[key]
        return self.column(name).reshape((len(self), *self._shapes[name]))

    def _shard(self, number: int, name: str) -> Any:
        columns = self._kept[number] if self.folder is None else self.folder.read(number, [name])
        if name not in columns:
            raise ProgramError(f"The sweep has no column '{name}'; its columns: {', '.join(columns)}.")
        return columns[name]
