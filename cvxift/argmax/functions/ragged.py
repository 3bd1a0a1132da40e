"""Groups of unequal length in one flat array: which entry is in which group, and what each group has.

Groups are given by ids, one for each entry along ``dim``, in any order, or by offsets, where each begins and the last
ends. Groups may be empty. All other axes hold independent instances, which share the groups; internally everything lies
flat in one axis.
"""

from __future__ import annotations

import math
from typing import Any

from cvxift._types import Array
from cvxift.argmax import checks
from cvxift.argmax.functions.arguments import broadcasts, check_dim
from cvxift.argmax.functions.framework import Framework
from cvxift.errors import ProgramError

Given = tuple[Any, Any, Any]  # ids, offsets, number of groups, each as the caller gave it, or None
NONE: Given = (None, None, None)


def is_ragged(given: Given) -> bool:
    """Whether the caller gave groups."""
    return not (given[0] is None and given[1] is None and given[2] is None)


class Ragged:
    """The groups of one call.

    Args:
        fw: the framework.
        name: of the function, for messages.
        x: scores.
        dim: dimension that holds the entries.
        given: ids, offsets, number.

    Attributes:
        ids: the group of each entry, flat.
        number: of groups, all instances together.

    Raises:
        ProgramError: both or neither of ids and offsets, other shapes or types, ids out of range, offsets that decrease
            or do not run from 0 to the number of entries; in a traced call, no number of groups.
    """

    def __init__(self, fw: Framework, name: str, x: Array, dim: int, given: Given) -> None:
        check_dim(fw, name, x, dim)
        self._fw, self._name, self._dim = fw, name, dim
        self._shape, self._length = tuple(x.shape), x.shape[dim]
        self._lead = tuple(fw.moveaxis(x, dim, -1).shape[:-1])
        segments, offsets, number = given
        if (segments is None) == (offsets is None):
            raise ProgramError(
                f"{name} got {'neither' if segments is None else 'both'} segments and offsets; give one."
            )
        if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < 0):
            raise ProgramError(f"{name} got num_segments = {number!r}; expected an integer ≥ 0.")
        if segments is not None:
            ids, self._number, self._bad = self._of_ids(fw.integers(segments, x), number)
        else:
            ids, self._number, self._bad = self._of_offsets(fw.integers(offsets, x), number)
        instances = math.prod(self._lead)
        self.number = instances * self._number
        if instances != 1:
            first = self._number * fw.arange(instances, ids)
            ids = first[:, None] + ids
        self.ids = ids.reshape((-1,))

    def _of_ids(self, ids: Array, number: int | None) -> tuple[Array, int, Array | None]:
        fw, name, xp = self._fw, self._name, self._fw.xp
        self._check_kind("segments", ids, (self._length,))
        ids = fw.index(ids)
        largest = [number if number is not None else 0]

        def check(ids: Array) -> None:
            least, most = int(xp.min(ids)), int(xp.max(ids))
            if number is None:
                largest[0] = most + 1
            if least < 0 or (number is not None and most >= number):
                limit = "" if number is None else f" to num_segments − 1 = {number - 1}"
                raise ProgramError(f"{name}: segments run from {least} to {most}; expected ids from 0{limit}.")

        if not self._length or fw.look(check, ids):
            return ids, largest[0], None
        if number is None:
            raise ProgramError(
                f"{name}: the values of segments cannot be seen here; give num_segments, how many groups."
            )
        return xp.clip(ids, 0, max(number - 1, 0)), number, (ids < 0) | (ids >= number)

    def _of_offsets(self, offsets: Array, number: int | None) -> tuple[Array, int, Array | None]:
        fw, name, xp, n = self._fw, self._name, self._fw.xp, self._length
        expected = f"({number + 1},)" if number is not None else "(groups + 1,)"
        if offsets.ndim != 1 or not offsets.shape[0] or number not in (None, offsets.shape[0] - 1):
            raise ProgramError(f"{name} got offsets of shape {tuple(offsets.shape)}; expected {expected}.")
        self._check_kind("offsets", offsets, tuple(offsets.shape))
        offsets = fw.index(offsets)

        def check(offsets: Array) -> None:
            if int(offsets[0]) != 0 or int(offsets[-1]) != n:
                raise ProgramError(
                    f"{name}: offsets run from {int(offsets[0])} to {int(offsets[-1])}; expected 0 to {n}, the length"
                    f" of {fw.DIM} = {self._dim}."
                )
            if bool(xp.any(offsets[1:] < offsets[:-1])):
                raise ProgramError(f"{name}: offsets decrease; expected where each group begins, and the end.")

        bad = None
        if not fw.look(check, offsets):
            wrong = xp.any(offsets[1:] < offsets[:-1]) | (offsets[0] != 0) | (offsets[-1] != n)
            bad, offsets = xp.broadcast_to(wrong, (n,)), xp.clip(offsets, 0, n)
        begun = fw.segments(offsets[1:-1], n + 1).sum(xp.ones_like(offsets[1:-1]))
        return xp.cumulative_sum(begun, axis=-1)[:n], offsets.shape[0] - 1, bad

    def _check_kind(self, argument: str, array: Array, shape: tuple[int, ...]) -> None:
        if tuple(array.shape) != shape or not self._fw.is_integer(array):
            raise ProgramError(
                f"{self._name} got {argument} of shape {tuple(array.shape)} and type {array.dtype}; expected integers"
                f" of shape {shape}, one for each entry along {self._fw.DIM} = {self._dim}."
            )

    def scores(self, x: Array, temperature: Any) -> Array:
        """Scores over temperature, flat, in float32 at least; NaN where the group cannot be told."""
        fw, xp = self._fw, self._fw.xp
        scores = self.flat(fw.wider(x))
        if self._bad is not None:
            scores = checks.spoiled(xp, scores, xp.broadcast_to(self._bad, (*self._lead, self._length)).reshape((-1,)))
        if isinstance(temperature, (float, int)) and temperature == 1:
            return scores
        groups = fw.segments(self.ids, self.number)
        warmth = self.of_groups("temperature", temperature, scores, checks.TEMPERATURE)
        if scores.shape[0]:
            top = groups.max(fw.constant(scores))
            scores = scores - groups.spread(xp.where(top == -xp.inf, xp.zeros_like(top), top))
        return scores / (warmth if isinstance(warmth, float) else groups.spread(warmth))

    def flat(self, x: Array) -> Array:
        """Entries, or groups in their place, of all instances in one axis."""
        return self._fw.moveaxis(x, self._dim, -1).reshape((-1,))

    def of_groups(self, argument: str, value: Any, like: Array, allowed: checks.Range | None = None) -> Any:
        """A number as it is, or an array of x's shape, groups in place of entries, flat; checked against its range."""
        fw = self._fw
        if fw.is_number(value):
            if allowed is not None:
                checks.check_number(self._name, allowed, value)
            return float(value)
        array = fw.array(value, like)
        shape = list(self._shape)
        shape[self._dim] = self._number
        if not broadcasts(array.shape, shape):
            raise ProgramError(
                f"{self._name} got {argument} of shape {tuple(array.shape)}; expected one for each group,"
                f" {tuple(shape)}, or what broadcasts to it."
            )
        if allowed is not None:
            array = fw.guarded(self._name, allowed, array)
        return self.flat(fw.xp.broadcast_to(array, tuple(shape)))

    def of_entries(self, argument: str, value: Any, like: Array) -> Array:
        """A bound for each entry, flat, of what broadcasts to x's shape; or of groups, with one more axis of size 1."""
        fw, shape = self._fw, self._shape
        array = fw.array(value, like)
        if array.ndim > len(shape) and array.shape[-1] == 1:
            return fw.segments(self.ids, self.number).spread(self.of_groups(argument, array[..., 0], like))
        if not broadcasts(array.shape, shape):
            raise ProgramError(
                f"{self._name}: {argument} has shape {tuple(array.shape)}, which does not broadcast to {shape}; bounds"
                f" for each group have shape ({self._number}, 1)."
            )
        return self.flat(fw.xp.broadcast_to(array, shape))

    def placed(self, z: Array, x: Array) -> Array:
        """Flat entries as a result for x."""
        z = z.reshape((*self._lead, self._length))
        return self._fw.cast(self._fw.moveaxis(z, -1, self._dim), x)

    def placed_groups(self, values: Array, x: Array) -> Array:
        """Flat values of groups in x's shape, groups in place of entries."""
        values = values.reshape((*self._lead, self._number))
        return self._fw.cast(self._fw.moveaxis(values, -1, self._dim), x)
