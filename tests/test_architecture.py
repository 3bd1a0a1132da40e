"""The arrows between cvxift's rooms, held by reading every import, and what importing cvxift loads.

A room may import the rooms below it and none beside or above it:

    cli → torch jax → layers implicit → argmax diagnostics → compat → nlp → kkt → solvers → cones → program

Inside a room nothing imports itself by way of others, and a module has one idea, which takes few lines. A call does not
climb up and down between files.

`atoms` know CVXPY alone, `errors` and the type aliases are below all, and only `program` touches CVXPY's reductions,
but for the one file that enters the atoms' canonicalizers there.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import FrameType

import cvxpy as cp
import numpy as np
import pytest

import cvxift

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "cvxift"

LEVELS = (
    ("errors", "_types"),
    ("program", "atoms"),
    ("cones",),
    ("solvers",),
    ("kkt",),
    ("nlp",),
    ("compat",),
    ("argmax", "diagnostics"),
    ("layers", "implicit"),
    ("torch", "jax"),
    ("cli",),
)
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
ADAPTERS = LEVELS[-2]
FRAMEWORKS = {"torch": {"torch"}, "jax": {"jax", "jaxlib"}}
ATOMS_MAY_SEE = (["cvxift", "errors"], ["cvxift", "_types"], ["cvxift", "atoms"])
ATOMS_MAY_IMPORT = {"cvxpy", "numpy", "scipy"} | sys.stdlib_module_names

ATOM_REGISTRY = PACKAGE / "atoms" / "registry.py"  # CVXPY keeps the table of canonicalizers among its reductions

MODULES = sorted(PACKAGE.rglob("*.py"))

LONGEST = 350  # lines of a module: its documentation and one idea


def room_of(path: Path) -> str:
    """The room a file lies in; "" for cvxift/__init__.py, the public face above all rooms but the adapters."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return "" if parts[0] == "__init__" else parts[0]


def imported(tree: ast.AST, package: tuple[str, ...] = (), typing: bool = True) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything a module imports, inside functions too.

    Args:
        tree: the parsed module.
        package: dotted parts of the package it lies in, against which relative imports are resolved.
        typing: whether imports under ``if TYPE_CHECKING:`` count.
    """
    guarded: set[ast.AST] = set()
    for node in ast.walk(tree):
        if not typing and isinstance(node, ast.If) and isinstance(node.test, ast.Name):
            guarded.update(*(ast.walk(inner) for inner in node.body if node.test.id == "TYPE_CHECKING"))
    for node in ast.walk(tree):
        if node in guarded:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = ".".join((*base, *filter(None, [node.module])))
            # `from cvxift import kkt` names a module too, so every name is joined to its stem.
            for alias in node.names:
                yield node.lineno, f"{stem}.{alias.name}"


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports_of(path: Path, typing: bool = True) -> list[tuple[int, str]]:
    package = ("cvxift", *path.relative_to(PACKAGE).parts[:-1])
    return list(imported(parsed(path), package, typing))


def name_of(path: Path) -> str:
    """Dotted name of a module below the package: ``kkt.engine``; that of a room for its ``__init__``."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def circles(graph: dict[str, set[str]]) -> set[tuple[str, ...]]:
    """Groups of nodes each of which reaches all others of its group, sorted."""
    reached: dict[str, set[str]] = {}
    for start in graph:
        seen, ahead = set(), list(graph[start])
        while ahead:
            node = ahead.pop()
            if node not in seen:
                seen.add(node)
                ahead += graph[node]
        reached[start] = seen
    groups = {tuple(sorted(b for b in reached[a] if a in reached[b])) for a in graph}
    return {group for group in groups if group}


def rooms_seen(path: Path) -> Iterator[tuple[int, str]]:
    """Line and room of every import from cvxift itself; a name of the package face is not a room."""
    for line, name in imports_of(path):
        parts = name.split(".")
        if parts[0] == "cvxift":
            yield line, parts[1] if len(parts) > 1 and parts[1] in LEVEL else ""


def where(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def test_every_room_has_its_place() -> None:
    rooms = {room_of(path) for path in MODULES} - {""}
    unknown = rooms - LEVEL.keys()
    assert not unknown, (
        f"{sorted(unknown)} have no place in the order of rooms; add them to LEVELS and to docs/design.md."
    )


def broken(rule: Callable[[Path], Iterator[str]]) -> str:
    """What the modules break of a rule, a line each; empty where all keep to it."""
    return "\n".join(found for path in MODULES for found in rule(path))


def looks_up(path: Path) -> Iterator[str]:
    room = room_of(path)
    for line, seen in rooms_seen(path):
        if seen == room:
            continue
        if room == "":
            if seen in ADAPTERS:
                yield f"{where(path, line)}: the package face may not import the adapter {seen}."
        elif not seen:
            yield f"{where(path, line)}: {room} imports the package face, which is above every room."
        elif LEVEL[seen] >= LEVEL[room]:
            yield f"{where(path, line)}: {room} may not look at {seen}."


def test_imports_point_downward() -> None:
    assert not broken(looks_up)


def too_long(path: Path) -> Iterator[str]:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    if lines > LONGEST:
        yield (
            f"{path.relative_to(ROOT)} has {lines} lines; a module has {LONGEST} at most: "
            "move its second idea to a file that bears that idea's name."
        )


def test_a_module_has_one_idea() -> None:
    assert not broken(too_long)


def test_no_module_imports_itself_by_way_of_others() -> None:
    # What only type checkers import needs no order: two types may well speak of each other.
    names = {name_of(path): path for path in MODULES if name_of(path)}
    graph = {}
    for name, path in names.items():
        own = [one for _, one in imports_of(path, typing=False) if one.startswith("cvxift.")]
        seen = {one.removeprefix("cvxift.") for one in own}
        # `from cvxift.kkt.engine import Engine` names the module by its stem.
        stems = {one if one in names else one.rpartition(".")[0] for one in seen}
        graph[name] = (stems & names.keys()) - {name}
    assert circles(graph) == set()


def test_circles_are_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a", "d"}}
    assert circles(graph) == {("b", "c"), ("d",)}
    source = """
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import cvxift.kkt
def f():
    import cvxift.cones
"""
    assert [name for _, name in imported(ast.parse(source), typing=False)] == ["typing.TYPE_CHECKING", "cvxift.cones"]


def touches_reductions(path: Path) -> Iterator[str]:
    if room_of(path) == "program" or path == ATOM_REGISTRY:
        return
    for line, name in imports_of(path):
        if name.startswith("cvxpy.reductions"):
            yield f"{where(path, line)}: only cvxift.program imports {name}."
    nodes = list(ast.walk(parsed(path)))
    aliases = {
        alias.asname or alias.name
        for node in nodes
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name == "cvxpy"
    }
    for node in nodes:
        if isinstance(node, ast.Attribute) and node.attr == "reductions" and isinstance(node.value, ast.Name):
            aliased = node.value.id in aliases
            yield from [f"{where(path, node.lineno)}: only cvxift.program uses cvxpy.reductions."] * aliased


def test_only_program_touches_reductions() -> None:
    assert not broken(touches_reductions)


def strange_framework(path: Path) -> Iterator[str]:
    room = room_of(path)
    for line, name in imports_of(path):
        for adapter, packages in FRAMEWORKS.items():
            if room != adapter and name.split(".")[0] in packages:
                yield f"{where(path, line)}: {room or 'cvxift'} imports {name}."


def test_frameworks_stay_in_their_adapter() -> None:
    assert not broken(strange_framework)


def test_the_rules_are_broken_by_a_module_that_breaks_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    bad = tmp_path / "cones" / "bad.py"
    bad.parent.mkdir()
    source = [
        "import torch",
        "import cvxpy as cp",
        "from cvxift import kkt",
        "cp.reductions",
        "from cvxpy.reductions import x",
    ]
    bad.write_text("\n".join([*source, *["pass"] * LONGEST]), encoding="utf-8")
    face = tmp_path / "__init__.py"
    face.write_text("from cvxift.torch import CvxpyLayer", encoding="utf-8")
    monkeypatch.setattr(sys.modules[__name__], "MODULES", [bad, face])
    assert broken(looks_up).splitlines() == [
        "cones/bad.py:3: cones may not look at kkt.",
        "__init__.py:1: the package face may not import the adapter torch.",
    ]
    assert "350 at most" in broken(too_long)
    assert [line.partition(": ")[0] for line in broken(touches_reductions).splitlines()] == [
        "cones/bad.py:5",
        "cones/bad.py:4",
    ]
    assert broken(strange_framework) == "cones/bad.py:1: cones imports torch."


def test_atoms_know_cvxpy_alone() -> None:
    for path in (path for path in MODULES if room_of(path) == "atoms"):
        for line, name in imports_of(path):
            parts = name.split(".")
            allowed = parts[0] in ATOMS_MAY_IMPORT or parts[:2] in ATOMS_MAY_SEE
            assert allowed, f"{where(path, line)}: atoms may not import {name}."


def test_the_walk_sees_every_form_of_import() -> None:
    source = """
import cvxift.kkt as k
from cvxift import solvers
from ..cones import product
from . import base
def f():
    from cvxpy.reductions import Chain
"""
    names = [name for _, name in imported(ast.parse(source), ("cvxift", "program"))]
    assert sorted(names) == [
        "cvxift.cones.product",
        "cvxift.kkt",
        "cvxift.program.base",
        "cvxift.solvers",
        "cvxpy.reductions.Chain",
    ]


ALONE = """
import importlib, importlib.abc, sys

class Hide(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name in HEAVY:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

# CVXPY imports every solver it finds, some of which import torch and jax; they are hidden from it, not from cvxift.
sys.meta_path.insert(0, Hide())
import cvxpy
del sys.meta_path[0]
import cvxift
assert "cvxift.diagnostics" not in sys.modules
cvxift.diagnose
print([name for name in HEAVY if name in sys.modules])
sys.meta_path.insert(0, Hide())
for adapter in ADAPTERS:
    try:
        importlib.import_module(f"cvxift.{adapter}")
    except ImportError as error:
        print(error)
    else:
        raise SystemExit("imported without its framework")
"""


def test_cvxift_loads_no_framework_and_adapters_say_in_one_line_what_to_install() -> None:
    heavy = ["torch", "jax", "jaxlib", "matplotlib", "rich", "tqdm", "moreau", "diffcp", "cvxpylayers"]
    source = f"HEAVY, ADAPTERS = {heavy}, {ADAPTERS}\n{ALONE}"
    result = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert result.returncode == 0, result.stderr
    loaded, *messages = result.stdout.splitlines()
    assert loaded == "[]", f"import cvxift loads {loaded}."
    for adapter, message in zip(ADAPTERS, messages, strict=True):
        assert re.search(rf"""pip install (["'])cvxift\[{adapter}\]\1""", message), message


def file_changes(work: Callable[[], object]) -> int:
    """How often the file changes from one call of the package's functions to the next."""
    last, changes = "", 0

    def follow(frame: FrameType, event: str, _: object) -> None:
        nonlocal last, changes
        file = frame.f_code.co_filename
        # `_types` stands for `functools` in older Pythons.
        if event == "call" and file.startswith(str(PACKAGE)) and not file.endswith("_types.py"):
            changes, last = changes + (file != last), file

    sys.setprofile(follow)
    try:
        work()
    finally:
        sys.setprofile(None)
    return changes


@pytest.fixture
def small_program() -> tuple[cp.Problem, cp.Variable, list[cp.Parameter]]:
    """½‖x‖² + qᵀx over Ax ≤ b, six variables and four rows."""
    x, q, b = cp.Variable(6), cp.Parameter(6), cp.Parameter(4)
    A = np.random.default_rng(0).standard_normal((4, 6))
    q.value, b.value = np.linspace(-1.0, 1.0, 6), np.full(4, 0.3)
    return cp.Problem(cp.Minimize(0.5 * cp.sum_squares(x) + q @ x), [A @ x <= b]), x, [q, b]


def test_a_layers_call_goes_straight_through_its_files(small_program) -> None:
    torch = pytest.importorskip("torch")
    from cvxift.torch import CvxpyLayer

    problem, x, parameters = small_program
    layer = CvxpyLayer(problem, parameters, [x])
    forward = backward = 0
    for _ in range(2):  # the first call makes what all calls share
        values = [torch.tensor(p.value + np.random.default_rng(1).random(p.shape)).requires_grad_() for p in parameters]
        outputs = []
        forward = file_changes(lambda values=values, outputs=outputs: outputs.extend(layer(*values)))
        cost = outputs[0].sum()
        backward = file_changes(cost.backward)
    assert 20 < forward <= 35
    assert 15 < backward <= 35


def test_a_jacobian_goes_nearly_straight_through_its_files(small_program) -> None:
    problem, x, (q, _) = small_program
    cvxift.differentiate(problem).jacobian(x, q)  # what imports itself
    for variable in problem.variables():
        variable.value = None
    assert 100 < file_changes(lambda: cvxift.differentiate(problem).jacobian(x, q)) <= 149
