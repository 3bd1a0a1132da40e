"""How J y = b is solved: option classes, and the table of their names.

J is the Jacobian ∂F/∂x or its transpose. A class says which method and with what limits; it holds no state, so that one
object may serve many functions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from cvxift.errors import ProgramError

Preconditioner = Callable[[Any], Any]  # v ↦ M⁻¹v, of x's structure; the same one serves J and Jᵀ

DENSE = 500  # unknowns up to which "auto" forms the Jacobian: n products and n³ operations are then milliseconds


@dataclass(frozen=True)
class LinearSolver:
    """What all methods share.

    Attributes:
        name: under which the table has it.
        exact: whether the method aims at the solution; otherwise at an approximation whose error is by design.
    """

    name: ClassVar[str] = ""
    exact: ClassVar[bool] = True


@dataclass(frozen=True)
class LU(LinearSolver):
    """Gaussian elimination of the Jacobian, which is formed: exact, any Jacobian, up to some thousand unknowns."""

    name: ClassVar[str] = "lu"


@dataclass(frozen=True)
class Cholesky(LinearSolver):
    """Cholesky factorization of the Jacobian, which must be symmetric and positive definite; refuses others."""

    name: ClassVar[str] = "cholesky"


@dataclass(frozen=True)
class Iterative(LinearSolver):
    """A method that needs products with the Jacobian only.

    Args:
        tolerance: relative residual ‖b − J y‖ / ‖b‖ at which it stops; by default 1e-10, or what the dtype can reach.
        max_iterations: limit; by default 10 times the number of unknowns.
        preconditioner: v ↦ M⁻¹v with M near J, symmetric for CG; v has x's structure.
    """

    tolerance: float | None = None
    max_iterations: int | None = None
    preconditioner: Preconditioner | None = None

    def __post_init__(self) -> None:
        if self.tolerance is not None and not 0.0 < self.tolerance < 1.0:
            raise ProgramError(f"{type(self).__name__} got tolerance = {self.tolerance}; it must lie in (0, 1).")
        if self.max_iterations is not None and self.max_iterations < 1:
            raise ProgramError(f"{type(self).__name__} got max_iterations = {self.max_iterations}; it must be >= 1.")


@dataclass(frozen=True)
class CG(Iterative):
    """Conjugate gradients (Hestenes & Stiefel 1952): symmetric positive definite Jacobians, as of minimizers."""

    name: ClassVar[str] = "cg"


@dataclass(frozen=True)
class NormalCG(Iterative):
    """Conjugate gradients on JᵀJ y = Jᵀb: any Jacobian that is well conditioned, whose condition it squares."""

    name: ClassVar[str] = "normal_cg"


@dataclass(frozen=True)
class GMRES(Iterative):
    """Restarted GMRES (Saad & Schultz 1986): any Jacobian.

    Args:
        restart: products between restarts; as many vectors are kept.
    """

    name: ClassVar[str] = "gmres"
    restart: int = 30

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.restart < 1:
            raise ProgramError(f"GMRES got restart = {self.restart}; it must be >= 1.")


@dataclass(frozen=True)
class BiCGStab(Iterative):
    """BiCGStab (van der Vorst 1992): any Jacobian, with seven vectors; may break down."""

    name: ClassVar[str] = "bicgstab"


@dataclass(frozen=True)
class LSMR(Iterative):
    """LSMR (Fong & Saunders 2011): any Jacobian; of a singular one the least-squares solution of minimum norm."""

    name: ClassVar[str] = "lsmr"


@dataclass(frozen=True)
class Neumann(LinearSolver):
    """Truncated Neumann series  y = α Σₖ (I − αJ)ᵏ b,  k = 0 … terms − 1 (Lorraine, Vicol & Duvenaud 2020).

    Args:
        terms: how many terms.
        scale: α; for a fixed point 1 makes I − αJ the iteration's own derivative, otherwise α < 2/‖J‖ is needed.
    """

    name: ClassVar[str] = "neumann"
    exact: ClassVar[bool] = False
    terms: int = 10
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.terms < 1:
            raise ProgramError(f"Neumann got terms = {self.terms}; it must be >= 1.")


@dataclass(frozen=True)
class Identity(LinearSolver):
    """y = α b: the Jacobian is taken for I/α, the "one-step" derivative of a fast iteration (Bolte et al. 2023).

    Args:
        scale: α.
    """

    name: ClassVar[str] = "identity"
    exact: ClassVar[bool] = False
    scale: float = 1.0


@dataclass(frozen=True)
class Nystrom(LinearSolver):
    """Randomized Nyström approximation of a symmetric positive semidefinite J, of low rank, inverted with damping.

    For Jacobians of low numerical rank, such as the curvature of a large model: directions beyond the rank are divided
    by ρ. Where the spectrum is flat that is worse than nothing, which is told.

    Args:
        rank: products spent; from the number of unknowns on, only the damping separates the result from the exact one.
        damping: ρ > 0 in (J + ρI) y = b, relative to the largest eigenvalue that is found.
        seed: of the sketch.

    Source: Frangella, Tropp & Udell 2023, Randomized Nyström preconditioning; as inverse: Hataya & Yamada 2023.
    """

    name: ClassVar[str] = "nystrom"
    exact: ClassVar[bool] = False
    rank: int = 20
    damping: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rank < 1 or not self.damping > 0.0:
            raise ProgramError(f"Nystrom got rank = {self.rank}, damping = {self.damping}; expected >= 1 and > 0.")


@dataclass(frozen=True)
class Custom(LinearSolver):
    """The user's own method.

    Args:
        function: (matvec, b) ↦ y with J y ≈ b; b, y and what matvec takes have x's structure. In reverse mode matvec is
            that of Jᵀ. What it returns is measured, not trusted: the certificate tells its residual.
    """

    name: ClassVar[str] = "custom"
    exact: ClassVar[bool] = False
    function: Callable[[Callable[[Any], Any], Any], Any]


TABLE: dict[str, type[LinearSolver]] = {
    method.name: method for method in (LU, Cholesky, CG, NormalCG, GMRES, BiCGStab, LSMR, Neumann, Identity, Nystrom)
}


def resolve(linear_solver: Any) -> LinearSolver | None:
    """The option object of what a user named; None for "auto", which `chosen` decides when the size is known.

    Raises:
        ProgramError: an unknown name or type.

    Example:
        >>> resolve("cg")
        CG(tolerance=None, max_iterations=None, preconditioner=None)
    """
    if linear_solver == "auto":
        return None
    if isinstance(linear_solver, LinearSolver):
        return linear_solver
    if isinstance(linear_solver, str) and linear_solver in TABLE:
        return TABLE[linear_solver]()
    if isinstance(linear_solver, type) and issubclass(linear_solver, LinearSolver):
        return linear_solver()
    if callable(linear_solver):
        return Custom(linear_solver)
    known = ", ".join(repr(name) for name in ("auto", *TABLE))
    raise ProgramError(
        f"linear_solver = {linear_solver!r} is not known; choose {known}, an option such as GMRES(restart=50), or a "
        "callable (matvec, b) -> y."
    )


def chosen(option: LinearSolver | None, size: int, symmetric: bool, definite: bool) -> LinearSolver:
    """The method for a system: what the user chose, or by size and symmetry.

    Args:
        option: None for "auto".
        size: number of unknowns.
        symmetric: whether the Jacobian is symmetric by construction.
        definite: whether it should be positive definite, too.
    """
    if option is not None:
        return option
    if size <= DENSE:
        return LU()
    return CG() if symmetric and definite else GMRES()
