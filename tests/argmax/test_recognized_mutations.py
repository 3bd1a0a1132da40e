"""What a reader takes is what the program says: one number changed, it refuses, or its optimal point is still optimal.

Every entry of A, b, P and q of recognized programs is changed in turn, behind the reader's back as it were: no CVXPY
expression need exist that canonicalizes to the result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import scipy.sparse as sp

from cvxift import argmax
from cvxift.argmax.recognition.multipliers import violation
from cvxift.argmax.recognition.recognize import recognize
from cvxift.program.program import Program
from cvxift.program.structure import Data, Floats


def hand_written() -> cp.Problem:
    z, theta = cp.Variable(3), cp.Parameter(3)
    constraints: list[Any] = [
        cp.sum(z) == 5,
        cp.sum_smallest(z, 1) >= 0.5,
        2 * cp.sum_largest(z, 1) <= 6,
        cp.max(z) <= 3.5,
        z <= 4,
    ]
    return cp.Problem(cp.Minimize(cp.sum_squares(2 * z - theta)), constraints)


def from_an_edge() -> cp.Problem:
    z, p, theta = cp.Variable((2, 2)), cp.Variable((2, 2)), cp.Parameter((2, 2))
    links: list[Any] = [cp.sum(p, axis=1) == z[0], cp.sum(p, axis=0) == z[1], cp.sum(z[1]) == 1]
    return cp.Problem(cp.Maximize(cp.sum(cp.multiply(theta, p)) + cp.sum(cp.entr(p))), links)


MASSES = np.array([0.4, 0.6])
PROBLEMS: dict[str, Callable[[], cp.Problem]] = {
    "permutahedron": lambda: argmax.permutahedron(3, np.array([3.0, 1.5, 0.5])),
    "permutahedron by hand": hand_written,
    "permutahedron, moving values": lambda: argmax.permutahedron(3, cp.Parameter(3)),
    "entropic permutahedron": lambda: argmax.permutahedron(3, np.array([3.0, 1.5, 0.5]), regularizer="entropic"),
    "linear chain": lambda: argmax.linear_chain(3, 2),
    "linear chain from an edge": from_an_edge,
    "softmax": lambda: argmax.softmax(3),
    "constrained softmax": lambda: argmax.constrained_softmax(3, np.array([0.5, 0.6, 0.7])),
    "1.5-entmax": lambda: argmax.entmax(3, 1.5),
    "sparsemax": lambda: argmax.sparsemax(3),
    "constrained sparsemax": lambda: argmax.constrained_sparsemax(3, np.array([0.5, 0.6, 0.7])),
    "budget": lambda: argmax.budget(4, 2),
    "sigmoid": lambda: argmax.box(3),
    "entropic transport": lambda: argmax.transport(MASSES, np.array([0.3, 0.3, 0.4])),
    "quadratic transport": lambda: argmax.transport(MASSES, np.array([0.3, 0.3, 0.4]), "quadratic"),
    "linear chain, one state": lambda: argmax.linear_chain(3, 1),
}


@dataclass
class Changed:
    """A program one of whose numbers differs from what its problem says."""

    original: Program
    pieces: dict[str, tuple[Any, Floats]]
    gp: bool = False

    @property
    def structure(self) -> Any:
        return self.original.structure

    @property
    def A_varies(self) -> np.ndarray:
        return self.original.A_varies

    @property
    def problem(self) -> cp.Problem:
        return self.original.problem

    def affine(self) -> dict[str, tuple[Any, Floats]]:
        return self.pieces

    def evaluate(self, theta: Floats) -> Data:
        P, q, A, b = (np.asarray(M @ theta + c) for M, c in (self.pieces[name] for name in "PqAb"))
        return Data(P, q, A, b, np.zeros(()))


@pytest.mark.parametrize("name", PROBLEMS)
def test_one_number_changed(name: str) -> None:
    program = Program(PROBLEMS[name]())
    outputs = [program.output(v) for v in program.problem.variables()]
    columns = np.arange(program.theta_size)
    assert recognize(program, outputs, columns) is not None
    rng = np.random.default_rng(0)
    thetas = rng.standard_normal((3, program.theta_size))
    for p, part in program.offsets.items():
        if p.name() != "theta" and p.ndim == 1:
            thetas[:, part] = -np.sort(-thetas[:, part], axis=-1)  # values decrease
    refused = taken = 0
    for piece in "AbPq":
        M, c = program.affine()[piece]
        for k in range(len(c)):
            for change in (lambda v: 0.0, lambda v: 1.5 * v, lambda v: -v, lambda v: v + 0.25, lambda v: v - 0.25):
                moved = c.copy()
                moved[k] = change(c[k])
                if moved[k] == c[k]:
                    continue
                changed = Changed(program, {**program.affine(), piece: (sp.csr_array(M), moved)})
                form = recognize(changed, outputs, columns)  # type: ignore[arg-type]  # what readers look at
                if form is None:
                    refused += 1
                    continue
                for theta in thetas:
                    state = form.solve(theta)
                    if state is None:
                        continue
                    taken += 1
                    data = changed.evaluate(theta)
                    point = form.canonical(data, state)
                    assert violation(program.structure, data, *point) <= 1e-11, (piece, k, c[k], moved[k])
    assert refused > 30 and taken > 5
