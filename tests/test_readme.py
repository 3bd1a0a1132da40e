"""Documentation cannot rot: every Python block of README.md and docs/*.md runs, and CI runs README's own command.

The blocks of one page run in order in one namespace, as a reader would type them. A block whose opening line reads
```python no-run is shown and not run; there should be few, each with a reason on the page.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<body>.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """First line number and text of every fenced block in one language, but those marked no-run."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        info = match["info"].split()
        if info and info[0] == language and "no-run" not in info:
            found.append((text.count("\n", 0, match.start("body")), match["body"]))
    return found


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: str(page.relative_to(ROOT))
)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for framework in ("torch", "jax"):
        if any(f"import {framework}" in body for _, body in blocks(page, "python")):
            pytest.importorskip(framework)
    if any("nlp=True" in body for _, body in blocks(page, "python")):
        pytest.importorskip("unopy")
        pytest.importorskip("cvxpy", minversion="1.9")
    monkeypatch.chdir(tmp_path)  # a block that saves a figure saves it here
    namespace: dict[str, object] = {"__name__": "__main__"}
    for line, body in blocks(page, "python"):
        # Leading newlines make a traceback show the page's own line numbers.
        exec(compile("\n" * line + body, str(page), "exec"), namespace)


def test_readme_has_runnable_blocks() -> None:
    assert blocks(ROOT / "README.md", "python")


def test_readme_gives_two_commands_and_ci_runs_the_second() -> None:
    commands = [
        line
        for _, body in blocks(ROOT / "README.md", "sh")
        for line in body.splitlines()
        if "tox -e demo" in line or "tox -e tests" in line
    ]
    assert len(commands) == 2, commands
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert commands[1] in ci, f".ci/run does not run README's test command: {commands[1]}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s#]+)(?:#[^)\s]*)?\)", text):
        if "://" not in target and not target.startswith("mailto:"):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}, which does not exist."


REPOSITORY = "https://github.com/cvxift/cvxift/blob/main/"


def test_readme_links_live_outside_of_the_repository_and_lead_somewhere() -> None:
    text = FENCE.sub("", (ROOT / "README.md").read_text(encoding="utf-8"))
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    assert targets and all("://" in target for target in targets)  # PyPI shows the page without the files around it
    for target in targets:
        if target.startswith(REPOSITORY):
            assert (ROOT / target.removeprefix(REPOSITORY).partition("#")[0]).exists(), target
    raw = "https://raw.githubusercontent.com/cvxift/cvxift/main/"
    assert all((ROOT / target.removeprefix(raw)).exists() for target in targets if target.startswith(raw))


def test_readme_prints_what_it_shows(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    page = ROOT / "README.md"
    exec(blocks(page, "python")[0][1], {"__name__": "__main__"})
    assert capsys.readouterr().out.strip() == blocks(page, "text")[0][1].strip()


def test_the_citation_and_the_changelog_name_the_release() -> None:
    import cvxift

    headings = re.findall(r"^## (\S+) \((.+)\)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0][0] == cvxift.__version__.removesuffix(".dev0")
    assert (headings[0][1] == "coming") == cvxift.__version__.endswith(".dev0")
    released, date = next(heading for heading in headings if heading[1] != "coming")
    for name in ("CITATION.cff", "README.md"):  # the last release is what one can cite
        text = (ROOT / name).read_text(encoding="utf-8")
        assert re.search(rf"version\s*[:=]\s*\{{?{re.escape(released)}\b", text), name
    assert f"date-released: {date}" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
