"""PyTorch layers: tensors in, tensors out, on any device and in any floating dtype."""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError("cvxift.torch needs PyTorch: pip install 'cvxift[torch]'") from error

from cvxift.torch.functions import (
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
from cvxift.torch.implicit import implicit_argmin, implicit_fixed_point, implicit_root
from cvxift.torch.layer import CvxpyLayer, from_cvxpylayers

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
    "from_cvxpylayers",
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
