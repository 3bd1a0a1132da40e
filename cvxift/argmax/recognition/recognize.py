"""Which closed form a program has, whatever CVXPY expressions it came from: each known one reads it in turn."""

from __future__ import annotations

from typing import Any

import numpy as np

from cvxift.argmax.recognition.chain_map import ChainMap
from cvxift.argmax.recognition.permutahedron_map import PermutahedronMap
from cvxift.argmax.recognition.read_chain import ChainReader
from cvxift.argmax.recognition.read_permutahedron import PermutahedronReader
from cvxift.argmax.recognition.read_plan import PlanReader
from cvxift.argmax.recognition.read_separable import SeparableReader
from cvxift.argmax.recognition.reading import Unknown
from cvxift.argmax.recognition.recognized import Recognized
from cvxift.argmax.recognition.separable_map import SeparableMap
from cvxift.program.program import Program
from cvxift.program.recover import Output


def recognize(program: Program, outputs: list[Output], columns: np.ndarray) -> Recognized[Any] | None:
    """The closed form of a program, if it has one that is known.

    Args:
        program: the program.
        outputs: what is asked of it; a closed form gives variables alone, not dual variables.
        columns: for each entry of the caller's θ, its place in the program's.

    Returns:
        The form, or None.

    Example:
        >>> import cvxpy as cp
        >>> z, theta = cp.Variable(3), cp.Parameter(3)
        >>> program = Program(cp.Problem(cp.Maximize(theta @ z + cp.sum(cp.entr(z))), [cp.sum(z) == 1]))
        >>> recognize(program, [program.output(z)], np.arange(3)).name
        'softmax'
    """
    if program.gp:
        return None
    for read in (_separable, _plan, _permutahedron, _chain):
        try:
            return read(program, outputs, columns)
        except Unknown:
            continue
    return None


def _separable(program: Program, outputs: list[Output], columns: np.ndarray) -> Recognized[Any]:
    return SeparableMap(program.structure, SeparableReader(program, outputs).form(), columns)


def _plan(program: Program, outputs: list[Output], columns: np.ndarray) -> Recognized[Any]:
    return SeparableMap(program.structure, PlanReader(program, outputs).form(), columns)


def _permutahedron(program: Program, outputs: list[Output], columns: np.ndarray) -> Recognized[Any]:
    return PermutahedronMap(program.structure, PermutahedronReader(program, outputs).form(), columns)


def _chain(program: Program, outputs: list[Output], columns: np.ndarray) -> Recognized[Any]:
    return ChainMap(program.structure, ChainReader(program, outputs).form(), columns)
