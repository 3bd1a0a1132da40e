"""A bar appears where work takes longer than two seconds, on stderr, and never otherwise."""

from __future__ import annotations

import builtins
import importlib.util

import pytest

from cvxift.kkt.regularity import progress as module


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def worked(clock: Clock, seconds: float) -> list[int]:
    out = []
    for item in module.progress([1, 2, 3, 4], "pieces"):
        clock.now += seconds
        out.append(item)
    return out


def test_nothing_is_shown_before_two_seconds(clock, capfd, monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: pytest.fail("looked for tqdm"))
    assert worked(clock, 0.6) == [1, 2, 3, 4]
    assert capfd.readouterr() == ("", "")


def test_a_bar_is_shown_on_stderr_after_two_seconds(clock, capfd) -> None:
    pytest.importorskip("tqdm")
    assert worked(clock, 1.5) == [1, 2, 3, 4]
    out, err = capfd.readouterr()
    assert out == "" and "pieces" in err and "2/4" in err


def test_no_bar_without_tqdm(clock, capfd, monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    real = builtins.__import__
    monkeypatch.setattr(
        builtins, "__import__", lambda name, *rest: pytest.fail(name) if name == "tqdm" else real(name, *rest)
    )
    assert worked(clock, 5.0) == [1, 2, 3, 4]
    assert capfd.readouterr() == ("", "")
