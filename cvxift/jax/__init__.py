"""JAX layers: arrays in, arrays out, under any transformation and in any floating dtype."""

try:
    import jax as _jax  # noqa: F401
except ImportError as error:
    raise ImportError("cvxift.jax needs JAX: pip install 'cvxift[jax]'") from error

from cvxift.jax.layer import CvxpyLayer
from cvxift.jax.sorting import rank_loss, soft_rank, soft_sort
from cvxift.jax.transport import birkhoff, transport, transport_loss

__all__ = [
    "CvxpyLayer",
    "birkhoff",
    "rank_loss",
    "soft_rank",
    "soft_sort",
    "transport",
    "transport_loss",
]
