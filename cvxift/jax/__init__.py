"""JAX layers: arrays in, arrays out, under any transformation and in any floating dtype."""

try:
    import jax as _jax  # noqa: F401
except ImportError as error:
    raise ImportError("cvxift.jax needs JAX: pip install 'cvxift[jax]'") from error

from cvxift.jax.layer import CvxpyLayer

__all__ = ["CvxpyLayer"]
