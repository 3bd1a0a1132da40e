"""The table of cases."""

from __future__ import annotations

from ..model import Case
from .argmax import SimplexProjection, Softmax, Sparsemax
from .cones import BallRegression, ConeProgram, EntropyProgram, MaxCut, NearestCorrelation
from .maros import MarosMeszaros, problems
from .qp import DenseQP, LinearProgram, Portfolio, RandomFlow, SparseParameter
from .signal import TallLasso, TotalVariation

SIZES = ((10, 10, 5), (50, 50, 10), (100, 100, 50))


def table() -> dict[str, Case]:
    """Every case by name, in the order of the report."""
    cases: list[Case] = [DenseQP(batch, *size) for size in SIZES for batch in (None, 16, 128)]
    cases += [DenseQP(batch, *SIZES[1], tied=True) for batch in (None, 128)]
    cases += [Softmax(n=n) for n in (10, 100, 1000, 10_000)]
    cases += [Sparsemax(n=n) for n in (10, 100, 1000, 10_000)]
    cases += [SimplexProjection(n=n) for n in (1000, 10_000, 100_000)]
    cases += [SimplexProjection(n=n, spread=True) for n in (1000, 10_000, 100_000)]
    cases += [TotalVariation(n=n) for n in (1000, 10_000)]
    cases += [TallLasso(rows=rows) for rows in (500, 3500)]
    cases += [RandomFlow(arcs=arcs) for arcs in (2000, 20_000)]
    cases += [SparseParameter()]
    cases += [Portfolio(), BallRegression(), ConeProgram(), NearestCorrelation(), MaxCut(), LinearProgram()]
    cases += [ConeProgram(batch, n=10, cones=5) for batch in (None, 16, 128, 1024)]
    cases += [EntropyProgram(batch) for batch in (None, 16, 128)]
    cases += [NearestCorrelation(n=n) for n in (10, 20)] + [MaxCut(n=n) for n in (10, 20)]
    cases += [MarosMeszaros(problem=name) for name in problems()]
    return {case.name: case for case in cases}


# Cases on which every solver that cvxift can use must give the same gradient.
EVERY_SOLVER = (
    "qp_10_10_5", "qp_50_50_10", "qp_100_100_50", "softmax_100", "sparsemax_100", "simplex_1000", "tv_1000",
    "portfolio_1000_20", "ball_regression_50x20", "socp_50x20", "sdp_correlation_30", "sdp_maxcut_30", "lp_50_100_10",
)  # fmt: skip

QUICK = (
    "qp_10_10_5", "qp_10_10_5_batch16", "softmax_10", "sparsemax_100", "simplex_1000", "tv_1000",
    "ball_regression_50x20", "sdp_correlation_30", "lp_50_100_10", "maros_HS21", "maros_DUALC1",
)  # fmt: skip


def select(patterns: list[str]) -> list[Case]:
    """Cases whose name matches one of the shell patterns; an unmatched pattern lists what there is."""
    import fnmatch

    cases = table()
    chosen = [case for name, case in cases.items() if any(fnmatch.fnmatch(name, p) for p in patterns)]
    for pattern in patterns:
        if not any(fnmatch.fnmatch(name, pattern) for name in cases):
            raise SystemExit(f"No case matches {pattern!r}. Cases: {', '.join(cases)}")
    return chosen
