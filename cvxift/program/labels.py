"""Who each row of A and each column of x belongs to, in the user's own words.

A row is an entry of a constraint that the user wrote, or states an attribute of a variable (a bound, a sign,
semidefiniteness), or was introduced to express an atom. A column is an entry of a variable, or was introduced by an
atom. Labels are made when asked for: a program may have 10⁵ rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cvxpy as cp
import numpy as np
from cvxpy.constraints.constraint import Constraint

from cvxift.errors import ProgramError
from cvxift.program.attributes import free_entry
from cvxift.program.canonicalize import Origin
from cvxift.program.lazy import Made
from cvxift.program.messages import number, short, subscript
from cvxift.program.row_order import RowBlock, Rows, triangle
from cvxift.program.structure import Structure
from cvxift.program.tensors import Stack

NAMED_ENTRIES = 3  # entries of one constraint that a message names
KEPT_LABELS = 4096  # of rows, those that messages named last


@dataclass(frozen=True)
class Label:
    """Who a row or a column belongs to.

    Args:
        text: one line for messages, such as ``constraint 0 (A @ x <= b), entry (3,)``, or ``x[2] >= 0 (nonneg=True)``.
        constraint: the user's constraint: the one this row is, or that needed the atom; None otherwise.
        variable: the user's variable: the one this column is an entry of, or whose attribute the row states.
        index: entry of the constraint or variable, None where a row has no single one.
        atom: text of the subexpression that introduced this row or column; None for what the user wrote.

    Example:
        >>> import cvxpy as cp
        >>> from cvxift.program import Program
        >>> x, t = cp.Variable(2, name="x"), cp.Parameter(2, name="t")
        >>> program = Program(cp.Problem(cp.Minimize(cp.sum_squares(x)), [x >= t]))
        >>> program.row_labels[1].text
        'constraint 0 (x >= t), entry (1,)'
    """

    text: str
    constraint: Constraint | None = None
    variable: cp.Variable | None = None
    index: tuple[int, ...] | None = None
    atom: str | None = None


class Texts:
    """Texts of constraints and atoms, each made once: a row's label costs far less than the text of a constraint.

    Args:
        constraints: the user's constraints.
    """

    def __init__(self, constraints: Sequence[Constraint]) -> None:
        self.constraints = tuple(constraints)
        self._known: dict[int, str] = {}

    def constraint(self, number: int) -> str:
        """Such as ``constraint 0 (A @ x <= b)``."""
        return f"constraint {number} ({self.of(self.constraints[number])})"

    def of(self, thing: Any) -> str:
        """The text of a constraint or an atom that lives as long as the problem."""
        key = id(thing)
        if key not in self._known:
            self._known[key] = short(thing)
        return self._known[key]

    def auxiliary(self, origin: Origin, entry: tuple[int, ...]) -> Label:
        """Label of what an atom introduced: by the atom, and the constraint that it serves."""
        if origin.constraint is None:
            owner, place = None, "the objective"
        else:
            owner, place = self.constraints[origin.constraint], self.constraint(origin.constraint)
        if origin.atom is None:
            return Label(place, constraint=owner, index=entry, atom="")
        atom = self.of(origin.atom)
        return Label(f"{atom} in {place}", constraint=owner, index=entry, atom=atom)


@dataclass(frozen=True)
class ColumnBlock:
    """Consecutive columns of one inner variable.

    Args:
        start: first column.
        stop: one past the last column.
        shape: the inner variable's shape.
        origin: where it comes from.
    """

    start: int
    stop: int
    shape: tuple[int, ...]
    origin: Origin


class ColumnLabels(Made[Label]):
    """Labels of the columns of x; `labels[j]` is column j's.

    Args:
        blocks: the inner variables in column order.
        kept: column in the blocks' numbering of each column of x.
        constraints: the user's constraints.
        variables: the user's variables.
    """

    def __init__(
        self,
        blocks: Sequence[ColumnBlock],
        kept: np.ndarray,
        constraints: Sequence[Constraint],
        variables: Sequence[cp.Variable],
    ) -> None:
        self._blocks, self._kept, self._variables = tuple(blocks), kept, tuple(variables)
        self.texts = Texts(constraints)
        self._starts = np.array([block.start for block in blocks])
        self._first: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # of a variable: free entries, where each is shown

    def __len__(self) -> int:
        return len(self._kept)

    def make(self, index: int) -> Label:
        """The label of a column."""
        full = int(self._kept[index])
        block = self._blocks[int(np.searchsorted(self._starts, full, side="right")) - 1]
        place, origin = full - block.start, block.origin
        if origin.variable is not None and origin.atom is None:
            variable = self._variables[origin.variable]
            if (
                block.stop - block.start == variable.size
            ):  # no attribute reduces it, and there may be 10⁵ labels to make
                entry = np.unravel_index(place, variable.shape, order="F")
            else:
                if variable.id not in self._first:
                    self._first[variable.id] = np.unique(free_entry(variable), return_index=True)
                free, first = self._first[variable.id]
                entry = np.unravel_index(int(first[np.searchsorted(free, place)]), variable.shape)
            entry = tuple(int(k) for k in entry)
            return Label(f"variable {variable.name()}{subscript(entry)}", variable=variable, index=entry)
        entry = tuple(int(k) for k in np.unravel_index(place, block.shape, order="F"))
        return self.texts.auxiliary(origin, entry)


class RowLabels(Made[Label]):
    """Labels of the rows of A; `labels[i]` is row i's.

    Args:
        blocks: the stuffed constraints in row order, before free rows were dropped.
        origins: where each block comes from.
        kept: row in the blocks' numbering of each row of A.
        partners: the second such row of each row of A that is two opposed inequalities.
        columns: for each row of A, one of its columns or −1 (tells which entry of a variable a bound is about), and
            whether its coefficient is positive.
        column_labels: labels of the columns.
        variables: the user's variables.
    """

    def __init__(
        self,
        blocks: Sequence[RowBlock],
        origins: Sequence[Origin],
        kept: np.ndarray,
        partners: Mapping[int, int],
        columns: tuple[np.ndarray, np.ndarray],
        column_labels: ColumnLabels,
        variables: Sequence[cp.Variable],
    ) -> None:
        self._blocks, self._origins, self._kept = tuple(blocks), tuple(origins), kept
        self._partners = partners
        self._columns, self._positive = columns
        self._column_labels, self._variables = column_labels, tuple(variables)
        self.texts = column_labels.texts
        self._starts = np.array([block.start for block in blocks])
        self._known: dict[int, Label] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def owners(self, rows: np.ndarray) -> np.ndarray:
        """The position of the stuffed constraint that each of these rows belongs to."""
        return self._block(self._kept[rows])

    def grouped(self, rows: Iterable[int]) -> list[str]:
        """Names of rows, one for each constraint: what an atom introduced is named by the constraint that it serves."""
        groups: dict[str, list[str]] = {}
        for row in rows:
            label = self[int(row)]
            own = label.atom is None or label.constraint is None
            text = label.text if own else label.text.removeprefix(f"{label.atom} in ")
            name, _, entry = text.partition(", entry ")
            entries = groups.setdefault(name.split(", cone")[0], [])
            if entry and entry not in entries:
                entries.append(entry)
        return [name + _entries(entries) for name, entries in groups.items()]

    def _block(self, places: np.ndarray) -> Any:
        # Empty blocks share their start with the next one, which is the last of them.
        return np.searchsorted(self._starts, places, side="right") - 1

    def make(self, index: int) -> Label:
        """The label of a row; kept, since warnings at points of one kind name the same rows."""
        label = self._known.get(index)
        if label is None:
            if len(self._known) >= KEPT_LABELS:
                self._known.clear()
            label = self._known[index] = self._new(index)
        return label

    def _new(self, index: int) -> Label:
        label = self._of(index, int(self._kept[index]), self._positive[index])
        if index not in self._partners:
            return label
        other = self._of(index, self._partners[index], not self._positive[index])
        return replace(label, text=f"{label.text} and {other.text}")

    def _of(self, index: int, place: int, positive: bool) -> Label:
        """The label of a row in the blocks' numbering, which stands in row `index` of A."""
        number = int(self._block(np.array(place)))
        block, origin = self._blocks[number], self._origins[number]
        place -= block.start
        if origin.atom is not None:
            return self.texts.auxiliary(origin, (place,))
        if origin.constraint is not None:
            constraint = self.texts.constraints[origin.constraint]
            entry, words = _constraint_entry(constraint, block, place)
            return Label(self.texts.constraint(origin.constraint) + words, constraint=constraint, index=entry)
        if origin.variable is not None:
            return self._attribute(index, positive, block, place, self._variables[origin.variable])
        return Label(f"row {index} of CVXPY's canonical form")

    def _attribute(self, row: int, positive: bool, block: RowBlock, place: int, variable: cp.Variable) -> Label:
        if block.kind == "psd":
            rows, columns = triangle(variable.shape[-1])
            order = len(rows)
            entry = (int(rows[place % order]), int(columns[place % order]))
            words = "<< 0 (NSD=True)" if variable.attributes["NSD"] else ">> 0 (PSD=True)"
            return Label(f"{variable.name()} {words}, entry {entry}", variable=variable, index=entry)
        column = int(self._columns[row])
        entry = self._column_labels[column].index if column >= 0 else None
        words = _bound(variable, bool(positive), entry)
        return Label(f"{variable.name()}{subscript(entry) if entry else ''} {words}", variable=variable, index=entry)


def _bound(variable: cp.Variable, upper: bool, entry: tuple[int, ...] | None) -> str:
    """What a row that states a sign or a bound says, such as ``>= 0 (nonneg=True)`` or ``<= 2 (bounds)``."""
    sign = "<=" if upper else ">="
    for name in ("nonpos", "neg") if upper else ("nonneg", "pos"):
        if variable.attributes[name]:
            return f"{sign} 0 ({name}=True)"
    value = (variable.attributes["bounds"] or (None, None))[int(upper)]
    if isinstance(value, cp.Expression):
        return f"{sign} {short(value)} (bounds)"
    value = np.asarray(np.nan if value is None else value)
    value = value[entry] if value.ndim and entry is not None else value
    return f"{sign} {number(value) if value.ndim == 0 and np.isfinite(value) else 'its bound'} (bounds)"


def ranks(rows: Rows, origins: Mapping[int, Origin]) -> np.ndarray:
    """Which of two rows that say the same stays: first the user's, then variables' attributes, then what atoms added.

    Args:
        rows: the rows of the full program.
        origins: where each of their blocks comes from, by its id.

    Returns:
        0, 1 or 2 for each row.
    """
    out = np.zeros(rows.cones.m, dtype=np.int64)
    for block in rows.blocks:
        origin = origins.get(block.id, Origin(atom=""))
        out[block.start : block.stop] = 2 if origin.atom is not None else int(origin.constraint is None)
    return out


def _constraint_entry(constraint: Constraint, block: RowBlock, place: int) -> tuple[tuple[int, ...] | None, str]:
    """The entry of a user's constraint that a row is, and its wording."""
    if block.kind in ("zero", "nonneg") and len(range(block.start, block.stop)) == constraint.size:
        entry = tuple(int(k) for k in np.unravel_index(place, constraint.shape, order="F"))
        return (entry, f", entry {entry}") if entry else (entry, "")
    cone, part = divmod(place, block.dim)
    if block.kind == "psd":
        rows, columns = triangle(int(constraint.args[0].shape[-1]))
        entry = (int(rows[part]), int(columns[part]))
        which = f", matrix {cone}" if block.stop - block.start > block.dim else ""
        return entry, f"{which}, entry {entry}"
    argument = {"soc": "t" if part == 0 else f"X[{part - 1}]", "exp": "xyz"[part % 3], "pow": "xyz"[part % 3]}.get(
        block.kind, ""
    )
    return (cone, part), f", cone {cone}, {argument}"


def _entries(entries: list[str]) -> str:
    """Entries as they follow a constraint's name."""
    if not entries:
        return ""
    rest = len(entries) - NAMED_ENTRIES
    more = f" and {rest} more" if rest > 0 else ""
    return f", {'entry' if len(entries) == 1 else 'entries'} {', '.join(entries[:NAMED_ENTRIES])}{more}"


def check_finite(stacked: Stack, structure: Structure, labels: RowLabels) -> None:
    """Constant data must be finite; rows that bind nothing are gone already.

    Args:
        stacked: the program's entries as affine functions of θ.
        structure: its patterns.
        labels: its rows in the user's words.

    Raises:
        ProgramError: a constant is not; names the constraint.
    """
    bad = ~np.isfinite(stacked.constant)
    if not bad.any():
        return
    where, entry = stacked.slices, int(np.argmax(bad))
    if where["A"].start <= entry < where["A"].stop:
        place = labels[int(structure.A_rows[entry - where["A"].start])].text
    elif where["b"].start <= entry < where["b"].stop:
        place = labels[entry - where["b"].start].text
    else:
        place = "the objective"
    raise ProgramError(
        f"A constant in {place} makes the program's data {stacked.constant[entry]}. "
        "Constants must be finite, except bounds that bind nothing."
    )
