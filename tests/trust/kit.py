"""What a family builds its problems with: seeded draws, and variables, parameters, rows and cost in any units.

A family states its problem once, in base units. The kit builds it as it stands (for the reference), or in other units:
every column x = D y, parameter θ = E φ, row and the cost carry factors 10^U(−4, 4). The solution map in base units is
the same in both, so that one reference serves both:

    x(θ) = D y(θ / E),      dx/dθ = D (dy/dφ) / E
"""

from __future__ import annotations

import operator
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import cvxpy as cp
import numpy as np

Values = dict[str, np.ndarray]
"""Parameter or variable name -> array, in base units."""

DEGENERATE = 2 / 3  # share of the cases that are degenerate by construction
OTHER_UNITS = 1 / 4  # share of the cases stated in other units
DECADES = 4.0  # factors are 10^U(-DECADES, DECADES)
_MATRIX = ("symmetric", "PSD", "NSD", "diag", "hermitian")  # attributes that only one factor for all entries keeps


@dataclass
class Stated:
    """A problem as one build states it.

    Attributes:
        problem: the CVXPY problem, its parameters set.
        variables: name -> (variable, D) of the outputs that are asked for.
        parameters: name -> (parameter, E).
        values: the parameters' values in base units.
        factor: the unit of the cost.
        truth: a closed form of the solution, where the family knows one.
        entrywise: whether every entry must be right relative to itself.
        gp: whether it is a geometric program.
    """

    problem: cp.Problem
    variables: dict[str, tuple[cp.Variable, np.ndarray]]
    parameters: dict[str, tuple[cp.Parameter, np.ndarray]]
    values: Values
    factor: float
    truth: Callable[[Values], Values] | None = None
    entrywise: bool = False
    gp: bool = False

    def set(self, values: Mapping[str, np.ndarray]) -> None:
        """Give the parameters values in base units."""
        for name, value in values.items():
            parameter, unit = self.parameters[name]
            parameter.value = value / unit


@dataclass(frozen=True)
class Case:
    """One problem of a family: reproducible from its name."""

    family: str
    seed: int

    @classmethod
    def of(cls, name: str) -> Case:
        """The case that ``str(case)`` names."""
        family, _, seed = name.rpartition(":")
        return cls(family, int(seed))

    def __str__(self) -> str:
        return f"{self.family}:{self.seed}"

    def rng(self, purpose: int = 0) -> np.random.Generator:
        """A generator for one purpose; 0 draws the data."""
        return np.random.default_rng([zlib.crc32(self.family.encode()), self.seed, purpose])

    @property
    def degenerate(self) -> bool:
        """Whether the data are degenerate by construction."""
        return self.family != "regular" and bool(self.rng(1).random() < DEGENERATE)

    @property
    def other_units(self) -> bool:
        """Whether it is stated in other units."""
        return bool(self.rng(2).random() < OTHER_UNITS)


@dataclass
class Kit:
    """Builds one problem; handed to the family."""

    case: Case
    scaled: bool
    variables: dict[str, tuple[cp.Variable, np.ndarray]] = field(default_factory=dict)
    parameters: dict[str, tuple[cp.Parameter, np.ndarray]] = field(default_factory=dict)
    values: Values = field(default_factory=dict)
    constraints: list[cp.Constraint] = field(default_factory=list)
    truth: Callable[[Values], Values] | None = None
    entrywise: bool = False
    gp: bool = False
    _duals: list[tuple[str, cp.Constraint]] = field(default_factory=list)
    _rows: dict[int, np.ndarray] = field(default_factory=dict)
    _objective: Any = None
    _factor: float = 1.0

    def __post_init__(self) -> None:
        self.rng = self.case.rng()
        self._units = self.case.rng(3)
        self.degenerate = self.case.degenerate

    # Draws --------------------------------------------------------------------------------------------------------

    def size(self, low: int, high: int) -> int:
        """A size from low to high, both included."""
        return int(self.rng.integers(low, high + 1))

    def data(self, *shape: int) -> np.ndarray:
        """Numbers without structure."""
        return self.rng.standard_normal(shape)

    def round(self, *shape: int, step: float = 0.5, most: int = 3) -> np.ndarray:
        """Multiples of a step: ties, zeros and saturation on purpose; without structure in a regular case."""
        drawn = step * self.rng.integers(-most, most + 1, shape)
        return np.asarray(drawn if self.degenerate else drawn + 0.4 * step * self.rng.standard_normal(shape), float)

    def pick(self, *choices: Any) -> Any:
        """One of the choices."""
        return choices[int(self.rng.integers(len(choices)))]

    def flip(self, chance: float = 0.5) -> bool:
        """True with this chance."""
        return bool(self.rng.random() < chance)

    # Statements ---------------------------------------------------------------------------------------------------

    def variable(self, name: str, shape: Any = (), *, ask: bool = True, unit: bool = True, **attributes: Any) -> Any:
        """A variable in base units: an expression D y; `ask` makes it one of the outputs."""
        scale = self._scale(shape if not set(attributes) & set(_MATRIX) and unit else ()) if unit else np.ones(())
        if "bounds" in attributes:
            attributes["bounds"] = [np.asarray(bound) / scale for bound in attributes["bounds"]]
        variable = cp.Variable(shape, name=name, **attributes)
        if ask:
            self.variables[name] = variable, scale
        return _times(scale, variable)

    def parameter(self, name: str, value: Any, **attributes: Any) -> Any:
        """A parameter in base units: an expression E φ."""
        value = np.asarray(value, dtype=float)
        scale = self._scale(value.shape if not set(attributes) & set(_MATRIX) else ())
        parameter = cp.Parameter(value.shape, name=name, value=value / scale, **attributes)
        self.parameters[name], self.values[name] = (parameter, scale), value
        return _times(scale, parameter)

    def le(self, left: Any, right: Any) -> cp.Constraint:
        """left <= right, each row with a unit of its own."""
        return self._row(left, right, operator.le)

    def ge(self, left: Any, right: Any) -> cp.Constraint:
        """left >= right, each row with a unit of its own."""
        return self._row(left, right, operator.ge)

    def eq(self, left: Any, right: Any) -> cp.Constraint:
        """left == right, each row with a unit of its own."""
        return self._row(left, right, operator.eq)

    def _row(self, left: Any, right: Any, relation: Callable[[Any, Any], Any]) -> cp.Constraint:
        scale = self._scale(np.broadcast_shapes(_shape(left), _shape(right)))
        constraint = relation(_times(scale, left), _times(scale, right))
        self.constraints.append(constraint)
        self._rows[constraint.id] = scale
        return constraint

    def dual(self, constraint: cp.Constraint) -> None:
        """Ask for a constraint's multipliers too, where they are unique."""
        self._duals.append((f"dual{len(self._duals)}", constraint))

    def psd(self, matrix: Any) -> None:
        """matrix ≽ 0."""
        self.constraints.append(_times(self._scale(()), matrix) >> 0)

    def add(self, constraint: Any) -> None:
        """A constraint as it is."""
        self.constraints.append(constraint)

    def minimize(self, cost: Any) -> None:
        """The cost."""
        self._factor = float(self._scale(()))
        self._objective = cp.Minimize(self._factor * cost if self._factor != 1.0 else cost)

    def maximize(self, gain: Any) -> None:
        """The gain."""
        self._factor = float(self._scale(()))
        self._objective = cp.Maximize(self._factor * gain if self._factor != 1.0 else gain)

    def stated(self) -> Stated:
        """What the family built."""
        problem = cp.Problem(self._objective, self.constraints)
        outputs = dict(self.variables)
        for name, constraint in self._duals:  # a row in a larger unit has a smaller multiplier, a dearer cost a larger
            outputs[name] = constraint.dual_variables[0], self._rows[constraint.id] / self._factor
        return Stated(problem, outputs, self.parameters, self.values, self._factor, self.truth, self.entrywise, self.gp)

    def _scale(self, shape: Any) -> np.ndarray:
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        scale = 10.0 ** self._units.uniform(-DECADES, DECADES, shape)
        return scale if self.scaled else np.ones(())


def _shape(thing: Any) -> tuple[int, ...]:
    return tuple(thing.shape) if hasattr(thing, "shape") else np.shape(thing)


def _times(scale: np.ndarray, thing: Any) -> Any:
    if not scale.ndim and scale == 1.0:
        return thing
    if not scale.ndim:
        return float(scale) * thing
    return cp.multiply(scale, thing)
