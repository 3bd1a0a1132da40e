"""Implicit functions that are no CVXPY problem: what their derivatives need, free of any framework.

F(x, θ) = 0 defines x(θ) near a point where ∂F/∂x is invertible, and  dx = −(∂F/∂x)⁻¹ ∂F/∂θ dθ.  Here stand the linear
solvers for ∂F/∂x with their certificates, the conditions of the theorem as numbers, and the multipliers of constrained
minimizers. `cvxift.torch` and `cvxift.jax` supply F's products and hand the function to the user.
"""
