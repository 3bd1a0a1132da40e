"""Arguments in the wrong place or of the wrong kind: errors of this package that say what was expected."""

import cvxpy as cp
import numpy as np
import pytest

import cvxift.jax
import cvxift.torch
from cvxift.errors import ProgramError

torch = pytest.importorskip("torch")
jnp = pytest.importorskip("jax.numpy")

LAYERS = {"torch": cvxift.torch.CvxpyLayer, "jax": cvxift.jax.CvxpyLayer}


@pytest.fixture
def ridge():
    x, t, w = cp.Variable(3, name="x"), cp.Parameter(3, name="t"), cp.Parameter(nonneg=True, name="w")
    t.value, w.value = np.ones(3), 1.0
    return cp.Problem(cp.Minimize(cp.sum_squares(x - t) + w * cp.sum_squares(x)), [x >= 0]), x, t, w


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
class TestLayers:
    def test_parameters_and_variables_in_each_others_place(self, make, ridge):
        problem, x, t, w = ridge
        with pytest.raises(ProgramError, match=r"got \['Variable'\].*CvxpyLayer\(problem, parameters, variables\)"):
            make(problem, [x], [t, w])

    @pytest.mark.parametrize("parameters", [["t", "w"], "tw", None])
    def test_names_in_place_of_parameters(self, make, ridge, parameters):
        with pytest.raises(ProgramError, match=r"list or tuple of cp.Parameter"):
            make(ridge[0], parameters, [ridge[1]])

    @pytest.mark.parametrize("given", ["SCS", 3, [("eps", 1e-8)]])
    def test_solver_args_that_are_no_dict(self, make, ridge, given):
        problem, x, t, w = ridge
        with pytest.raises(ProgramError, match=r"solver_args=.*give a dict.*solver="):
            make(problem, [t, w], [x], solver_args=given)
        with pytest.raises(ProgramError, match=r"solver_args=.*give a dict.*solver="):
            make(problem, [t, w], [x])(np.ones(3, dtype="f4"), 1.0, solver_args=given, from_dlpack=True)

    def test_complex_values_for_a_real_parameter(self, make, ridge):
        problem, x, t, w = ridge
        array = torch.tensor if make is cvxift.torch.CvxpyLayer else jnp.array
        with pytest.raises(ProgramError, match=r"'t' has dtype .*complex.* expected a real.*\.real and \.imag"):
            make(problem, [t, w], [x])(array([1j, 0.0, 0.0]), 1.0)

    def test_what_a_reader_is_told_to_do(self, make, ridge):
        problem, x, t, w = ridge
        array = torch.ones if make is cvxift.torch.CvxpyLayer else jnp.ones
        with pytest.raises(ProgramError, match=r"'t' has shape \(\).*The order of the tensors is 't', 'w'"):
            make(problem, [t, w], [x])(array(()), array(3))
        with pytest.raises(ProgramError, match=r"'t' is None.*Every parameter needs a value"):
            make(problem, [t, w], [x])(None, array(()))
        with pytest.raises(ProgramError, match=r"more than once: \['w'\]"):
            make(problem, [t, w, w], [x])
        with pytest.raises(ProgramError, match=r"No solver is called 'clarable'. Did you mean 'clarabel'\?"):
            make(problem, [t, w], [x], solver="CLARABLE")


@pytest.mark.parametrize("swapped", [False, True])
def test_a_tensor_without_values_beside_one_with_values(ridge, swapped):
    problem, x, t, w = ridge
    devices = ("cpu", "meta") if swapped else ("meta", "cpu")
    layer = cvxift.torch.CvxpyLayer(problem, [t, w], [x])
    with pytest.raises(ProgramError, match="give all tensors one dtype and device"):
        layer(torch.ones(3, device=devices[0]), torch.ones((), device=devices[1]))
    assert layer(torch.ones(3, device="meta"), 1.0)[0].shape == (3,)  # a number is on every device


class TestSensitivity:
    @pytest.mark.parametrize("nlp", [False, True])
    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (lambda s, x, t: s.vjp({"x": np.ones(3)}), r"cotangents must be a dict.*got str"),
            (lambda s, x, t: s.vjp({t: np.ones(3)}), r"cotangents must be a dict.*got Parameter"),
            (lambda s, x, t: s.vjp([x]), "cotangents must be a dict.*got list"),
            (lambda s, x, t: s.jvp({"t": np.ones(3)}), r"tangents must be a dict.*got str"),
            (lambda s, x, t: s.jvp({x: np.ones(3)}), r"tangents must be a dict.*got Variable"),
            (lambda s, x, t: s.jvp(np.ones(3)), "tangents must be a dict.*got ndarray"),
            (lambda s, x, t: s.jacobian(t, x), "Expected a cp.Parameter of the problem, got Variable"),
            (lambda s, x, t: s.jacobian("x", "t"), "Expected a cp.Parameter of the problem, got str"),
            (lambda s, x, t: s.jacobian("x", t), "Expected a cp.Variable or a constraint's dual variable, got str"),
            (lambda s, x, t: s.value("x"), "Expected a cp.Variable or a constraint's dual variable, got str"),
            (lambda s, x, t: s.vjp({x: 1j * np.ones(3)}), "'x' has dtype complex128; expected real"),
            (lambda s, x, t: s.vjp({x: "abc"}), "'x' has dtype <U3; expected real"),
            (lambda s, x, t: s.jvp({t: 1j * np.ones(3)}), "'t' has dtype complex128; expected real"),
        ],
    )
    def test_keys_and_values(self, ridge, call, message, nlp):
        problem, x, t, _ = ridge
        if nlp:
            x.value = np.ones(3)
        with pytest.raises(ProgramError, match=message):
            call(cvxift.differentiate(problem, nlp=nlp), x, t)

    @pytest.mark.parametrize("key", ["z", 3])
    def test_keys_of_a_complex_problem(self, key):
        z, c = cp.Variable(2, complex=True), cp.Parameter(2, complex=True, value=np.array([1j, 2.0]))
        s = cvxift.differentiate(cp.Problem(cp.Minimize(cp.sum_squares(z - c)), [cp.norm(z) <= 9]))
        for call in (lambda: s.vjp({key: np.ones(2)}), lambda: s.jvp({key: np.ones(2)}), lambda: s.jacobian(z, key)):
            with pytest.raises(ProgramError, match=f"got .*{type(key).__name__}"):
                call()
