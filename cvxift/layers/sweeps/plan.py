"""What a sweep computes: its columns, its solution map, the description that a folder keeps, and θ block by block.

Values come as whole arrays, or as a stream of blocks of any length.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import cvxpy as cp
import numpy as np

from cvxift.argmax.closed_form.closed_map import ClosedForm, ClosedMap
from cvxift.errors import ProgramError
from cvxift.kkt.policy import Policy
from cvxift.layers.sweeps.block import BlockSolver, Column
from cvxift.program.parameters import side_by_side
from cvxift.program.structure import Floats

Pairs = Iterable[tuple[Any, cp.Parameter]]
Whole = Mapping[cp.Parameter, Any]
Values = Whole | Iterable[Whole]


@dataclass(frozen=True, eq=False)
class Plan:
    """A sweep before its values.

    Attributes:
        solver: solves blocks.
        shapes: column -> shape of one instance's entry, as the user sees it.
        columns: what is recorded -> its column: a variable, a pair of a variable and a parameter, or a parameter (of
            vector-Jacobian products); by the objects' ids.
        cotangents: shared cotangents of the flat outputs, shape (K,), or one an instance, shape (n, K); None.
    """

    solver: BlockSolver
    shapes: Mapping[str, tuple[int, ...]]
    columns: Mapping[tuple[int, ...], str]
    cotangents: Floats | None

    def description(self, shard_size: int) -> dict[str, Any]:
        """What tells this sweep from another, but for its values; the same in every process."""
        mapping = self.solver.map
        return {
            "format": 1,
            "program": _digest(mapping),
            "options": repr(
                (mapping.policy, mapping.path, mapping.engine.named, sorted(mapping.engine.solver_args.items()))
            ),
            "columns": {name: list(shape) for name, shape in self.shapes.items()},
            "report": self.solver.report,
            "shard_size": shard_size,
        }


def plan(
    problem: cp.Problem,
    *,
    outputs: Sequence[Any] | None,
    jacobian: Pairs,
    vjp: Mapping[Any, Any] | None,
    report: bool,
    gp: bool,
    solver: str | None,
    solver_args: Mapping[str, Any] | None,
    policy: Policy,
    closed_form: ClosedForm,
) -> Plan:
    """Check the arguments of a sweep; see `cvxift.sweep`.

    Raises:
        ProgramError: an argument cannot be used; says which and why.
    """
    if not isinstance(problem, cp.Problem):
        raise ProgramError(f"A sweep takes a cp.Problem; got {type(problem).__name__}.")
    shown = list(problem.variables() if outputs is None else outputs)
    pairs: list[Any] = [jacobian] if _is_pair(jacobian) else list(jacobian)
    if not all(_is_pair(pair) for pair in pairs):
        raise ProgramError("jacobian must list pairs (variable, parameter), such as [(x, theta)].")
    named = [*shown, *(pair[0] for pair in pairs), *(vjp or {})]
    refused = [type(v).__name__ for v in named if not isinstance(v, cp.Variable)]
    if refused or not named:
        what = f"got {refused[0]}" if refused else "there is none"
        raise ProgramError(f"outputs, jacobian and vjp name variables or dual variables of the problem; {what}.")
    wanted = {v.id: v for v in named}
    mapping = ClosedMap(
        problem,
        None,
        list(wanted.values()),
        closed_form="never" if solver or solver_args else closed_form,
        gp=gp,
        solver=solver,
        solver_args=solver_args,
        policy=policy,
        on_failure="nan",
        check="raise" if pairs or vjp else "off",
    )
    place = dict(zip(wanted, mapping.slices, strict=True))
    theta = {p.id: entries for p, entries in side_by_side(mapping.parameters).items()}
    for _, p in pairs:
        if not isinstance(p, cp.Parameter) or p.id not in theta:
            name = p.name() if isinstance(p, cp.Parameter) else p
            raise ProgramError(f"jacobian names '{name}', which is no parameter of the problem.")
    names = _names(problem, mapping.parameters, list(wanted.values()))
    shapes: dict[str, tuple[int, ...]] = {}
    columns: dict[tuple[int, ...], str] = {}

    def column(key: tuple[int, ...], name: str, shape: tuple[int, ...], *where: slice) -> Column:
        shapes[name], columns[key] = shape, name
        return Column(name, *where)

    values = [column((v.id,), f"value_{names[v.id]}", v.shape, place[v.id]) for v in shown]
    jacobians = [
        column((v.id, p.id), f"jacobian_{names[v.id]}_{names[p.id]}", (*v.shape, *p.shape), place[v.id], theta[p.id])
        for v, p in pairs
    ]
    everything = slice(0, mapping.output_size)
    gradients = [
        column((p.id,), f"gradient_{names[p.id]}", p.shape, everything, theta[p.id]) for p in mapping.parameters if vjp
    ]
    if len(shapes) < len(values) + len(jacobians) + len(gradients):
        raise ProgramError("Two outputs or parameters have the same name, and would share a column: rename one.")
    cotangents = _cotangents(vjp, place, mapping.output_size) if vjp else None
    return Plan(BlockSolver(mapping, values, jacobians, gradients, report), shapes, columns, cotangents)


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], cp.Variable)


def _names(problem: cp.Problem, parameters: Sequence[cp.Parameter], outputs: Sequence[Any]) -> dict[int, str]:
    """Names of columns; those that CVXPY numbers, which differ between processes, by their place in the problem."""
    own = [v.id for v in problem.variables()]
    duals = [variable.id for constraint in problem.constraints for variable in constraint.dual_variables]
    names = {}
    for v in outputs:
        kind, number = ("variable", own.index(v.id)) if v.id in own else ("dual", duals.index(v.id))
        names[v.id] = v.name() if kind == "variable" and v.name() != f"var{v.id}" else f"{kind}{number}"
    for number, p in enumerate(parameters):
        names[p.id] = p.name() if p.name() != f"param{p.id}" else f"parameter{number}"
    return names


def _cotangents(vjp: Mapping[Any, Any], place: Mapping[int, slice], size: int) -> Floats:
    """Cotangents side by side, shape (K,) if all are shared, else (n, K)."""
    arrays = {v: np.asarray(value, dtype=np.float64) for v, value in vjp.items()}
    counts = {}
    for v, array in arrays.items():
        if array.shape == v.shape:
            continue
        if array.shape[1:] != v.shape or array.ndim != len(v.shape) + 1:
            raise ProgramError(
                f"vjp of variable '{v.name()}' has shape {array.shape}; expected {v.shape}, which all instances share, "
                f"or {('n', *v.shape)}."
            )
        counts[v.name()] = len(array)
    if len(set(counts.values())) > 1:
        raise ProgramError(f"The cotangents' numbers of instances differ: {counts}.")
    out = np.zeros((*list(counts.values())[:1], size))
    for v, array in arrays.items():
        out[..., place[v.id]] = array.reshape(*array.shape[: array.ndim - len(v.shape)], v.size)
    return out


def _digest(mapping: ClosedMap) -> str:
    """Digest of the canonical program: its affine maps at two points, which tell one map from another."""
    found, program = hashlib.sha256(), mapping.program
    random = np.random.default_rng(0)
    structure = program.structure
    found.update(repr((structure.n, structure.m, structure.cones)).encode())
    for theta in (np.ones(program.theta_size), random.uniform(0.5, 1.5, program.theta_size)):
        data = program.evaluate(theta)
        for part in (data.P, data.q, data.A, data.b, data.d):
            found.update(np.ascontiguousarray(part, dtype=np.float64).tobytes())
    return found.hexdigest()


def counted(parameters: tuple[cp.Parameter, ...], values: Whole, where: str = "") -> int:
    """Number of instances that whole arrays hold.

    Args:
        parameters: all parameters of the problem.
        values: an array for each, of its shape with the number of instances before it, or shared.
        where: words for messages.

    Returns:
        The number.

    Raises:
        ProgramError: a parameter is missing or unknown, a shape or a type is wrong, or the numbers differ; says which.
    """
    if not isinstance(values, Mapping):
        raise ProgramError(f"values{where} must map each cp.Parameter to an array; got {type(values).__name__}.")
    known_ids = {id(p) for p in parameters}  # `in` would compare by ==, which makes constraints
    strange = [key for key in values if id(key) not in known_ids]
    if strange:
        first = strange[0]
        name = f"Parameter '{first.name()}'" if isinstance(first, cp.Parameter) else f"The key {first!r}"
        known = ", ".join(f"'{p.name()}'" for p in parameters) or "none"
        raise ProgramError(f"{name} of values{where} is no parameter of the problem; its parameters: {known}.")
    numbers = {}
    for p in parameters:
        if p not in values:
            raise ProgramError(
                f"values{where} lacks parameter '{p.name()}': give an array of shape {_numbered(p)}, or of shape "
                f"{p.shape} for a value that all instances share."
            )
        shape, kind = np.shape(values[p]), getattr(values[p], "dtype", np.asarray(values[p]).dtype)
        if np.dtype(kind).kind not in "fiub":
            raise ProgramError(f"Parameter '{p.name()}' has values of type {kind}{where}; expected real numbers.")
        if shape == p.shape:
            continue
        if len(shape) != len(p.shape) + 1 or shape[1:] != p.shape:
            raise ProgramError(
                f"Parameter '{p.name()}' has values of shape {shape}{where}; expected {_numbered(p)}, one for each "
                f"of n instances, or {p.shape} for one that all share."
            )
        numbers[p.name()] = shape[0]
    if not numbers:
        raise ProgramError(f"No parameter of values{where} has a dimension that numbers the instances.")
    if len(set(numbers.values())) > 1:
        raise ProgramError(f"The parameters' numbers of instances differ{where}: {numbers}.")
    return next(iter(numbers.values()))


def theta_blocks(parameters: tuple[cp.Parameter, ...], values: Values, size: int) -> Iterator[Floats]:
    """θ in blocks, each of `size` instances but the last.

    Args:
        parameters: in the order of θ.
        values: whole arrays, of which a part is read at a time, or a stream of mappings as `counted` takes.
        size: instances a block.

    Yields:
        θ of shape (size, N).

    Raises:
        ProgramError: as `counted`; of a stream it says which element.
    """
    if isinstance(values, Mapping):
        whole = cast(Whole, values)
        count = counted(parameters, whole)
        yield from (_theta(parameters, whole, start, min(start + size, count)) for start in range(0, count, size))
        return
    held: list[Floats] = []
    waiting = 0
    for number, element in enumerate(values):
        count = counted(parameters, element, f", element {number} of the stream")
        start = 0
        while start < count:
            stop = min(count, start + size - waiting)
            held.append(_theta(parameters, element, start, stop))
            waiting, start = waiting + stop - start, stop
            if waiting == size:
                yield np.concatenate(held)
                held, waiting = [], 0
    if held:
        yield np.concatenate(held)


def _theta(parameters: tuple[cp.Parameter, ...], values: Whole, start: int, stop: int) -> Floats:
    """The parameters of some instances side by side; memory maps are read there alone."""
    theta = np.empty((stop - start, sum(p.size for p in parameters)))
    first = 0
    for p in parameters:
        shared = np.shape(values[p]) == p.shape
        part = np.asarray(values[p] if shared else values[p][start:stop], dtype=np.float64)
        theta[:, first : first + p.size] = part.reshape((-1, p.size))
        first += p.size
    return theta


def _numbered(parameter: cp.Parameter) -> str:
    """The shape of n values of a parameter, in words."""
    return f"({', '.join(['n', *map(str, parameter.shape)])}{'' if parameter.shape else ','})"
