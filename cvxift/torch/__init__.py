"""PyTorch layers: tensors in, tensors out, on any device and in any floating dtype."""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError("cvxift.torch needs PyTorch: pip install 'cvxift[torch]'") from error

from cvxift.torch.argmax import (
    budget,
    constrained_softmax,
    constrained_sparsemax,
    entmax,
    fenchel_young_loss,
    softmax,
    sparsemax,
)
from cvxift.torch.layer import CvxpyLayer
from cvxift.torch.linear_chain import linear_chain

__all__ = [
    "CvxpyLayer",
    "budget",
    "constrained_softmax",
    "constrained_sparsemax",
    "entmax",
    "fenchel_young_loss",
    "linear_chain",
    "softmax",
    "sparsemax",
]
