"""`cvxift check FILE.py[:NAME]`: find the CVXPY problems of a script or module, and report on each.

Exit status 0: the implicit function theorem applies to all; 1: it does not apply to one; 2: bad usage.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cvxpy as cp

from cvxift.diagnostics import Report, diagnose
from cvxift.diagnostics.render import show
from cvxift.errors import CvxiftError

APPLIES, DOES_NOT, USAGE = 0, 1, 2


class UsageError(CvxiftError):
    """The command line names something that is not there."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: words after the program's name; None for those of the process.

    Returns:
        The exit status: 0 applies, 1 does not, 2 bad usage.
    """
    parser = _parser()
    try:
        options = parser.parse_args(arguments)
    except SystemExit as stop:  # argparse has printed help (0) or what is wrong (2)
        return int(stop.code or 0)
    try:
        problems = find_problems(options.target)
        reports = {}
        for name, problem in problems.items():
            report = diagnose(problem, gp=options.gp, nlp=options.nlp, solver=options.solver)
            assert isinstance(report, Report)
            report.title = f"{name} ({report.title})"
            reports[name] = report
        _write(reports, options)
    except CvxiftError as error:
        print(f"cvxift: {error}", file=sys.stderr)
        return USAGE
    return APPLIES if all(report.ok for report in reports.values()) else DOES_NOT


def find_problems(target: str) -> dict[str, cp.Problem]:
    """The problems of a file, by name.

    Args:
        target: ``FILE.py`` or ``FILE.py:NAME``; NAME is a problem, or a function without arguments that returns one.

    Returns:
        name -> problem, in the file's order.

    Raises:
        UsageError: no such file, name, or no problem in it; or the file fails.
    """
    path, name = target, ""
    if not Path(target).exists() and ":" in target:
        path, _, name = target.rpartition(":")
    if not Path(path).is_file():
        raise UsageError(f"{path}: no such file.")
    directory = str(Path(path).resolve().parent)
    sys.path.insert(0, directory)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # what the script prints is not the report
            names = runpy.run_path(path, run_name="__cvxift__")
            value = names.get(name)
            if callable(value) and not isinstance(value, cp.Problem):
                value = value()
    except (Exception, SystemExit) as error:  # whatever the user's script raises is its own failure
        raise UsageError(f"{path} failed: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(directory)
    if name:
        if not isinstance(value, cp.Problem):
            known = ", ".join(key for key, item in names.items() if isinstance(item, cp.Problem)) or "none"
            raise UsageError(f"{path} has no cp.Problem named '{name}'; its problems: {known}.")
        return {name: value}
    problems = {key: item for key, item in names.items() if isinstance(item, cp.Problem)}
    if not problems:
        raise UsageError(
            f"{path} defines no cp.Problem at module level; name a function that returns one: {path}:NAME."
        )
    return problems


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cvxift", description="Does the implicit function theorem apply?")
    parser.add_argument("--version", action="version", version=f"cvxift {sys.modules['cvxift'].__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="report on the CVXPY problems of a Python file")
    check.add_argument(
        "target", metavar="FILE.py[:NAME]", help="the file, and the problem's or a function's name in it"
    )
    check.add_argument("--gp", action="store_true", help="the problems are geometric programs")
    check.add_argument("--nlp", action="store_true", help="the problems are nonlinear, or convex and not DPP")
    check.add_argument("--solver", help="name of the solver to use")
    check.add_argument("--json", action="store_true", help="print the reports as JSON")
    check.add_argument("--html", metavar="OUT", help="write the reports as an HTML page")
    check.add_argument("--plot", metavar="OUT", help="write the figures; with several problems their names are added")
    return parser


def _write(reports: dict[str, Report], options: Any) -> None:
    if options.json:
        print(json.dumps({name: report.to_dict() for name, report in reports.items()}, indent=2, ensure_ascii=False))
    else:
        for report in reports.values():
            show(report)
            print()
    try:
        if options.html:
            body = "\n".join(report._repr_html_() for report in reports.values())
            page = f"<!doctype html><meta charset='utf-8'><title>cvxift</title><body>{body}</body>\n"
            Path(options.html).write_text(page, encoding="utf-8")
        if options.plot:
            out = Path(options.plot)
            for name, report in reports.items():
                if report.point is not None:
                    place = out if len(reports) == 1 else out.with_stem(f"{out.stem}-{name}")
                    report.plot().savefig(place)
    except (OSError, ValueError) as error:  # an unwritable path, or a suffix that matplotlib does not know
        raise UsageError(f"Could not write the output: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
