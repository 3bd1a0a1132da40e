"""Projections at 60 digits, written from the definitions with bisection; nothing is shared with the code under test."""

from __future__ import annotations

import mpmath as mp
import numpy as np

mp.mp.dps = 60


def column(values):
    """A list of exact mpf numbers."""
    return [mp.mpf(float(value)) if not isinstance(value, mp.mpf) else value for value in values]


def norm(values):
    return mp.sqrt(mp.fsum(value * value for value in values))


def decreasing_root(f, lo, hi, middle):
    """Root of a function that falls from positive to negative on (lo, hi), either end of which may be infinite."""
    x, reach = middle, mp.mpf(1)
    for _ in range(4000):
        if f(x) > 0:
            lo = x
            if mp.isinf(hi):
                x, reach = x + reach, 2 * reach
                continue
        else:
            hi = x
            if mp.isinf(lo):
                x, reach = x - reach, 2 * reach
                continue
        if hi - lo < mp.mpf(10) ** -12 * (1 + abs(lo)):
            break
        x = (lo + hi) / 2
    # Illinois: regula falsi that halves the value at an end kept twice.
    f_lo, f_hi, kept = f(lo), f(hi), 0
    for _ in range(60):
        if f_lo == f_hi or hi - lo < mp.mpf(10) ** -55 * (1 + abs(lo)):
            break
        x = (lo * f_hi - hi * f_lo) / (f_hi - f_lo)
        f_x = f(x)
        if f_x > 0:
            f_hi = f_hi / 2 if kept == 1 else f_hi
            lo, f_lo, kept = x, f_x, 1
        else:
            f_lo = f_lo / 2 if kept == -1 else f_lo
            hi, f_hi, kept = x, f_x, -1
        if f_x == 0:
            return x
    return (lo * f_hi - hi * f_lo) / (f_hi - f_lo) if f_lo != f_hi else lo


def project_soc(v, _=None):
    t, z = v[0], v[1:]
    rho = norm(z)
    if rho <= t:
        return list(v)
    if rho <= -t:
        return [mp.mpf(0)] * len(v)
    half = (t + rho) / 2
    return [half] + [half * entry / rho for entry in z]


def project_psd(v, order):
    root = mp.sqrt(2)
    V = mp.matrix(order, order)
    places = [(row, col) for col in range(order) for row in range(col + 1)]
    for value, (row, col) in zip(v, places):
        V[row, col] = V[col, row] = value if row == col else value / root
    values, U = mp.eigsy(V)
    S = U * mp.diag([max(value, 0) for value in values]) * U.T
    return [S[row, col] if row == col else S[row, col] * root for row, col in places]


def in_exp(v):
    x, y, z = v
    return (y > 0 and z >= y * mp.exp(x / y)) or (y == 0 and x <= 0 and z >= 0)


def in_exp_dual(v):
    x, y, z = v
    return (x < 0 and mp.e * z >= -x * mp.exp(y / x)) or (x == 0 and y >= 0 and z >= 0)


def project_exp(v, _=None):
    r, s, t = v
    if in_exp(v):
        return list(v)
    if in_exp_dual([-entry for entry in v]):
        return [mp.mpf(0)] * 3
    if r <= 0 and s <= 0:
        return [r, mp.mpf(0), max(t, mp.mpf(0))]
    lo = 1 - s / r if r > 0 else -mp.inf
    hi = r / s if s > 0 else mp.inf

    def excess(rho):
        return t * (rho * (rho - 1) + 1) - ((rho - 1) * r + s) * mp.exp(rho) + (r - rho * s) * mp.exp(-rho)

    if mp.isinf(lo):
        middle = hi - 1
    elif mp.isinf(hi):
        middle = lo + 1
    else:
        middle = (lo + hi) / 2
    rho = decreasing_root(excess, lo, hi, middle)
    width = rho * (rho - 1) + 1
    y = ((rho - 1) * r + s) / width
    # For large ρ, z comes from the multiplier: y exp(ρ) would lose the digits that cancel in y.
    return [rho * y, y, y * mp.exp(rho) if rho < 0 else t + (r - rho * s) / width * mp.exp(-rho)]


def in_pow(v, alpha):
    x, y, z = v
    return x >= 0 and y >= 0 and x**alpha * y ** (1 - alpha) >= abs(z)


def in_pow_dual(v, alpha):
    x, y, z = v
    return x >= 0 and y >= 0 and (x / alpha) ** alpha * (y / (1 - alpha)) ** (1 - alpha) >= abs(z)


def project_pow(v, alpha):
    alpha = mp.mpf(alpha)
    beta = 1 - alpha
    r, s, t = v
    if in_pow(v, alpha):
        return list(v)
    if in_pow_dual([-entry for entry in v], alpha):
        return [mp.mpf(0)] * 3
    if t == 0:
        return [max(r, mp.mpf(0)), max(s, mp.mpf(0)), mp.mpf(0)]
    size = abs(t)

    def point(u):
        z, rest = size / (1 + mp.exp(-u)), size / (1 + mp.exp(u))
        return half(r, alpha * z * rest), half(s, beta * z * rest), z

    def half(value, product):
        root = mp.sqrt(value * value + 4 * product)
        return (value + root) / 2 if value > 0 else 2 * product / (root - value)

    def excess(u):
        x, y, z = point(u)
        return alpha * mp.log(x) + beta * mp.log(y) - mp.log(z)

    x, y, z = point(decreasing_root(excess, -mp.inf, mp.inf, mp.mpf(0)))
    return [x, y, mp.sign(t) * z]


PROJECT = {"soc": project_soc, "psd": project_psd, "exp": project_exp, "pow": project_pow}


def certify(kind, v, s, param):
    """Assert that s is the projection of v: s ∈ K, s − v ∈ K*, s ⊥ s − v, to 1e-45 of ‖v‖."""
    y = [a - b for a, b in zip(s, v)]
    size = norm(v)
    slack = size * mp.mpf(10) ** -45
    assert abs(mp.fsum(a * b for a, b in zip(s, y))) <= slack * size
    inside = {"exp": lambda w: in_exp(w), "pow": lambda w: in_pow(w, mp.mpf(param))}[kind]
    dual = {"exp": lambda w: in_exp_dual(w), "pow": lambda w: in_pow_dual(w, mp.mpf(param))}[kind]
    lift = {"exp": ([0, 1, 1], [-1, 1, 1]), "pow": ([1, 1, 0], [1, 1, 0])}[kind]
    assert inside([a + slack * b for a, b in zip(s, lift[0])])
    assert dual([a + slack * b for a, b in zip(y, lift[1])])


def derivative(kind, v, param, step):
    """DΠ(v) by central differences, shape (dim, dim); step as an mpf, far below the margin of v."""
    columns = []
    for i in range(len(v)):
        ends = []
        for sign in (1, -1):
            moved = list(v)
            moved[i] += sign * step
            ends.append(PROJECT[kind](moved, param))
        columns.append([(a - b) / (2 * step) for a, b in zip(*ends)])
    return np.array([[float(entry) for entry in col] for col in columns]).T


def second_derivative(kind, v, a, b, param, step):
    """D²Π(v)[a, b] by central differences."""
    total = [mp.mpf(0)] * len(v)
    for left in (1, -1):
        for right in (1, -1):
            moved = [entry + step * (left * p + right * q) for entry, p, q in zip(v, a, b)]
            value = PROJECT[kind](moved, param)
            total = [old + left * right * new for old, new in zip(total, value)]
    return np.array([float(entry / (4 * step * step)) for entry in total])
