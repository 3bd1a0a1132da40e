"""`CvxpyLayer`: a CVXPY problem as a differentiable PyTorch module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any, cast

import cvxpy as cp
import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd import forward_ad

from cvxift.argmax.closed_form.closed_map import ClosedForm
from cvxift.diagnostics import BatchReport, Report, diagnose
from cvxift.diagnostics.call_check import CallReport
from cvxift.errors import ProgramError
from cvxift.kkt.policy import Check, Integers, Iterative, LinearSolver, Policy, Singular
from cvxift.kkt.solution_map import OnFailure
from cvxift.layers.cores import core_of
from cvxift.layers.description import in_html, in_words
from cvxift.layers.interop import Exchanged, converted
from cvxift.layers.solve_cache import Host, Options
from cvxift.torch.complex_parts import joined, split
from cvxift.torch.device import OnDevice, Residence
from cvxift.torch.form import Form
from cvxift.torch.function import Solve, packed, separated
from cvxift.torch.operators import encoded, register
from cvxift.torch.source import Source, to_numpy
from cvxift.torch.traced import (
    PLAIN,
    checked,
    exponentials,
    logarithms,
    opaque,
    tensors_taken,
    through_operator,
)


class CvxpyLayer(torch.nn.Module):
    """Solves a parametrized CVXPY problem; differentiates its solution by the implicit function theorem.

    Constructor and call are those of cvxpylayers' layer. Inputs may have leading batch dimensions, the same for all, or
    none where a parameter is shared by the batch; the outputs have the inputs' floating dtype and device, and are
    computed in float64.

    Args:
        problem: a DPP problem (for ``gp=True`` a DGP one).
        parameters: all the problem's parameters, in the order of the call's tensors.
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
        mu: the central path's parameter under ``"smooth"``.
        linear_solver: ``"auto"``, ``"direct"``, ``"iterative"``, or `cvxift.Iterative` options for the matrix-free
            path.
        on_failure: ``"raise"`` a `SolveError` that carries the instances that were solved, or return ``"nan"`` for the
            others with zero gradients.
        check: where the solution map has no derivative at a solution, such as on a kink, where the gradient is one of
            several: ``"warn"`` with the cause, once for each solution and mode of differentiation; ``"raise"`` an
            `ApplicabilityError`; or ``"off"``.
        closed_form: ``"auto"``: a problem that is an argmax with a known closed form takes it, unless a solver, its
            options or another policy are named; ``"never"``: the solver and the KKT system. See docs/argmax.md.
        on_device: where a call is computed: ``"auto"`` (CUDA tensors on their device, for quadratic programs of
            moderate size), ``"always"`` (on the tensors' device, or an error), ``"never"`` (on the host); see
            docs/devices.md.

    Raises:
        ProgramError: the problem is not DPP, has integer variables without ``integers="fixed"``, or an argument cannot
            be used.

    Source: Amos & Kolter 2017; Agrawal et al. 2019 (the layer); the derivative: docs/mathematics.md.

    Example:
        >>> import cvxpy as cp, numpy as np, torch
        >>> from cvxift.torch import CvxpyLayer
        >>> x, target = cp.Variable(3), cp.Parameter(3)
        >>> problem = cp.Problem(cp.Minimize(cp.sum_squares(x - target)), [cp.sum(x) == 1, x >= 0])
        >>> layer = CvxpyLayer(problem, parameters=[target], variables=[x])
        >>> t = torch.tensor([0.5, 0.4, -1.0], dtype=torch.float64, requires_grad=True)
        >>> (z,) = layer(t)
        >>> np.round(z.detach().numpy(), 6) + 0.0
        array([0.55, 0.45, 0.  ])
        >>> z[0].backward()
        >>> np.round(t.grad.numpy(), 6) + 0.0
        array([ 0.5, -0.5,  0. ])
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
        on_device: OnDevice = "auto",
    ) -> None:
        super().__init__()
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
        self._on_device: OnDevice = on_device
        self._attach(Host(self.core))

    def _attach(self, host: Host) -> None:
        self._host, self._key = host, register(host)
        self._source = Source(host, Options(), self._key)
        self._residence = host.residence = Residence(self.core, self._on_device)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        del state["_host"], state["_key"], state["_source"], state["_residence"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._attach(Host(self.core))

    def forward(
        self,
        *params: Exchanged | float,
        solver_args: Mapping[str, Any] | None = None,
        warm_start: bool = False,
        from_dlpack: bool = False,
    ) -> tuple[torch.Tensor, ...]:
        """Solve at the given parameters.

        Args:
            *params: a tensor for each parameter, of the parameter's shape with any leading batch dimensions; a
                Python number or 0-d array, as a constant, for a scalar parameter. Sparse tensors are taken as dense
                ones; their gradients are sparse, with their own pattern.
            solver_args: options for this call, over those of the constructor.
            warm_start: start from the previous call's solutions, where the solver can make use of them.
            from_dlpack: take arrays of other libraries (NumPy, JAX, CuPy) as well, by DLPack, as constants.

        Returns:
            The requested variables, each of shape ``(batch…, *variable.shape)``.

        Raises:
            ProgramError: a tensor is missing, has a wrong shape, dtype, device or value; says which parameter.
            SolveError: an instance could not be solved; says which and why, and carries the others.
        """
        if self.core.parts is not None:
            real = self._solved(split(self.core.parts, params), solver_args, warm_start, from_dlpack)
            return joined(self.core.parts, real)
        return self._solved(params, solver_args, warm_start, from_dlpack)

    def _solved(
        self, params: tuple[Any, ...], solver_args: Mapping[str, Any] | None, warm_start: bool, from_dlpack: bool
    ) -> tuple[torch.Tensor, ...]:
        """`forward` for real tensors."""
        core, source = self.core, self._source
        recording = torch.compiler.is_compiling() or (
            (_MODES() > 0 or _TRACED() is not None)  # as `tensors.recorded`, without a step into its file
            and not _transformed()
        )
        if recording or not _plain(params):
            if not all(isinstance(p, torch.Tensor) and p.layout is torch.strided for p in params):
                params = tensors_taken(params)
            if from_dlpack:
                names = (parameter.name() for parameter in core.parameters)
                params = converted(names, params, torch.Tensor, torch.from_dlpack)
            first = params[0] if params else None
            if recording or isinstance(first, FakeTensor) or (isinstance(first, torch.Tensor) and first.is_meta):
                options = encoded(Options.of(solver_args, warm_start)) if solver_args or warm_start else PLAIN
                if torch.compiler.is_dynamo_compiling():
                    return opaque(self._key, options, *params)
                return through_operator(core, self._key, options, params)
            params = checked(core, params)
        tensors = cast(tuple[torch.Tensor, ...], params)
        if solver_args or warm_start:
            source = Source(source.host, Options.of(solver_args, warm_start), source.key)
        transformed = _transformed()
        if core.logged:
            if not transformed:  # there, the host checks what it is given
                core.check([to_numpy(p) for p in tensors])
            tensors = logarithms(core, tensors)
        there = self._residence
        if transformed or (tensors and there.open and (there.anywhere or tensors[0].is_cuda)):
            try:
                theta = packed(core, tensors)
            except ProgramError as error:
                hint = " Under vmap, a shape is one instance's: check in_dims." if transformed else ""
                raise ProgramError(f"{error}{hint}") from None
            outputs = separated(core, Form.apply(source, False, theta))  # type: ignore[arg-type]
        else:
            differentiated = torch.is_grad_enabled() and any(map(_REQUIRES_GRAD, tensors))
            outputs = Solve.apply(source, differentiated, *tensors)  # type: ignore[assignment]  # torch leaves it untyped
        return exponentials(core, outputs) if core.exponential else tuple(outputs)

    def extra_repr(self) -> str:
        """What `repr` shows between the parentheses."""
        return in_words(self.core.facts())

    def _repr_html_(self) -> str:
        return in_html("CvxpyLayer (PyTorch)", self.core.facts(), last_call=self.last_report)

    if TYPE_CHECKING:  # torch.nn.Module types the call as Any

        def __call__(
            self,
            *params: Exchanged | float,
            solver_args: Mapping[str, Any] | None = None,
            warm_start: bool = False,
            from_dlpack: bool = False,
        ) -> tuple[torch.Tensor, ...]:
            """As `forward`."""
            ...

    def diagnose(self, *params: Exchanged | float) -> Report | BatchReport:
        """Whether the implicit function theorem applies at these parameters; see `cvxift.diagnose`.

        Args:
            *params: as for a call.
        """
        return diagnose(self, *params)

    @property
    def last_report(self) -> CallReport | None:
        """Statistics of the last call: margins, residuals, conditioning; None before the first."""
        return self.core.last_report


def _transformed() -> bool:
    """Whether `torch.func` transforms the call, or forward mode is recorded: autograd functions have rules for both."""
    if torch._C._are_functorch_transforms_active():  # pyright: ignore[reportAttributeAccessIssue]
        return True
    return forward_ad._current_level >= 0 and _MODES() > 0  # an operator would drop tangents without a word


def _plain(params: Sequence[Any]) -> bool:
    """Whether all are dense tensors with values, of one floating dtype and device: what nearly every call is given."""
    if not params or params[0].__class__ not in _PLAIN_TENSORS:
        return False
    dtype, device = params[0].dtype, params[0].device
    if not (dtype is torch.float64 or dtype is torch.float32) or device.type == "meta":
        return False
    for p in params:
        if p.__class__ not in _PLAIN_TENSORS or p.dtype is not dtype or p.device != device or p.layout is not _STRIDED:
            return False
    return True


_PLAIN_TENSORS, _STRIDED = (torch.Tensor, torch.nn.Parameter), torch.strided
_MODES, _TRACED = torch._C._len_torch_dispatch_stack, torch._C._get_tracing_state
_REQUIRES_GRAD = attrgetter("requires_grad")


def from_cvxpylayers(layer: Any, **options: Any) -> CvxpyLayer:
    """A layer of the same problem, parameters, variables and options as one of `cvxpylayers.torch`.

    The solver is carried over if it was named; diffcp, which is cvxpylayers' default, leaves the choice to cvxift.

    Args:
        layer: a ``cvxpylayers.torch.CvxpyLayer``, or one of ``cvxpylayers.jax``.
        **options: arguments of `CvxpyLayer` to set or replace, such as ``check="raise"``.

    Returns:
        The layer; it does not share anything with the given one but the CVXPY problem.

    Raises:
        ProgramError: it is no layer of cvxpylayers, or one of before version 1.0; or as for `CvxpyLayer`.

    Example:
        >>> import cvxpy as cp, torch
        >>> from cvxpylayers.torch import CvxpyLayer as Theirs  # doctest: +SKIP
        >>> x, t = cp.Variable(2), cp.Parameter(2)
        >>> problem = cp.Problem(cp.Minimize(cp.sum_squares(x - t)), [x >= 0])
        >>> layer = from_cvxpylayers(Theirs(problem, [t], [x]))  # doctest: +SKIP
        >>> layer(torch.tensor([1.0, -1.0]))  # doctest: +SKIP
        (tensor([1., 0.]),)
    """
    context = getattr(layer, "ctx", None)
    problem = getattr(context, "problem", None)
    if context is None or not isinstance(problem, cp.Problem):
        raise ProgramError(
            f"Expected a layer of cvxpylayers 1.0 or newer, which knows its problem; got {type(layer).__name__}. Build "
            "a cvxift.torch.CvxpyLayer from the problem, its parameters and variables."
        )
    known = {"gp": context.gp, "solver": _solver(context.solver)}
    args = getattr(context.solver_ctx, "options", None)
    if args:
        known["solver_args"] = dict(args)
    return CvxpyLayer(problem, context.parameters, context.variables, **{**known, **options})


def _solver(solver: Any) -> str | None:
    """A solver's name as it was given; None for an object, which has no counterpart here."""
    return solver if isinstance(solver, str) else None
