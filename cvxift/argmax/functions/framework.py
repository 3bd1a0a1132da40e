"""What the public argmax functions need from an array framework: conversions, and maps with derivatives.

A framework is a module with these names. Maps act along the last axis (of plans and chains: the last two), on scores
that are checked and broadcast, and are differentiable to any order; `cvxift.argmax.derivatives` has the formulas.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from cvxift._types import Array
from cvxift.argmax.checks import Range
from cvxift.argmax.groups import Groups


class Framework(Protocol):
    """PyTorch or JAX."""

    xp: Any  # namespace of the array API standard
    DIM: str  # what an axis is called there
    KERNELS_LOOK: bool  # whether the maps' kernels see the values of traced arrays, and refuse bad ones themselves

    # Conversions.

    def is_number(self, value: Any) -> bool:
        """Whether an argument is a number, not an array."""
        ...

    def floating(self, name: str, x: Any, what: str = "scores") -> Array:
        """The argument as a floating array.

        Raises:
            ProgramError: its type is another.
        """
        ...

    def is_integer(self, x: Array) -> bool:
        """Whether an array holds integers."""
        ...

    def is_half(self, x: Array) -> bool:
        """Whether an array's dtype has 16 bits."""
        ...

    def array(self, value: Any, like: Array) -> Array:
        """A number or an array in the dtype, and on the device, of another array."""
        ...

    def integers(self, value: Any, like: Array) -> Array:
        """Integers, or whatever else it is, as an array on another's device."""
        ...

    def index(self, x: Array) -> Array:
        """Integers in a dtype that serves for indices."""
        ...

    def cast(self, x: Array, like: Array) -> Array:
        """An array in another's dtype."""
        ...

    def wider(self, x: Array) -> Array:
        """The array in float32 at least."""
        ...

    def widest(self, x: Array) -> Array:
        """The array in float64, where that is to be had."""
        ...

    def moveaxis(self, x: Array, source: int, destination: int) -> Array:
        """The array with one axis elsewhere."""
        ...

    def take(self, values: Array, index: Array) -> Array:
        """Values at the indices along the last axis, both of one shape but for that axis."""
        ...

    def sort(self, x: Array) -> tuple[Array, Array]:
        """The array in decreasing order along the last axis, and the order."""
        ...

    def sigmoid(self, x: Array) -> Array:
        """1/(1 + e^{−x})."""
        ...

    def arange(self, number: int, like: Array) -> Array:
        """0, 1, … in another array's dtype."""
        ...

    def constant(self, x: Array) -> Array:
        """The array without derivative."""
        ...

    # Values.

    def look(self, check: Callable[..., None], *arrays: Array) -> bool:
        """Run a check that reads values, and say whether there were any to read: traced arrays have none."""
        ...

    def visible(self, x: Array, /) -> bool:
        """Whether an array has values to look at."""
        ...

    def guarded(self, name: str, allowed: Range, value: Array) -> Array:
        """See `cvxift.argmax.checks.guarded`."""
        ...

    # Maps.

    def softmax(self, x: Array) -> Array:
        """Softmax, 0 in rows that are masked throughout."""
        ...

    def entmax(self, x: Array, alpha: Any) -> Array:
        """α-entmax; alpha is a float, or an array of x's rank with size one along the last axis."""
        ...

    def entmax_loss(self, theta: Array, y: Array, alpha: Any) -> Array:
        """Its Fenchel–Young loss at a target without derivative."""
        ...

    def budget(self, x: Array, total: Array, lower: Array, upper: Array) -> Array:
        """The projection onto {l ≤ z ≤ u, Σ z = total}; both bounds have x's shape, or size one along the last axis."""
        ...

    def capped_softmax(self, x: Array, upper: Array) -> Array:
        """Softmax under upper bounds of x's shape."""
        ...

    def segments(self, ids: Array, number: int) -> Groups:
        """Groups of entries by their ids; sums and spreading have derivatives."""
        ...

    def segment_entmax(self, x: Array, alpha: Any, ids: Array, number: int) -> Array:
        """α-entmax over groups of entries (N,); alpha is a float, or has one for each group."""
        ...

    def segment_loss(self, theta: Array, y: Array, alpha: Any, ids: Array, number: int) -> Array:
        """Its Fenchel–Young losses, one for each group."""
        ...

    def segment_budget(self, x: Array, total: Array, lower: Array, upper: Array, ids: Array, number: int) -> Array:
        """`budget` over groups of entries (N,), bounds for each, in float64 where that is to be had."""
        ...

    def eager(self, compute: Any, composed: Callable[[Array], Array], x: Array) -> Array:
        """A map in one call of NumPy where values can be seen and nothing traces it, or as the framework composes it.

        Args:
            compute: (NumPy array, whether the product will be asked for) ↦ result and vector-Jacobian product, or None
                if it has no answer.
            composed: the map in differentiable operations.
            x: the argument.
        """
        ...

    def permutahedron(self, s: Array, w: Array, regularizer: Any) -> Array:
        """The projection of s onto the permutahedron of w, both sorted decreasingly."""
        ...

    def permutahedron_loss(self, s: Array, z: Array, y: Array) -> Array:
        """See `cvxift.argmax.isotonic.loss`; without derivative."""
        ...

    def transport(
        self, x: Array, a: Array, b: Array, regularizer: Any, tol: float | None, limit: int
    ) -> tuple[Array, ...]:
        """The plan at unit temperature, and its level, without derivative."""
        ...

    def transport_loss(self, regularizer: Any, y: Array, z: Array, level: Array) -> Array:
        """See `cvxift.argmax.polytope.loss`; without derivative."""
        ...

    def envelope(self, x: Array, z: Array, y: Array, value: Array, axes: int) -> Array:
        """The value, with ∇ = z − y in x; z, of ``axes`` axes, is differentiated but in second derivatives."""
        ...

    def log_partition(self, u: Array, e: Array, real: Array) -> Array:
        """log Z of chains, transitions e for each position or (S, S) for all."""
        ...

    def marginals(self, u: Array, e: Array, real: Array) -> tuple[Array, ...]:
        """Marginals of the states and of the transitions."""
        ...

    def best_path(self, u: Array, e: Array, real: Array) -> tuple[Array, ...]:
        """The best path and its score, without derivative."""
        ...
