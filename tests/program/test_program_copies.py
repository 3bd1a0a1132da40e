"""A copied or unpickled program answers for its own copies of the user's objects, with the same numbers."""

from __future__ import annotations

import copy
import pickle

import cvxpy as cp
import numpy as np
import pytest

from cvxift.errors import ProgramError
from cvxift.program import Program

COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda thing: pickle.loads(pickle.dumps(thing))}


@pytest.fixture
def program() -> Program:
    A, b, x = cp.Parameter((2, 3), name="A"), cp.Parameter(2, name="b"), cp.Variable(3, name="x")
    X = cp.Variable((2, 2), PSD=True, name="X")
    objective = cp.sum_squares(A @ x - b) + cp.norm(x) + cp.trace(X)
    return Program(cp.Problem(cp.Minimize(objective), [x >= -1, cp.sum(x) == 1, X[0, 0] >= x[0]]))


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("used_before", [False, True])
def test_copy_is_self_consistent(program, how, used_before, rng):
    if used_before:  # positions and dual maps are made when first asked for
        program.output(program.problem.variables()[0])
        program.output(program.problem.constraints[0].dual_variables[0])
    twin = COPIES[how](program)
    theta = rng.normal(size=program.theta_size)
    ours, theirs = program.evaluate(theta), twin.evaluate(theta)
    for piece in ("P", "q", "A", "b", "d"):
        np.testing.assert_array_equal(getattr(ours, piece), getattr(theirs, piece))
    assert twin.structure == program.structure
    for original, copied in zip(program.problem.variables(), twin.problem.variables(), strict=True):
        assert copied is not original
        np.testing.assert_array_equal(program.output(original).matrix.toarray(), twin.output(copied).matrix.toarray())
    for original, copied in zip(program.problem.constraints, twin.problem.constraints, strict=True):
        left, right = program.output(original.dual_variables[0]), twin.output(copied.dual_variables[0])
        np.testing.assert_array_equal(left.matrix.toarray(), right.matrix.toarray())
    values = {parameter: rng.normal(size=parameter.shape) for parameter in twin.problem.parameters()}
    expected = np.concatenate([values[parameter].ravel() for parameter in twin.parameters])
    np.testing.assert_array_equal(twin.pack(values), expected)
    assert [label.text for label in twin.row_labels] == [label.text for label in program.row_labels]
    owners = [label.constraint for label in twin.row_labels if label.constraint is not None]
    assert all(any(owner is constraint for constraint in twin.problem.constraints) for owner in owners)


@pytest.mark.parametrize("how", COPIES)
def test_copy_does_not_know_the_original(program, how):
    twin = COPIES[how](program)
    with pytest.raises(ProgramError, match="not in the problem"):
        twin.output(program.problem.variables()[0])
    with pytest.raises(ProgramError, match="not in the problem"):
        twin.pack({program.parameters[0]: np.zeros((2, 3))})


def test_objects_copied_together_stay_together(program):
    """As in a layer that holds the program and the user's variables."""
    variable, parameter = program.problem.variables()[0], program.parameters[0]
    twin, variables, parameters = copy.deepcopy((program, [variable], [parameter]))
    assert twin.output(variables[0]).shape == variable.shape
    assert twin.offsets[parameters[0]] == program.offsets[parameter]
