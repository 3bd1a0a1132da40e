"""Failures that are known: of the fixed selection by case and kinds, and of faulty solvers by name.

The lists shrink to nothing: what is mended must go, or the test fails. ``python -m tests.trust --cases 300 --known``
prints what a run asks for.
"""

from __future__ import annotations

KNOWN: dict[str, tuple[str, ...]] = {
    "barrier:2": ("crash",),
    "basis_pursuit:2": ("crash",),
    "correlation:2": ("silent",),
    "detour:2": ("crash",),
    "entropy_capped:2": ("crash",),
    "equality_qp:2": ("crash",),
    "fast:2": ("untold",),
    "fast:3": ("untold",),
    "flow:2": ("crash",),
    "free_variable:1": ("untold",),
    "free_variable:2": ("crash",),
    "geometric_mean:2": ("crash",),
    "geometric_program:2": ("crash",),
    "knapsack:2": ("crash",),
    "linear_on_ball:2": ("crash",),
    "log_utility:2": ("crash",),
    "logdet:2": ("crash",),
    "logistic:2": ("crash",),
    "lp_random:2": ("crash",),
    "matrix_attributes:2": ("crash",),
    "matrix_game:2": ("crash",),
    "mpc_soft:2": ("crash",),
    "norm_penalty:2": ("crash",),
    "pinned:2": ("crash",),
    "power:2": ("crash",),
    "power_cone:2": ("crash",),
    "quadratic_parameter:2": ("crash",),
    "robust:2": ("crash",),
    "rounded:2": ("crash",),
    "schedule:2": ("crash",),
    "sinkhorn:2": ("crash",),
    "softmax:2": ("crash",),
    "tied_maximum:2": ("crash",),
    "transport_supply:2": ("crash",),
    "unbounded:2": ("crash",),
}

FAULTY_KNOWN: tuple[str, ...] = ("faulty_raises", "faulty_none", "faulty_short", "faulty_overwrites")
