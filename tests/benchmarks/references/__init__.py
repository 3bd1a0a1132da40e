"""Independent answers: solutions and gradients to near rounding, each from its own derivation, none from cvxift.

- ``qp``: exact active set of a quadratic program, certified by signs, with extended-precision refinement;
- ``closed``: softmax, the simplex, total variation, where the solution map has a formula;
- ``conic``: second-order cone and semidefinite cases by Newton's method on their own smooth optimality conditions.
"""
