"""Who is compared: cvxift, its peers, and the bare solvers as the floor.

A contender is made for a case (imports and data, untimed) and then has three methods and one law: ``backward(draw)``
follows ``forward(draw)`` of the same draw and differentiates that very solution.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import cvxpy as cp
import numpy as np
import scipy.sparse as sp

from . import bare
from .model import Array, Case

DENSE_LIMIT = 2500  # rows or columns up to which a dense solver is asked


class Unsupported(Exception):
    """The contender makes no claim to this case, with the reason."""


class Contender(Protocol):
    """One way to solve and differentiate a case."""

    def build(self) -> None:
        """Do everything that happens once for a problem."""

    def forward(self, draw: int) -> Array | None:
        """Solve at a draw of the parameters, all instances of the batch; the solution in the variable's shape."""
        ...

    def backward(self, draw: int) -> Sequence[Array] | None:
        """Gradients for the draw's cotangent, one for each parameter; ``None`` from a bare solver, which has none."""
        ...


class TorchLayer:
    """``CvxpyLayer`` of a module: cvxift and cvxpylayers share constructor and call."""

    def __init__(self, case: Case, module: str, bounds_as_rows: bool = False, **options: Any):
        """Import the framework and turn the draws into tensors.

        Args:
            case: the case.
            module: where ``CvxpyLayer`` is imported from.
            bounds_as_rows: write x ≥ 0 so that CVXPY does not take it for a bound. cvxpylayers hands Moreau a program
                whose bounds it drops; without this it would be wrong wherever a variable has a bound.
            options: further keyword arguments of the layer's constructor.
        """
        import torch

        self._torch = torch
        try:
            self._class = importlib.import_module(module).CvxpyLayer
        except ImportError as missing:
            raise Unsupported(f"not installed: {missing}") from None
        self._options = options
        self._formulation = case.formulate(bounds_as_rows)
        draws = range(case.draws)
        self._tensors = [[torch.tensor(v, requires_grad=True) for v in case.values(draw)] for draw in draws]
        self._cotangents = [torch.tensor(case.cotangent(draw)) for draw in draws]

    def build(self) -> None:
        """Construct the layer."""
        f = self._formulation
        arguments = {"parameters": list(f.parameters), "variables": [f.variable], **self._options}
        try:
            self._layer = self._class(f.problem, **arguments)
        except ValueError as error:
            # A named solver may refuse a cone, and says so; that is no failure of the layer.
            if "solver" in self._options and "cannot solve" in str(error):
                raise Unsupported(str(error)) from None
            raise

    def forward(self, draw: int) -> Array:
        """Call the layer."""
        (self._out,) = self._layer(*self._tensors[draw])
        return self._out.detach().numpy()

    def backward(self, draw: int) -> Sequence[Array]:
        """Run autograd from the output to every parameter."""
        gradients = self._torch.autograd.grad(self._out, self._tensors[draw], self._cotangents[draw])
        return [g.numpy() for g in gradients]


def generic(case: Case) -> TorchLayer:
    """cvxift without its closed forms, where it has one: through a solver and the KKT system."""
    if not case.closed_form:
        raise Unsupported("no closed form to do without")
    return TorchLayer(case, "cvxift.torch", closed_form="never")


class BareQP:
    """A QP solver alone on data that are ready, then one factorization of the KKT system; batches are a loop."""

    def __init__(self, case: Case, solver: str):
        """Make the data of every instance in the leanest form that the case knows."""
        if solver not in case.floors:
            raise Unsupported("no floor for this case")
        draws = [[case.qp(values) for values in case.instances(draw)] for draw in range(case.draws)]
        data = [[qp for qp in instances if qp is not None] for instances in draws]
        if not data[0]:
            raise Unsupported("not a quadratic program")
        size = max(data[0][0].A.shape)
        if solver == "daqp" and size > DENSE_LIMIT:
            raise Unsupported(f"a dense solver, and {size} rows")
        self._case = case
        self._solve = [[bare.READY[solver](qp) for qp in instances] for instances in data]
        self._factor = [[bare.ready_factorization(qp) for qp in instances] for instances in data]
        self._size = int(np.prod(case.shape))
        self._cotangents = []
        for draw, instances in enumerate(data):
            dz = np.zeros((len(instances), instances[0].q.size))
            dz[:, : self._size] = case.cotangent(draw).reshape(len(instances), self._size)
            self._cotangents.append(dz)

    def build(self) -> None:
        """Nothing happens once."""

    def forward(self, draw: int) -> Array:
        """Solve every instance of the draw."""
        self._points = [solve() for solve in self._solve[draw]]
        solutions = [x[: self._size].reshape(self._case.shape) for x, _ in self._points]
        return solutions[0] if self._case.batch is None else np.stack(solutions)

    def backward(self, draw: int) -> None:
        """Factorize the reduced KKT system at each solution and solve once."""
        for factor, (x, y), dz in zip(self._factor[draw], self._points, self._cotangents[draw], strict=True):
            factor(x, y, dz)


class BareClarabel:
    """Clarabel alone: a QP as in ``BareQP``, other cones as CVXPY canonicalizes them and forward only."""

    def __init__(self, case: Case):
        """Make the data of every draw."""
        self._qp = BareQP(case, "clarabel") if case.qp(case.instances(0)[0]) is not None else None
        self._data = [] if self._qp else [self._canonical(case, draw) for draw in range(case.draws)]

    @staticmethod
    def _canonical(case: Case, draw: int) -> tuple[Any, ...]:
        import clarabel

        formulation = case.formulate()
        for parameter, value in zip(formulation.parameters, case.values(draw), strict=True):
            parameter.value = value
        data = formulation.problem.get_problem_data(cp.CLARABEL)[0]
        dims = data["dims"]
        cones = [clarabel.ZeroConeT(dims.zero)] if dims.zero else []
        cones += [clarabel.NonnegativeConeT(dims.nonneg)] if dims.nonneg else []
        cones += [clarabel.SecondOrderConeT(k) for k in dims.soc]
        cones += [clarabel.PSDTriangleConeT(k) for k in dims.psd]
        cones += [clarabel.ExponentialConeT() for _ in range(dims.exp)]
        q = data["c"]
        P = data.get("P")
        P = sp.csc_matrix((q.size, q.size)) if P is None else sp.csc_matrix(sp.triu(P))
        return P, q, sp.csc_matrix(data["A"]), data["b"], cones

    def build(self) -> None:
        """Nothing happens once."""

    def forward(self, draw: int) -> Array | None:
        """Solve the draw."""
        if self._qp:
            return self._qp.forward(draw)
        bare.run_clarabel(*self._data[draw])
        return None

    def backward(self, draw: int) -> None:
        """Factorize and solve once where the case is a QP."""
        if self._qp is None:
            raise Unsupported("no bare factorization for these cones")
        self._qp.backward(draw)


CVXIFT = "cvxift"
GENERIC = "cvxift-generic"
PEERS = ("cvxpylayers", "cvxpylayers-clarabel", "cvxpylayers-moreau")
FLOORS = ("daqp", "piqp", "clarabel")
CVXIFT_SOLVERS = tuple(f"cvxift:{name}" for name in ("DAQP", "PIQP", "OSQP", "CLARABEL", "SCS", "MOREAU"))

TABLE: dict[str, Callable[[Case], Contender]] = {
    CVXIFT: partial(TorchLayer, module="cvxift.torch"),
    GENERIC: generic,
    "cvxpylayers": partial(TorchLayer, module="cvxpylayers.torch"),
    "cvxpylayers-clarabel": partial(TorchLayer, module="cvxpylayers.torch", solver_args={"solve_method": "Clarabel"}),
    "cvxpylayers-moreau": partial(TorchLayer, module="cvxpylayers.torch", bounds_as_rows=True, solver="MOREAU"),
    "daqp": partial(BareQP, solver="daqp"),
    "piqp": partial(BareQP, solver="piqp"),
    "clarabel": BareClarabel,
}
TABLE |= {name: partial(TorchLayer, module="cvxift.torch", solver=name.split(":")[1]) for name in CVXIFT_SOLVERS}
