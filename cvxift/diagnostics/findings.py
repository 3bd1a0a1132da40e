"""The values a report is made of: verdicts, checks, findings."""

from __future__ import annotations

import enum
from dataclasses import asdict, dataclass, field
from typing import Any


class Verdict(enum.Enum):
    """What the implicit function theorem says of the derivative at a point.

    Attributes:
        APPLIES: every output asked for has the derivative that was computed.
        PRIMAL_ONLY: the variables have; some multipliers are not unique, so their derivatives mean nothing.
        ONE_SIDED: the map has a kink here: derivatives differ by the side from which the parameters come.
        DOES_NOT_APPLY: the solution is not unique, or changes infinitely fast.
        NOT_OPTIMAL: there is no point that satisfies the optimality conditions.
    """

    APPLIES = "applies"
    PRIMAL_ONLY = "applies to the primal only"
    ONE_SIDED = "one-sided"
    DOES_NOT_APPLY = "does not apply"
    NOT_OPTIMAL = "point not optimal"

    @property
    def ok(self) -> bool:
        """Whether the derivative of the variables is valid."""
        return self in (Verdict.APPLIES, Verdict.PRIMAL_ONLY)


@dataclass(frozen=True)
class Check:
    """One condition as a number.

    Args:
        name: what is checked.
        passed: the outcome; None where it could not be judged.
        value: the number.
        threshold: what it is compared with.
        note: one line that says what the number is, and whether it is exact or estimated.

    Example:
        >>> import cvxpy as cp, cvxift
        >>> x, t = cp.Variable(name="x"), cp.Parameter(name="t", value=1.0)
        >>> report = cvxift.diagnose(cp.Problem(cp.Minimize(cp.square(x - t)), [x >= 0]))
        >>> next((check.passed, check.threshold) for check in report.checks if check.name == "smoothness")
        (True, 1e-07)
    """

    name: str
    passed: bool | None
    value: float
    threshold: float
    note: str

    def to_dict(self) -> dict[str, Any]:
        """Plain types only."""
        return {**asdict(self), "value": number(self.value), "threshold": number(self.threshold)}


@dataclass(frozen=True)
class Finding:
    """Something to know about the point, in the user's words.

    Args:
        cause: short key, such as ``"weakly active"``; one cause is warned of once.
        text: what is the case, and where.
        advice: what can be done.
        fault: whether it keeps the derivative from being valid; otherwise it is a note.
        where: names of the constraints, variables and entries concerned.

    Example:
        >>> import cvxpy as cp, cvxift
        >>> x, t = cp.Variable(name="x"), cp.Parameter(name="t", value=0.0)
        >>> (fault,) = cvxift.diagnose(cp.Problem(cp.Minimize(cp.square(x - t)), [x >= 0])).faults
        >>> fault.cause, fault.where
        ('weakly active', ('constraint 0 (x >= 0)',))
    """

    cause: str
    text: str
    advice: str = ""
    fault: bool = True
    where: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Plain types only."""
        return {**asdict(self), "where": list(self.where)}


def number(value: float) -> float | str:
    """The value, as a word where JSON has no number for it."""
    return float(value) if value == value and abs(value) != float("inf") else str(float(value))


def listed(names: list[str] | tuple[str, ...], most: int = 4) -> str:
    """The first names, entries of one constraint together, and how many more there are.

    Args:
        names: such as ``constraint 0 (x >= 0), entry (2,)``.
        most: names that are written out.

    Example:
        >>> listed(["constraint 0 (x >= 0), entry (0,)", "constraint 0 (x >= 0), entry (2,)", "b"])
        'constraint 0 (x >= 0), entries (0,) and (2,), b'
    """
    parts: list[tuple[str, list[str]]] = []
    for name in names[:most]:
        stem, _, entry = name.partition(", entry ")
        if parts and entry and parts[-1][0] == stem and parts[-1][1]:
            parts[-1][1].append(entry)
        else:
            parts.append((stem, [entry] if entry else []))
    words = []
    for stem, entries in parts:
        if len(entries) > 1:
            words.append(f"{stem}, entries {', '.join(entries[:-1])} and {entries[-1]}")
        else:
            words.append(f"{stem}, entry {entries[0]}" if entries else stem)
    return ", ".join(words) + (f" and {len(names) - most} more" if len(names) > most else "")
