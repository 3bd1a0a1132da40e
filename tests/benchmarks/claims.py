"""The promises, each checked against the measured data."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .contenders import CVXIFT, CVXIFT_SOLVERS, FLOORS, GENERIC, PEERS

EXACT = 1e-6  # relative error that a gradient may have
RIGHT = 1e-3  # relative error up to which a peer's x and gradients still count as right
MAROS = "Maros–Mészáros"

Row = dict[str, Any]


@dataclass(frozen=True)
class Claim:
    """One promise; ``passed`` is ``None`` when the data do not say."""

    text: str
    measured: str
    bound: str
    passed: bool | None


def median(row: Row, key: str) -> float | None:
    """Median seconds of ``forward`` or ``backward``."""
    return row.get(key, {}).get("median")


def total(row: Row) -> float | None:
    """Forward plus backward; ``None`` unless both were measured and the contender came through."""
    forward, backward = median(row, "forward"), median(row, "backward")
    return forward + backward if row.get("status") == "ok" and forward and backward else None


def gradient_error(row: Row) -> float | None:
    """Worst error over the gradients with respect to every parameter."""
    found = [error for key, error in row.get("errors", {}).items() if key != "x"]
    if any(math.isnan(error) for error in found):
        return math.inf
    return max(found) if found else None


def is_right(row: Row) -> bool:
    """Whether a contender's answers are good enough to be compared with."""
    gradient = gradient_error(row)
    return row.get("status") == "ok" and gradient is not None and gradient <= RIGHT and row["errors"]["x"] <= RIGHT


def maros_counts(records: list[dict[str, Any]], name: str) -> dict[str, int]:
    """Problems solved, differentiated, and with right or wrong gradients at regular points."""
    rows = [record["contenders"].get(name, {}) for record in records]
    return {
        "solved": sum(bool(row.get("solved")) for row in rows),
        "differentiated": sum(row.get("status") == "ok" and bool(row.get("solved")) for row in rows),
        "agree": sum(bool(row.get("agrees")) for row in rows),
        "disagree": sum(row.get("agrees") is False for row in rows),
    }


def check(data: dict[str, Any]) -> list[Claim]:
    """Every promise, in order."""
    cases = {record["name"]: record["contenders"] for record in data["cases"]}
    plain = [record for record in data["cases"] if record["group"] != MAROS]
    maros = [record for record in data["cases"] if record["group"] == MAROS]
    return [
        _exact(plain),
        _same(plain),
        _ratio(cases, "qp_100_100_50", "forward", 10),
        _ratio(cases, "qp_10_10_5", "forward", 5),
        _ratio(cases, "qp_100_100_50", "backward", 10),
        _ratio(cases, "qp_10_10_5", "backward", 3),
        _floor(cases),
        _ratio(cases, "qp_10_10_5_batch128", "forward", 20),
        *_maros(maros),
        *_simplex(cases),
        _ratio(cases, "softmax_1000", "total", 500),
        _ratio(cases, "tv_10000", "total", 10),
        _memory(cases),
        *_slower(data["cases"]),
    ]


def _exact(records: list[dict[str, Any]]) -> Claim:
    worst, where, missing = 0.0, "", []
    for record in records:
        if record["reference"]["regular"] is not True:
            continue
        for name in (CVXIFT, GENERIC):
            row = record["contenders"].get(name)
            if row is None or row.get("status") == "unsupported":
                continue
            error, label = gradient_error(row), record["name"] if name == CVXIFT else f"{record['name']}, generic path"
            if error is None:
                missing.append(label)
            elif error >= worst:
                worst, where = error, label
    text = "relative error of every gradient, every case with a derivative, default settings"
    measured = f"{worst:.1e} ({where})" + (f"; no gradient for {', '.join(missing)}" if missing else "")
    return Claim(text, measured if where else "–", f"≤ {EXACT:g}", (worst <= EXACT and not missing) if where else None)


def _same(records: list[dict[str, Any]]) -> Claim:
    worst, where, count, failed = 0.0, "", 0, []
    for record in records:
        for name in CVXIFT_SOLVERS:
            row = record["contenders"].get(name, {})
            error = gradient_error(row)
            if row.get("status") not in (None, "unsupported", "ok"):
                failed.append(f"{name} on {record['name']}")
            if error is None:
                continue
            count += 1
            if error >= worst:
                worst, where = error, f"{name} on {record['name']}"
    text = "the same gradient from every capable solver: worst relative error against the reference"
    measured = f"{worst:.1e} ({where}; {count} pairs)" + (f"; failed: {', '.join(failed)}" if failed else "")
    return Claim(text, measured if count else "–", f"≤ {EXACT:g}", worst <= EXACT and not failed if count else None)


def _seconds(row: Row, key: str) -> float | None:
    return total(row) if key == "total" else median(row, key)


def _ratio(cases: dict[str, dict[str, Row]], name: str, key: str, bound: float) -> Claim:
    rows = cases.get(name, {})
    own, peer = _seconds(rows.get(CVXIFT, {}), key), _seconds(rows.get("cvxpylayers", {}), key)
    label = "forward + backward" if key == "total" else key
    text = f"{name}: {label} faster than cvxpylayers' default"
    stopped = rows.get("cvxpylayers", {})
    if own and not peer and stopped.get("status") == "timeout":
        return Claim(text, f"{own * 1e3:.3g} ms; cvxpylayers: {stopped['message']}", f"≥ {bound:g}×", True)
    if not own or not peer:
        return Claim(text, "–", f"≥ {bound:g}×", None)
    return Claim(text, f"{peer / own:.1f}× ({own * 1e3:.3g} ms)", f"≥ {bound:g}×", peer / own >= bound)


def _floor(cases: dict[str, dict[str, Row]]) -> Claim:
    rows = cases.get("qp_100_100_50", {})
    floors = [(seconds, name) for name in FLOORS if (seconds := total(rows.get(name, {})))]
    own = total(rows.get(CVXIFT, {}))
    text = "qp_100_100_50: forward + backward relative to the fastest bare solver + one factorization"
    if not floors or not own:
        return Claim(text, "–", "≤ 3×", None)
    least, name = min(floors)
    return Claim(text, f"{own / least:.2f}× ({name}, {least * 1e3:.3g} ms)", "≤ 3×", own <= 3 * least)


def _maros(records: list[dict[str, Any]]) -> Iterator[Claim]:
    measured = [record for record in records if CVXIFT in record["contenders"]]
    wanted = math.ceil(len(records) * 66 / 69) if len(records) != 69 else 66
    count = maros_counts(measured, CVXIFT)
    text = "Maros–Mészáros: solved to 1e-6 and differentiated"
    value = f"{count['differentiated']} of {len(measured)}"
    yield Claim(
        text, value if measured else "–", f"≥ {wanted}", count["differentiated"] >= wanted if measured else None
    )
    regular = sum(record["reference"]["regular"] is True for record in measured)
    text = "Maros–Mészáros: wrong gradients at regular points"
    value = f"{count['disagree']} ({count['agree']} right of {regular})"
    yield Claim(text, value if measured else "–", "0", count["disagree"] == 0 if measured else None)


def _simplex(cases: dict[str, dict[str, Row]]) -> Iterator[Claim]:
    for kind in ("simplex", "simplex_spread"):
        small = total(cases.get(f"{kind}_10000", {}).get(GENERIC, {}))
        large = total(cases.get(f"{kind}_100000", {}).get(GENERIC, {}))
        text = f"{kind}_100000: forward + backward, generic path"
        yield Claim(text, f"{large:.3f} s" if large else "–", "< 0.5 s", large < 0.5 if large else None)
        power = math.log10(large / small) if large and small else None
        text = f"{kind}, generic path: exponent of the cost from n = 10⁴ to 10⁵"
        yield Claim(text, f"{power:.2f}" if power else "–", "≤ 1.1", power <= 1.1 if power else None)


def _memory(cases: dict[str, dict[str, Row]]) -> Claim:
    small = cases.get("tv_1000", {}).get(CVXIFT, {}).get("memory")
    large = cases.get("tv_10000", {}).get(CVXIFT, {}).get("memory")
    text = "total variation: memory beyond the imports, n = 10 000 relative to n = 1 000 (non-zeros grow 10×)"
    if not small or not large:
        return Claim(text, "–", "≤ 12×", None)
    value = f"{large / small:.1f}× ({large / 2**20:.0f} MiB)"
    return Claim(text, value, "≤ 12×", large <= 12 * small)


def _slower(records: list[dict[str, Any]]) -> Iterator[Claim]:
    """No case slower than the fastest peer that is right."""
    for label, maros in (("cases", False), (f"{MAROS} problems", True)):
        compared, slower = 0, []
        for record in records:
            rows = record["contenders"]
            own = total(rows.get(CVXIFT, {}))
            if (record["group"] == MAROS) is not maros or CVXIFT not in rows:
                continue
            fine = (lambda row: bool(row.get("solved"))) if maros else is_right
            peers = [(t, n) for n in PEERS if n in rows and fine(rows[n]) and (t := total(rows[n]))]
            if not peers:
                continue
            compared += 1
            least, name = min(peers)
            if own is None or own > least:
                by = f"{own / least:.1f}× {name}" if own else "no answer"
                slower.append(f"{record['name']} ({by})")
        text = f"{label} slower than the fastest peer that is right to {RIGHT:g}" if not maros else (
            f"{label} slower than the fastest peer that solved them"
        )  # fmt: skip
        value = f"{len(slower)} of {compared}" + (f": {', '.join(slower)}" if slower else "")
        yield Claim(text, value if compared else "–", "0", not slower if compared else None)
