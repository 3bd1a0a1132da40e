"""The documentation names everything public, and its pages are reached from the first."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
MODULES = [
    "cvxift",
    *(f"cvxift.{name}" for name in ("torch", "jax", "argmax", "atoms", "diagnostics", "solvers", "program")),
]


@pytest.mark.parametrize("module", MODULES)
def test_the_reference_lists_every_public_name(module: str) -> None:
    if module.endswith((".torch", ".jax")):
        pytest.importorskip(module.rpartition(".")[2])
    sections = re.split(r"^## ", (DOCS / "reference.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    section = next(part for part in sections if part.startswith(f"{module}\n"))
    listed = set(re.findall(r"^   (\w+)$", section, flags=re.MULTILINE))
    public = set(importlib.import_module(module).__all__)
    if module == "cvxift.diagnostics":  # these are listed where users take them from
        public -= set(importlib.import_module("cvxift").__all__)
    assert listed == public


def test_every_page_is_in_a_table_of_contents() -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    trees = re.findall(r"```\{toctree\}(.*?)```", index, flags=re.DOTALL)
    listed = {line.strip() for tree in trees for line in tree.splitlines() if line.strip() and not line.startswith(":")}
    pages = {page.stem for page in DOCS.glob("*.md")} - {"index"}
    assert listed == pages


def test_every_example_is_in_the_gallery() -> None:
    text = (DOCS / "gallery.py").read_text(encoding="utf-8")
    scripts = {path.stem for path in (ROOT / "examples").glob("*.py")} - {"topics", "figures"}  # what the scripts share
    missing = {name for name in scripts if f'"{name}"' not in text}
    assert not missing
    listed = set(re.findall(r"\[(\w+)\.py\]", (DOCS / "examples.md").read_text(encoding="utf-8")))
    assert listed == scripts


def test_images_say_what_they_show() -> None:
    for page in [ROOT / "README.md", *DOCS.glob("*.md")]:
        for alt in re.findall(r"!\[([^\]]*)\]\(", page.read_text(encoding="utf-8")):
            assert alt.strip(), page.name


def test_times_and_errors_are_those_of_the_benchmark() -> None:
    cases = {case["name"]: case["contenders"] for case in json.loads((DOCS / "benchmark.json").read_text())["cases"]}

    def measured(case: str, contender: str) -> tuple[float, float, float]:
        row = cases[case][contender]
        milliseconds = (1e3 * row[way]["median"] for way in ("forward", "backward"))
        return (*milliseconds, max(error for name, error in row["errors"].items() if name != "x"))

    def same(text: str, value: float) -> bool:
        return float(text) == float(f"{value:.{len(text.replace('.', '').lstrip('0'))}g}")

    for page in (ROOT / "README.md", DOCS / "index.md"):
        found = re.findall(r"\*\*([\d.]+) ms\*\*; (\S+) \| ([\d.]+) ms; (\S+) \|", page.read_text(encoding="utf-8"))
        assert len(found) == 3
        for case, told in zip(("qp_10_10_5", "qp_10_10_5_batch128", "qp_50_50_10"), found, strict=True):
            for (time, error), contender in zip((told[:2], told[2:]), ("cvxift", "cvxpylayers"), strict=True):
                forward, backward, worst = measured(case, contender)
                assert same(time, forward + backward) and float(error) == float(f"{worst:.0e}"), (page.name, case)
    told = re.findall(r"\| ([\d.]+) ms \| ([\d.]+) ms \|", (DOCS / "performance.md").read_text(encoding="utf-8"))
    rows = [(name, "cvxift") for name in ("qp_10_10_5", "qp_10_10_5_batch128", "qp_100_100_50")]
    for (case, contender), times in zip([*rows, ("simplex_100000", "cvxift-generic")], told, strict=True):
        assert all(map(same, times, measured(case, contender)[:2])), case
