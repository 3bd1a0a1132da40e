"""Failures that are known, of the fixed selection by case and kinds.

The list shrinks to nothing: what is mended must go, or the test fails. ``python -m tests.trust --cases 300 --known``
prints what a run asks for.
"""

from __future__ import annotations

KNOWN: dict[str, tuple[str, ...]] = {
    "fast:2": ("untold",),
    "fast:3": ("untold",),
    "flow_all_demands:2": ("untold",),
    "free_variable:1": ("untold",),
}
