"""Linear chains against their CVXPY problem differentiated by KKT."""

from __future__ import annotations

import numpy as np
import pytest

import cvxift
from cvxift import argmax

torch = pytest.importorskip("torch")
from cvxift import torch as ct  # noqa: E402


def test_linear_chain_against_its_problem(rng: np.random.Generator) -> None:
    problem = argmax.linear_chain(3, 2)
    unary, pairwise = rng.standard_normal((3, 2)), rng.standard_normal((2, 2, 2))
    argmax.parameter(problem).value = unary
    for t in range(2):
        argmax.parameter(problem, f"pairwise_{t}").value = pairwise[t]
    z, theta = argmax.variable(problem), argmax.parameter(problem)
    sensitivity = cvxift.differentiate(problem)
    scores, links = torch.tensor(unary), torch.tensor(pairwise)
    states, transitions = ct.linear_chain(scores, links)
    np.testing.assert_allclose(states, sensitivity.value(z), atol=1e-8)
    np.testing.assert_allclose(transitions[1], sensitivity.value(argmax.variable(problem, "pair_1")), atol=1e-8)
    jacobian = torch.autograd.functional.jacobian(lambda u: ct.linear_chain(u, links)[0], scores)
    np.testing.assert_allclose(jacobian, sensitivity.jacobian(z, theta), atol=1e-8)
