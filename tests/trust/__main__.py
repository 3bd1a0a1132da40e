"""Command line: ``python -m tests.trust --help``."""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from dataclasses import asdict
from pathlib import Path

for _variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

from .pool import FAULTS, LIMIT, Judged, judged, run  # noqa: E402  # the thread counts are read when NumPy loads
from .table import finds, known, tables  # noqa: E402


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.trust", description="Try to fool cvxift.")
    parser.add_argument("--cases", type=int, default=300, help="how many cases (default 300)")
    parser.add_argument("--seed", type=int, default=0, help="which cases: another seed, other cases")
    parser.add_argument("--family", nargs="*", metavar="NAME", help="families to draw from (default: all)")
    parser.add_argument("--jobs", type=int, default=2, help="worker processes (default 2)")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds for one case")
    parser.add_argument("--json", type=Path, help="file of one JSON line a case; cases in it are not run again")
    parser.add_argument("--case", nargs="*", metavar="FAMILY:SEED", help="these cases alone")
    parser.add_argument("-v", "--verbose", action="store_true", help="print problems, references and details")
    parser.add_argument("--known", action="store_true", help="print the entries of known.py that this run asks for")
    parser.add_argument("--list", action="store_true", help="print the families")
    return parser.parse_args()


def selection(count: int, seed: int, families: list[str] | None = None) -> list[str]:
    """So many cases in turn from the families; every seed has its own."""
    from .families import FAMILIES

    table = families if families else list(FAMILIES)
    unknown = sorted(set(table) - set(FAMILIES))
    if unknown:
        raise SystemExit(f"No family is called {', '.join(unknown)}. Families: {', '.join(FAMILIES)}")
    return [f"{table[i % len(table)]}:{1_000_000 * seed + i // len(table)}" for i in range(count)]


def main() -> int:
    """Run, print; 1 if something was found that must not be."""
    options = arguments()
    warnings.simplefilter("ignore")
    if options.list:
        from .families import FAMILIES

        print("\n".join(f"{name:24s} {(build.__doc__ or '').strip()}" for name, build in FAMILIES.items()))
        return 0
    if options.case:
        results = [_shown(name, options.verbose) for name in options.case]
    else:
        results = _many(options)
        print(tables(results))
    found = finds(results, options.verbose)
    print("\n" + found if found else "\nNothing found.")
    if options.known:
        print(known(results, FAULTS))
    return int(any(finding["kind"] in FAULTS for result in results for finding in result.findings))


def _many(options: argparse.Namespace) -> list[Judged]:
    from tqdm import tqdm

    names = selection(options.cases, options.seed, options.family)
    results: list[Judged] = []
    if options.json and options.json.exists():
        wanted = set(names)
        lines = options.json.read_text(encoding="utf-8").splitlines()
        results = [result for result in (Judged(**json.loads(line)) for line in lines) if result.case in wanted]
    done = {result.case for result in results}
    names = [name for name in names if name not in done]
    for result in tqdm(run(names, options.jobs, options.limit), total=len(names), disable=not sys.stderr.isatty()):
        results.append(result)
        if options.json:
            with options.json.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(result)) + "\n")
    return results


def _shown(name: str, verbose: bool) -> Judged:
    if verbose:
        from .families import build
        from .kit import Case
        from .reference import Reference

        case = Case.of(name)
        stated, reference = build(case, scaled=case.other_units), Reference(case)
        print(f"{case}: {'degenerate' if case.degenerate else 'regular'}", end=", ")
        print("other units" if case.other_units else "ordinary units")
        print(stated.problem)
        for parameter in stated.problem.parameters():
            print(f"{parameter.name()} = {parameter.value!r}")
        print(f"reference: {reference.kind}, outputs {reference.point.x}")
        if reference.point.status == "solved":
            for along in reference.along:
                print(f"  {along.kind}: right {along.right}, left {along.left}")
    result = judged(name)
    if verbose:
        for finding in result.findings:
            print(f"  {finding['mode']}: {finding['kind']} {finding['detail']}")
    return result


if __name__ == "__main__":
    raise SystemExit(main())
