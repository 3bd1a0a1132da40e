"""Run the examples and keep what they print and draw, for the gallery of the documentation.

    python docs/gallery.py [NAME ...]

writes docs/gallery/NAME.txt and docs/gallery/NAME.png; without names, for all examples.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

GROUPS = {
    "Start": {"quickstart": "Learning a problem from its decisions"},
    "Argmax": {
        "sparse_attention": "Sparse attention over words",
        "multilabel": "Multi-label classification by the sparsemax loss",
        "softmax_four_ways": "The Jacobian of softmax, four ways",
        "argmax_lp": "Argmax as a linear program, and its remedies",
    },
    "Learning": {
        "crf_tagging": "Tagging with a linear-chain CRF",
        "hmm": "Posteriors of a hidden Markov model",
        "soft_ranking": "Rank correlation as a loss",
        "one_problem_regression": "Regression as one problem",
        "sudoku": "Sudoku learned from puzzles and solutions",
        "optnet": "A quadratic program, all of it learned",
        "shortest_path": "Predict the travel times, then the shortest path",
        "structured_energy": "A learned energy for structured prediction",
        "penalties": "Ridge and LASSO penalties by gradients",
        "maml": "Implicit MAML on sinusoids",
        "semi_amortized": "Semi-amortized variational inference",
    },
    "Finance": {
        "jax_quickstart": "An investor's risks by Newton's method, in JAX",
        "portfolio": "A portfolio learned end to end",
    },
    "Control": {"mpc": "Model-predictive control tuned on its closed loop"},
    "Nonlinear and non-DPP problems": {
        "inverse_kinematics": "Inverse kinematics",
        "pendulum_mpc": "Nonlinear predictive control of a pendulum",
        "ellipse_projection": "Projection onto a learned ellipse",
        "sensor_localization": "Sensor localization",
        "non_dpp_portfolio": "A convex portfolio that is not DPP",
    },
    "Implicit functions and diagnosis": {
        "unit_circle": "Where dx/dθ exists on the unit circle",
        "conserved_mass": "Chemical equilibrium with conserved atoms",
        "deep_equilibrium": "A deep equilibrium model",
        "unrolled_or_implicit": "Unrolled or implicit?",
        "influence": "The influence of training examples",
        "hyperparameters": "200 penalties tuned by gradients",
        "kfac": "Kronecker-factored curvature as a linear solver",
    },
    "Several processes": {
        "ddp": "DistributedDataParallel over two processes",
        "shard_map": "JAX's shard_map over two processes",
    },
}

DOCS = Path(__file__).resolve().parent
EXAMPLES = DOCS.parent / "examples"
KEPT = DOCS / "gallery"


def run(name: str) -> None:
    """Run one example as a reader would."""
    environment = {**os.environ, "PYTHONPATH": str(DOCS.parent), "MPLBACKEND": "Agg", "PYTHONWARNINGS": "ignore"}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(EXAMPLES / f"{name}.py")]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{name} failed:\n{done.stderr}")
        lines = [line.rstrip() for line in done.stdout.splitlines() if not line.startswith("[Gloo]")]
        text = re.sub(r"^(plot|figure)( saved|: ).*$", "", "\n".join(lines), flags=re.MULTILINE)
        (KEPT / f"{name}.txt").write_text(text.strip() + "\n", encoding="utf-8")
        for figure in sorted(Path(folder).glob("*.png"))[:1]:
            shutil.copy(figure, KEPT / f"{name}.png")


def write_pages(out: Path) -> None:
    """Write a page for each example, and the list of thumbnails, as reStructuredText."""
    out.mkdir(parents=True, exist_ok=True)
    thumbnails: list[str] = []
    for group, examples in GROUPS.items():
        thumbnails += [f".. rubric:: {group}", "", ".. container:: gallery", ""]
        for name, title in examples.items():
            (out / f"{name}.rst").write_text(page(name, title), encoding="utf-8")
            link = f":doc:`{title} </generated/gallery/{name}>`"
            if (KEPT / f"{name}.png").exists():
                target = f"generated/gallery/{name}.html"
                thumbnails += [
                    f"   .. figure:: /gallery/{name}.png",
                    f"      :alt: {title}",
                    f"      :target: {target}",
                ]
                thumbnails += ["", f"      {link}", ""]
            else:
                thumbnails += [f"   {link}", ""]
    (out / "thumbnails.txt").write_text("\n".join(thumbnails), encoding="utf-8")


def page(name: str, title: str) -> str:
    """An example's page: what it is about, its figure, what it prints, its code."""
    source = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    about = re.sub(r"([*|])", r"\\\1", ast.get_docstring(ast.parse(source)) or "")
    parts = [title, "=" * (len(title) + 2), "", about, ""]
    if (KEPT / f"{name}.png").exists():
        parts += [f".. image:: /gallery/{name}.png", f"   :alt: What {name}.py draws.", ""]
    if (KEPT / f"{name}.txt").exists():
        parts += [".. rubric:: Output", "", f".. literalinclude:: /gallery/{name}.txt", "   :language: text", ""]
    parts += [".. rubric:: Code", "", f".. literalinclude:: /../examples/{name}.py", "   :language: python", ""]
    return "\n".join(parts)


if __name__ == "__main__":
    KEPT.mkdir(exist_ok=True)
    for name in sys.argv[1:] or [path.stem for path in sorted(EXAMPLES.glob("*.py")) if path.stem != "topics"]:
        run(name)
        print(name, flush=True)
