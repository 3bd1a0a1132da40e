"""Nonlinear problems with parameters and known solutions.

Hock & Schittkowski, "Test Examples for Nonlinear Programming Codes", 1981, with their data made parameters; and
problems whose solution map has a closed form.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cvxpy as cp
import numpy as np


@dataclass(frozen=True)
class Case:
    """A problem, its variable and parameter, and the published optimal value."""

    problem: cp.Problem
    x: cp.Variable
    c: cp.Parameter
    value: float


CASES: dict[str, Callable[[], Case]] = {}


def hs(number: int, start: list[float], data: list[float], value: float, bounds: object = None) -> Callable:
    """Register a problem: the function decorated gives the objective and constraints from x and its data c."""

    def register(build: Callable) -> Callable:
        def make() -> Case:
            x = cp.Variable(len(start), name="x", bounds=bounds)
            x.value = np.array(start, dtype=float)
            c = cp.Parameter(len(data), name="c", value=np.array(data, dtype=float))
            objective, constraints = build(x, c)
            return Case(cp.Problem(cp.Minimize(objective), constraints), x, c, value)

        CASES[f"HS{number}"] = make
        return build

    return register


def rosenbrock(x, c):
    return c[0] * cp.square(x[1] - cp.square(x[0])) + cp.square(c[1] - x[0])


INF = np.inf


@hs(1, [-2, 1], [100, 1], 0.0, [np.array([-INF, -1.5]), np.array([INF, INF])])
def _(x, c):
    return rosenbrock(x, c), []


@hs(2, [2, 1], [100, 1, 1.5], 0.0504261879)
def _(x, c):
    return rosenbrock(x, c), [x[1] >= c[2]]


@hs(4, [1.125, 0.125], [1, 1, 0], 8 / 3)
def _(x, c):
    return (x[0] + c[0]) ** 3 / 3 + x[1], [x[0] >= c[1], x[1] >= c[2]]


@hs(5, [0, 0], [1, 1.5, 2.5], -1.9132229550, [np.array([-1.5, -3]), np.array([4.0, 3])])
def _(x, c):
    return cp.nlp.sin(x[0] + x[1]) + c[0] * cp.square(x[0] - x[1]) - c[1] * x[0] + c[2] * x[1] + 1, []


@hs(6, [-1.2, 1], [1, 10], 0.0)
def _(x, c):
    return cp.square(c[0] - x[0]), [c[1] * (x[1] - c[0] * cp.square(x[0])) == 0]


@hs(7, [2, 2], [1, 4], -np.sqrt(3))
def _(x, c):
    return cp.log(c[0] + cp.square(x[0])) - x[1], [cp.square(c[0] + cp.square(x[0])) + cp.square(x[1]) == c[1]]


@hs(8, [2, 1], [25, 9], -1.0)
def _(x, c):
    return -1 + 0 * x[0], [cp.sum_squares(x) == c[0], x[0] * x[1] == c[1]]


@hs(9, [0, 0], [12, 16, 4, 3], -0.5)
def _(x, c):
    return cp.nlp.sin(np.pi * x[0] / c[0]) * cp.nlp.cos(np.pi * x[1] / c[1]), [c[2] * x[0] - c[3] * x[1] == 0]


@hs(10, [-10, 10], [3, 2, 1], -1.0)
def _(x, c):
    return x[0] - x[1], [-c[0] * cp.square(x[0]) + c[1] * x[0] * x[1] - cp.square(x[1]) + c[2] >= 0]


@hs(11, [4.9, 0.1], [5, 25, 1], -8.4984642)
def _(x, c):
    return cp.square(x[0] - c[0]) + cp.square(x[1]) - c[1], [-c[2] * cp.square(x[0]) + x[1] >= 0]


@hs(12, [0, 0], [7, 25, 4], -30.0)
def _(x, c):
    objective = 0.5 * cp.square(x[0]) + cp.square(x[1]) - x[0] * x[1] - c[0] * x[0] - c[0] * x[1]
    return objective, [c[1] - c[2] * cp.square(x[0]) - cp.square(x[1]) >= 0]


@hs(14, [2, 2], [2, 1, 0.25, 1], 9 - 2.875 * np.sqrt(7))
def _(x, c):
    objective = cp.square(x[0] - c[0]) + cp.square(x[1] - c[1])
    return objective, [-c[2] * cp.square(x[0]) - cp.square(x[1]) + 1 >= 0, x[0] - 2 * x[1] + c[3] == 0]


@hs(15, [-2, 1], [100, 1, 1, 0.5], 306.5)
def _(x, c):
    return rosenbrock(x, c), [x[0] * x[1] - c[2] >= 0, x[0] + cp.square(x[1]) >= 0, x[0] <= c[3]]


@hs(16, [-2, 1], [100, 1, 0.5], 0.25)
def _(x, c):
    return rosenbrock(x, c), [x[0] + cp.square(x[1]) >= 0, cp.square(x[0]) + x[1] >= 0, cp.abs(x[0]) <= c[2], x[1] <= 1]


@hs(18, [2, 2], [0.01, 25], 5.0, [np.array([2.0, 0]), np.array([50.0, 50])])
def _(x, c):
    return c[0] * cp.square(x[0]) + cp.square(x[1]), [x[0] * x[1] - c[1] >= 0, cp.sum_squares(x) - c[1] >= 0]


@hs(19, [20.1, 5.84], [10, 20, 100, 82.81], -6961.81381, [np.array([13.0, 0]), np.array([100.0, 100])])
def _(x, c):
    return (x[0] - c[0]) ** 3 + (x[1] - c[1]) ** 3, [
        cp.square(x[0] - 5) + cp.square(x[1] - 5) - c[2] >= 0,
        -cp.square(x[1] - 5) - cp.square(x[0] - 6) + c[3] >= 0,
    ]


@hs(20, [0.1, 1], [100, 1, 1, 0.5], 81.5 - 25 * np.sqrt(3))
def _(x, c):
    return rosenbrock(x, c), [
        x[0] + cp.square(x[1]) >= 0,
        cp.square(x[0]) + x[1] >= 0,
        cp.sum_squares(x) - c[2] >= 0,
        cp.abs(x[0]) <= c[3],
    ]


@hs(21, [-1, -1], [0.01, 10, 2], -99.96)
def _(x, c):
    return c[0] * cp.square(x[0]) + cp.square(x[1]) - 100, [c[1] * x[0] - x[1] >= 10, x[0] >= c[2], x <= 50]


@hs(22, [2, 2], [2, 1, 2], 1.0)
def _(x, c):
    objective = cp.square(x[0] - c[0]) + cp.square(x[1] - c[1])
    return objective, [-x[0] - x[1] + c[2] >= 0, -cp.square(x[0]) + x[1] >= 0]


@hs(24, [1, 0.5], [3, 9, 6], -1.0, [0, None])
def _(x, c):
    root = np.sqrt(3)
    objective = cp.multiply(cp.square(x[0] - c[0]) - c[1], x[1] ** 3) / (27 * root)
    return objective, [x[0] / root - x[1] >= 0, x[0] + root * x[1] >= 0, -x[0] - root * x[1] + c[2] >= 0]


@hs(27, [2, 2, 2], [0.01, 1, 1], 0.04)
def _(x, c):
    objective = c[0] * cp.square(x[0] - c[1]) + cp.square(x[1] - cp.square(x[0]))
    return objective, [x[0] + cp.square(x[2]) + c[2] == 0]


@hs(28, [-4, 1, 1], [1, 2, 3, 1], 0.0)
def _(x, c):
    return cp.square(c[0] * x[0] + x[1]) + cp.square(x[1] + x[2]), [x[0] + c[1] * x[1] + c[2] * x[2] == c[3]]


@hs(29, [1, 1, 1], [2, 4, 48], -16 * np.sqrt(2))
def _(x, c):
    return -x[0] * x[1] * x[2], [-cp.square(x[0]) - c[0] * cp.square(x[1]) - c[1] * cp.square(x[2]) + c[2] >= 0]


@hs(31, [1, 1, 1], [9, 1, 9], 6.0, [np.array([-10.0, 1, -10]), np.array([10.0, 10, 1])])
def _(x, c):
    return c[0] * cp.square(x[0]) + cp.square(x[1]) + c[2] * cp.square(x[2]), [x[0] * x[1] - c[1] >= 0]


@hs(32, [0.1, 0.7, 0.2], [3, 4, 3, 1], 1.0, [0, None])
def _(x, c):
    objective = cp.square(x[0] + c[0] * x[1] + x[2]) + c[1] * cp.square(x[0] - x[1])
    return objective, [6 * x[1] + 4 * x[2] - x[0] ** 3 - c[2] >= 0, c[3] - cp.sum(x) == 0]


@hs(33, [0, 0, 3], [1, 2, 3, 4], np.sqrt(2) - 6, [0, np.array([INF, INF, 5])])
def _(x, c):
    return cp.prod(cp.hstack([x[0] - c[0], x[0] - c[1], x[0] - c[2]])) + x[2], [
        cp.square(x[2]) - cp.square(x[1]) - cp.square(x[0]) >= 0,
        cp.sum_squares(x) - c[3] >= 0,
    ]


@hs(34, [0, 1.05, 2.9], [10, 1], -np.log(np.log(10)), [0, 100])
def _(x, c):
    return -x[0], [x[1] - c[1] * cp.exp(x[0]) >= 0, x[2] - cp.exp(x[1]) >= 0, x[2] <= c[0]]


@hs(35, [0.5, 0.5, 0.5], [8, 6, 4, 3], 1 / 9, [0, None])
def _(x, c):
    quadratic = 2 * cp.square(x[0]) + 2 * cp.square(x[1]) + cp.square(x[2]) + 2 * x[0] * x[1] + 2 * x[0] * x[2]
    return 9 - c[:3] @ x + quadratic, [c[3] - x[0] - x[1] - 2 * x[2] >= 0]


@hs(36, [10, 10, 10], [72, 20, 11], -3300.0, [0, 42])
def _(x, c):
    return -x[0] * x[1] * x[2], [c[0] - x[0] - 2 * x[1] - 2 * x[2] >= 0, x[0] <= c[1], x[1] <= c[2]]


@hs(37, [10, 10, 10], [72, 2, 2], -3456.0, [0, 42])
def _(x, c):
    return -x[0] * x[1] * x[2], [c[0] - x[0] - c[1] * x[1] - c[2] * x[2] >= 0, x[0] + 2 * x[1] + 2 * x[2] >= 0]


@hs(38, [-3, -1, -3, -1], [100, 90, 10.1, 19.8, 1], 0.0, [-10, 10])
def _(x, c):
    first = c[0] * cp.square(x[1] - cp.square(x[0])) + cp.square(c[4] - x[0])
    second = c[1] * cp.square(x[3] - cp.square(x[2])) + cp.square(1 - x[2])
    third = c[2] * (cp.square(x[1] - 1) + cp.square(x[3] - 1)) + c[3] * (x[1] - 1) * (x[3] - 1)
    return first + second + third, []


@hs(40, [0.8, 0.8, 0.8, 0.8], [1, 1, 1], -0.25)
def _(x, c):
    return -x[0] * x[1] * x[2] * x[3], [
        x[0] ** 3 + cp.square(x[1]) - c[0] == 0,
        cp.square(x[0]) * x[3] - c[1] * x[2] == 0,
        cp.square(x[3]) - c[2] * x[1] == 0,
    ]


@hs(43, [0, 0, 0, 0], [5, 21, 8, 10, 5], -44.0)
def _(x, c):
    squares = cp.square(x)
    objective = squares[0] + squares[1] + 2 * squares[2] + squares[3] - c[0] * (x[0] + x[1]) - c[1] * x[2] + 7 * x[3]
    return objective, [
        c[2] - cp.sum(squares) - x[0] + x[1] - x[2] + x[3] >= 0,
        c[3] - squares[0] - 2 * squares[1] - squares[2] - 2 * squares[3] + x[0] + x[3] >= 0,
        c[4] - 2 * squares[0] - squares[1] - squares[2] - 2 * x[0] + x[1] + x[3] >= 0,
    ]


@hs(71, [1, 5, 5, 1], [25, 40, 1], 17.0140173, [1, 5])
def _(x, c):
    return c[2] * x[0] * x[3] * cp.sum(x[:3]) + x[2], [cp.prod(x) >= c[0], cp.sum_squares(x) == c[1]]


@hs(76, [0.5, 0.5, 0.5, 0.5], [5, 4, 1.5, 3], -4.6818181, [0, None])
def _(x, c):
    quadratic = cp.square(x[0]) + 0.5 * cp.square(x[1]) + cp.square(x[2]) + 0.5 * cp.square(x[3])
    objective = quadratic - x[0] * x[2] + x[2] * x[3] - x[0] - c[3] * x[1] + x[2] - x[3]
    return objective, [
        c[0] - x[0] - 2 * x[1] - x[2] - x[3] >= 0,
        c[1] - 3 * x[0] - x[1] - 2 * x[2] + x[3] >= 0,
        x[1] + 4 * x[2] - c[2] >= 0,
    ]
