"""The values a report is made of: verdicts, checks, findings."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
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
    """

    name: str
    passed: bool | None
    value: float
    threshold: float
    note: str

    def to_dict(self) -> dict[str, Any]:
        """Plain types only."""
        return {
            "name": self.name,
            "passed": self.passed,
            "value": number(self.value),
            "threshold": number(self.threshold),
            "note": self.note,
        }


@dataclass(frozen=True)
class Finding:
    """Something to know about the point, in the user's words.

    Args:
        cause: short key, such as ``"weakly active"``; one cause is warned of once.
        text: what is the case, and where.
        advice: what can be done.
        fault: whether it keeps the derivative from being valid; otherwise it is a note.
        where: names of the constraints, variables and entries concerned.
    """

    cause: str
    text: str
    advice: str = ""
    fault: bool = True
    where: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Plain types only."""
        return {
            "cause": self.cause,
            "text": self.text,
            "advice": self.advice,
            "fault": self.fault,
            "where": list(self.where),
        }


def number(value: float) -> float | str:
    """The value, as a word where JSON has no number for it."""
    return float(value) if value == value and abs(value) != float("inf") else str(float(value))


def listed(names: list[str] | tuple[str, ...], most: int = 4) -> str:
    """The first names, and how many more there are."""
    shown = ", ".join(names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
