"""Every linear solver against the exact product, at any scale of cotangents, and loud where it fails."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from implicit_faces import FACES, Face

from cvxift.errors import ApplicabilityWarning, ProgramError
from cvxift.implicit.options import CG, GMRES, LSMR, TABLE, BiCGStab, Neumann, NormalCG, Nystrom

RNG = np.random.default_rng(0)
G = RNG.standard_normal((12, 12)) / 12**0.5
SYMMETRIC = G @ G.T + 0.5 * np.eye(12)
GENERAL = 0.3 * G + np.eye(12)
B = RNG.standard_normal(12)
OPTIONS: dict[str, Any] = {
    **{name: name for name in TABLE if name not in ("identity", "neumann", "nystrom")},
    "neumann": Neumann(terms=500, scale=0.25),
    "nystrom": Nystrom(rank=12, damping=1e-13),
    "preconditioned cg": CG(preconditioner=lambda v: v / 2.0),
    "restarted gmres": GMRES(restart=5, max_iterations=400),
    "callable": lambda matvec, b: b if not hasattr(b, "shape") else _richardson(matvec, b),
}
FOR_SYMMETRIC = ("cholesky", "cg", "nystrom", "preconditioned cg")


def _richardson(matvec: Any, b: Any) -> Any:
    y = 0.0 * b
    for _ in range(400):
        y = y + 0.25 * (b - matvec(y))
    return y


def linear(face: Face, A: np.ndarray, option: Any, **options: Any) -> Any:
    return face.implicit.implicit_root(
        lambda x, b: face.array(A) @ x - b, lambda b: np.linalg.solve(A, np.asarray(b)), linear_solver=option, **options
    )


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_products_are_exact(face: Face, name: str) -> None:
    A = SYMMETRIC if name in FOR_SYMMETRIC else GENERAL
    solve = linear(face, A, OPTIONS[name])
    # The iterations are the same in both frameworks; JAX compiles them anew for Aᵀ.
    modes = (face.jacrev, face.jacfwd) if face.name == "torch" or name in ("lu", "gmres") else (face.jacrev,)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ApplicabilityWarning)
        for jacobian in modes:
            assert np.allclose(np.asarray(jacobian(solve)(face.array(B))), np.linalg.inv(A), atol=1e-8)


@pytest.mark.parametrize("scale", [1e-25, 1e25])
@pytest.mark.parametrize("name", ["lu", "cg", "normal_cg", "gmres", "bicgstab", "lsmr"])
def test_tiny_and_huge_cotangents_in_single_precision(name: str, scale: float) -> None:
    torch = pytest.importorskip("torch")
    face = FACES["torch"]()
    A = torch.tensor(SYMMETRIC, dtype=torch.float32)
    solve = face.implicit.implicit_root(lambda x, b: A @ x - b, lambda b: torch.linalg.solve(A, b), linear_solver=name)
    b = torch.tensor(B, dtype=torch.float32, requires_grad=True)
    (grad,) = torch.autograd.grad(solve(b), b, torch.full((12,), scale))
    assert np.allclose(grad.numpy() / scale, np.linalg.solve(SYMMETRIC, np.ones(12)), rtol=2e-3)


@pytest.mark.parametrize(
    ("framework", "name"),
    [("torch", name) for name in ("lu", "cg", "normal_cg", "gmres", "bicgstab", "lsmr", "neumann")]
    + [("jax", "lu"), ("jax", "gmres")],
)
def test_empty_scalar_and_zero(framework: str, name: str) -> None:
    face = FACES[framework]()
    solve = face.implicit.implicit_root(lambda x, t: x - t, lambda t: t * 1.0, linear_solver=name)
    for size in (0, 1):
        t = face.array(np.ones(size))
        assert np.asarray(face.jacrev(solve)(t)).shape == (size, size)
        assert np.allclose(np.asarray(face.grad(lambda t: 0.0 * solve(t).sum())(t)), 0.0)
    assert np.allclose(np.asarray(face.grad(solve)(face.array(2.0))), 1.0)


LOUD = {
    "cg": (GENERAL - 2.0 * np.eye(12), "did not solve"),
    "indefinite cg": (np.diag([1.0, -1.0] * 6), "negative or no curvature"),
    "neumann": (3.0 * np.eye(12), "diverges"),
    "nystrom": (GENERAL, "not symmetric"),
    "nystrom of full rank": (SYMMETRIC, "worse than zero"),
    "identity": (3.0 * np.eye(12), "worse than zero"),
    "gmres": (np.diag(np.arange(12.0)), "did not solve"),
}


@pytest.mark.parametrize("name", sorted(LOUD))
def test_what_fails_is_told(face: Face, name: str) -> None:
    A, word = LOUD[name]
    option = {
        "cg": CG(max_iterations=3),
        "indefinite cg": "cg",
        "neumann": Neumann(20),
        "nystrom of full rank": Nystrom(3),
    }.get(name, name)
    solve = face.implicit.implicit_root(
        lambda x, b: face.array(A) @ x - b, lambda b: np.linalg.lstsq(A, np.asarray(b), rcond=None)[0],
        linear_solver=option, tolerance=10.0,
    )  # fmt: skip
    with pytest.warns(ApplicabilityWarning, match=word):
        face.grad(lambda b: solve(b).sum())(face.array(B))
    assert solve.certificate.residual > 1e-3 and solve.certificate.problem


@pytest.mark.parametrize("option", [CG, NormalCG, GMRES, BiCGStab, LSMR])
def test_limits_are_honoured(option: Any) -> None:
    face = FACES["torch"]()
    solve = linear(
        face, SYMMETRIC, option(max_iterations=2) if option is not GMRES else GMRES(max_iterations=2, restart=2)
    )
    with pytest.warns(ApplicabilityWarning):
        face.grad(lambda b: solve(b).sum())(face.array(B))
    assert solve.certificate.iterations <= 10
    loose = linear(face, SYMMETRIC, option(tolerance=1e-2))
    face.grad(lambda b: loose(b).sum())(face.array(B))
    assert loose.certificate.iterations < 12 or option is GMRES
    assert loose.certificate.residual <= 1e-2


def test_damping_is_added(face: Face) -> None:
    for name in ("lu", "cg", "lsmr"):
        solve = linear(face, SYMMETRIC, name, damping=0.5)
        J = np.asarray(face.jacrev(solve)(face.array(B)))
        assert np.allclose(J, np.linalg.inv(SYMMETRIC + 0.5 * np.eye(12)), atol=1e-8)


def test_a_singular_jacobian_gives_no_number(face: Face) -> None:
    solve = face.implicit.implicit_root(lambda x, t: x**2 * 1.0 + 0.0 * x - t, lambda t: t * 0.0)
    t = face.array([0.0, 0.0])
    for mode in (face.jacrev, face.jacfwd):
        with pytest.warns(ApplicabilityWarning, match="singular"):
            assert np.isnan(np.asarray(mode(solve)(t))).any()


def test_a_singular_instance_costs_no_other(face: Face) -> None:
    def circle(check: str) -> Any:
        return face.implicit.implicit_root(
            lambda x, t: t**2 + x**2 - 1.0, lambda t: face.xp.sqrt(1.0 - t**2), check=check
        )

    t = face.array([1.0, 0.6])
    with pytest.warns(ApplicabilityWarning, match="singular"):
        found = np.asarray(face.vmap(face.grad(circle("warn")))(t))
    assert np.isnan(found[0]) and np.isclose(found[1], -0.75)
    assert np.isnan(np.asarray(face.grad(circle("off"))(t[0])))
    with pytest.raises(Exception, match="singular") as raised:  # JAX wraps what a callback raises
        np.asarray(face.grad(circle("raise"))(t[0]))
    assert "ApplicabilityError" in f"{raised.type.__name__} {raised.value}"


@pytest.mark.parametrize("name", ["lu", "cholesky", "cg", "normal_cg", "gmres", "bicgstab", "lsmr"])
def test_cotangents_that_are_no_numbers_are_handed_on(face: Face, name: str) -> None:
    solve = linear(face, SYMMETRIC, name)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ApplicabilityWarning)
        found = face.grad(lambda t: (solve(t) * np.nan).sum())(face.array(B))
    assert np.isnan(np.asarray(found)).all()


def test_units_make_nothing_singular(face: Face) -> None:
    scale = np.array([1e-12, 1.0, 1e12])
    solve = face.implicit.implicit_root(lambda x, t: face.array(scale) * (x - t), lambda t: t * 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ApplicabilityWarning)
        assert np.allclose(np.asarray(face.jacrev(solve)(face.array(np.ones(3)))), np.eye(3))


def test_unknown_names_list_the_known() -> None:
    face = FACES["torch"]()
    with pytest.raises(ProgramError, match="'gmres'"):
        face.implicit.implicit_root(abs, abs, linear_solver="minres")
    with pytest.raises(ProgramError, match="tolerance"):
        CG(tolerance=2.0)
