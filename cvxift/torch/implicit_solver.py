"""The user's solver: any code, run once and untracked, whose answer becomes plain tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from cvxift.errors import ProgramError, SolveError
from cvxift.torch.closures import wrapped
from cvxift.torch.implicit_rule import Constant, first
from cvxift.torch.tensors import mapped
from cvxift.torch.trees import flatten, unflatten

Tensor = torch.Tensor


class Runner:
    """One call of a solver.

    Args:
        solver: (*theta) ↦ x, or (x, aux), or ((x, multipliers), aux).
        rebuild: tensors of θ ↦ the arguments.
        init: warm start, or None.
        with_grad: whether gradient mode is on while the solver runs.
        like: dtype and device of what the solver returns as NumPy arrays or numbers.
    """

    def __init__(
        self,
        solver: Callable[..., Any],
        rebuild: Callable[[Sequence[Tensor]], tuple[Any, ...]],
        init: Any,
        with_grad: bool,
        like: Tensor,
    ) -> None:
        self.solver, self.rebuild, self.init, self.with_grad, self.like = solver, rebuild, init, with_grad, like
        self.structure: tuple[list[str], list[Any], Any] | None = None

    def __call__(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The tensors among the leaves of what the solver returns; `result` puts them back."""
        options = {} if self.init is None else {"init": self.init}
        theta = self.rebuild(tensors)
        try:
            with torch.set_grad_enabled(self.with_grad):
                answer = self.solver(*theta, **options)
        except RuntimeError as error:
            if self.with_grad or "does not require grad" not in str(error):
                raise
            self.with_grad = True  # a solver that differentiates inside, such as torch.optim.LBFGS
            with torch.enable_grad():
                answer = self.solver(*theta, **options)
        names, leaves, spec = flatten("x", answer)
        leaves = [self._tensor(leaf) for leaf in leaves]
        out = tuple(leaf for leaf in leaves if isinstance(leaf, Tensor))
        self.structure = names, [None if isinstance(leaf, Tensor) else (leaf,) for leaf in leaves], spec
        return out

    def _tensor(self, leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            return leaf.detach()
        if isinstance(leaf, np.ndarray | np.generic):
            found = torch.as_tensor(np.array(leaf), device=self.like.device)
            return found.to(self.like.dtype) if found.is_floating_point() else found
        if isinstance(leaf, float):
            return torch.tensor(leaf, dtype=self.like.dtype, device=self.like.device)
        if isinstance(leaf, complex):
            return torch.tensor(leaf)
        return leaf

    def result(self, tensors: Sequence[Tensor]) -> Any:
        """What the solver returned, with these tensors as its leaves."""
        assert self.structure is not None  # after a call
        _, constants, spec = self.structure
        rest = iter(tensors)
        return unflatten([next(rest) if leaf is None else leaf[0] for leaf in constants], spec)


class _Run(Constant):
    """The solver, where tensors are wrapped by a transform; its inputs are detached."""

    @staticmethod
    def forward(runner: Runner, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Run it."""
        out = runner(tensors)
        taken = {id(t) for t in tensors}
        return tuple(t.clone() if id(t) in taken else t for t in out)

    @staticmethod
    # Named arguments for the base's *args.
    def vmap(info: Any, in_dims: Any, runner: Runner, *tensors: Tensor) -> Any:  # type: ignore[override]
        """One call an instance: solvers are any code."""
        rows = [first(info.batch_size, dim, t) for t, dim in zip(tensors, in_dims[1:])]
        answers = []
        for i in range(info.batch_size):
            answers.append(_Run.apply(runner, *(row[i] for row in rows)))
        if not answers:
            raise ProgramError("A batch of no instances tells no shape of x; call with at least one.")
        for answer in answers[1:]:
            if [t.shape for t in answer] != [t.shape for t in answers[0]]:  # type: ignore[union-attr]
                raise ProgramError("The solver returned x of different shapes for instances of one batch.")
        out = tuple(torch.stack(parts) for parts in zip(*answers))  # type: ignore[arg-type]
        return out, (0,) * len(out)


def run(runner: Runner, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Run a solver on tensors at any level of transforms.

    Raises:
        SolveError: what it returned is mapped although no parameter is.
    """
    detached = [t.detach() for t in tensors]
    if any(map(wrapped, detached)):
        out = _Run.apply(runner, *detached)
    else:
        out = runner(detached)
        if any(mapped(t) for t in out) and not any(mapped(t) for t in tensors):
            raise SolveError("The solver closes over a tensor that torch.func.vmap maps. Pass it as an argument.")
    return tuple(t.detach() for t in out)  # type: ignore[union-attr]
