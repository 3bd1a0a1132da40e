"""Figures of a run: by family, by mode, and the finds with the line that repeats each."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from .pool import Judged

COLUMNS = (
    "right",
    "told",
    "undecided",
    "silent",
    "untold",
    "crash",
    "hang",
    "broken",
    "alarm",
    "wrong told",
    "no piece",
    "unsolved",
)
GOOD = ("right", "told", "undecided")


def grid(rows: dict[str, Counter[str]], first: str) -> str:
    """A table in Markdown: a row for each key, a column for each kind, totals below."""
    total: Counter[str] = sum(rows.values(), Counter())
    lines = [f"| {first} | " + " | ".join(COLUMNS) + " |", "|---|" + "---:|" * len(COLUMNS)]
    for name, counts in [*rows.items(), ("**all**", total)]:
        lines.append(f"| {name} | " + " | ".join(str(counts[kind] or "·") for kind in COLUMNS) + " |")
    return "\n".join(lines)


def mode_of(finding: dict[str, str]) -> str:
    """The mode without its options."""
    mode = finding["mode"].split(" (")[0]
    tail = finding["mode"].rsplit(" ", 1)[-1]
    if "faulty" in finding["mode"]:
        mode = "faulty solver"
    elif "(batch)" in finding["mode"]:
        mode = "torch batch"
    elif "(" in finding["mode"]:
        mode += ", other solver" if mode == "torch" else ", options"
    for suffix in ("forward", "reverse", "pair"):
        if mode.endswith(suffix):
            return mode
    return f"{mode} {tail}" if tail in ("forward", "reverse", "pair") else f"{mode} value"


def tables(results: Sequence[Judged]) -> str:
    """Tables by kind of case, by family and by mode, and shares of false alarms."""
    families: dict[str, Counter[str]] = defaultdict(Counter)
    modes: dict[str, Counter[str]] = defaultdict(Counter)
    groups: dict[str, Counter[str]] = defaultdict(Counter)
    truths: Counter[str] = Counter()
    alarms: dict[str, list[int]] = {"ordinary units": [0, 0], "other units": [0, 0]}
    for result in results:
        truths[result.truth] += 1
        kind = "degenerate" if result.degenerate else "regular"
        units = "other units" if result.other_units else "ordinary units"
        for finding in result.findings:
            families[result.case.rpartition(":")[0]][finding["kind"]] += 1
            modes[mode_of(finding)][finding["kind"]] += 1
            groups[f"{kind}, {units}"][finding["kind"]] += 1
            if result.truth == "smooth" and finding["kind"] != "undecided":
                alarms[units][0] += finding["kind"] in ("alarm", "wrong told")
                alarms[units][1] += 1
    shares = "; ".join(f"{units}: {a} of {n} ({100 * a / max(n, 1):.2f} %)" for units, (a, n) in alarms.items())
    points = ", ".join(f"{count} {truth}" for truth, count in truths.most_common())
    return "\n\n".join(
        [
            f"{len(results)} cases; points: {points}; {sum(r.seconds for r in results):.0f} s of computing.",
            grid(dict(sorted(groups.items())), "cases"),
            grid(dict(sorted(modes.items())), "mode"),
            grid(dict(sorted(families.items())), "family"),
            f"False alarms on smooth points, {shares}.",
        ]
    )


def known(results: Iterable[Judged], faults: Sequence[str]) -> str:
    """The entries of tests/trust/known.py that a run asks for."""
    lines = []
    for result in sorted(results, key=lambda r: r.case):
        kinds = sorted({finding["kind"] for finding in result.findings} & set(faults))
        if kinds:
            lines.append(f'    "{result.case}": ({", ".join(f"{kind!r}" for kind in kinds)},),'.replace("'", '"'))
    return "\n".join(lines)


def finds(results: Iterable[Judged], details: bool = False) -> str:
    """The cases with finds, a line each to repeat them by."""
    lines = []
    for result in sorted(results, key=lambda r: r.case):
        bad = [finding for finding in result.findings if finding["kind"] not in GOOD]
        if bad:
            kinds = ", ".join(f"{kind} ×{n}" for kind, n in Counter(finding["kind"] for finding in bad).items())
            lines.append(f"python -m tests.trust --case {result.case} -v    # {kinds}")
            if details:
                lines += [f"    {finding['mode']}: {finding['kind']}: {finding['detail']}" for finding in bad]
    return "\n".join(lines)
