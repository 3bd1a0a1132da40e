"""CVXPY's convex and concave atoms, each on a variable of its own with a strongly convex term that keeps it bounded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cvxpy as cp
import numpy as np

SHIFT = np.array([0.7, 1.3, 0.4, 2.1])
SQUARE = np.array([[2.0, 0.3], [0.3, 1.0]])

CONVEX: dict[str, Callable[[Any], cp.Expression]] = {  # of a vector of four
    "abs": lambda x: cp.sum(cp.abs(x)),
    "cummax": lambda x: cp.sum(cp.cummax(x)),
    "cvar": lambda x: cp.cvar(x, 0.7),
    "dotsort": lambda x: cp.dotsort(x, np.array([0.0, 1.0, 2.0, 3.0])),
    "exp": lambda x: cp.sum(cp.exp(x)),
    "huber": lambda x: cp.sum(cp.huber(x, 0.5)),
    "inv_pos": lambda x: cp.sum(cp.inv_pos(x)),
    "inv_prod": lambda x: cp.inv_prod(x[:2]),
    "kl_div": lambda x: cp.sum(cp.kl_div(x[:2], x[2:])),
    "log_sum_exp": lambda x: cp.log_sum_exp(x),
    "logistic": lambda x: cp.sum(cp.logistic(x)),
    "max": lambda x: cp.max(x),
    "maximum": lambda x: cp.sum(cp.maximum(x, 1.0)),
    "mixed_norm": lambda x: cp.mixed_norm(cp.reshape(x, (2, 2), order="F"), 2, 1),
    "neg": lambda x: cp.sum(cp.neg(x)),
    "norm1": lambda x: cp.norm(x, 1),
    "norm2": lambda x: cp.norm(x, 2),
    "norm_inf": lambda x: cp.norm(x, "inf"),
    "pnorm": lambda x: cp.pnorm(x, 3),
    "pos": lambda x: cp.sum(cp.pos(x)),
    "power_neg": lambda x: cp.sum(cp.power(x, -0.5)),
    "power_odd": lambda x: cp.sum(cp.power(x, 3)),
    "power_1_5": lambda x: cp.sum(cp.power(x, 1.5)),
    "power_4": lambda x: cp.sum(cp.power(x, 4)),
    "ptp": lambda x: cp.ptp(x),
    "quad_form": lambda x: cp.quad_form(x[:2], SQUARE),
    "quad_over_lin": lambda x: cp.quad_over_lin(x[:3], x[3]),
    "rel_entr": lambda x: cp.sum(cp.rel_entr(x[:2], x[2:])),
    "scalene": lambda x: cp.sum(cp.scalene(x, 2.0, 1.0)),
    "square": lambda x: cp.sum(cp.square(x)),
    "std": lambda x: cp.std(x),
    "sum_largest": lambda x: cp.sum_largest(x, 2),
    "sum_largest_part": lambda x: cp.sum_largest(x, 1.5),
    "sum_squares": lambda x: cp.sum_squares(x),
    "suppfunc": lambda x: _support()(x),
    "tv": lambda x: cp.tv(x),
    "var": lambda x: cp.var(x),
    "xexp": lambda x: cp.sum(cp.xexp(cp.pos(x))),
    "lambda_max": lambda x: cp.lambda_max(_matrix(x)),
    "lambda_sum_largest": lambda x: cp.lambda_sum_largest(_matrix(x), 1),
    "matrix_frac": lambda x: cp.matrix_frac(x[:2], SQUARE),
    "normNuc": lambda x: cp.normNuc(cp.reshape(x, (2, 2), order="F")),
    "sigma_max": lambda x: cp.sigma_max(cp.reshape(x, (2, 2), order="F")),
    "tr_inv": lambda x: cp.tr_inv(_matrix(x) + 3 * np.eye(2)),
    "upper_tri": lambda x: cp.norm1(cp.upper_tri(cp.reshape(x, (2, 2), order="F"))),
}
CONCAVE: dict[str, Callable[[Any], cp.Expression]] = {
    "entr": lambda x: cp.sum(cp.entr(x)),
    "geo_mean": lambda x: cp.geo_mean(x),
    "harmonic_mean": lambda x: cp.harmonic_mean(x),
    "lambda_min": lambda x: cp.lambda_min(_matrix(x)),
    "lambda_sum_smallest": lambda x: cp.lambda_sum_smallest(_matrix(x), 1),
    "log": lambda x: cp.sum(cp.log(x)),
    "log1p": lambda x: cp.sum(cp.log1p(x)),
    "log_det": lambda x: cp.log_det(_matrix(x) + 3 * np.eye(2)),
    "log_normcdf": lambda x: cp.sum(cp.log_normcdf(x)),
    "min": lambda x: cp.min(x),
    "minimum": lambda x: cp.sum(cp.minimum(x, 1.0)),
    "power_0_3": lambda x: cp.sum(cp.power(x, 0.3)),
    "sqrt": lambda x: cp.sum(cp.sqrt(x)),
    "sum_smallest": lambda x: cp.sum_smallest(x, 2),
}
ATOMS = {**CONVEX, **{name: (lambda x, make=make: -make(x)) for name, make in CONCAVE.items()}}


def _support() -> Any:
    z = cp.Variable(4)
    return cp.suppfunc(z, [cp.norm1(z) <= 1])


def _matrix(x: Any) -> cp.Expression:
    return cp.bmat([[x[0], x[1]], [x[1], x[2]]])
