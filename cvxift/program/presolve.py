"""Redundancy that the structure shows, resolved before anything is solved.

Multipliers of rows that say one thing twice are not unique, the KKT system is singular there, and its derivatives are a
matter of luck; an entropy's argument held by a bound as well is found to the bound's accuracy instead of its own. The
program is therefore built without such rows, in five steps, each decided from the affine maps θ ↦ (A, b) alone and so
valid for every θ:

    1. rows of A whose right-hand side is +∞ bind nothing
    2. matrix cones are cut into the blocks of their pattern, cones stated twice are stated once     (`cone_parts`)
    3. linear rows that repeat another, that another or a cone's own domain makes superfluous, leave (`affine_rows`)
    4. two inequalities that are the negatives of each other become one equality                     (`affine_rows`)
    5. columns that only stand between a convex function and its bound leave                         (`epigraphs`)

What is solved and differentiated is the reduced program; every row knows which of the user's it stands for, and the
multipliers of the others are zero, for a pair the parts of the equality's, or sums of those that a row went into.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp

from cvxift.program.affine_rows import IMPLIED, NONNEG, ZERO, affine_rows, joined, redundant
from cvxift.program.cone_parts import implied, parts, without_repeats
from cvxift.program.cones import Cones
from cvxift.program.epigraphs import without_epigraphs
from cvxift.program.structure import Floats, Structure
from cvxift.program.tensors import Stack, drop_free_rows, take_rows


@dataclass(frozen=True)
class Presolved:
    """A program without structural redundancy.

    Args:
        structure: its structure.
        stacked: its data as affine functions of θ.
        source: for each of its rows, the row of the full program that it is.
        named: for each of its rows, the row of the full program whose name it has: that of a bound that was put into
            its cone; else its source.
        weights: see `Eliminated`.
        columns: likewise for its columns.
        multipliers: L in y = L y', those of the full program from its own, shape (full m, m); before positive parts.
        paired: rows of the full program whose multiplier is the positive part of the weighted one; a mask.
    """

    structure: Structure
    stacked: Stack
    source: np.ndarray
    named: np.ndarray
    weights: Floats
    columns: np.ndarray
    multipliers: sp.csr_array
    paired: np.ndarray

    @cached_property
    def partners(self) -> dict[int, int]:
        """For each row that is a pair, the row of the full program that it is besides its source."""
        at = sp.coo_array(self.multipliers[np.flatnonzero(self.paired)])
        rows, second = np.flatnonzero(self.paired)[at.coords[0]], at.data < 0
        return dict(zip(at.coords[1][second].tolist(), rows[second].tolist(), strict=True))


def presolve(structure: Structure, stacked: Stack, rank: np.ndarray, auxiliary: np.ndarray) -> Presolved:
    """Reduce a program.

    Args:
        structure: the structure with all rows.
        stacked: its data as affine functions of θ.
        rank: which of two same rows stays, for each row: that of the lower rank.
        auxiliary: the columns that canonicalization added, a mask.

    Returns:
        The reduced program.
    """
    full = structure.m
    structure, stacked, kept = drop_free_rows(structure, stacked)
    rank = rank[kept]
    cones, rows = structure.cones, affine_rows(structure, stacked)
    stacks, single = ([], np.zeros(0, dtype=np.int64)) if cones.polyhedral else parts(cones, rows)
    stacks = without_repeats(stacks, rows, rank) if stacks else stacks
    linear = np.concatenate([np.arange(cones.zero + cones.nonneg), single])
    kind = np.where(np.arange(len(linear)) < cones.zero, ZERO, NONNEG)
    domain = implied(stacks, rows) if stacks else rows.take(np.zeros(0, dtype=np.int64))
    gone, pairs = redundant(
        joined(rows.take(linear), domain),
        np.concatenate([kind, np.full(len(domain), IMPLIED)]),
        np.concatenate([rank[linear], np.zeros(len(domain), dtype=rank.dtype)]),
    )
    stays = ~gone[: len(linear)]
    equal = (kind == ZERO) & stays
    equal[pairs.first] = False
    bounds = (kind == NONNEG) & stays
    bounds[pairs.first] = False
    order, reduced = _ordered(linear[equal], linear[pairs.first], linear[bounds], stacks)
    smaller, data = take_rows(structure, stacked, order, reduced)

    source = kept[order]
    target, weight, paired = np.full(full, -1), np.ones(full), np.zeros(full, dtype=bool)
    target[source] = np.arange(len(source))
    first, second = kept[linear[pairs.first]], kept[linear[pairs.second]]
    target[second], weight[second] = target[first], -pairs.ratio
    paired[first] = paired[second] = True
    own = np.flatnonzero(target >= 0)
    multipliers = sp.csr_array((weight[own], (own, target[own])), shape=(full, len(source)))
    end = without_epigraphs(smaller, data, auxiliary)
    multipliers = sp.csr_array(multipliers @ end.multipliers)
    own = named = source[end.rows]
    at = np.flatnonzero(end.bounds >= 0)
    if len(at):
        unit = end.structure.cones.unit_of_row
        bound_of_unit = np.full(end.structure.cones.units, -1)
        bound_of_unit[unit[at]] = source[end.bounds[at]]
        named = np.where(bound_of_unit[unit] >= 0, bound_of_unit[unit], own)
    kept = own, named, end.weights, end.columns
    return Presolved(end.structure, end.stacked, *kept, multipliers, paired)


def _ordered(equal: np.ndarray, became_equal: np.ndarray, bounds: np.ndarray, stacks: list) -> tuple[np.ndarray, Cones]:
    """The rows that stay, in the order of their cones, and the cones."""
    order, params = [equal, became_equal, bounds], {}
    for kind in ("soc", "psd", "exp", "pow"):
        own = [stack for stack in stacks if stack.kind == kind]
        params[kind] = np.concatenate([np.zeros(0)] + [np.full(len(stack.rows), stack.param) for stack in own])
        if len(own) < 2:  # as they stand already
            order += [stack.rows.ravel() for stack in own]
            continue
        by_row = np.argsort(np.concatenate([stack.rows[:, 0] for stack in own]))
        params[kind] = params[kind][by_row]
        rows = [rows for stack in own for rows in stack.rows]
        order += [rows[k] for k in by_row]
    return np.concatenate(order), Cones(
        zero=len(equal) + len(became_equal),
        nonneg=len(bounds),
        soc=tuple(params["soc"].astype(int).tolist()),
        psd=tuple(params["psd"].astype(int).tolist()),
        exp=len(params["exp"]),
        pow=tuple(params["pow"].tolist()),
    )
