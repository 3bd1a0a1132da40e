"""The layout of the product cone: rows, blocks, parts, units, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from cone_points import EVERYTHING

from cvxift.cones import Cones
from cvxift.errors import ProgramError


def test_rows_come_in_the_stated_order():
    cones = Cones(zero=2, nonneg=1, soc=(3, 1), psd=(2, 3), exp=2, pow=(0.25,))
    blocks = [tuple(block) for block in cones.blocks()]
    assert blocks == [
        ("zero", 0, 2, None), ("nonneg", 2, 3, None), ("soc", 3, 6, None), ("soc", 6, 7, None), ("psd", 7, 10, 2),
        ("psd", 10, 16, 3), ("exp", 16, 19, None), ("exp", 19, 22, None), ("pow", 22, 25, 0.25),
    ]  # fmt: skip
    assert cones.m == 25
    assert cones.rows("psd") == slice(7, 16)
    assert cones.rows("pow") == slice(22, 25)
    assert Cones(nonneg=2).rows("soc") == slice(2, 2)


def test_polyhedral_means_linear_rows_only():
    assert Cones(zero=1, nonneg=2).polyhedral
    assert Cones().polyhedral
    assert not any(Cones(**one).polyhedral for one in ({"soc": (2,)}, {"psd": (1,)}, {"exp": 1}, {"pow": (0.5,)}))


def test_parts_partition_the_rows_and_gather_equal_cones():
    cones = EVERYTHING
    rows = np.concatenate([part.index.ravel() for part in cones.parts])
    assert sorted(rows) == list(range(cones.m))
    assert [(part.kind, part.dim, part.count) for part in cones.parts] == [
        ("zero", 1, 3), ("nonneg", 1, 4), ("soc", 3, 2), ("soc", 1, 1), ("soc", 5, 2), ("soc", 2, 1), ("psd", 6, 2),
        ("psd", 1, 1), ("psd", 3, 1), ("exp", 3, 6), ("pow", 3, 4),
    ]  # fmt: skip


def test_units_are_linear_rows_and_cones():
    cones = EVERYTHING
    linear = cones.zero + cones.nonneg
    starts = [*range(linear), *(block.start for block in cones.blocks() if block.start >= linear)]
    np.testing.assert_array_equal(cones.unit_starts, starts)
    assert cones.units == len(starts)
    covered = np.concatenate([np.arange(cones.units)[units] for units in cones.unit_parts])
    assert sorted(covered) == list(range(cones.units))


def test_equal_cones_are_equal_and_hash_alike():
    assert Cones(soc=[3, 4], exp=np.int64(2)) == Cones(soc=(3, 4), exp=2)
    assert hash(Cones(pow=[0.5])) == hash(Cones(pow=(0.5,)))
    assert Cones(zero=1) != Cones(nonneg=1)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"zero": -1}, "zero has the size -1"),
        ({"nonneg": 1.5}, "nonneg has the size 1.5"),
        ({"exp": True}, "exp has the size True"),
        ({"soc": (3, 0)}, "soc has the size 0"),
        ({"psd": (0,)}, "psd has the size 0"),
        ({"pow": (0.5, 1.0)}, r"pow\[1\] is 1.0"),
        ({"pow": (float("nan"),)}, r"pow\[0\] is nan"),
    ],
)
def test_impossible_cones_are_refused_by_name(sizes, message):
    with pytest.raises(ProgramError, match=message):
        Cones(**sizes)


def test_unknown_kind_is_refused():
    with pytest.raises(ProgramError, match="'box'; known kinds: zero, nonneg"):
        Cones().rows("box")
