"""Failures that are known, of the fixed selection by case and kinds.

The list shrinks to nothing. A case that is not here, or fails in another way, fails the test; one that is mended may
be so on one machine alone, so ``python -m tests.trust --cases 300 --known`` prints what a run asks for.
"""

from __future__ import annotations

KNOWN: dict[str, tuple[str, ...]] = {}
