"""The implicit derivative beside others: central differences, and what a layer of another package gives."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cvxift.diagnostics.analysis import Analysis
from cvxift.diagnostics.findings import Finding
from cvxift.errors import SolveError
from cvxift.kkt.regularity.point import LocalPoint
from cvxift.kkt.solution_map import SolutionMap
from cvxift.program.parameters import logged
from cvxift.program.structure import Floats

DIFFERENCE_STEPS = (1e-4, 5e-5)  # relative steps; two of them tell truncation from noise
AUDIT_AGREES = 1e-5  # relative difference that counts as agreement
AGREE_WITH_LAYER = 1e-3  # relative difference of gradients that is worth a word


@dataclass(frozen=True)
class Audit:
    """What the comparison showed.

    Attributes:
        agrees: whether all directions agree.
        difference: largest relative difference, Richardson-extrapolated.
        explanation: one sentence.
    """

    agrees: bool
    difference: float
    explanation: str


def audit(mapping: SolutionMap, point: LocalPoint, found: Analysis, directions: int = 3, seed: int = 0) -> Audit:
    """The differences along random directions, and what explains them; `Report.audit` has the arguments.

    With central differences D(h) = f′ + c h² + O(h⁴), the extrapolation (4 D(h/2) − D(h))/3 leaves O(h⁴) (Richardson
    1911). The differences of both sides, S(h) = f″ h + O(h³) where f is smooth, leave O(h³) in 2 S(h/2) − S(h); at a
    kink what the sides' derivatives differ by is left, and one of them is off by half of it at least.
    """
    program = point.program
    variables = [v for v in program.problem.variables() if point.asked[program.output(v).matrix.indices].all()]
    own = SolutionMap(program.problem, None, variables, program=program, engine=mapping.engine)
    unit = own.account(point.solution).output_unit
    unit, largest = np.where(unit > 0.0, unit, 1.0), float(np.abs(point.x / point.units[0]).max(initial=0.0))
    rng = np.random.default_rng(seed)
    worst, jumped = 0.0, False
    if not program.theta_size:
        return Audit(True, 0.0, "The problem has no parameters, so there is nothing to compare.")
    for _ in range(directions):
        theta_dot = rng.standard_normal(program.theta_size) * point.theta_size_of_entry
        g, h = point.tangents(theta_dot[None, :])
        u, w, _ = found.kernel.solve(g, h)
        implicit = own._recover.linear(u[0], w[0]) / unit  # no output's unit hides what another does
        try:
            wide, wide_sides, jump = _differences(own, point, theta_dot, DIFFERENCE_STEPS[0])
            close, close_sides, other = _differences(own, point, theta_dot, DIFFERENCE_STEPS[1])
        except SolveError as error:
            return Audit(False, float("inf"), f"A neighbouring problem has no solution: {error}")
        difference = (4.0 * close - wide) / 3.0 / unit
        size = max(float(np.abs(implicit).max(initial=0.0)), float(np.abs(difference).max(initial=0.0)))
        kink = np.abs(2.0 * close_sides - wide_sides) / unit / 2.0
        error = float(np.maximum(np.abs(implicit - difference), kink).max(initial=0.0))
        floor = 1e-9 * largest / DIFFERENCE_STEPS[1]  # rounding of the solutions
        worst = max(worst, error / max(size, floor) if size > 0.0 else 0.0)
        jumped |= jump or other
    if worst <= AUDIT_AGREES:
        return Audit(True, worst, "The implicit derivative and central differences agree.")
    if not found.verdict.ok:
        why = f"the theorem does not promise a derivative here ({found.verdict.value})"
    elif jumped:
        why = "the active set changes within the difference step, which is longer than the distance to the kink"
    else:
        why = f"the differences' own error at a condition number of {found.kernel.condition:.1e}, or strong curvature"
    return Audit(False, worst, f"They differ by {worst:.1e} (relative); the cause: {why}.")


def _differences(own: SolutionMap, point: LocalPoint, theta_dot: Floats, step: float) -> tuple[Floats, Floats, bool]:
    """The central difference, what both sides' differ by, and whether the sides' active rows do."""
    plus, minus = own.solve(point.theta + step * theta_dot), own.solve(point.theta - step * theta_dot)
    here = own.account(point.solution).recover(point.x, point.y, point.theta)
    rows = slice(point.cones.zero, point.cones.zero + point.cones.nonneg)
    tight = [(side.s < side.y)[rows] for side in (plus.solutions[0], minus.solutions[0])]
    sides = (plus.outputs - 2.0 * here + minus.outputs) / step
    return (plus.outputs - minus.outputs) / (2.0 * step), sides, bool((tight[0] != tight[1]).any())


def is_layer(subject: Any) -> bool:
    """Whether the object is a layer of cvxpylayers 1.x."""
    return type(subject).__module__.startswith("cvxpylayers") and all(
        hasattr(getattr(subject, "ctx", None), name) for name in ("problem", "parameters", "variables", "gp")
    )


def compare(layer: Any, mapping: SolutionMap, values: Sequence[Floats], tensors: Sequence[Any]) -> Finding | None:
    """The layer's own gradient of a random combination of its outputs against the implicit one.

    Args:
        layer: a torch or JAX layer of cvxpylayers.
        mapping: its problem's solution map, parameters and outputs in the layer's order.
        values: the tensors as arrays.
        tensors: the tensors.

    Returns:
        A finding that says how far they differ; None if the layer is of another framework.
    """
    shapes = [p.shape for p in mapping.parameters]
    batch = np.broadcast_shapes(*(v.shape[: v.ndim - len(s)] for v, s in zip(values, shapes, strict=True)))
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((*batch, *output.shape)) for output in mapping.outputs]
    theirs = _their_gradient(layer, tensors, weights)
    if theirs is None:
        return None
    theta = np.concatenate(
        [np.broadcast_to(v, (*batch, *s)).reshape(*batch, -1) for v, s in zip(values, shapes, strict=True)], axis=-1
    )
    own = _own_gradient(mapping, theta, np.concatenate([w.reshape(*batch, -1) for w in weights], axis=-1))
    worst, start = 0.0, 0
    for grad, value, shape in zip(theirs, values, shapes, strict=True):
        size = int(np.prod(shape))
        part = own[..., start : start + size].reshape((*batch, *shape))
        start += size
        extra = part.ndim - value.ndim
        axes = (
            *range(extra),
            *(k + extra for k in range(value.ndim) if value.shape[k] == 1 and part.shape[k + extra] != 1),
        )
        part = part.sum(axis=axes, keepdims=False).reshape(value.shape)
        largest = max(float(np.abs(part).max(initial=0.0)), float(np.abs(grad).max(initial=0.0)))
        error = float(np.abs(part - grad).max(initial=0.0))
        worst = max(worst, error / largest if largest > 0.0 else 0.0)
    if worst <= AGREE_WITH_LAYER:
        text = f"The layer's own gradient agrees with the implicit one (relative difference {worst:.0e})."
        return Finding("gradient compared", text, "", False)
    text = f"The layer's own gradient differs from the implicit one by {worst:.0e} (relative)."
    return Finding(
        "gradient differs",
        text,
        "Tighten the layer's solver (solver_args), or import CvxpyLayer from cvxift.torch or cvxift.jax.",
        True,
    )


def _their_gradient(layer: Any, tensors: Sequence[Any], weights: Sequence[Floats]) -> list[Floats] | None:
    """Gradient of Σ ⟨weight, output⟩ as the layer's framework takes it; the framework is loaded, since the layer is."""
    if all(hasattr(tensor, "requires_grad_") for tensor in tensors):
        leaves = [tensor.detach().clone().requires_grad_(True) for tensor in tensors]
        total: Any = sum((out * out.new_tensor(w)).sum() for out, w in zip(layer(*leaves), weights, strict=True))
        total.backward()
        return [leaf.grad.detach().cpu().numpy() for leaf in leaves]
    if type(layer).__module__.startswith("cvxpylayers.jax"):
        outputs, pull = sys.modules["jax"].vjp(lambda *leaves: tuple(layer(*leaves)), *tensors)
        bars = tuple((0.0 * out + w).astype(out.dtype) for out, w in zip(outputs, weights, strict=True))
        return [np.asarray(grad, dtype=float) for grad in pull(bars)]
    return None


def _own_gradient(mapping: SolutionMap, theta: Floats, bar: Floats) -> Floats:
    """The same gradient by the implicit function theorem, shape of θ; a geometric program's chain rule included."""
    logs, exps = mapping.log_mask, mapping.exp_mask
    solved = mapping.solve(logged(theta, logs))
    if exps is not None:
        bar = bar * np.where(exps, np.exp(np.where(exps, solved.outputs, 0.0)), 1.0)
    own = mapping.vjp(solved, bar)
    return own if logs is None else np.where(logs, own / np.where(logs, theta, 1.0), own)
