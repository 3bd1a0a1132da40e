"""Complex variables and parameters: closed forms, finite differences, and each framework's convention of gradients."""

import cvxpy as cp
import numpy as np
import pytest

import cvxift
from cvxift.errors import ProgramError

N = 3


def complex_normal(seed, *shape):
    rng = np.random.default_rng(seed)
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


def ball():
    """The point of the unit ball that is nearest to c, which lies outside: c/‖c‖."""
    z, c = cp.Variable(N, complex=True, name="z"), cp.Parameter(N, complex=True, name="c", value=complex_normal(1, N))
    return cp.Problem(cp.Minimize(cp.sum_squares(z - c)), [cp.norm(z) <= 1]), z, c


def ball_gradient(c, w):
    """The gradient of Re ⟨w, c/‖c‖⟩, as the direction of steepest ascent."""
    u = c / np.linalg.norm(c)
    return (w - u * np.vdot(u, w).real) / np.linalg.norm(c)


def projection(eigenvalues, declared):
    """The nearest positive semidefinite matrix to a Hermitian one with these eigenvalues."""
    U = np.linalg.qr(complex_normal(3, N, N))[0]
    H = cp.Parameter((N, N), hermitian=True, name="H", value=(U * eigenvalues) @ U.conj().T)
    X = cp.Variable((N, N), PSD=True, complex=True) if declared else cp.Variable((N, N), hermitian=True)
    return cp.Problem(cp.Minimize(cp.sum_squares(X - H)), [] if declared else [X >> 0]), X, H


def projection_derivative(H, D):
    """The derivative of the projection along a Hermitian D (Löwner's formula)."""
    eigenvalues, U = np.linalg.eigh(H)
    kept = np.maximum(eigenvalues, 0.0)
    gaps = eigenvalues[:, None] - eigenvalues
    same = np.isclose(gaps, 0.0)
    K = np.where(same, (eigenvalues > 0)[:, None], (kept[:, None] - kept) / np.where(same, 1.0, gaps))
    return U @ (K * (U.conj().T @ D @ U)) @ U.conj().T


@pytest.mark.filterwarnings("error::cvxift.ApplicabilityWarning")
def test_an_entry_at_zero_of_a_norm_is_no_kink():
    """min ‖z − c‖² + ‖z‖ is c (1 − 1/(2‖c‖)); a zero entry of c is the apex of its modulus, not of the norm."""
    z, c = cp.Variable(N, complex=True), cp.Parameter(N, complex=True, value=[1 + 1j, 0, 2 - 1j])
    s = cvxift.differentiate(cp.Problem(cp.Minimize(cp.sum_squares(z - c) + cp.norm(z))))
    dc, size = complex_normal(6, N), np.linalg.norm(c.value)
    expected = (1 - 0.5 / size) * dc + c.value * np.vdot(c.value, dc).real / (2 * size**3)
    assert np.allclose(s.jvp({c: dc})[z], expected, atol=1e-8)


def test_the_projection_on_a_ball_has_its_closed_form():
    problem, z, c = ball()
    s = cvxift.differentiate(problem)
    w, dc = complex_normal(4, N), complex_normal(5, N)
    assert np.allclose(s.value(z), c.value / np.linalg.norm(c.value), atol=1e-12)
    assert np.array_equal(z.value, s.value(z)) and problem.status == cp.OPTIMAL
    assert np.allclose(s.vjp({z: w})[c], ball_gradient(c.value, w), atol=1e-12)
    moved = s.jvp({c: dc})[z]
    assert np.isclose(np.vdot(w, moved).real, np.vdot(s.vjp({z: w})[c], dc).real)
    jacobian = s.jacobian(z, c)
    assert jacobian.shape == (N, N, 2)
    assert np.allclose(jacobian @ np.array([1, 0]) @ dc.real + jacobian @ np.array([0, 1]) @ dc.imag, moved)
    assert s.report.ok and cvxift.diagnose(problem, outputs=[z]).ok
    gradient = s.jacobian(problem.objective, c)  # of (‖c‖ − 1)²
    expected = 2 * (np.linalg.norm(c.value) - 1) * c.value / np.linalg.norm(c.value)
    assert np.allclose(gradient[:, 0] + 1j * gradient[:, 1], expected, atol=1e-9)


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("eigenvalues", [[2.0, 1.0, -0.5], [1.5, -0.5, 0.3], [-1.0, -2.0, -0.1]])
def test_hermitian_matrices(eigenvalues, declared):
    problem, X, H = projection(np.array(eigenvalues), declared)
    s = cvxift.differentiate(problem)
    D, C = complex_normal(6, N, N), complex_normal(7, N, N)
    D = (D + D.conj().T) / 2
    exact = projection_derivative(H.value, D)
    assert np.allclose(s.value(X), projection_derivative(H.value, H.value), atol=1e-9)
    assert np.allclose(s.jvp({H: D})[X], exact, atol=1e-9)
    gradient = s.vjp({X: C})[H]
    assert np.allclose(gradient, projection_derivative(H.value, (C + C.conj().T) / 2), atol=1e-9)
    assert np.isclose(np.vdot(C, exact).real, np.vdot(gradient, D).real)


@pytest.mark.parametrize("eigenvalues", [[2.0, 1.0, -0.5], [1.5, -0.5, 0.3], [-1.0, -2.0, -0.1]])
def test_the_multiplier_of_a_hermitian_matrix(eigenvalues):
    """At X = H₊ of min ‖X − H‖² the multiplier is 2 (H₊ − H) = 2 (−H)₊; its derivative is that of a projection."""
    problem, X, H = projection(np.array(eigenvalues), False)
    dual = problem.constraints[0].dual_variables[0]
    s = cvxift.differentiate(problem)
    D, C = complex_normal(6, N, N), complex_normal(7, N, N)
    D = (D + D.conj().T) / 2
    exact = -2 * projection_derivative(-H.value, D)
    assert np.allclose(s.value(dual), 2 * (s.value(X) - H.value), atol=1e-9)
    assert np.allclose(problem.constraints[0].dual_value, s.value(dual))
    assert np.allclose(s.jvp({H: D})[dual], exact, atol=1e-8)
    assert np.isclose(np.vdot(s.vjp({dual: C})[H], D).real, np.vdot(C, exact).real, atol=1e-8)
    torch, adapter = pytest.importorskip("torch"), pytest.importorskip("cvxift.torch")
    batch = torch.tensor(np.stack([H.value, 2 * H.value]))
    assert np.allclose(adapter.CvxpyLayer(problem, [H], [dual])(batch)[0][0], s.value(dual), atol=1e-9)


def test_a_hermitian_matrix_of_expressions_in_both_frameworks():
    """min ⟨H, X⟩ over tr X = 1 and 1.5 X ≽ 0 has the multiplier (H − λI)/1.5, λ being the least eigenvalue of H."""
    A, X = complex_normal(11, N, N), cp.Variable((N, N), hermitian=True)
    t = cp.Parameter(value=0.3)
    one, two = A + A.conj().T, np.diag([1.0, -2.0, 0.5])
    energy = cp.real(cp.trace((one + t * two) @ X))
    problem = cp.Problem(cp.Minimize(energy), [2 * X - 0.5 * X >> 0, cp.real(cp.trace(X)) == 1])
    dual = problem.constraints[0].dual_variables[0]
    s = cvxift.differentiate(problem, check="off")
    values, U = np.linalg.eigh(one + 0.3 * two)
    expected = (one + 0.3 * two - values[0] * np.eye(N)) / 1.5
    u = U[:, 0]
    slope = (two - (u.conj() @ two @ u).real * np.eye(N)) / 1.5
    assert np.allclose(s.value(dual), expected, atol=1e-8)
    assert np.allclose(s.jvp({t: 1.0})[dual], slope, atol=1e-6)
    jax, adapter = pytest.importorskip("jax"), pytest.importorskip("cvxift.jax")
    layer = adapter.CvxpyLayer(problem, [t], [dual], check="off")
    with jax.enable_x64(True):
        found = jax.jacfwd(lambda t: layer(t)[0])(0.3)
    assert np.allclose(found, slope, atol=1e-6)


def test_real_imaginary_and_complex_leaves_together_agree_with_finite_differences():
    A, x, y = complex_normal(8, 4, N), cp.Variable(N), cp.Variable(N, imag=True)
    b = cp.Parameter(4, complex=True, value=complex_normal(9, 4))
    w = cp.Parameter(nonneg=True, value=0.3)
    total = cp.sum(x) <= 1
    problem = cp.Problem(cp.Minimize(cp.norm(A @ (x + y) - b) + w * cp.norm1(x + y)), [total, cp.abs(y) <= 0.7])
    s = cvxift.differentiate(problem, check="off")
    db, dw = complex_normal(10, 4), 0.5
    found, step, ends = s.jvp({b: db, w: dw}), 1e-5, []
    start = b.value, w.value
    for sign in (1, -1):
        b.value, w.value = start[0] + sign * step * db, start[1] + sign * step * dw
        t = cvxift.differentiate(problem, check="off")
        ends.append([t.value(x), t.value(y), t.value(total.dual_variables[0])])
    for key, one, two in zip((x, y, total.dual_variables[0]), *ends, strict=True):
        assert np.allclose(found[key], (one - two) / (2 * step), atol=1e-6)
    assert np.abs(found[y].imag).max() > 1e-3 and not found[y].real.any()


def test_torch_follows_its_convention():
    torch, adapter = pytest.importorskip("torch"), pytest.importorskip("cvxift.torch")
    problem, z, c = ball()
    layer, w = adapter.CvxpyLayer(problem, [c], [z]), complex_normal(4, N)
    t = torch.tensor(c.value, requires_grad=True)
    (out,) = layer(t)
    assert out.dtype == torch.complex128
    (out * torch.tensor(w).conj()).sum().real.backward()
    assert np.allclose(t.grad.numpy(), ball_gradient(c.value, w), atol=1e-12)
    assert torch.autograd.gradcheck(lambda t: layer(t)[0], (t,))
    assert torch.autograd.gradgradcheck(lambda t: layer(t)[0], (t,))
    batch = torch.stack([t.detach(), 2 * t.detach()])
    assert torch.allclose(torch.vmap(lambda t: layer(t)[0])(batch), layer(batch)[0])
    assert layer(batch.to(torch.complex64))[0].dtype == torch.complex64
    real = 3 * t.detach().real  # where a complex one may stand
    assert torch.allclose(layer(real)[0], (real / real.norm()).to(torch.complex128))
    assert layer.diagnose(t).ok and len(layer.diagnose(batch).reports) == 2


def test_torch_gives_hermitian_matrices_back():
    torch, adapter = pytest.importorskip("torch"), pytest.importorskip("cvxift.torch")
    problem, X, H = projection(np.array([2.0, 1.0, -0.5]), False)
    t, C = torch.tensor(H.value, requires_grad=True), complex_normal(7, N, N)
    (out,) = adapter.CvxpyLayer(problem, [H], [X])(t)
    assert torch.allclose(out, out.mH)
    (out * torch.tensor(C).conj()).sum().real.backward()
    assert np.allclose(t.grad.numpy(), projection_derivative(H.value, (C + C.conj().T) / 2), atol=1e-9)


def test_jax_follows_its_convention():
    jax, adapter = pytest.importorskip("jax"), pytest.importorskip("cvxift.jax")
    problem, z, c = ball()
    layer, w = adapter.CvxpyLayer(problem, [c], [z]), complex_normal(4, N)
    with jax.enable_x64(True):
        value = jax.numpy.asarray(c.value)
        gradient = jax.jit(jax.grad(lambda c: (layer(c)[0] * w.conj()).sum().real))(value)
        assert np.allclose(gradient, ball_gradient(c.value, w).conj(), atol=1e-12)  # JAX' gradients are conjugates
        batch = jax.numpy.stack([value, 2 * value])
        assert np.allclose(jax.vmap(lambda c: layer(c)[0])(batch), layer(batch)[0])
    assert layer(np.asarray(c.value, dtype=np.complex64))[0].dtype == np.complex64


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_bad_input_is_named(framework):
    adapter = pytest.importorskip(f"cvxift.{framework}")
    problem, z, c = ball()
    layer = adapter.CvxpyLayer(problem, [c], [z])
    with pytest.raises(ProgramError, match="'c'"):
        layer("one")
    with pytest.raises(ProgramError, match="expected 1"):
        layer(c.value, c.value)
    with pytest.raises(ProgramError, match=r"'c' has shape \(2,\)|'real\(c\)' has shape \(2,\)"):
        layer(pytest.importorskip("torch").zeros(2) if framework == "torch" else np.zeros(2, np.complex64))
    with pytest.raises(ProgramError, match="expected \\(3,\\)"):
        cvxift.differentiate(problem).vjp({z: np.zeros(2)})
    c.value = None
    with pytest.raises(ProgramError, match="'c' has no value"):
        cvxift.differentiate(problem)
    assert "'c' has no value" in str(cvxift.diagnose(problem))
    with pytest.raises(ProgramError, match="complex, which is not taken here"):
        cvxift.sweep(problem, {c: np.zeros((2, N), complex)}, n_jobs=1)


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_messages_and_errors_of_layers_speak_of_the_users_leaves(framework):
    """And what a failed batch carries is complex, as what a call returns."""
    adapter = pytest.importorskip(f"cvxift.{framework}")
    put = pytest.importorskip("torch").as_tensor if framework == "torch" else np.asarray
    z, w = cp.Variable(N, complex=True, name="z"), cp.Variable(imag=True, name="w")
    c, r = cp.Parameter(N, complex=True, name="c"), cp.Parameter(name="r")
    H = cp.Parameter((N, N), hermitian=True, name="H")
    cost = cp.sum_squares(z - c) + cp.sum_squares(cp.imag(w) - 1) + cp.real(cp.trace(H))
    problem = cp.Problem(cp.Minimize(cost), [cp.norm(z) <= r, cp.abs(w) <= 2 * r])
    layer = adapter.CvxpyLayer(problem, [c, r, H], [z, w])
    given, hermitian = np.stack([complex_normal(7, N), 5 * complex_normal(8, N)]), np.eye(N, dtype=complex)
    with pytest.raises(cvxift.SolveError, match=r"norm\(z, 2\) <= r|abs\(w\) <= 2 \* r") as caught:
        layer(put(given), put(np.array([1.0, -1.0])), put(hermitian))
    first, second = caught.value.solutions
    assert np.allclose(first[0], given[0] / np.linalg.norm(given[0]), atol=1e-6) and np.isclose(second[0], 1j)
    assert np.isnan(first[1]).all() and np.isnan(second[1]) and first.shape == (2, N)
    with pytest.raises(ProgramError, match=r"together: 'c' \(2,\), 'r' \(3,\), 'H' \(\)\."):
        layer(put(given), put(np.ones(3)), put(hermitian))
    with pytest.raises(ProgramError, match=r"'c' has the value nan at entry \(0,\)"):
        layer(put(given[0] * np.nan), put(np.array(1.0)), put(hermitian))
    for wrong in (1j * hermitian, hermitian + np.triu(np.ones((N, N)), 1)):
        with pytest.raises(ProgramError, match=r"'H' is declared hermitian=True, but is not Hermitian.*Give \(H \+"):
            layer(put(given[0]), put(np.array(1.0)), put(wrong))
    for noise in (1e-15 * complex_normal(9, N, N), 1e-15 * complex_normal(10, N, N).imag):  # a product's rounding
        for matrix in (hermitian, 1j * (np.triu(np.ones((N, N)), 1) - np.tril(np.ones((N, N)), -1))):
            layer(put(given[0]), put(np.array(1.0)), put(matrix + noise))


def spread():
    """The least Σ|z|² with Σz = c: z = c/N, and 2z + y = 0 for the multiplier y."""
    z, c = cp.Variable(N, complex=True, name="z"), cp.Parameter(complex=True, value=1 + 2j)
    total = cp.sum(z) == c
    return cp.Problem(cp.Minimize(cp.sum_squares(z)), [z[0] - z[1] == 0, total]), z, c, total


def test_dual_variables_of_complex_equations():
    problem, z, c, total = spread()
    problem.solve(solver="CLARABEL")
    theirs, y = total.dual_value, total.dual_variables[0]
    s = cvxift.differentiate(problem)
    assert np.isclose(s.value(y), theirs, atol=1e-6) and np.isclose(s.value(y), -2 * c.value / N)
    assert np.isclose(total.dual_value, s.value(y)) and problem.constraints[0].dual_value is not None
    moved = s.jvp({c: 3 - 1j})
    assert np.allclose(moved[z], (3 - 1j) / N) and np.isclose(moved[y], -2 * (3 - 1j) / N)
    assert np.isclose(s.vjp({y: 1j})[c], -2j / N)
    assert np.allclose(s.jacobian(y, c), [-2 / N, -2j / N])


def test_layers_return_dual_variables_of_complex_equations():
    problem, _, c, total = spread()
    y = total.dual_variables[0]
    torch, jax = pytest.importorskip("torch"), pytest.importorskip("jax")
    from cvxift.jax import CvxpyLayer as JaxLayer
    from cvxift.torch import CvxpyLayer

    t = torch.tensor([1 + 2j, 3 - 1j], dtype=torch.complex128, requires_grad=True)
    (found,) = CvxpyLayer(problem, [c], [y])(t)
    assert torch.allclose(found, -2 * t / N)
    found[1].imag.backward()
    assert torch.allclose(t.grad, torch.tensor([0, -2j / N], dtype=torch.complex128))
    (found,) = JaxLayer(problem, [c], [y])(jax.numpy.asarray(3 - 1j))
    assert np.isclose(found, -2 * (3 - 1j) / N, atol=1e-6)


def test_equations_of_imaginary_parts_and_matrices():
    X, C = cp.Variable((2, 2), hermitian=True), cp.Parameter((2, 2), complex=True, value=complex_normal(5, 2, 2))
    weights, v = complex_normal(6, 2), cp.Variable(2, imag=True)
    fixed, zero = X[0] @ weights == C[0, 0], v == 1j * cp.imag(C[:, 1])
    problem = cp.Problem(cp.Minimize(cp.sum_squares(X - C) + cp.sum_squares(cp.imag(v) - 2)), [fixed, zero])
    problem.solve(solver="CLARABEL", tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12)
    theirs = [fixed.dual_value, zero.dual_value]
    s = cvxift.differentiate(problem)
    for equation, value in zip((fixed, zero), theirs, strict=True):
        assert np.allclose(s.value(equation.dual_variables[0]), value, atol=1e-6)


def test_the_dual_variable_of_a_complex_cone_is_refused_with_the_way_to_write_it():
    z, c = cp.Variable(2, complex=True), cp.Parameter(2, complex=True, value=[3, 4j])
    ball = cp.SOC(cp.Constant(1.0), z)
    s = cvxift.differentiate(cp.Problem(cp.Minimize(cp.sum_squares(z - c)), [ball]))
    with pytest.raises(ProgramError, match=r"neither an equation nor semidefinite; its dual variable.*cp.hstack"):
        s.value(ball.dual_variables[1])
    assert np.allclose(s.value(z), [0.6, 0.8j])
