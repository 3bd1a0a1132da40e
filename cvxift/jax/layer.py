"""`CvxpyLayer`: a CVXPY problem as a function of JAX arrays that every transformation takes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from cvxift.argmax.closed_form.closed_map import ClosedForm
from cvxift.diagnostics import BatchReport, Report, diagnose
from cvxift.diagnostics.call_check import CallReport
from cvxift.errors import ProgramError
from cvxift.jax.complex_parts import joined, split
from cvxift.jax.rule import solve
from cvxift.kkt.policy import Check, Integers, Iterative, LinearSolver, Policy, Singular, options_of
from cvxift.kkt.solution_map import OnFailure
from cvxift.layers.core import LayerCore
from cvxift.layers.cores import core_of
from cvxift.layers.description import in_html, in_words
from cvxift.layers.interop import converted, number, refused, wrong_dtype
from cvxift.layers.solve_cache import Host, Options
from cvxift.program.parameters import called

Shapes = tuple[tuple[int, ...], ...]
OWN = (jax.Array, np.ndarray, np.generic, int, float)  # what JAX itself takes


@jax.tree_util.register_static
class CvxpyLayer:
    """Solves a parametrized CVXPY problem; differentiates its solution by the implicit function theorem.

    Constructor and call are those of cvxpylayers' layer. Inputs may have leading batch dimensions, the same for all, or
    none where a parameter is shared by the batch; the outputs have the inputs' floating dtype, and are computed in
    float64 on the host whether or not JAX has 64-bit types enabled. Every transformation applies, to any order where
    the constraints are linear and to the second where cones are curved. As a pytree, a layer has no leaves.

    Args:
        problem: a DPP problem (for ``gp=True`` a DGP one).
        parameters: all the problem's parameters, in the order of the call's arrays.
        variables: variables, and dual variables (``constraint.dual_variables[i]``), to return.
        solver: name of the solver to try first; None chooses by structure and size.
        gp: whether the problem is a geometric program.
        verbose: print the solver's output.
        canon_backend: CVXPY's canonicalization backend.
        solver_args: options for the solver, by its own names.
        nlp: whether to take a local solution of a nonlinear problem, or the solution of a convex one that is not DPP;
            it starts from the values that the variables hold. Derivatives to second order. See docs/nonlinear.md.
        integers: ``"fixed"``: solve mixed-integer problems and hold their integers at their optimum; see
            `cvxift.differentiate`.
        singular: what to do where the KKT system is singular: ``"least_squares"``, ``"regularize"``, ``"smooth"`` or
            ``"raise"``; see `cvxift.Policy`.
        mu: the central path's parameter under ``"smooth"``, positive.
        linear_solver: ``"auto"``, ``"direct"``, ``"iterative"``, or `cvxift.Iterative` options for the matrix-free
            path.
        on_failure: ``"raise"`` a `SolveError` that carries the instances that were solved, or return ``"nan"`` for the
            others with zero gradients.
        check: where the solution map has no derivative at a solution, such as on a kink, where the gradient is one of
            several: ``"warn"`` with the cause, once for each solution and mode of differentiation; ``"raise"`` an
            `ApplicabilityError`; or ``"off"``.
        closed_form: ``"auto"``: a problem that is an argmax with a known closed form takes it, unless a solver, its
            options or another policy are named; ``"never"``: the solver and the KKT system. See docs/argmax.md.

    Raises:
        ProgramError: the problem is not DPP, has integer variables without ``integers="fixed"``, or an argument cannot
            be used.

    Source: Amos & Kolter 2017; Agrawal et al. 2019 (the layer); the derivatives: docs/mathematics.md and
        `cvxift.kkt.products`.

    Example:
        >>> import cvxpy as cp, jax, jax.numpy as jnp
        >>> from cvxift.jax import CvxpyLayer
        >>> x, target = cp.Variable(3), cp.Parameter(3)
        >>> problem = cp.Problem(cp.Minimize(cp.sum_squares(x - target)), [cp.sum(x) == 1, x >= 0])
        >>> layer = CvxpyLayer(problem, parameters=[target], variables=[x])
        >>> first = lambda t: layer(t)[0][0]
        >>> value, gradient = jax.jit(jax.value_and_grad(first))(jnp.array([0.5, 0.4, -1.0]))
        >>> print(value.round(6), gradient.round(6) + 0.0)
        0.55 [ 0.5 -0.5  0. ]
    """

    def __init__(
        self,
        problem: cp.Problem,
        parameters: Sequence[cp.Parameter],
        variables: Sequence[cp.Variable],
        solver: str | None = None,
        gp: bool = False,
        verbose: bool = False,
        canon_backend: str | None = None,
        solver_args: Mapping[str, Any] | None = None,
        *,
        nlp: bool = False,
        integers: Integers | None = None,
        singular: Singular = "least_squares",
        mu: float = 1e-3,
        linear_solver: LinearSolver | Iterative = "auto",
        on_failure: OnFailure = "raise",
        check: Check = "warn",
        closed_form: ClosedForm = "auto",
    ) -> None:
        _static(solver_args, mu=mu)
        self.core = core_of(
            problem,
            parameters,
            variables,
            nlp=nlp,
            integers=integers,
            gp=gp,
            solver=solver,
            verbose=verbose,
            canon_backend=canon_backend,
            solver_args=solver_args,
            policy=Policy(singular, mu, linear_solver),
            on_failure=on_failure,
            check=check,
            closed_form=closed_form,
        )
        self._host = Host(self.core)

    def __call__(
        self,
        *params: jax.typing.ArrayLike,
        solver_args: Mapping[str, Any] | None = None,
        warm_start: bool = False,
        from_dlpack: bool = False,
    ) -> tuple[jax.Array, ...]:
        """Solve at the given parameters.

        Args:
            *params: an array for each parameter, of the parameter's shape with any leading batch dimensions; a
                Python number or 0-d NumPy array for a scalar parameter takes the others' dtype.
            solver_args: options for this call, over those of the constructor; Python values, not traced ones.
            warm_start: start from the previous call's solutions, where the solver can make use of them.
            from_dlpack: take arrays of other libraries (PyTorch, CuPy) as well, by DLPack, as constants.

        Returns:
            The requested variables, each of shape ``(batch…, *variable.shape)``.

        Raises:
            ProgramError: an array is missing, has a wrong shape, dtype, device or value; says which parameter. Values
                under `jit` are seen only when the compiled function runs: what is raised then is JAX's error for a
                failed callback, with this message.
            SolveError: an instance could not be solved; says which and why, and carries the others. Likewise.
        """
        _static(solver_args, warm_start=warm_start)
        if self.core.parts is not None:
            return joined(
                self.core.parts, self._solved(split(self.core.parts, params), solver_args, warm_start, from_dlpack)
            )
        return self._solved(params, solver_args, warm_start, from_dlpack)

    def _solved(
        self, params: Sequence[Any], solver_args: Mapping[str, Any] | None, warm_start: bool, from_dlpack: bool
    ) -> tuple[jax.Array, ...]:
        """A call with real arrays."""
        core = self.core
        if from_dlpack:
            names = (parameter.name() for parameter in core.parameters)
            # In float32 where JAX has no double precision (``jax_enable_x64``), as it reads NumPy's arrays.
            params = converted(names, params, OWN, jax.dlpack.from_dlpack)
        arrays = self._arrays(params)
        shapes = tuple(array.shape for array in arrays)
        try:
            batch = core.batch_shape(shapes)
        except ProgramError as error:
            if not any(isinstance(array, Tracer) for array in arrays):
                raise
            raise ProgramError(
                f"{error} Inside jax.vmap a parameter has the shape of one instance: see that in_axes is None for "
                "parameters that the batch shares."
            ) from None
        if core.logged and not any(isinstance(array, Tracer) for array in arrays):
            core.check([np.asarray(array, dtype=np.float64) for array in arrays])
        theta = _pack(arrays, shapes=core.shapes, logs=core.logs, batch=batch)
        flat = solve(theta, self._host, Options.of(solver_args, warm_start))
        return _split(flat, shapes=core.output_shapes, sizes=_sizes(core), exps=core.exps)

    def __repr__(self) -> str:
        return f"CvxpyLayer({in_words(self.core.facts())})"

    def _repr_html_(self) -> str:
        return in_html("CvxpyLayer (JAX)", self.core.facts(), last_call=self.last_report)

    def diagnose(self, *params: jax.typing.ArrayLike) -> Report | BatchReport:
        """Whether the implicit function theorem applies at these parameters; see `cvxift.diagnose`.

        Args:
            *params: as for a call, with values.

        Raises:
            ProgramError: a parameter is traced: a report needs values.
        """
        for parameter, value in zip(self.core.parameters, params, strict=False):
            if isinstance(value, Tracer):
                raise ProgramError(
                    f"Parameter '{parameter.name()}' is traced; a report needs its values. Call diagnose outside "
                    "jax.jit, jax.grad and jax.vmap."
                )
        return diagnose(self, *params)

    @property
    def last_report(self) -> CallReport | None:
        """Statistics of the last call that was computed: margins, residuals, conditioning; None before the first."""
        return self.core.last_report

    def _arrays(self, params: Sequence[Any]) -> list[jax.Array]:
        """The parameters as arrays of one floating dtype on one device."""
        if len(params) != len(self.core.parameters):
            self.core.batch_shape([jnp.shape(value) for value in params])  # which says how many it expects
        named = list(zip(map(called, self.core.parameters), params, strict=True))
        for name, value in named:
            if isinstance(value, bool) or not isinstance(value, OWN):
                raise refused(name, value, "a JAX or NumPy array", "jnp.asarray")
            if not (_is_number(value) or jnp.issubdtype(jnp.result_type(value), jnp.floating)):
                raise wrong_dtype(name, jnp.result_type(value), jnp.iscomplexobj(value), ".astype(float)")
        plain = [None if isinstance(value, jax.Array) else number(value) for _, value in named]
        arrays = [
            n if n is not None else value if isinstance(value, jax.Array) else jnp.asarray(value)
            for n, (_, value) in zip(plain, named, strict=True)
        ]
        strong = [
            (name, array)
            for (name, _), array in zip(named, arrays, strict=True)
            if isinstance(array, jax.Array) and not array.weak_type
        ]
        for name, array in strong:
            if array.dtype != strong[0][1].dtype:
                raise ProgramError(
                    f"Parameter '{name}' is {array.dtype}, but '{strong[0][0]}' is {strong[0][1].dtype}; give all "
                    f"parameters one dtype, for example with .astype({strong[0][1].dtype})."
                )
        self._one_device([(name, value) for name, value in named if isinstance(value, jax.Array)])
        dtype = strong[0][1].dtype if strong else jnp.result_type(float)
        return [
            array
            if isinstance(array, jax.Array) and array.dtype == dtype and not array.weak_type
            else jnp.asarray(array, dtype=dtype)
            for array in arrays
        ]

    @staticmethod
    def _one_device(named: Sequence[tuple[str, jax.Array]]) -> None:
        """Refuse values that were placed on different devices; JAX moves those that were not placed by the user."""
        first: tuple[str, frozenset[Any]] | None = None
        for name, array in named:
            if isinstance(array, Tracer) or not getattr(array, "committed", False):
                continue
            devices = frozenset(array.devices())
            if first is None:
                first = name, devices
            elif devices != first[1]:
                raise ProgramError(
                    f"Parameter '{name}' is on {_names(devices)}, but '{first[0]}' is on {_names(first[1])}; bring all "
                    "parameters to one device, or one sharding, with jax.device_put."
                )


def _is_number(value: Any) -> bool:
    """Whether it is a plain number, or was one before it was traced: it takes the dtype of the others."""
    if isinstance(value, jax.Array):
        return value.weak_type and jnp.issubdtype(value.dtype, jnp.integer)
    return number(value) is not None


def _names(devices: frozenset[Any]) -> str:
    return ", ".join(sorted(map(str, devices)))


def _static(solver_args: Mapping[str, Any] | None, **arguments: Any) -> None:
    """Refuse traced values where the solver needs numbers.

    Raises:
        ProgramError: names the argument.
    """
    named = {f"solver_args['{name}']": value for name, value in options_of(solver_args).items()}
    for name, value in {**named, **arguments}.items():
        if isinstance(value, Tracer):
            raise ProgramError(
                f"{name} is a traced value; it must be known when the function is traced. Give a Python number, or "
                "mark the argument that it comes from with static_argnames of jax.jit."
            )


def _sizes(core: LayerCore) -> tuple[int, ...]:
    return tuple(int(part.stop - part.start) for part in core.output_slices)


@partial(jax.jit, static_argnames=("shapes", "logs", "batch"), inline=True)
def _pack(arrays: Sequence[jax.Array], *, shapes: Shapes, logs: tuple[bool, ...], batch: tuple[int, ...]) -> jax.Array:
    """θ of shape (*batch, N): every parameter raveled in C order, its logarithm where it enters so, side by side."""
    parts = []
    for array, shape, log in zip(arrays, shapes, logs, strict=True):
        part = array.reshape(*array.shape[: array.ndim - len(shape)], math.prod(shape))
        parts.append(jnp.broadcast_to(jnp.log(part) if log else part, (*batch, part.shape[-1])))
    return jnp.concatenate(parts, axis=-1) if parts else jnp.zeros((*batch, 0))


@partial(jax.jit, static_argnames=("shapes", "sizes", "exps"), inline=True)
def _split(flat: jax.Array, *, shapes: Shapes, sizes: tuple[int, ...], exps: tuple[bool, ...]) -> tuple[jax.Array, ...]:
    """The outputs, each of shape (*batch, *shape), from their values side by side, shape (*batch, K)."""
    outputs, start = [], 0
    for shape, size, exp in zip(shapes, sizes, exps, strict=True):
        part = flat[..., start : start + size].reshape(*flat.shape[:-1], *shape)
        outputs.append(jnp.exp(part) if exp else part)
        start += size
    return tuple(outputs)
