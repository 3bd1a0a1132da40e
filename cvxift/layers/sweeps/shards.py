"""A sweep's folder: one Parquet file a shard, written whole or not at all, and a description that a resumed run meets.

A shard is written under another name and then renamed, which replaces a file in one step (POSIX rename; MoveFileEx on
Windows): a run that is killed leaves no shard half written. Each file carries the digest of the parameter values that
it was computed from.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cvxift.errors import ProgramError
from cvxift.layers.sweeps.block import Columns
from cvxift.program.structure import Floats

DESCRIPTION = "sweep.json"
_DIGEST = b"cvxift.theta"


class BrokenShard(ProgramError):
    """A shard's file cannot be read to its end."""


def digest(*arrays: Floats | None) -> str:
    """SHA-256 of arrays' shapes and bytes."""
    found = hashlib.sha256()
    for array in arrays:
        if array is not None:
            found.update(repr(array.shape).encode())
            found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


class Folder:
    """Shards on disk.

    Args:
        path: the folder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def file(self, number: int) -> Path:
        """The file of a shard."""
        return self.path / f"shard-{number:08d}.parquet"

    def open(self, description: Mapping[str, Any]) -> None:
        """Make the folder, or meet the one that is there.

        Args:
            description: of the sweep: problem, options, columns, shard size.

        Raises:
            ProgramError: it cannot be written, or holds another sweep; says what differs.
        """
        _parquet()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for left in self.path.glob("*.part"):  # of a run that was killed
                left.unlink(missing_ok=True)
            held = self.path / DESCRIPTION
            if held.exists():
                self._meet(json.loads(held.read_text(encoding="utf-8")), description)
                trial = self._part()
                trial.touch()
                trial.unlink()
            else:
                part = self._part()
                part.write_text(json.dumps(description, indent=1), encoding="utf-8")
                os.replace(part, held)
        except (OSError, ValueError) as error:
            if isinstance(error, ProgramError):
                raise
            raise ProgramError(
                f"The sweep's folder '{self.path}' cannot be written or read: {error}. Choose a folder that this "
                "process, and every worker, may write to."
            ) from error

    def _meet(self, held: Mapping[str, Any], description: Mapping[str, Any]) -> None:
        now = json.loads(json.dumps(description))
        differ = [key for key in now if held.get(key) != now[key]]
        if differ:
            words = "; ".join(f"{key}: {str(held.get(key))[:80]} there, {str(now[key])[:80]} now" for key in differ)
            raise ProgramError(
                f"The folder '{self.path}' holds another sweep ({words}). Choose another folder, or the same arguments "
                "as before to resume."
            )

    def _part(self) -> Path:
        return self.path / f"{uuid.uuid4().hex}.part"

    def write(self, number: int, columns: Columns, theta: str) -> None:
        """Write a shard.

        Args:
            number: of the shard.
            columns: its columns.
            theta: digest of what they were computed from.
        """
        pa, pq = _parquet()
        arrays = {name: _arrow(pa, values) for name, values in columns.items()}
        table = pa.table(arrays).replace_schema_metadata({_DIGEST: theta.encode()})
        part = self._part()
        pq.write_table(table, part)
        os.replace(part, self.file(number))

    def finished(self, number: int, count: int, theta: str) -> bool:
        """Whether a shard is there, whole, and of these values.

        Raises:
            BrokenShard: its file is cut short.
            ProgramError: it was computed from other values.
        """
        path = self.file(number)
        if not path.exists():
            return False
        pa, pq = _parquet()
        try:
            footer = pq.read_metadata(path)
        except (pa.ArrowInvalid, OSError) as error:
            raise BrokenShard(f"Shard {number}, {path}, is cut short or damaged: {error}") from error
        kept = (footer.metadata or {}).get(_DIGEST, b"").decode()
        if footer.num_rows != count or kept != theta:
            raise ProgramError(
                f"Shard {number}, {path}, was computed from other values: it has {footer.num_rows} instances, and the "
                f"values now given have {count}"
                + (" of other digest" if footer.num_rows == count else "")
                + ". Choose another folder, or the same values to resume."
            )
        return True

    def read(self, number: int, names: Sequence[str] | None = None) -> Columns:
        """A shard's columns.

        Args:
            number: of the shard.
            names: the columns to read; None for all.

        Raises:
            BrokenShard: its file is missing, cut short or damaged.
        """
        pa, pq = _parquet()
        try:
            table = pq.read_table(self.file(number), columns=None if names is None else list(names))
        except (pa.ArrowInvalid, OSError) as error:
            raise BrokenShard(
                f"Shard {number}, {self.file(number)}, is missing, cut short or damaged: {error}. Call cvxift.sweep "
                "again with the same arguments: it computes that shard anew and keeps the others."
            ) from error
        return {name: _numpy(pa, table[name].combine_chunks()) for name in table.column_names}


def _arrow(pa: Any, values: Any) -> Any:
    """A column for Parquet; arrays of more dimensions as lists of fixed length, one within the other."""
    if isinstance(values, list):
        return pa.array(values, pa.string())
    array = pa.array(np.ascontiguousarray(values).reshape(-1))
    for length in reversed(values.shape[1:]):
        array = pa.FixedSizeListArray.from_arrays(array, length) if length else pa.nulls(len(values))
    return array


def _numpy(pa: Any, column: Any) -> Any:
    column = column.chunk(0) if isinstance(column, pa.ChunkedArray) and column.num_chunks else column
    if pa.types.is_string(column.type):
        return column.to_pylist()
    shape = [len(column)]
    while pa.types.is_fixed_size_list(column.type):
        shape.append(column.type.list_size)
        column = column.flatten()
    return column.to_numpy(zero_copy_only=False).reshape(shape)


def _parquet() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ProgramError("A sweep's folder needs pyarrow: pip install 'cvxift[sweep]'.") from error
    return pa, pq
