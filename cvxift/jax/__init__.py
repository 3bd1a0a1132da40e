"""JAX layers: arrays in, arrays out, under any transformation and in any floating dtype."""

try:
    import jax as _jax  # noqa: F401
except ImportError as error:
    raise ImportError("cvxift.jax needs JAX: pip install 'cvxift[jax]'") from error

from cvxift.jax.functions import (
    argmax_loss,
    birkhoff,
    box,
    budget,
    constrained_softmax,
    constrained_sparsemax,
    entmax,
    fenchel_young_loss,
    linear_chain,
    linear_chain_loss,
    rank_loss,
    soft_rank,
    soft_sort,
    softmax,
    sparsemax,
    transport,
    transport_loss,
    viterbi,
)
from cvxift.jax.implicit import implicit_argmin, implicit_fixed_point, implicit_root
from cvxift.jax.layer import CvxpyLayer

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
