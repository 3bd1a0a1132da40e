"""JAX beside its peers, all in compiled functions: the layer beside qpax, argmax maps beside JAXopt.

Rows are those of `tests.benchmarks.peers`, with the errors of gradients as well, relative to the largest entry of each
parameter's. Every call of a layer has parameters that were never seen, so that nothing of an earlier call serves it.
qpax is measured as its defaults have it, and at tolerances that leave errors of one size with cvxift's. JAX may use
other threads than the caller's: processor time counts them all.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cvxift import jax as cj

from .argmax import sparsemax
from .cases.qp import DenseQP
from .model import Reference, errors
from .peers import budget, from_reference, race, scores

Map = Callable[..., jax.Array]
TIGHT = {"solver_tol": 1e-10, "target_kappa": 1e-10}
STEP = 1e-13  # what a call's parameters are moved by: nothing beside errors, but other numbers


class Case(NamedTuple):
    """A function of arrays, by either side, and the errors of its value and, where they are known, of its gradients."""

    name: str
    peer: str
    arguments: Sequence[Any]
    ours: Map
    theirs: Map
    bar: np.ndarray
    error: Callable[[np.ndarray], float]
    slopes: Callable[[Sequence[np.ndarray]], float] | None = None

    @property
    def double(self) -> bool:
        """Whether it is computed in double precision."""
        return self.slopes is not None


def layers() -> Iterator[Case]:
    """A layer of quadratic programs, ½‖Qx‖² + qᵀx subject to Gx ≤ h, Ax = b, against qpax."""
    peer = importlib.import_module("qpax")
    for batch, (label, options) in itertools.product((None, 16, 128), (("qpax", {}), ("qpax, 1e-10", TIGHT))):
        case = DenseQP(batch, 10, 10, 5)
        problem, parameters, x = vars(case.formulate()).values()
        layer, reference = cj.CvxpyLayer(problem, list(parameters), [x]), case.reference(0)

        def one(Q: Any, q: Any, G: Any, h: Any, A: Any, b: Any, options: Any = options) -> jax.Array:
            return peer.solve_qp_primal(Q.T @ Q, q, A, b, G, h, **options)

        def worst(gradients: Sequence[np.ndarray], case: DenseQP = case, reference: Reference = reference) -> float:
            found = errors(case, reference, reference.x, list(gradients))
            return max(error for name, error in found.items() if name != "x")

        yield Case(
            f"JAX layer, {case.name}", label, case.values(0), lambda *values, layer=layer: layer(*values)[0],
            one if batch is None else jax.vmap(one), case.cotangent(0),
            lambda x, case=case, reference=reference: errors(case, reference, x, None)["x"], worst,
        )  # fmt: skip


def maps() -> Iterator[Case]:
    """Sparsemax and budgets against JAXopt's projections."""
    peer = importlib.import_module("jaxopt.projection")
    for batch, n in ((32, 10), (256, 1000)):
        x = jnp.asarray(scores(batch, n).numpy())
        bar, wide = np.asarray(scores(batch, n, seed=1)), np.asarray(x, dtype=float)
        box = (jnp.zeros(n), jnp.ones(n), jnp.ones(n), 3.0)
        yield Case(
            f"JAX sparsemax {batch}×{n}", "JAXopt", [x], cj.sparsemax, jax.vmap(peer.projection_simplex),
            bar, from_reference(sparsemax(wide)),
        )  # fmt: skip
        yield Case(
            f"JAX budget of 3, {batch}×{n}", "JAXopt", [x], lambda v: cj.budget(v, 3.0),
            jax.vmap(lambda v, box=box: peer.projection_box_section(v, box)), bar, from_reference(budget(wide, 3.0)),
        )  # fmt: skip


def measured(case: Case, seconds: float) -> dict[str, Any]:
    """Times and errors of both sides."""
    with jax.enable_x64(case.double):
        values = [jnp.asarray(value) for value in case.arguments]
        moves = [jnp.asarray(STEP * (k + 1), values[0].dtype) if case.double else None for k in range(4096)]
        bar = jnp.asarray(case.bar, values[0].dtype)

        def moved(f: Map) -> Map:
            return lambda values, move: f(*values) if move is None else f(values[0], values[1] + move, *values[2:])

        def slopes(f: Map) -> Map:
            return jax.grad(lambda values, move: (moved(f)(values, move) * bar).sum())

        forward = [jax.jit(moved(f)) for f in (case.ours, case.theirs)]
        backward = [jax.jit(slopes(f)) for f in (case.ours, case.theirs)]
        row: dict[str, Any] = {
            "name": case.name,
            "peer": case.peer,
            "errors": [case.error(np.asarray(f(values, moves[0]), dtype=float)) for f in forward],
        }
        if case.slopes is not None:
            row["slopes"] = [case.slopes([np.asarray(g) for g in f(values, moves[1])]) for f in backward]
        turns = itertools.count()

        def call(f: Map) -> Callable[[], Any]:
            return lambda: jax.block_until_ready(f(values, moves[next(turns) % len(moves)]))

        row["forward"] = race(*map(call, forward), seconds)
        row["both"] = race(*map(call, backward), seconds)
    return row


FAMILIES = (layers, maps)
