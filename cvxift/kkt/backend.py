"""Where a batch's arrays live: a namespace of the array API standard, a device, and the few steps that it lacks.

The batched mathematics is written on the standard alone. What the standard has no word for is a method here: moving
values between this place and the host, a factorization that is used again, and a constant sparse map. `Arrays` has them
for any namespace, `HostArrays` for NumPy; an adapter may bring its framework's own.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import array_api_compat
import numpy as np
import scipy.sparse as sp
from scipy.linalg import lapack

from cvxift.kkt.sparse_affine import Gather
from cvxift.program.affine import AffineMap
from cvxift.program.structure import Floats
from cvxift.solvers.base import Status

if TYPE_CHECKING:
    from cvxift.kkt.batch.programs import DensePrograms
    from cvxift.kkt.engine import Engine

KEEP_FACTORS = 48  # size of NumPy's matrices from which a call of LAPACK for each costs little beside its work

_lapack: Any = lapack  # its functions are made at import, unseen by type checkers

Array: TypeAlias = Any  # an array of the place's namespace


class Factor(abc.ABC):
    """Factorizations of a batch of square matrices K, shape (B, N, N).

    Args:
        xp: the namespace of the arrays.
        K: the matrices.
    """

    def __init__(self, xp: Any, K: Array) -> None:
        self.xp, self.K = xp, K

    @abc.abstractmethod
    def solve(self, f: Array) -> Array:
        """K⁻¹ f of each, shapes (B, N, k); not finite, or no solution, where K is singular: callers check."""

    def growth(self) -> Array:
        """‖K⁻¹r‖∞ for a fixed r with ‖r‖∞ ≤ 1, shape (B,): large where K is singular.

        r has no special direction; a caller's own right-hand side may have no part along K's null vectors.
        """
        xp, (B, N, _) = self.xp, self.K.shape
        r = xp.broadcast_to(probe(xp, N, array_api_compat.device(self.K))[:, None], (B, N, 1))
        return xp.max(xp.abs(self.solve(r)), axis=(-1, -2))


def probe(xp: Any, size: int, device: Any = None) -> Array:
    """The r of `Factor.growth`, shape (size,)."""
    return xp.cos(1.7 * xp.arange(1, size + 1, dtype=xp.float64, device=device) ** 2)


class DeviceSolver(Protocol):
    """A solver that takes and returns arrays of the place itself."""

    name: str

    def solve(self, programs: DensePrograms) -> tuple[Array, Array, Sequence[Status]]:
        """x (B, n), v = s − y (B, m), and how each instance ended."""
        ...


class Arrays:
    """Arrays of one namespace on one device, in float64.

    Args:
        xp: a namespace of the array API standard (2023.12), wrapped by array-api-compat where it needs to be.
        device: as the namespace names it; None for its default.

    Attributes:
        reads_freely: whether the host may look at a value without waiting for the device.

    Example:
        >>> import numpy as np
        >>> place = Arrays(np)
        >>> place.host(place.put(np.array([1.0, 2.0])))
        array([1., 2.])
    """

    reads_freely = False

    def __init__(self, xp: Any, device: Any = None) -> None:
        self.xp, self.device = xp, device

    def put(self, values: np.ndarray) -> Array:
        """Host values as an array of this place: one transfer."""
        return self.xp.asarray(values, device=self.device)

    def fetch(self, array: Array) -> Callable[[], np.ndarray]:
        """Start to copy an array to the host; the function returned waits for it.

        The copy is started before anything that is asked of the device next, so that both sides work meanwhile.
        """
        return lambda: np.asarray(array)

    def host(self, array: Array) -> np.ndarray:
        """An array's values on the host: one transfer, waited for."""
        return self.fetch(array)()

    def token(self, array: Array) -> Any:
        """What tells an array's values from others' as long as both are kept; by default its bytes, one transfer."""
        return self.host(array).tobytes()

    def factor(self, K: Array) -> Factor:
        """Factorizations of K, shape (B, N, N), to be used any number of times.

        Here they are the standard's `linalg.solve`, for namespaces where one singular matrix spoils its own solution
        alone, as JAX's; others bring their own.
        """
        return _Solved(self.xp, K)

    def affine(self, matrix: sp.csr_array, constant: Floats | None = None) -> Callable[[Array], Array]:
        """The constant map v ↦ c + Mv on vectors along the last axis, (..., N) to (..., K)."""
        return Gather(self, matrix, constant)

    def sums(self, index: np.ndarray, size: int) -> Callable[[Array], Array]:
        """The map from values (..., entries) to the sums of those that share an index, shape (..., size)."""
        count = len(index)
        return self.affine(sp.csr_array((np.ones(count), (index, np.arange(count))), shape=(size, count)))

    def solver(self, engine: Engine, solver: str | None, solver_args: Mapping[str, Any] | None) -> DeviceSolver | None:
        """A solver for batches of the engine's condensed programs that runs on this place; None if there is none.

        Args:
            engine: the programs' engine.
            solver: the name that the call asks for, if it does.
            solver_args: the call's options.
        """
        return None

    def zeros(self, *shape: int) -> Array:
        """Zeros of this place."""
        return self.xp.zeros(shape, dtype=self.xp.float64, device=self.device)


class HostArrays(Arrays):
    """NumPy's arrays: nothing to move, LAPACK's factors, SciPy's sparse products."""

    reads_freely = True

    def __init__(self) -> None:
        super().__init__(array_api_compat.array_namespace(np.zeros(0)))

    def put(self, values: np.ndarray) -> np.ndarray:
        """The values themselves."""
        return values

    def fetch(self, array: np.ndarray) -> Callable[[], np.ndarray]:
        """The array itself."""
        return lambda: array

    def token(self, array: Any) -> bytes:
        """The bytes of the values in double precision."""
        return np.ascontiguousarray(array, dtype=np.float64).tobytes()

    def factor(self, K: np.ndarray) -> Factor:
        """LAPACK's factors, kept where the matrices are large enough for that to pay."""
        return (_HostFactor if K.shape[-1] >= KEEP_FACTORS else _HostSolve)(self.xp, K)

    def affine(self, matrix: sp.csr_array, constant: Floats | None = None) -> Callable[[Floats], Floats]:
        """The constant map v ↦ c + Mv along the last axis."""
        return AffineMap(matrix, constant)

    def sums(self, index: np.ndarray, size: int) -> Callable[[Floats], Floats]:
        """The sums of the values, shape (..., entries), that share an index, shape (..., size)."""
        return partial(_sums, index, size)

    def __reduce__(self) -> str:
        """`HOST` itself: a namespace is not pickled."""
        return "HOST"


HOST = HostArrays()


def _sums(index: np.ndarray, size: int, values: Floats) -> Floats:
    bincount: Any = np.bincount  # its stub leaves the weights' dtype out
    if not len(index):  # of which bincount makes integers
        return np.zeros((*values.shape[:-1], size))
    if values.ndim == 1:
        return bincount(index, weights=values, minlength=size)
    count = math.prod(values.shape[:-1])
    where = index + size * np.arange(count)[:, None]
    return bincount(where.ravel(), weights=values.ravel(), minlength=count * size).reshape(*values.shape[:-1], size)


class _Solved(Factor):
    """A namespace that solves, but keeps no factors."""

    def solve(self, f: Array) -> Array:
        """K⁻¹ f."""
        return self.xp.linalg.solve(self.K, f)


class _HostSolve(Factor):
    """NumPy's batched solve, which keeps no factors: for small matrices that is faster than a loop over LAPACK's.

    Every solve has r as one more right-hand side, which costs little beside the factorization. The results must not
    depend on whether a matrix is solved for the first time, to the last bit.
    """

    _growth: Floats | None = None

    def solve(self, f: Floats) -> Floats:
        """K⁻¹ f; any vector where K is exactly singular."""
        B, N, k = f.shape
        both = np.empty((B, N, k + 1))
        both[..., :k], both[..., k] = f, _host_probe(N)
        try:
            u = np.linalg.solve(self.K, both)
        except np.linalg.LinAlgError:  # one exactly singular matrix makes NumPy refuse all: it is replaced by I
            sign, _ = np.linalg.slogdet(self.K)
            u = np.linalg.solve(np.where((sign == 0.0)[:, None, None], np.eye(N), self.K), both)
            u[sign == 0.0] = np.inf
        self._growth = np.abs(u[..., k]).max(axis=-1)
        return u[..., :k]  # pyright: ignore[reportReturnType]  # float64, which the stub forgets

    def growth(self) -> Floats:
        """‖K⁻¹r‖∞."""
        if self._growth is None:
            self.solve(np.zeros((*self.K.shape[:2], 0)))
        assert self._growth is not None
        return self._growth


class _HostFactor(Factor):
    """LAPACK's factors of each matrix."""

    def __init__(self, xp: Any, K: Floats) -> None:
        super().__init__(xp, K)
        # LAPACK reads a row-major K as Kᵀ without copying; the solve transposes back.
        self._factors = [_lapack.dgetrf(matrix.T) for matrix in K]

    def solve(self, f: Floats) -> Floats:
        """K⁻¹ f; infinite where K is exactly singular."""
        out = np.empty_like(f)
        for i, (lu, pivots, info) in enumerate(self._factors):
            out[i] = np.inf if info > 0 else _lapack.dgetrs(lu, pivots, f[i], trans=1)[0]
        return out


@lru_cache(maxsize=64)
def _host_probe(size: int) -> Floats:
    return probe(HOST.xp, size)
