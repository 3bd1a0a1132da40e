"""Convex regularizers of the argmax family as CVXPY atoms, their conjugates over the simplex, and Fenchel–Young losses.

They know CVXPY alone: any CVXPY problem may use them, with or without cvxift's layers.
"""

from cvxift.atoms.conjugate import fenchel_young_loss, regularized_max
from cvxift.atoms.entropies import gini, neg_entropy, norm_neg_entropy, relative_entropy
from cvxift.atoms.structured import fused, oscar
from cvxift.atoms.tsallis import tsallis_neg_entropy

__all__ = [
    "fenchel_young_loss",
    "fused",
    "gini",
    "neg_entropy",
    "norm_neg_entropy",
    "oscar",
    "regularized_max",
    "relative_entropy",
    "tsallis_neg_entropy",
]
