"""What cannot work is refused before anything is solved, by a message that names the part and the remedy."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
import scipy.sparse as sp
from problem_zoo import OLD

from cvxift.errors import ProgramError
from cvxift.program import Program

x, X = cp.Variable(3, name="x"), cp.Variable((2, 2), name="X")
p, r = cp.Parameter(name="p"), cp.Parameter(name="r")
M, S = cp.Parameter((3, 3), name="M"), cp.Parameter((3, 3), PSD=True, name="S")
LEAST = cp.Minimize(cp.sum_squares(x))


def refuse(words: str, objective=LEAST, constraints=(), **options) -> None:
    with pytest.raises(ProgramError, match=words):
        Program(cp.Problem(objective, list(constraints)), **options)


class TestProblem:
    def test_not_a_problem(self):
        with pytest.raises(ProgramError, match=r"Expected a cp.Problem, got Minimize"):
            Program(LEAST)  # pyright: ignore[reportArgumentType]

    def test_no_variables(self):
        refuse("no variables", cp.Minimize(p))

    @pytest.mark.parametrize("kind", ["integer", "boolean"])
    def test_discrete_variable_is_named(self, kind):
        refuse(f"'count' is {kind}", cp.Minimize(cp.sum(cp.Variable(2, name="count", **{kind: True}))))

    def test_partly_discrete_variable_is_named(self):
        refuse("'some' is integer", cp.Minimize(cp.sum(cp.Variable(2, name="some", integer=[(0,)]))))

    def test_finite_set(self):
        refuse("finitely many", constraints=[cp.FiniteSet(x[0], [1, 2])])

    def test_complex_variable_and_parameter(self):
        refuse("Variable 'w' is complex", cp.Minimize(cp.abs(cp.Variable(complex=True, name="w"))))
        refuse("Parameter 'g' is complex", cp.Minimize(cp.abs(cp.Parameter(complex=True, name="g") * x[0])))

    def test_not_convex(self):
        refuse(r"DCP rules.*sqrt\(x\[0\]\) <= 1", constraints=[cp.sqrt(x[0]) <= 1])

    def test_geometric_program_without_gp(self):
        a, b = cp.Variable(pos=True, name="a"), cp.Variable(pos=True, name="b")
        refuse(r"a \* b.*gp=True", cp.Minimize(a * b))
        refuse(r"-b.*gp=False", cp.Minimize(a - b), gp=True)

    def test_parameter_as_factor_and_exponent(self):
        a, e = cp.Variable(pos=True), cp.Parameter(pos=True, name="e")
        refuse("'e' stands both as a factor and as an exponent", cp.Minimize(e * a**e), gp=True)

    def test_power_cone_of_one_factor(self):
        refuse("single factor", constraints=[cp.PowConeND(x[:1], x[1], np.array([1.0]))])


class TestNotDpp:
    """The smallest offending subexpression is printed, and what to do about it."""

    @pytest.mark.parametrize(
        ("part", "words"),
        [
            (lambda: p * r * cp.sum(x), r"rule: p \* r\. Replace the product of parameters by one parameter"),
            (lambda: cp.sum_squares(M @ M @ x), r"rule: M @ M\. Replace the product"),
            (lambda: cp.sum_squares(cp.exp(p) * x), r"rule: exp\(p\)\. It is not affine in the parameters"),
            (lambda: cp.sum_squares(x) / cp.Parameter(pos=True, name="d"), r"rule: .* / d\."),
        ],
    )
    def test_in_the_objective(self, part, words):
        refuse(words, cp.Minimize(part()))

    def test_in_a_constraint(self):
        refuse(r"rule: p \* r\.", constraints=[x <= 1, cp.sum(p * r * x) == 1])

    def test_quadratic_form_in_a_constraint(self):
        refuse(r"rule: quad_form\(x, S\)\. .*sum_squares\(L\.T @ x\)", constraints=[cp.quad_form(x, S) <= 1])

    @pytest.mark.skipif(OLD, reason="parametric matrices of quadratic forms need CVXPY 1.9")
    def test_both_kinds_of_quadratic_form(self):
        """CVXPY's rule for parametric matrices refuses parametric arguments."""
        refuse(r"rule: quad_form.*new variable", cp.Minimize(cp.quad_form(p * x, np.eye(3)) + cp.quad_form(x, S)))

    def test_quadratic_form_below_a_nonlinear_atom(self):
        refuse(r"quad_form\(x, S\)", cp.Minimize(cp.maximum(cp.quad_form(x, S), 1)))

    @pytest.mark.skipif(OLD, reason="parametric bounds need CVXPY 1.9")
    def test_parametric_bounds(self):
        low, c = cp.Parameter(3, name="low"), cp.Parameter(3, name="c")
        y = cp.Variable(3, bounds=[low, None], name="y")
        refuse(r"c @ y.*bounds of variable 'y'.*constraints instead", cp.Minimize(c @ y))
        refuse(r"rule: p \* r", cp.Minimize(cp.sum(cp.Variable(3, bounds=[p * r, None]))))

    def test_geometric(self):
        a, e, f = cp.Variable(pos=True, name="a"), cp.Parameter(pos=True, name="e"), cp.Parameter(pos=True, name="f")
        refuse(r"not DPP.*rule: .*f \* a", cp.Minimize(cp.power(f * a, e)), gp=True)


class TestConstants:
    @pytest.mark.parametrize(
        ("constraint", "words"),
        [
            (lambda: x == np.array([0, np.inf, 0]), r"constraint 0 .*entry \(1,\).*inf"),
            (lambda: x >= np.array([0, 0, np.inf]), r"constraint 0 .*entry \(2,\).*-inf"),
            (lambda: np.array([[1, np.nan, 1]]) @ x <= 1, "constraint 0 .*nan"),
            (lambda: cp.SOC(cp.Constant(np.inf), x), "constraint 0 .*inf"),
        ],
    )
    def test_in_a_constraint(self, constraint, words):
        refuse(words, constraints=[constraint()])

    def test_in_the_objective(self):
        refuse("the objective.*nan", cp.Minimize(cp.sum_squares(x) + np.array([np.nan, 0, 0]) @ x))


class TestParameters:
    A, b, c = cp.Parameter((2, 3), name="A"), cp.Parameter(2, name="b"), cp.Parameter(name="c")
    program = Program(cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b) + c * cp.sum(x))))

    @property
    def good(self):
        return {self.A: np.ones((2, 3)), self.b: np.zeros(2), self.c: 1.0}

    def refuse(self, words: str, changes) -> None:
        with pytest.raises(ProgramError, match=words):
            self.program.pack(self.good | changes)

    def test_wrong_shape_says_which_got_expected_remedy(self):
        self.refuse(
            r"'A' has shape \(3, 2\); expected \(2, 3\) or \(batch…, 2, 3\)\. Transpose it, or declare",
            {self.A: np.ones((3, 2))},
        )
        self.refuse(r"'A' has shape \(6,\); expected .* Reshape it to \(2, 3\)", {self.A: np.ones(6)})
        self.refuse(
            r"'b' has shape \(3,\); expected \(2\) or \(batch…, 2\)\.|'b' has shape \(3,\); expected \(2,\)",
            {self.b: np.ones(3)},
        )
        self.refuse(r"'b' has shape \(\); expected", {self.b: 1.0})

    def test_batches_that_do_not_broadcast(self):
        self.refuse(r"'A' \(2,\), 'b' \(3,\)", {self.A: np.ones((2, 2, 3)), self.b: np.ones((3, 2))})

    def test_batches_broadcast(self):
        theta = self.program.pack(self.good | {self.A: np.ones((4, 1, 2, 3)), self.c: np.arange(5.0)[None]})
        assert theta.shape == (4, 5, 9)
        np.testing.assert_array_equal(theta[2, :, self.program.offsets[self.c]].ravel(), np.arange(5.0))

    def test_missing_value(self):
        missing = {key: value for key, value in self.good.items() if key is not self.c}
        with pytest.raises(ProgramError, match="'c' has no value"):
            self.program.pack(missing)

    def test_held_value_is_taken(self):
        held = cp.Parameter(2, name="held", value=[1.0, 2.0])
        program = Program(cp.Problem(cp.Minimize(cp.sum_squares(x[:2] - held))))
        np.testing.assert_array_equal(program.pack({}), [1.0, 2.0])

    def test_unknown_parameter(self):
        self.refuse(
            "'other' is not in the problem. The problem's parameters: A, b, c", {cp.Parameter(name="other"): 1.0}
        )
        self.refuse("keyed by cp.Parameter objects; got a key of type str", {"A": 1.0})

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_not_finite(self, value):
        A = np.ones((2, 3))
        A[1, 2] = value
        self.refuse(rf"'A' has the value {value} at entry \(1, 2\)", {self.A: A})
        self.refuse(
            rf"'A' has the value {value} at entry \(1, 2\) of batch entry \(1,\)",
            {self.A: np.stack([np.ones((2, 3)), A])},
        )
        self.refuse(rf"'c' has the value {value}\.", {self.c: value})

    def test_not_numbers(self):
        self.refuse("'b' has values of type", {self.b: ["one", "two"]})
        self.refuse("'b' has values of type complex", {self.b: np.ones(2) * 1j})

    def test_integers_and_sparse_matrices_are_numbers(self):
        theta = self.program.pack({self.A: sp.eye_array(2, 3), self.b: [1, 2], self.c: True})
        np.testing.assert_array_equal(theta, [1, 0, 0, 0, 1, 0, 1, 2, 1])

    def test_theta_of_another_length(self):
        with pytest.raises(ProgramError, match=r"θ has shape \(4,\); expected \(..., 9\)"):
            self.program.evaluate(np.zeros(4))


SQUARE = np.diag([1.0, 2.0])
ATTRIBUTES = [
    ({"nonneg": True}, SQUARE, -SQUARE, r"nonneg=True, but is negative: -1 at entry \(0, 0\)"),
    ({"nonpos": True}, -SQUARE, SQUARE, r"nonpos=True, but is positive: 1 at entry \(0, 0\)"),
    ({"pos": True}, SQUARE, -SQUARE, r"pos=True, but is negative: -1 at entry \(0, 0\)"),  # zero passes, as in CVXPY
    ({"neg": True}, -SQUARE, SQUARE, r"neg=True, but is positive: 1 at entry \(0, 0\)"),
    ({"boolean": True}, np.eye(2), SQUARE, r"neither 0 nor 1: 2 at entry \(1, 1\)"),
    ({"integer": True}, SQUARE, SQUARE / 2, r"not whole: 0.5"),
    ({"symmetric": True}, SQUARE, np.triu(np.ones((2, 2))), r"symmetric=True, but is not symmetric"),
    ({"diag": True}, SQUARE, np.ones((2, 2)), r"must be zero there .*entry \(0, 1\)"),
    ({"sparsity": ([0, 1], [0, 1])}, SQUARE, np.ones((2, 2)), r"must be zero there .*entry \(0, 1\)"),
    ({"PSD": True}, SQUARE, np.diag([1.0, -1.0]), r"PSD=True, but has an eigenvalue -1"),
    ({"NSD": True}, -SQUARE, np.diag([-1.0, 1.0]), r"NSD=True, but has an eigenvalue 1"),
    ({"bounds": [-1, 2]}, SQUARE, 3 * SQUARE, r"outside its bounds: 3 at entry \(0, 0\)"),
]


@pytest.mark.parametrize(("attribute", "good", "bad", "words"), ATTRIBUTES, ids=[next(iter(a[0])) for a in ATTRIBUTES])
def test_parameter_attributes(attribute, good, bad, words):
    C = cp.Parameter((2, 2), name="C", **attribute)
    program = Program(cp.Problem(cp.Minimize(cp.sum_squares(X - C))))
    np.testing.assert_array_equal(program.pack({C: good}), good.ravel())
    with pytest.raises(ProgramError, match=f"Parameter 'C' .*{words}"):
        program.pack({C: bad})
    with pytest.raises(ProgramError, match=r"batch entry \(1,\)"):
        program.pack({C: np.stack([good, bad])})
    np.testing.assert_array_equal(program.pack({C: bad}, check=False), bad.ravel())


@pytest.mark.parametrize("wrap", [cp.psd_wrap, lambda Q: Q])
def test_an_indefinite_matrix_vouched_for_in_a_constraint_is_refused_by_name(wrap):
    x, c = cp.Variable(2, name="x"), cp.Parameter(2, name="c", value=np.ones(2))
    form = cp.quad_form(x, wrap(np.diag([1.0, -1.0])), assume_PSD=True)
    refuse(r"quad_form.*indefinite", cp.Minimize(cp.sum_squares(x - c)), [form <= 1])


def test_geometric_parameters_must_be_positive():
    a, c = cp.Variable(pos=True), cp.Parameter(2, pos=True, name="c")
    program = Program(cp.Problem(cp.Minimize(c[0] * a + c[1] / a)), gp=True)
    assert program.log_mask is not None
    assert program.log_mask.all()
    with pytest.raises(ProgramError, match=r"'c' enters a geometric program.*0 at entry \(1,\)"):
        program.pack({c: [1.0, 0.0]})


class TestOutputs:
    def test_unknown_variable(self):
        program = Program(cp.Problem(LEAST, [x >= 1]))
        with pytest.raises(ProgramError, match=r"'other' is not in the problem. Its variables: x"):
            program.output(cp.Variable(name="other"))
        with pytest.raises(ProgramError, match=r"got Parameter"):
            program.output(p)  # pyright: ignore[reportArgumentType]

    def test_dual_of_another_problem(self):
        program = Program(cp.Problem(LEAST, [x >= 1]))
        with pytest.raises(ProgramError, match=r"dual variables are constraint.dual_variables\[i\]"):
            program.output((x >= 1).dual_variables[0])

    def test_dual_that_cvxpy_does_not_define(self):
        y, z = cp.Variable(name="y"), cp.Variable(name="z")
        cone = cp.RelEntrConeQuad(x[0], y, z, 2, 2)
        if OLD:
            pytest.skip("this cone needs CVXPY 1.9")
        program = Program(cp.Problem(cp.Minimize(z), [cone, x[0] == 2, y == 1]))
        with pytest.raises(ProgramError, match="no dual variable"):
            program.output(cone.dual_variables[0])

    def test_complex_constraint_has_no_dual_here(self):
        constraint = x[0] + 1j * x[1] == 1 + 2j
        program = Program(cp.Problem(LEAST, [constraint]))
        with pytest.raises(ProgramError, match="complex"):
            program.output(constraint.dual_variables[0])
