"""Products with the derivative at one point: taken on the first piece and compared with the others.

A product exists as a two-sided derivative exactly if all pieces that meet at the point give the same; this is asked of
the very product that is wanted, so that a kink which it does not feel is none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from cvxift._types import EPS
from cvxift.errors import ApplicabilityError
from cvxift.kkt.failures import Check, Mode, certify, speak_once, tell_endless, tell_flat, tell_kink, tell_steep
from cvxift.kkt.regularity.account import Regularity
from cvxift.kkt.regularity.thresholds import (
    BENT,
    CURVED_SHARE,
    DIFFERENT,
    DIFFERENT_CURVED,
    FELT,
    NOISE,
    NOISE_CURVED,
    PERSISTS,
    PULLED,
    ROOT,
    SHORTER,
    STEEP,
)
from cvxift.kkt.solution import Linearization
from cvxift.program.structure import Data, Floats

SECOND_ORDER_ROUNDING = 1e-6  # relative rounding of what second derivatives are taken from, from where it is told
RANDOM_CHANGES = 3  # random changes of θ along which pieces are compared where no product is asked for


def transposed(account: Regularity, bar: Floats, with_P: bool, check: Check) -> Floats:
    """Vector-Jacobian products; see `_transposed`."""
    return _in_words(account, check, lambda account, check: _transposed(account, bar, with_P, check))


def tangent(account: Regularity, direction: Data, check: Check) -> Floats:
    """Jacobian-vector products: tangents of the outputs, shape (..., K), for tangents of the data."""
    return _in_words(account, check, lambda account, check: _tangent(account, direction, check))


def _in_words(account: Regularity, check: Check, product: Callable[[Regularity, Check], Floats]) -> Floats:
    """A product; where a system is singular under `singular="raise"`, refused only if the product's outputs feel it."""
    try:
        return product(account, check)
    except ApplicabilityError:
        if account.policy.singular != "raise":
            raise
        return product(account.with_policy("least_squares"), "raise")


def _transposed(account: Regularity, bar: Floats, with_P: bool, check: Check) -> Floats:
    """Vector-Jacobian products.

    Args:
        account: of the point.
        bar: cotangents of the outputs, shape (..., K).
        with_P: whether P depends on θ.
        check: what is done where the product has no two-sided derivative.

    Returns:
        Cotangents of θ in the program's order, shape (..., N).
    """
    x_bar, y_bar = account.recover.transpose(bar)
    values, differs, noise = _values(account, lambda pieces: _gradients(account, pieces, bar, with_P))
    if account.endless is not None and bool((bar @ account.recover.linear(*account.endless)).any()):
        tell_endless(account, check)
    flat = False
    if account.flat is not None:
        along = account.recover.linear(account.flat.u, account.flat.w)
        flat = bool((np.abs(bar @ along) > FELT * (np.abs(bar) @ account.output_unit)).any())
        if flat:
            tell_flat(account, check)
    torn = account.recover.has_dual and bool((bar != 0.0)[..., _jumps(account)].any())
    told = _judge(account, differs, check, theta=True, torn=torn, flat=flat)
    if (told and not account.ended) or len(values) < len(account.pieces):
        return values[0]
    return _mean(
        account, values[0], lambda side: account.program.vjp(side.vjp(x_bar, y_bar, with_P)), check, noise=noise
    )


def _tangent(account: Regularity, direction: Data, check: Check) -> Floats:
    values, differs, noise = _values(account, lambda pieces: _tangents(account, pieces, direction))
    if account.endless is not None:
        tell_endless(account, check, "forward")
    flat = account.flat is not None
    if flat:
        tell_flat(account, check, "forward")
    ended, torn = account.ended and account.torn_by(direction), account.recover.has_dual and bool(_jumps(account).any())
    told = _judge(account, differs, check, theta=False, ended=ended, torn=torn, flat=flat)
    if (told and not account.ended) or len(values) < len(account.pieces):
        return values[0]
    return _mean(account, values[0], lambda side: account.recover.linear(*side.jvp(direction)), check, "forward", noise)


def determined(account: Regularity, direction: Data) -> Floats:
    """As `tangent`, without a word: NaN for outputs without a derivative, such as multipliers that are not unique."""
    values, differs, _ = _values(account, lambda pieces: _tangents(account, pieces, direction))
    out = values[0].copy()
    out[differs] = np.nan
    if account.flat is not None:
        moves = np.abs(account.recover.linear(account.flat.u, account.flat.w)) > FELT * account.output_unit
        out[..., moves] = np.nan
    out[..., _jumps(account)] = np.nan
    return out


def differs_somewhere(account: Regularity) -> bool:
    """Whether the pieces at a point have different tangents along random changes of θ."""
    if len(account.pieces) == 1:
        return account.ended
    sizes = account.local.theta_sizes(account.jacobian)
    dots = np.random.default_rng(0).standard_normal((RANDOM_CHANGES, len(sizes)))
    dots *= np.divide(1.0, sizes, out=np.zeros_like(sizes), where=sizes > 0.0)
    tangents = account.program.jvp(dots)
    return account.ended or bool(_values(account, lambda pieces: _tangents(account, pieces, tangents))[1].any())


def _values(
    account: Regularity, product: Callable[[Sequence[Linearization]], tuple[list[Floats], Floats]]
) -> tuple[list[Floats], np.ndarray, Floats]:
    """A product on each piece, where the pieces differ, of the values' shape, and the size of what is rounding.

    A piece of curved cones is known a step away, with the curvature of the step: pieces that differ less in proportion
    from a shorter one are one piece, which is taken from there. Where all of them tend to what the point's own
    linearization gives, that is their limit.

    Args:
        account: of the point.
        product: gives the values on pieces, and the size beside which a difference is rounding.
    """
    values, noise = product(account.pieces)
    differs = _differs(account, values, noise)
    if account.local.cones.polyhedral or not differs.any() or account.two_distances is None:
        return values, differs, noise
    far, near = (product(pieces)[0] for pieces in account.two_distances)
    (limit,), _ = product([account.plain])
    off, left = (np.abs(np.stack(found) - limit).max(axis=0) for found in (far, near))
    known = left <= DIFFERENT_CURVED * np.abs(limit) + NOISE_CURVED * noise
    if (known | (left <= ROOT * off)).all():
        return [limit], np.zeros_like(differs), noise
    kept = differs & (_spread(near) > PERSISTS * _spread(far))
    return (values, differs, noise) if kept.any() else (near, kept, noise)


def _gradients(
    account: Regularity, pieces: Sequence[Linearization], bar: Floats, with_P: bool
) -> tuple[list[Floats], Floats]:
    """The cotangents of θ on each piece, and the size beside which a difference is rounding."""
    x_bar, y_bar = account.recover.transpose(bar)
    values, noise = [], np.zeros(())
    for piece in pieces:
        u, w = piece.adjoint(x_bar, y_bar)
        values.append(account.program.vjp(piece.pull_back(u, w, with_P)))
        if len(pieces) > 1:
            noise = np.maximum(noise, _size(account, u, w)[..., None] * account.theta_unit)
    return values, noise


def _tangents(account: Regularity, pieces: Sequence[Linearization], direction: Data) -> tuple[list[Floats], Floats]:
    """The tangents of the outputs on each piece, and the size beside which a difference is rounding."""
    values, noise = [], np.zeros(())
    for piece in pieces:
        x_dot, y_dot = piece.jvp(direction)
        values.append(account.recover.linear(x_dot, y_dot))
        if len(pieces) > 1:
            noise = np.maximum(noise, _size(account, x_dot, y_dot)[..., None] * account.output_unit)
    return values, noise


def _size(account: Regularity, u: Floats, w: Floats) -> Floats:
    """The largest entry of solutions of the KKT system, each in its unit, shape (...): what rounding is relative to.

    A step away from a kink of a curved cone multipliers and auxiliary columns move as fast as the step is short, which
    says little of the others.
    """
    columns, rows = account.local.units
    u_size, w_size = np.abs(u / columns), np.abs(w / rows).max(axis=-1, initial=0.0)
    if not account.local.cones.polyhedral and not account.recover.has_dual:
        u_size, w_size = np.where(account.program.user_columns, u_size, CURVED_SHARE * u_size), CURVED_SHARE * w_size
    return np.maximum(u_size.max(axis=-1, initial=0.0), w_size)


def second(account: Regularity, bar: Floats, direction: Data, check: Check) -> Floats:
    """∂/∂θ ⟨bar, J θ̇⟩ in the program's order, shape (..., N)."""
    x_bar, y_bar = account.recover.transpose(bar)
    values = [account.program.vjp(piece.reverse(x_bar, y_bar, [direction])) for piece in account.pieces]
    _first_order(account, direction, check, "reverse")
    if _judge(account, None, check, theta=True):
        return values[0]
    return _mean(account, values[0], lambda side: account.program.vjp(side.reverse(x_bar, y_bar, [direction])), check)


def second_tangent(account: Regularity, direction: Data, other: Data, check: Check) -> Floats:
    """Second derivatives of the outputs along two tangents of the data, shape (..., K)."""
    value = account.recover.linear(*account.pieces[0].forward([direction, other]))
    _first_order(account, direction, check, "forward")
    if _judge(account, None, check, theta=False):
        return value
    of = lambda side: account.recover.linear(*side.forward([direction, other]))  # noqa: E731
    return _mean(account, value, of, check, "forward")


def _first_order(account: Regularity, direction: Data, check: Check, mode: Mode) -> None:
    """Say why a second derivative may not exist, or is not accurate: the first one does not, or is known alone."""
    # Tangents come in the program's own units, where s₀ ± s₁ of a second-order cone cancel.
    units = account.solution.units
    lost = 0.0 if units is None else EPS * units.apart
    if lost > SECOND_ORDER_ROUNDING:
        message = (
            f"Second derivatives at this point may have relative errors of {lost:.0e} and more: squares, reciprocals "
            "or means hold values whose sizes differ by too many orders of magnitude. Write the problem in other "
            "units, so that these values are of a size near 1."
        )
        speak_once(account, message, check, mode)
    if account.first_order is not None:
        tell_flat(account, check, mode)
    elif len(account.pieces) > 1:
        tangent(account, direction, check)


def entries_that_differ(account: Regularity) -> np.ndarray:
    """The entries of θ with respect to which the pieces have different derivatives, where a tangent has shown that."""
    if account.entries_that_differ is None:
        bar = np.random.default_rng(0).uniform(0.5, 1.0, len(account.output_unit)) / account.output_unit
        found = np.flatnonzero(_differs(account, *_gradients(account, account.pieces, bar, account.program.P_varies)))
        account.entries_that_differ = found if len(found) else account.pulled
    return account.entries_that_differ


def _jumps(account: Regularity) -> np.ndarray:
    """Outputs whose values differ between the pieces, shape (K,): multipliers of rows that some pieces do without."""
    values = np.stack([account.recover.linear(piece.x, piece.y) for piece in account.pieces])
    if len(values) == 1:
        return np.zeros(values.shape[1], dtype=bool)
    limit = DIFFERENT if account.local.cones.polyhedral else DIFFERENT_CURVED
    return np.abs(values - values[0]).max(axis=0) > limit * (np.abs(values).max(axis=0) + account.output_unit)


def _differs(account: Regularity, values: Sequence[Floats], noise: Floats) -> np.ndarray:
    """Where the pieces differ, of the values' shape."""
    if len(values) == 1:
        return np.zeros(values[0].shape, dtype=bool)
    polyhedral = account.local.cones.polyhedral
    limit, rounding = (DIFFERENT, NOISE) if polyhedral else (DIFFERENT_CURVED, NOISE_CURVED)
    return _spread(values) > limit * np.abs(values).max(axis=0) + rounding * noise


def _spread(values: Sequence[Floats]) -> Floats:
    return np.abs(np.stack(values) - values[0]).max(axis=0)


def _mean(
    account: Regularity,
    value: Floats,
    product: Callable[[Linearization], Floats],
    check: Check,
    mode: Mode = "reverse",
    noise: Floats | float = 0.0,
) -> Floats:
    """The product's mean over the two sides of the point, where pieces are known by their sides alone.

    The mean is off by the step squared, which that of a shorter step takes away (Richardson's extrapolation). Where the
    map ends at the point, 2 J(h) − J(2h) on the side that there is takes the mean's place.

    The sides are further away than the piece's neighbour; where they tell of another piece the value stands, and where
    they tell of quite another speed, as beside an infinite one, it is told.
    """
    if not account.sides:
        return value
    size = np.abs(value).max(axis=-1, initial=0.0, keepdims=True)
    near, far = (product(side) for side in account.sides)
    if account.ended:
        mean, limit = 2.0 * near - far, STEEP * size
    else:
        mean = (near + far) / 2.0
        if account.nearer_sides:
            near, far = (product(side) for side in account.nearer_sides)
            closer, wide = (near + far) / 2.0, mean
            smooth = np.abs(wide - closer) <= STEEP * size  # else the farther sides lie beyond another kink
            mean = np.where(smooth, closer + (closer - wide) / (SHORTER**2 - 1.0), closer)
        limit = DIFFERENT_CURVED * size + BENT * np.abs(near - far)
    if bool((np.abs(mean - value) > STEEP * size + NOISE_CURVED * noise).any()):
        tell_steep(account, check, mode)
    return np.where(np.abs(mean - value) <= limit, mean, value)


def _judge(
    account: Regularity,
    differs: np.ndarray | None,
    check: Check,
    theta: bool,
    ended: bool | None = None,
    torn: bool = False,
    flat: bool = False,
) -> bool:
    """Say what the pieces and their linear solves say of a product's values; whether it has no two-sided derivative.

    Args:
        account: of the point.
        differs: where the pieces' values of the product differ; None if that is not asked.
        check: what is done about it.
        theta: whether the product's entries are those of θ.
        ended: whether some change leads to no solution; None for what the account says.
        torn: whether outputs that are asked for have other values on other pieces.
        flat: whether it was said that outputs can move at no cost: where nothing else is amiss, all else follows.
    """
    ended, mode = account.ended if ended is None else ended, "reverse" if theta else "forward"
    flat = flat and account.only_flat
    ended = ended and not flat
    if ended or torn or (differs is not None and bool(differs.any())):
        if check != "off":
            entries = None
            if theta and differs is not None:
                entries = np.flatnonzero(differs.reshape(-1, differs.shape[-1]).any(axis=0))
            tell_kink(account, check, entries_that_differ(account) if entries is None else entries, mode=mode)
        return True
    if account.steep:
        tell_steep(account, check, mode)
    certificate = account.pieces[0].certificate
    # K's null space is known by itself then: what a solve leaves along it is the accuracy of the point.
    left = certificate is not None and not certificate.consistent and certificate.residual <= PULLED
    if (not flat or account.policy.singular == "raise") and not (left and account.harmless(account.pieces[0])):
        certify(certificate, account.policy.singular, check)
    return False
