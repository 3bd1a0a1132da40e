"""Asks cvxift for value and derivatives in every mode, by its public API, and notes what it says.

Answers are in base units, so that one reference judges all of them: columns of a forward derivative are changes of the
outputs along the reference's directions, rows of a reverse one are ⟨gradient, direction⟩ for each cotangent.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import cvxpy as cp
import numpy as np

import cvxift

from .families import build
from .faulty import FAULTY
from .kit import Case, Stated, Values
from .reference import Reference

QUADRATIC_SOLVERS = ("daqp", "piqp", "clarabel", "osqp", "scs")
CONIC_SOLVERS = ("scs", "clarabel")
BACKENDS = (None, "SCIPY", "COO")
SPEAKS = "check" in inspect.signature(cvxift.differentiate).parameters
"""Whether `differentiate` warns by itself; where it does not, the report is read instead."""


@dataclass
class Answer:
    """What one mode gave.

    Attributes:
        mode: its name.
        x: the outputs, one after the other.
        forward: direction -> change of the outputs, shape (directions, outputs); None if not asked.
        reverse: (cotangents, directions); None if not asked.
        said: "solve", "forward" or "reverse" -> what was said then: warnings, and the report's faults.
        whole: whether what it says is about all variables of the problem, those not asked for too.
        error: what it raised instead.
        twin: outputs of the same instance elsewhere in a batch.
    """

    mode: str
    x: np.ndarray | None = None
    forward: np.ndarray | None = None
    reverse: np.ndarray | None = None
    said: dict[str, list[str]] = field(default_factory=dict)
    whole: bool = False
    error: Exception | None = None
    twin: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def words(self) -> list[str]:
        """All that was said."""
        return [word for words in self.said.values() for word in words]


@contextmanager
def _listening(answer: Answer, phase: str) -> Iterator[None]:
    """Note warnings and errors of what runs inside; nothing runs after an error."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            yield
        except Exception as error:  # noqa: BLE001  # which exceptions cvxift lets through is what is asked
            answer.error = error
    words = [str(w.message) for w in said if issubclass(w.category, cvxift.ApplicabilityWarning)]
    answer.said[phase] = answer.said.get(phase, []) + words


class Asked:
    """One case as it is handed to cvxift: the stated problem, and units to convert by."""

    def __init__(self, case: Case, reference: Reference) -> None:
        self.case, self.reference = case, reference
        self.stated: Stated = build(case, scaled=case.other_units)
        self.rng = case.rng(8)
        self.names = list(self.stated.parameters)
        self.parameters = [parameter for parameter, _ in self.stated.parameters.values()]
        self.variables = [variable for variable, _ in self.stated.variables.values()]
        self.quadratic = reference.oracle.polyhedral

    def own(self, values: Values) -> list[np.ndarray]:
        """Base-unit parameter values in the problem's units, in the parameters' order."""
        return [values[name] / unit for name, (_, unit) in self.stated.parameters.items()]

    def base(self, found: list[Any]) -> np.ndarray:
        """Outputs in the problem's units as one base-unit vector."""
        pairs = zip(found, self.stated.variables.values())
        return np.concatenate([np.ravel(_dense(value) * unit) for value, (_, unit) in pairs])

    def cotangent(self, flat: np.ndarray) -> list[np.ndarray]:
        """A base-unit cotangent in the outputs' units and shapes."""
        parts, start = [], 0
        for variable, unit in self.stated.variables.values():
            part = flat[start : start + variable.size].reshape(variable.shape)
            parts.append(part * unit)
            start += variable.size
        return parts

    def along(self, gradient: list[Any]) -> np.ndarray:
        """⟨gradient, direction⟩ for every direction; the units of both cancel."""
        pairs = [(gradient, self.own(direction)) for direction in self.reference.directions]
        return np.array([sum(float(np.sum(_dense(g) * d)) for g, d in zip(*pair)) for pair in pairs])


def numpy_mode(asked: Asked) -> Answer:
    """`differentiate` with its defaults; forward before reverse in half of the cases."""
    return _sensitivity(asked, "numpy", {})


def numpy_other(asked: Asked) -> Answer:
    """`differentiate` with an option, or on a point that CVXPY found before."""
    options = [
        {"closed_form": "never"},
        {"linear_solver": "direct"},
        {"linear_solver": "iterative"},
        "held",
        "held scs",
    ]
    option = options[int(asked.rng.integers(len(options)))]
    if isinstance(option, str):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                solver = cp.SCS if option == "held scs" else cp.CLARABEL
                asked.stated.problem.solve(solver=solver, gp=asked.stated.gp)
            except cp.SolverError:
                pass
        return _sensitivity(asked, f"numpy ({option})", {})
    name, value = next(iter(option.items()))
    return _sensitivity(asked, f"numpy ({name}={value})", option)


def numpy_faulty(asked: Asked) -> Answer:
    """`differentiate` by a solver that is wrong in some way."""
    name = sorted(FAULTY)[int(asked.rng.integers(len(FAULTY)))]
    return _sensitivity(asked, f"numpy ({name})", {"solver": name})


def _sensitivity(asked: Asked, mode: str, options: dict[str, Any]) -> Answer:
    answer, stated = Answer(mode), asked.stated
    answer.whole = bool({v.id for v in stated.problem.variables()} - {v.id for v in asked.variables})
    if SPEAKS:
        options = {**options, "check": "warn"}
    options = {**options, "gp": stated.gp}
    s = None
    with _listening(answer, "solve"):
        s = cvxift.differentiate(stated.problem, **options)
        answer.x = asked.base([s.value(variable) for variable in asked.variables])
        if not SPEAKS and not s.report.ok:
            warnings.warn(s.report.faults[0].text, cvxift.ApplicabilityWarning, stacklevel=1)
    for phase in ("forward", "reverse")[:: 1 if asked.case.seed % 2 else -1]:
        if s is not None and answer.error is None:
            with _listening(answer, phase):
                (_forward if phase == "forward" else _reverse)(asked, s, answer)
    return answer


def _forward(asked: Asked, s: cvxift.Sensitivity, answer: Answer) -> None:
    rows = []
    for direction in asked.reference.directions:
        moved = s.jvp(dict(zip(asked.parameters, asked.own(direction))))
        rows.append(asked.base([moved[variable] for variable in asked.variables]))
    answer.forward = np.array(rows)


def _reverse(asked: Asked, s: cvxift.Sensitivity, answer: Answer) -> None:
    rows = []
    for cotangent in asked.reference.cotangents:
        gradient = s.vjp(dict(zip(asked.variables, asked.cotangent(cotangent))))
        rows.append(asked.along([gradient[parameter] for parameter in asked.parameters]))
    answer.reverse = np.array(rows)


def torch_mode(asked: Asked) -> Answer:
    """The PyTorch layer with its defaults."""
    return _torch(asked, "torch", {})


def torch_solver(asked: Asked) -> Answer:
    """The PyTorch layer with another solver and another backend of CVXPY."""
    table = QUADRATIC_SOLVERS if asked.quadratic else CONIC_SOLVERS
    solver, backend = table[int(asked.rng.integers(len(table)))], BACKENDS[int(asked.rng.integers(len(BACKENDS)))]
    return _torch(asked, f"torch ({solver})", {"solver": solver, "canon_backend": backend})


def _torch(asked: Asked, mode: str, options: dict[str, Any]) -> Answer:
    import torch

    from cvxift.torch import CvxpyLayer

    answer = Answer(mode)
    with _listening(answer, "reverse"):
        layer = CvxpyLayer(asked.stated.problem, asked.parameters, asked.variables, gp=asked.stated.gp, **options)
        inputs = [torch.tensor(value, requires_grad=True) for value in asked.own(asked.reference.values)]
        outputs = layer(*inputs)
        answer.x = asked.base([out.detach().numpy() for out in outputs])
        rows = []
        for cotangent in asked.reference.cotangents:
            bars = [torch.tensor(part) for part in asked.cotangent(cotangent)]
            gradient = torch.autograd.grad(outputs, inputs, bars, retain_graph=True, materialize_grads=True)
            rows.append(asked.along([g.numpy() for g in gradient]))
        answer.reverse = np.array(rows)
    return answer


def torch_batch(asked: Asked) -> Answer:
    """A batch of three: the case's point at both ends, a neighbor between them."""
    import torch

    from cvxift.torch import CvxpyLayer

    answer, reference = Answer("torch (batch)"), asked.reference
    here, neighbor = asked.own(reference.values), asked.own(reference.neighbor)
    with _listening(answer, "reverse"):
        layer = CvxpyLayer(asked.stated.problem, asked.parameters, asked.variables, gp=asked.stated.gp)
        inputs = [torch.tensor(np.stack([a, b, a]), requires_grad=True) for a, b in zip(here, neighbor)]
        outputs = layer(*inputs)
        first, last = (asked.base([out.detach().numpy()[i] for out in outputs]) for i in (0, 2))
        answer.x, answer.twin = first, (first, last)
        rows = []
        for cotangent in reference.cotangents:
            bars = [torch.tensor(np.stack([part, part, part])) for part in asked.cotangent(cotangent)]
            gradient = torch.autograd.grad(outputs, inputs, bars, retain_graph=True, materialize_grads=True)
            rows.append(asked.along([g.numpy()[2] for g in gradient]))
        answer.reverse = np.array(rows)
    return answer


def jax_mode(asked: Asked) -> Answer:
    """The JAX layer, forward and reverse."""
    import jax

    from cvxift.jax import CvxpyLayer

    answer = Answer("jax")
    with jax.enable_x64(True), _listening(answer, "solve"):
        layer = CvxpyLayer(asked.stated.problem, asked.parameters, asked.variables, gp=asked.stated.gp)
        values = asked.own(asked.reference.values)
        outputs, pull = jax.vjp(layer, *values)
        answer.x = asked.base([np.asarray(out) for out in outputs])
        rows = []
        for cotangent in asked.reference.cotangents:
            rows.append(asked.along([np.asarray(g) for g in pull(tuple(asked.cotangent(cotangent)))]))
        answer.reverse = np.array(rows)
        if asked.case.seed % 2:
            columns = []
            for direction in asked.reference.directions:
                _, moved = jax.jvp(layer, tuple(values), tuple(asked.own(direction)))
                columns.append(asked.base([np.asarray(change) for change in moved]))
            answer.forward = np.array(columns)
    return answer


def _dense(value: Any) -> np.ndarray:
    return np.asarray(value.toarray() if hasattr(value, "toarray") else value)


MODES: dict[str, Callable[[Asked], Answer]] = {
    "numpy": numpy_mode,
    "torch": torch_mode,
    "torch solver": torch_solver,
    "jax": jax_mode,
    "torch batch": torch_batch,
    "numpy other": numpy_other,
    "faulty": numpy_faulty,
}
ALWAYS = ("numpy", "torch", "torch solver", "jax")
TURNS = ("torch batch", "numpy other", "faulty")


def modes_of(case: Case) -> list[str]:
    """The modes that a case is asked in: four always, the others in turn; those whose framework is here."""
    chosen = [*ALWAYS, TURNS[case.seed % len(TURNS)]]
    return [mode for mode in chosen if all(find_spec(name) for name in ("torch", "jax") if mode.startswith(name))]
