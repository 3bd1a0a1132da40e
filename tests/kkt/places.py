"""Batches of parametrized quadratic programs at hard points, and the places whose arrays can hold them."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cvxpy as cp
import numpy as np

from cvxift.kkt.backend import Arrays, HostArrays
from cvxift.kkt.solution_map import SolutionMap


class PlainNumPy(HostArrays):
    """NumPy's arrays used as any other namespace's: nothing looked at, sparse maps as gathers."""

    reads_freely = False
    affine = Arrays.affine
    sums = Arrays.sums


PLACES = tuple(name for name in ("numpy", "torch", "jax") if importlib.util.find_spec(name))
KINDS = ("random", "weak", "repeated rows", "scaled", "vertex", "bounds")


@contextmanager
def place_of(name: str) -> Iterator[Arrays]:
    """A place of the framework on the CPU; JAX in double precision inside the context alone."""
    if name == "numpy":
        yield PlainNumPy()
    elif name == "torch":
        import torch

        from cvxift.torch.device import TorchArrays

        yield TorchArrays(torch.device("cpu"))
    else:
        import jax
        import jax.numpy

        with jax.enable_x64(True):
            yield Arrays(jax.numpy)


def mapping(n: int, m: int, p: int, *, duals: bool = True, squares: bool = True, **options: Any) -> SolutionMap:
    """½‖Qx‖² + qᵀx (or ½ xᵀdiag(Q)²x) under Ax = b, Gx ≤ h, all of them parameters; outputs x and both multipliers.

    The parameters are given in another order than the program's own.
    """
    shape = (n, n) if squares else n
    Q, q, A, b, G, h = (cp.Parameter(s) for s in (shape, n, (p, n), p, (m, n), m))
    x = cp.Variable(n)
    quadratic = cp.sum_squares(Q @ x) if squares else cp.sum_squares(cp.multiply(Q, x))
    constraints = [A @ x == b, G @ x <= h] if p else [G @ x <= h]
    problem = cp.Problem(cp.Minimize(0.5 * quadratic + q @ x), constraints)
    outputs = [x, *(c.dual_variables[0] for c in constraints)] if duals else [x]
    given = [h, G, b, A, q, Q] if p else [h, G, q, Q]
    return SolutionMap(problem, given, outputs, **options)


def thetas(kind: str, B: int, n: int, m: int, p: int, rng: np.random.Generator) -> np.ndarray:
    """Parameters of a batch whose solution is planted: x random, half of the rows tight, the kind's trouble added.

    Kinds:
        random: full rank, strictly complementary.
        weak: one tight row has no multiplier.
        repeated rows: one tight row stands twice, so that its multipliers are not unique and K is singular.
        scaled: rows of A and G differ by a factor of 1e6.
        vertex: as many tight rows as columns.
        bounds: G holds ±I in its first rows.
    """
    values = []
    for _ in range(B):
        Q = rng.standard_normal((n, n)) / np.sqrt(n) + 1.5 * np.eye(n)
        A, G, x = rng.standard_normal((p, n)), rng.standard_normal((m, n)), rng.standard_normal(n)
        if kind == "bounds":
            k = min(n, m)
            G[:k] = np.eye(n)[:k] * np.where(rng.random(k) < 0.5, -1.0, 1.0)[:, None]
        count = min(m, n - p) if kind == "vertex" else max(1, min(m, n - p) // 2)
        tight = np.zeros(m, dtype=bool)
        tight[rng.permutation(m)[:count]] = True
        if kind == "repeated rows":
            tight[:2] = True
            G[1] = G[0]
        y = np.where(tight, 0.3 + rng.random(m), 0.0)
        s = np.where(tight, 0.0, 0.3 + rng.random(m))
        if kind == "weak":
            y[np.flatnonzero(tight)[0]] = 0.0
        if kind == "scaled":
            scale = 10.0 ** rng.uniform(-3, 3, m + p)
            A, G, s, y = A * scale[:p, None], G * scale[p:, None], s * scale[p:], y / scale[p:]
        z = rng.standard_normal(p)
        q = -(Q.T @ Q @ x + A.T @ z + G.T @ y)
        parts = [G @ x + s, G, A @ x, A, q, Q] if p else [G @ x + s, G, q, Q]
        values.append(np.concatenate([part.ravel() for part in parts]))
    return np.array(values)


def blind_run(m: SolutionMap, theta: np.ndarray, bar: np.ndarray, dot: np.ndarray) -> int:
    """Solve and take all products on meta tensors, where a look at a value that was not fetched is an error.

    What a real run fetched is played back to them.

    Returns:
        How often something was fetched.
    """
    import torch

    from cvxift.kkt.batch.device import DeviceMap
    from cvxift.torch.device import TorchArrays

    fetched: list[np.ndarray] = []

    class Recording(TorchArrays):
        def fetch(self, array):
            value = super().fetch(array)()
            fetched.append(np.array(value))
            return lambda: value

    class Blind(TorchArrays):
        def put(self, values):
            kind = torch.from_numpy(np.zeros(1, np.asarray(values).dtype)).dtype
            return torch.empty(np.shape(values), dtype=kind, device="meta")

        def fetch(self, array):
            value = fetched.pop(0)
            assert array.device.type == "meta" and tuple(array.shape) == value.shape
            return lambda: value

    def everything(where: TorchArrays, put) -> list:
        there = DeviceMap(m, where)
        solved = there.solve(put(theta))
        first = [there.vjp(solved, put(bar)), there.jvp(solved, put(dot))]
        second = [there.derivative(solved, (put(dot),), put(bar)), there.derivative(solved, (put(dot), put(dot)))]
        return [solved.outputs, *first, *second]

    expected = everything(Recording(torch.device("cpu")), torch.from_numpy)
    reads = len(fetched)
    got = everything(Blind(torch.device("meta")), lambda v: torch.empty(v.shape, dtype=torch.float64, device="meta"))
    assert not fetched
    for there, here in zip(got, expected, strict=True):
        assert there.device.type == "meta" and there.shape == here.shape and there.dtype == here.dtype
    return reads


Moves = list[tuple[str, tuple[int, ...]]]


def counting(device: Any, solves: bool = True) -> tuple[Any, Moves]:
    """A place of PyTorch's tensors, and a list of what it has moved: ("put" or "fetch", shape).

    Args:
        device: where the tensors live.
        solves: whether a solver that lives there may be taken.
    """
    from cvxift.torch.device import TorchArrays

    moved: Moves = []

    class Counting(TorchArrays):
        def put(self, values):
            moved.append(("put", np.shape(values)))
            return super().put(values)

        def fetch(self, array):
            moved.append(("fetch", tuple(array.shape)))
            return super().fetch(array)

        def solver(self, engine, solver, solver_args):
            return super().solver(engine, solver, solver_args) if solves else None

    return Counting(device), moved
