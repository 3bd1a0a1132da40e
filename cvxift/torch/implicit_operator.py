"""A function's Jacobian at plain tensors: products, and the matrix, for a batch of instances."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import array_api_compat.torch as xp
import torch

from cvxift.argmax.loops import while_loop
from cvxift.implicit.backend import Backend, Factor

Tensor = torch.Tensor

LOOPED = 2  # rows up to which a Jacobian is taken row by row: mapping the backward pass costs as much as so many


def _factor(kind: str, J: Tensor) -> Factor:
    if kind == "cholesky":
        L, info = torch.linalg.cholesky_ex(J)
        L = torch.where((info > 0)[..., None, None], torch.full_like(L, float("nan")), L)
        return lambda b, transposed: torch.cholesky_solve(b[..., None], L)[..., 0]
    LU, pivots, _ = torch.linalg.lu_factor_ex(J)
    if J.ndim == 2:  # any number of right-hand sides are columns of one
        return lambda b, transposed: torch.linalg.lu_solve(
            LU, pivots, b.reshape(-1, b.shape[-1]).mT, adjoint=transposed
        ).mT.reshape(b.shape)
    return lambda b, transposed: torch.linalg.lu_solve(LU, pivots, b[..., None], adjoint=transposed)[..., 0]


BACKEND = Backend(
    xp,
    while_loop,
    _factor,
    lambda array, like: torch.as_tensor(array, dtype=like.dtype, device=like.device),
    True,
    lambda array: array.device,
)


class Jacobian:
    """∂f/∂x at a point, shape (*batch, n, n) as a matrix; see `cvxift.implicit.backend.Operator`.

    Args:
        function: x of shape (*batch, n) ↦ value of that shape, each instance of its own entries.
        x: the point, a plain tensor.
        structured: (a user's callable, operator, vectors) ↦ vectors; calls it on x's structure.
        symmetric: whether ∂f/∂x is symmetric by construction.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], x: Tensor, structured: Any, symmetric: bool) -> None:
        self.symmetric, self._structured = symmetric, structured
        self._slope: tuple[Tensor, Tensor] | None = None
        self._dense: Tensor | None = None
        with torch.enable_grad():
            self.x = x.detach().requires_grad_()
            self.value = function(self.x)

    def rmatvec(self, v: Tensor) -> Tensor:
        """Jᵀ v."""
        return self._pull(self.value, self.x, v)

    def matvec(self, v: Tensor) -> Tensor:
        """J v: the derivative of u ↦ Jᵀu, twice backward."""
        if self.symmetric:
            return self.rmatvec(v)
        if self._slope is None:
            with torch.enable_grad():
                u = torch.zeros_like(self.x, requires_grad=True)
                self._slope = u, self._gradient(self.value, self.x, u, create_graph=True)
        u, slope = self._slope
        return self._pull(slope, u, v)

    def dense(self) -> Tensor:
        """J, its rows one backward pass each; kept."""
        if self._dense is None:
            self._dense = self._matrix()
        return self._dense

    def _matrix(self) -> Tensor:
        n = self.x.shape[-1]
        batch = self.x.shape[:-1]
        eye = torch.eye(n, dtype=self.x.dtype, device=self.x.device)
        rows = eye.reshape(n, *[1] * len(batch), n).expand(n, *batch, n)
        if n <= LOOPED:
            return torch.stack([self.rmatvec(row) for row in rows.unbind(0)], dim=-2)
        return self.rmatvec(rows).movedim(0, -2)

    def call(self, function: Callable[..., Any], b: Tensor) -> Tensor:
        """A user's linear solver."""
        return self._structured(function, self, b)

    def precondition(self, function: Callable[[Any], Any], v: Tensor) -> Tensor:
        """A user's preconditioner."""
        return self._structured(function, None, v)

    @property
    def T(self) -> Transposed:
        """The transposed operator."""
        return Transposed(self)

    def _pull(self, value: Tensor, x: Tensor, v: Tensor) -> Tensor:
        extra = v.ndim - self.x.ndim
        if not extra:
            return self._gradient(value, x, v)
        flat = v.reshape(-1, *self.x.shape)
        return self._gradient(value, x, flat, is_grads_batched=True).reshape(v.shape)

    def _gradient(self, value: Tensor, x: Tensor, v: Tensor, **options: Any) -> Tensor:
        lead = v.shape[:1] if options.get("is_grads_batched") else ()
        if not value.requires_grad:
            return torch.zeros((*lead, *x.shape), dtype=x.dtype, device=x.device)
        (grad,) = torch.autograd.grad(value, x, v, retain_graph=True, allow_unused=True, **options)
        return torch.zeros((*lead, *x.shape), dtype=x.dtype, device=x.device) if grad is None else grad


class Transposed:
    """The transpose of a Jacobian."""

    def __init__(self, of: Jacobian) -> None:
        self.of, self.symmetric = of, of.symmetric

    def matvec(self, v: Tensor) -> Tensor:
        """Jᵀ v."""
        return self.of.rmatvec(v)

    def rmatvec(self, v: Tensor) -> Tensor:
        """J v."""
        return self.of.matvec(v)

    def dense(self) -> Tensor:
        """Jᵀ."""
        return self.of.dense().mT

    def call(self, function: Callable[..., Any], b: Tensor) -> Tensor:
        """A user's linear solver."""
        return self.of._structured(function, self, b)

    def precondition(self, function: Callable[[Any], Any], v: Tensor) -> Tensor:
        """A user's preconditioner."""
        return self.of.precondition(function, v)


def structured_by(layout: Any) -> Callable[[Callable[..., Any], Any, Tensor], Tensor]:
    """Calls of a user's function on x's structure, one instance after another.

    Args:
        layout: x's, with `unravel` and `matching`.
    """

    def call(function: Callable[..., Any], operator: Any, vectors: Tensor) -> Tensor:
        flat = vectors.reshape(-1, vectors.shape[-1])
        out = []
        for i in range(flat.shape[0]):
            if operator is None:
                found = function(layout.unravel(flat[i]))
            else:
                found = function(_one(layout, operator, vectors, i), layout.unravel(flat[i]))
            out.append(layout.matching("What the linear solver returned", found))
        return torch.stack(out).reshape(vectors.shape)

    return call


def _one(layout: Any, operator: Any, vectors: Tensor, i: int) -> Callable[[Any], Any]:
    """The product of one instance of a batch, on x's structure."""

    def matvec(v: Any) -> Any:
        flat = torch.zeros_like(vectors).reshape(-1, vectors.shape[-1])
        flat[i] = layout.matching("A vector given to matvec", v)
        return layout.unravel(operator.matvec(flat.reshape(vectors.shape)).reshape(flat.shape)[i])

    return matvec
