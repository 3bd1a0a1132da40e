"""JAX layers: arrays in, arrays out, under any transformation and in any floating dtype."""

try:
    import jax as _jax  # noqa: F401
except ImportError as error:
    raise ImportError("cvxift.jax needs JAX: pip install 'cvxift[jax]'") from error

from cvxift.jax.bounded import box, budget, constrained_softmax, constrained_sparsemax
from cvxift.jax.implicit import implicit_argmin, implicit_fixed_point, implicit_root
from cvxift.jax.layer import CvxpyLayer
from cvxift.jax.linear_chain import linear_chain, linear_chain_loss, viterbi
from cvxift.jax.losses import argmax_loss, fenchel_young_loss
from cvxift.jax.simplex import entmax, softmax, sparsemax
from cvxift.jax.sorting import rank_loss, soft_rank, soft_sort
from cvxift.jax.transport import birkhoff, transport, transport_loss

__all__ = [
    "CvxpyLayer",
    "argmax_loss",
    "birkhoff",
    "box",
    "budget",
    "constrained_softmax",
    "constrained_sparsemax",
    "entmax",
    "fenchel_young_loss",
    "implicit_argmin",
    "implicit_fixed_point",
    "implicit_root",
    "linear_chain",
    "linear_chain_loss",
    "rank_loss",
    "soft_rank",
    "soft_sort",
    "softmax",
    "sparsemax",
    "transport",
    "transport_loss",
    "viterbi",
]
