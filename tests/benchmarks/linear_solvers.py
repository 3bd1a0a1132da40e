"""The linear solvers of implicit functions beside each other: ``python -m tests.benchmarks.linear_solvers``.

The Jacobian is that of x + ρ tanh(x) coupled to its neighbours, symmetric or with drift; every method multiplies the
same vector by the inverse. The error is against a direct sparse solution; memory is what XLA reserves for the compiled
gradient beyond arguments and results; time is the fastest of some runs in one process, relative to all others there.
"""

from __future__ import annotations

import argparse
import time
import warnings
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as sla

from cvxift.implicit.options import CG, GMRES, LSMR, LU, BiCGStab, Cholesky, Identity, Neumann, NormalCG, Nystrom
from cvxift.jax import implicit_root

SYMMETRIC_ONLY = ("cholesky", "cg", "nystrom")


@dataclass(frozen=True)
class Row:
    """One method on one system: relative error, bytes, seconds."""

    name: str
    error: float
    memory: int
    seconds: float


def matrix(n: int, drift: float) -> sp.csc_array:
    """A tridiagonal matrix with eigenvalues between about 0.1 and 4, not symmetric where there is drift."""
    diagonals = [np.full(n, 2.1), np.full(n - 1, -1.0 + drift), np.full(n - 1, -1.0 - drift)]
    return sp.csc_array(sp.diags_array(diagonals, offsets=[0, 1, -1]))


def methods(n: int) -> dict[str, Any]:
    """The options by name."""
    return {
        "lu": LU(), "cholesky": Cholesky(), "cg": CG(), "cg, tolerance 1e-4": CG(tolerance=1e-4),
        "normal_cg": NormalCG(), "gmres": GMRES(), "bicgstab": BiCGStab(), "lsmr": LSMR(),
        "neumann, 10 terms": Neumann(10, 0.4), "neumann, 100 terms": Neumann(100, 0.4),
        "identity": Identity(0.48), "nystrom, rank 20": Nystrom(20), "nystrom, rank n/2": Nystrom(n // 2),
    }  # fmt: skip


def rows(n: int, drift: float, repeats: int = 5) -> list[Row]:
    """Every method on one system."""
    A = matrix(n, drift)
    rng = np.random.default_rng(0)
    theta, bar = rng.standard_normal(n), rng.standard_normal(n)
    x = jnp.asarray(sla.spsolve(A, theta))
    exact = sla.spsolve(sp.csc_array(A.T), bar)

    def F(x: Any, t: Any) -> Any:
        zero = jnp.zeros(1, x.dtype)
        after, before = jnp.concatenate([x[1:], zero]), jnp.concatenate([zero, x[:-1]])
        return 2.1 * x + (drift - 1.0) * after - (drift + 1.0) * before - t

    found = []
    for name, option in methods(n).items():
        if drift and option.name in SYMMETRIC_ONLY:
            continue
        solve = implicit_root(F, lambda t: x, linear_solver=option, check="off")
        gradient = jax.jit(lambda t, v, solve=solve: jax.vjp(solve, t)[1](v)[0])
        compiled = gradient.lower(theta, bar).compile()
        memory = compiled.memory_analysis()
        value = np.asarray(compiled(theta, bar))
        best = np.inf
        for _ in range(repeats):
            start = time.perf_counter()
            jax.block_until_ready(compiled(theta, bar))
            best = min(best, time.perf_counter() - start)
        error = float(np.linalg.norm(value - exact) / np.linalg.norm(exact))
        found.append(Row(name, error, int(memory.temp_size_in_bytes), best))
    return found


def table(n: int, repeats: int = 5) -> str:
    """Both systems as a table in Markdown."""
    first, second = rows(n, 0.0, repeats), {row.name: row for row in rows(n, 0.3, repeats)}
    lines = ["| method | error | memory | time | error, not symmetric | time |", "|---|---|---|---|---|---|"]
    for row in first:
        other = second.get(row.name)
        more = f"{other.error:.0e} | {1e3 * other.seconds:.2f} ms" if other else "refused or told | "
        memory = f"{row.memory / 8 / n:.0f} n"
        lines.append(f"| {row.name} | {row.error:.0e} | {memory} | {1e3 * row.seconds:.2f} ms | {more} |")
    return "\n".join(lines)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="*", default=[100, 1000])
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)  # type: ignore[no-untyped-call]
    warnings.simplefilter("ignore")
    for n in arguments.sizes:
        print(f"\nn = {n}, condition {np.linalg.cond(matrix(n, 0.0).toarray()):.0f}\n")
        print(table(n, arguments.repeats))


if __name__ == "__main__":
    main()
