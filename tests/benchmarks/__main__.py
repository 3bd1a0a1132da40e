"""Command line: ``python -m tests.benchmarks --help``."""

from __future__ import annotations

import argparse
import fnmatch
import json
from pathlib import Path

from tqdm import tqdm

from . import report
from .cases import EVERY_SOLVER, QUICK, select, table
from .contenders import CVXIFT_SOLVERS, FLOORS, PEERS, TABLE
from .machine import describe
from .measure import Effort, measure

ROOT = Path(__file__).resolve().parents[2]


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description="Benchmark cvxift beside its peers."
    )
    parser.add_argument("--cases", nargs="*", metavar="PATTERN", help="shell patterns of case names (default: all)")
    parser.add_argument("--contenders", nargs="*", metavar="PATTERN", help="shell patterns (default: all)")
    parser.add_argument("--quick", action="store_true", help="a small selection, few rounds, 20 s limit")
    parser.add_argument("--limit", type=float, help="seconds for one contender on one case (default 60)")
    parser.add_argument("--rounds", type=int, help="turns of every contender (default 9)")
    parser.add_argument("--out", type=Path, default=ROOT / ".benchmarks" / "latest", help="folder for what is written")
    parser.add_argument(
        "--merge", action="store_true", help="keep the cases that --out already has and that are not run"
    )
    parser.add_argument("--publish", action="store_true", help="write into docs/ instead of --out")
    parser.add_argument("--report-only", action="store_true", help="regenerate table and plot from the JSON")
    parser.add_argument("--verbose", action="store_true", help="let contenders print")
    parser.add_argument("--list", action="store_true", help="print cases and contenders")
    return parser.parse_args()


def chosen_contenders(patterns: list[str] | None) -> list[str]:
    """Names in the table that match; one without a match is an error."""
    if patterns is None:
        return list(TABLE)
    for pattern in patterns:
        if not any(fnmatch.fnmatch(name, pattern) for name in TABLE):
            raise SystemExit(f"No contender matches {pattern!r}. Contenders: {', '.join(TABLE)}")
    return [name for name in TABLE if any(fnmatch.fnmatch(name, p) for p in patterns)]


def main() -> None:
    """Run, write, report."""
    options = arguments()
    if options.list:
        print("Cases:", ", ".join(table()))
        print("Contenders:", ", ".join(TABLE))
        return
    folder = ROOT / "docs" if options.publish else options.out
    folder.mkdir(parents=True, exist_ok=True)
    data_path = folder / "benchmark.json"
    if options.report_only:
        report.write(json.loads(data_path.read_text(encoding="utf-8")), folder)
        return
    cases = select(options.cases if options.cases is not None else list(QUICK) if options.quick else ["*"])
    names = chosen_contenders(options.contenders)
    effort = Effort(rounds=3, turn=0.15, limit=20.0) if options.quick else Effort()
    effort = Effort(options.rounds or effort.rounds, effort.turn, options.limit or effort.limit)
    records = {}
    if options.merge and data_path.exists():
        records = {record["name"]: record for record in json.loads(data_path.read_text(encoding="utf-8"))["cases"]}
    order = {name: i for i, name in enumerate(table())}
    data = {
        "machine": describe(),
        "effort": vars(effort),
        "contenders": {"peers": list(PEERS), "floors": list(FLOORS), "solvers": list(CVXIFT_SOLVERS)},
        "cases": [],
    }
    with tqdm(total=len(cases), unit="case") as bar:
        for case in cases:
            mine = [name for name in names if name not in CVXIFT_SOLVERS or case.name in EVERY_SOLVER]
            record = measure(
                case,
                {name: TABLE[name] for name in mine},
                effort,
                ROOT / ".benchmarks" / "references",
                options.verbose,
                bar.set_description_str,
            )
            if options.merge and case.name in records:
                record["contenders"] = records[case.name]["contenders"] | record["contenders"]
            records[case.name] = record
            bar.update()
            bar.write(report.line(record))
            data["cases"] = sorted(records.values(), key=lambda r: order.get(r["name"], len(order)))
            data_path.write_text(json.dumps(data, indent=1, allow_nan=True) + "\n", encoding="utf-8")
    report.write(data, folder)
    print(f"Wrote {folder / 'benchmark.md'}")


if __name__ == "__main__":
    main()
