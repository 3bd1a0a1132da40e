"""Loaded when Python starts with this folder on its path: CVXPY imports every solver it finds, and moreau PyTorch."""

import sys

sys.modules["moreau"] = None  # type: ignore[assignment]
