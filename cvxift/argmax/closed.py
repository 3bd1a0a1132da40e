"""The closed forms on NumPy arrays by name; `cvxift.torch` and `cvxift.jax` have them as differentiable functions.

Each lies in the file named after what it is about: `simplex`, `bounded`, `capped`, `losses`.
"""

from cvxift.argmax.bounded import Sides, sides
from cvxift.argmax.capped import Caps, caps
from cvxift.argmax.losses import fenchel_young
from cvxift.argmax.simplex import entmax

__all__ = ["Caps", "Sides", "caps", "entmax", "fenchel_young", "sides"]
