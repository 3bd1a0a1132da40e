"""Every solver on every cone it takes: planted solutions, statuses, signs, sessions that are used again."""

from __future__ import annotations

import numpy as np
import pytest
from planted_programs import Planted, plant, residuals, structure_of

from cvxift.errors import ProgramError
from cvxift.program.cones import Cones
from cvxift.solvers import Raw, Status, get
from cvxift.solvers.cvxpy import Cvxpy

QP = {
    "equalities": Cones(zero=4),
    "inequalities": Cones(nonneg=9),
    "both": Cones(zero=3, nonneg=8),
    "free": Cones(),
}
CONIC = {
    "soc": Cones(zero=2, nonneg=3, soc=(4, 1, 3, 2)),
    "psd": Cones(zero=2, psd=(3, 1, 4)),
    "exp": Cones(nonneg=2, exp=3),
    "pow": Cones(zero=1, pow=(0.2, 0.5, 0.7)),
    "all": Cones(zero=2, nonneg=4, soc=(4, 1, 3), psd=(3, 1, 2), exp=2, pow=(0.3, 0.7)),
}
DIRECT = ("daqp", "piqp", "osqp", "clarabel", "scs", "moreau")
# Through CVXPY: HiGHS, and the two that take all cones, which fixes the signs of every kind of row.
THROUGH_CVXPY = {"highs": ("HIGHS", {}), "cvxpy_scs": ("SCS", {"eps": 1e-9}), "cvxpy_clarabel": ("CLARABEL", {})}
# HiGHS' quadratic solver adds 1e-7 to P's diagonal; Clarabel through CVXPY has its own tolerance of 1e-8.
TOLERANCE = {"highs": 1e-6, "cvxpy_clarabel": 1e-7}


def solver_of(name):
    if name in THROUGH_CVXPY:
        solver, options = THROUGH_CVXPY[name]
        return Cvxpy(solver), options
    solver = get(name)
    if solver.missing():
        pytest.skip(solver.missing())
    return solver, {}


def session_of(name, structure, **options):
    solver, needed = solver_of(name)
    reason = solver.unsupported(structure)
    if reason:
        pytest.skip(reason)
    return solver.session(structure, **{**needed, **options})


def check_point(planted: Planted, raw: Raw, name: str) -> None:
    """The point solves the program, lies on the cones, and is the planted one."""
    tolerance = TOLERANCE.get(name, 1e-8)
    assert raw.status is Status.SOLVED, raw.message
    assert raw.message
    assert raw.seconds > 0.0
    assert raw.iterations >= 0
    assert max(residuals(planted.structure, *planted.numbers, raw)) < tolerance
    linear = slice(planted.structure.cones.zero, planted.structure.cones.zero + planted.structure.cones.nonneg)
    assert np.all(raw.s[: linear.start] == 0.0) or np.abs(raw.s[: linear.start]).max() < tolerance
    assert raw.s[linear].min(initial=0.0) >= -tolerance
    assert raw.y[linear].min(initial=0.0) >= -tolerance
    # An optimum within ε of the objective is within √ε of the strongly convex program's point.
    np.testing.assert_allclose(raw.x, planted.x, atol=3.0 * np.sqrt(tolerance))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("family", QP)
@pytest.mark.parametrize("name", [*DIRECT, *THROUGH_CVXPY])
def test_planted_quadratic_program(name, family, seed):
    planted = plant(QP[family], 14, seed)
    if name == "cvxpy_scs" and not planted.structure.m:
        pytest.skip("SCS needs at least one constraint")
    raw = session_of(name, planted.structure).solve(*planted.numbers)
    check_point(planted, raw, name)
    np.testing.assert_allclose(raw.y, planted.y, atol=1e-3)  # unique: fewer rows than variables


@pytest.mark.parametrize("where", ["boundary", "slack", "apex"])
@pytest.mark.parametrize("family", CONIC)
@pytest.mark.parametrize("name", ["clarabel", "scs", "moreau", "cvxpy_scs", "cvxpy_clarabel"])
def test_planted_conic_program(name, family, where):
    cones = CONIC[family]
    planted = plant(cones, cones.m + 3, 7, where=where)
    raw = session_of(name, planted.structure).solve(*planted.numbers)
    check_point(planted, raw, name)
    np.testing.assert_allclose(raw.y, planted.y, atol=3e-3)
    np.testing.assert_allclose(raw.s, planted.s, atol=3e-3)


@pytest.mark.parametrize("family", CONIC)
@pytest.mark.parametrize("name", ["clarabel", "scs", "moreau"])
def test_linear_cost_with_dense_rows(name, family):
    planted = plant(CONIC[family], CONIC[family].m - 2, 3, quadratic=False)
    assert planted.structure.nnzP == 0
    raw = session_of(name, planted.structure).solve(*planted.numbers)
    assert raw.status is Status.SOLVED, raw.message
    assert max(residuals(planted.structure, *planted.numbers, raw)) < 1e-8


@pytest.mark.parametrize("name", [*DIRECT, "highs"])
def test_linear_program_with_a_vertex(name):
    cones = Cones(zero=3, nonneg=30)
    planted = plant(cones, 12, 5, quadratic=False)
    # A vertex: as many tight rows as variables, so that x is the only solution.
    rng = np.random.default_rng(5)
    A = planted.structure.A_matrix(planted.A).toarray()
    y = planted.y.copy()
    tight = rng.permutation(np.arange(3, 33))[:9]
    y[3:] = 0.0
    y[tight] = rng.uniform(0.5, 2.0, 9)
    s = np.where(y == 0.0, rng.uniform(0.5, 2.0, 33), 0.0)
    s[:3] = 0.0
    q, b = -A.T @ y, A @ planted.x + s
    raw = session_of(name, planted.structure).solve(planted.P, q, planted.A, b)
    if name == "osqp" and raw.status is Status.ITERATION_LIMIT:
        return  # honest: a first-order method on a linear program
    assert raw.status is Status.SOLVED
    assert max(residuals(planted.structure, planted.P, q, planted.A, b, raw)) < 1e-8
    np.testing.assert_allclose(raw.x, planted.x, atol=1e-6)
    np.testing.assert_allclose(raw.y, y, atol=1e-5)


@pytest.mark.parametrize("family", ["both", "all"])
@pytest.mark.parametrize("name", [*DIRECT, "highs"])
def test_session_used_again_answers_as_a_new_one(name, family):
    cones = {**QP, **CONIC}[family]
    first, second = (plant(cones, 30, seed, everywhere=True) for seed in (1, 2))
    assert first.structure == second.structure
    session = session_of(name, first.structure)
    for planted in (first, second, first):
        check_point(planted, session.solve(*planted.numbers), name)
    # Only q and b change: what is kept of P and A must still be theirs.
    P, A = second.P, second.A
    x = first.x
    Pm, Am = second.structure.P_matrix(P), second.structure.A_matrix(A)
    moved = Planted(second.structure, P, -(Pm @ x) - Am.T @ first.y, A, Am @ x + first.s, x, first.s, first.y)
    session.solve(*second.numbers)
    check_point(moved, session.solve(*moved.numbers), name)


@pytest.mark.parametrize("family", ["both", "all"])
@pytest.mark.parametrize("name", DIRECT)
def test_result_does_not_depend_on_what_was_solved_before(name, family):
    cones = {**QP, **CONIC}[family]
    planted, other = (plant(cones, 30, seed, everywhere=True) for seed in (3, 4))
    fresh = session_of(name, planted.structure).solve(*planted.numbers)
    session = session_of(name, planted.structure)
    session.solve(*other.numbers)
    again = session.solve(*planted.numbers)
    np.testing.assert_allclose(again.x, fresh.x, atol=1e-4)
    kept = again.x.copy(), again.s.copy(), again.y.copy()
    session.solve(*other.numbers)
    for before, after in zip(kept, (again.x, again.s, again.y)):
        np.testing.assert_array_equal(before, after)  # a result is no view into the solver's workspace


@pytest.mark.parametrize("family", ["both", "all"])
@pytest.mark.parametrize("name", DIRECT)
def test_warm_start_from_the_solution(name, family):
    cones = {**QP, **CONIC}[family]
    planted = plant(cones, 30, 8, everywhere=True, singletons=3)
    session = session_of(name, planted.structure)
    cold = session.solve(*planted.numbers)
    warm = session.solve(*planted.numbers, warm=cold)
    check_point(planted, warm, name)
    if name in ("daqp", "osqp", "scs"):
        assert warm.iterations <= cold.iterations


@pytest.mark.parametrize("name", DIRECT)
def test_warm_start_from_a_wrong_point(name):
    planted, other = (plant(QP["both"], 14, seed, everywhere=True) for seed in (1, 9))
    session = session_of(name, planted.structure)
    wrong = session.solve(*other.numbers)
    wrong.y = np.abs(wrong.y) + 1.0  # every row active: more than there are variables
    check_point(planted, session.solve(*planted.numbers, warm=wrong), name)


@pytest.mark.parametrize("name", [*DIRECT, "highs"])
def test_infeasible(name):
    structure, P, A = structure_of(np.eye(2), [[1.0, 1.0], [-1.0, -1.0]], Cones(nonneg=2))
    raw = session_of(name, structure).solve(P, np.zeros(2), A, np.array([1.0, -2.0]))  # x₁ + x₂ ≤ 1 and ≥ 2
    assert raw.status in (Status.INFEASIBLE, Status.ITERATION_LIMIT)
    assert raw.status is Status.INFEASIBLE or name == "piqp"  # which does not always see it
    assert raw.status.has_point or np.isnan(raw.x).all()
    assert raw.message


@pytest.mark.parametrize("name", [*DIRECT, "highs"])
def test_unbounded(name):
    structure, P, A = structure_of(np.zeros((2, 2)), [[1.0, 1.0]], Cones(nonneg=1))
    raw = session_of(name, structure).solve(P, np.array([1.0, 2.0]), A, np.array([1.0]))
    assert raw.status in (Status.UNBOUNDED, Status.ITERATION_LIMIT)
    assert raw.status is Status.UNBOUNDED or name == "piqp"
    assert raw.message


@pytest.mark.parametrize("name", ["clarabel", "scs", "moreau"])
def test_infeasible_and_unbounded_cones(name):
    cones = Cones(soc=(3,))
    structure, P, A = structure_of(np.zeros((1, 1)), [[0.0], [-1.0], [0.0]], cones)
    raw = session_of(name, structure).solve(P, np.ones(1), A, np.array([1.0, 0.0, 2.0]))  # ‖(x, 2)‖ ≤ 1
    assert raw.status is Status.INFEASIBLE
    structure, P, A = structure_of(np.zeros((1, 1)), [[-1.0], [0.0], [0.0]], cones)
    raw = session_of(name, structure).solve(P, -np.ones(1), A, np.array([0.0, 1.0, 2.0]))  # ‖(1, 2)‖ ≤ x, max x
    assert raw.status is Status.UNBOUNDED


LIMIT = {
    "daqp": {"iter_limit": 2},
    "piqp": {"max_iter": 2},
    "osqp": {"max_iter": 2, "check_termination": 1},
    "clarabel": {"max_iter": 2},
    "scs": {"max_iters": 2},
    "moreau": {"max_iter": 2, "solver": "ipm"},
}


@pytest.mark.parametrize("name", DIRECT)
def test_options_reach_the_solver(name):
    planted = plant(Cones(zero=5, nonneg=40), 20, 0)
    raw = session_of(name, planted.structure, **LIMIT[name]).solve(*planted.numbers)
    assert raw.status is Status.ITERATION_LIMIT
    assert np.isfinite(raw.x).all()


@pytest.mark.parametrize("name", [*DIRECT, "highs"])
def test_unknown_option_is_refused_by_name(name):
    solver, _ = solver_of(name)
    structure = plant(QP["both"], 14, 0).structure
    with pytest.raises(ProgramError, match=f"Solver '{name}' has no option 'max_itre'.*It accepts: "):
        solver.session(structure, max_itre=3)


@pytest.mark.parametrize("name", ["piqp", "osqp", "clarabel", "scs", "moreau"])
def test_option_of_a_wrong_type_is_refused(name):
    option = {"scs": "max_iters"}.get(name, "max_iter")
    planted = plant(QP["both"], 14, 0)
    with pytest.raises(ProgramError, match=option):
        session_of(name, planted.structure, **{option: "many"})


@pytest.mark.parametrize("name", DIRECT)
def test_every_listed_option_is_accepted_with_its_default(name):
    planted = plant(QP["both"], 14, 0)
    options = {key: value for key, value in solver_of(name)[0].options.items() if value is not None}
    for key, value in options.items():
        if key in ("pardiso_iparm", "device") or key.endswith("_filename"):
            continue
        check_point(planted, session_of(name, planted.structure, **{key: value}).solve(*planted.numbers), name)


@pytest.mark.parametrize("name", [*DIRECT, "highs"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("array", ["P", "q", "A", "b"])
def test_values_that_are_not_finite_are_named(name, array, value):
    planted = plant(QP["both"], 14, 0)
    session = session_of(name, planted.structure)
    numbers = {key: part.copy() for key, part in zip("PqAb", planted.numbers)}
    numbers[array][0] = value  # b[0] is an equality's
    raw = session.solve(*numbers.values())
    assert raw.status is Status.FAILED
    assert array in raw.message
    assert str(value) in raw.message
    check_point(planted, session.solve(*planted.numbers), name)  # and the session is as good as before


@pytest.mark.parametrize("singletons", [10, 60])
@pytest.mark.parametrize("name", [*DIRECT, "highs"])
def test_bounds_on_single_variables(name, singletons):
    planted = plant(Cones(zero=5, nonneg=70), 60, singletons, singletons=singletons, density=0.5)
    raw = session_of(name, planted.structure).solve(*planted.numbers)
    check_point(planted, raw, name)


@pytest.mark.parametrize("name", [*DIRECT, "highs"])
def test_duplicate_and_empty_rows(name):
    rng = np.random.default_rng(0)
    row = rng.standard_normal((1, 6))
    A = np.vstack([row, row, 2.0 * row, np.zeros((1, 6)), np.eye(6), np.eye(6)])
    cones = Cones(zero=4, nonneg=12)
    x = rng.standard_normal(6)
    y = np.concatenate([rng.standard_normal(3), np.zeros(1), np.tile([1.0, 0.0, 0.0], 4)])
    s = np.concatenate([np.zeros(4), np.tile([0.0, 1.0, 0.5], 4)])
    P = np.eye(6)
    structure, P_values, A_values = structure_of(P, A, cones)
    numbers = P_values, -P @ x - A.T @ y, A_values, A @ x + s
    options = {"solver": "ipm"} if name == "moreau" else {}  # its active-set method gives up on them
    raw = session_of(name, structure, **options).solve(*numbers)
    assert raw.status is Status.SOLVED
    assert max(residuals(structure, *numbers, raw)) < TOLERANCE.get(name, 1e-8)


@pytest.mark.parametrize("name", ["daqp", "piqp", "osqp", "clarabel", "moreau"])
def test_badly_scaled(name):
    rng = np.random.default_rng(11)
    n, m = 12, 20
    columns, rows = 10.0 ** rng.uniform(-3, 3, n), 10.0 ** rng.uniform(-3, 3, m)
    root = rng.standard_normal((n, n))
    P = (root @ root.T / n + 0.1 * np.eye(n)) * columns * columns[:, None]
    A = rng.standard_normal((m, n)) * columns * rows[:, None]
    tight = rng.random(m) < 0.3
    y, s = np.where(tight, 1.0, 0.0) / rows, np.where(tight, 0.0, 1.0) * rows
    x = rng.standard_normal(n) / columns
    structure, P_values, A_values = structure_of(P, A, Cones(nonneg=m))
    numbers = P_values, -P @ x - A.T @ y, A_values, A @ x + s
    raw = session_of(name, structure).solve(*numbers)
    assert raw.status in (Status.SOLVED, Status.INACCURATE)
    assert max(residuals(structure, *numbers, raw)) < 1e-7


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("name", ["daqp", "piqp", "clarabel"])
def test_singular_cost(name, rank):
    rng = np.random.default_rng(rank)
    planted = plant(Cones(zero=2, nonneg=20), 8, rank)
    root = rng.standard_normal((8, rank))
    P = root @ root.T
    A = planted.structure.A_matrix(planted.A).toarray()
    structure, P_values, A_values = structure_of(P, A, planted.structure.cones)
    numbers = P_values, -P @ planted.x - A.T @ planted.y, A_values, planted.b
    raw = session_of(name, structure).solve(*numbers)
    assert raw.status is Status.SOLVED
    assert max(residuals(structure, *numbers, raw)) < 1e-8


@pytest.mark.parametrize("name", DIRECT)
def test_arrays_that_must_not_be_written_to(name):
    planted = plant(QP["both"], 14, 0, everywhere=True)
    numbers = [np.array(part) for part in planted.numbers]
    for part in numbers:
        part.setflags(write=False)
    check_point(planted, session_of(name, planted.structure).solve(*numbers), name)


@pytest.mark.parametrize("name", DIRECT)
def test_inputs_are_left_as_they_were(name):
    planted = plant(QP["both"], 14, 0, everywhere=True)
    before = [part.copy() for part in planted.numbers]
    session = session_of(name, planted.structure)
    session.solve(*planted.numbers)
    session.solve(*planted.numbers)
    for old, new in zip(before, planted.numbers):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("name", ["daqp", "piqp", "osqp"])
def test_quadratic_solvers_name_the_cones_they_cannot_take(name):
    structure = plant(CONIC["all"], 30, 0).structure
    reason = get(name).supports(structure)
    assert reason is not None
    assert "exp, pow, psd, soc" in reason
    with pytest.raises(ProgramError, match="exp, pow, psd, soc"):
        get(name).session(structure)


def test_cvxpy_says_what_its_solver_cannot_take():
    assert "exp" in (Cvxpy("HIGHS").supports(plant(CONIC["exp"], 12, 0).structure) or "")
    assert "does not find" in (Cvxpy("NOSUCH").supports(plant(QP["both"], 14, 0).structure) or "")


@pytest.mark.parametrize("backend", ["dense", "sparse"])
def test_piqp_backends_agree(backend):
    planted = plant(Cones(zero=5, nonneg=70), 60, 1, singletons=40, density=0.3)
    raw = get("piqp").session(planted.structure, backend=backend).solve(*planted.numbers)
    check_point(planted, raw, "piqp")
    with pytest.raises(ProgramError, match="backend"):
        get("piqp").session(planted.structure, backend="thick")
    with pytest.raises(ProgramError, match="sparse_ldlt"):
        get("piqp").session(planted.structure, kkt_solver="magic")
