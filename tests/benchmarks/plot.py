"""One picture: forward plus backward time of every contender on every case."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import claims

MARKS = {
    "cvxift": ("o", "C3"), "cvxpylayers": ("s", "C0"), "cvxpylayers-clarabel": ("^", "C9"),
    "cvxpylayers-moreau": ("D", "C2"),
    "daqp": ("|", "0.3"), "piqp": ("_", "0.3"), "clarabel": ("x", "0.5"),
}  # fmt: skip


def draw(data: dict[str, Any], path: Path) -> None:
    """Write the picture; hollow marks are answers that are not right to 1e-3."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    records = [r for r in data["cases"] if r["group"] != claims.MAROS]
    maros = [r for r in data["cases"] if r["group"] == claims.MAROS]
    figure, axes = plt.subplots(
        1, 2 if maros else 1, figsize=(15 if maros else 9, 0.28 * max(len(records), 12) + 1.5), squeeze=False
    )
    axis = axes[0, 0]
    for name, (mark, color) in MARKS.items():
        bare = name in claims.FLOORS
        for right in (True, False):
            points = []
            for place, record in enumerate(records):
                row = record["contenders"].get(name, {})
                seconds = claims.total(row)
                if seconds and (bare or claims.is_right(row)) == right:
                    points.append((seconds * 1e3, place))
            if points:
                label = name if right else f"{name}, error > {claims.RIGHT:g}"
                face = color if right or bare else "none"
                x, y = zip(*points, strict=True)
                axis.scatter(x, y, marker=mark, label=label, color=color if bare else None,
                             facecolors=None if bare else face, edgecolors=None if bare else color)  # fmt: skip
    axis.set_yticks(range(len(records)), [record["name"] for record in records], fontsize=8)
    axis.invert_yaxis()
    axis.set_xscale("log")
    axis.set_xlabel("forward + backward, ms")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4)
    if maros:
        axis = axes[0, 1]
        for name, (mark, color) in MARKS.items():
            rows = [r["contenders"].get(name, {}) for r in maros]
            times = sorted(t for row in rows if row.get("solved") and (t := claims.total(row)))
            if times:
                axis.step([1e3 * t for t in times], range(1, len(times) + 1), where="post", color=color, label=name)
                axis.scatter([1e3 * t for t in times], range(1, len(times) + 1), marker=mark, color=color, s=12)
        axis.set_xscale("log")
        axis.set_xlabel("forward + backward, ms")
        axis.set_ylabel(f"Maros–Mészáros problems solved to 1e-6 and differentiated, of {len(maros)}")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)
