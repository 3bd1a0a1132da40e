"""Problems whose solution has a closed form, recognized by their terms, and that form as a solution map.

affine, tree, terms  a CVXPY problem by its terms: coefficients of affine expressions, atoms by name
carried              the forms of problems that `cvxift.argmax` makes
inputs, derivative   from θ to the form's inputs, and z = φ(x − Bᵀτ), B z = k with its derivatives
kinds                the scalar functions φ
separable, plan, permutahedron, chain
                     what a problem's terms must be, and its form
optimality           that the form's point is the problem's
recognize, closed_map
                     which form; and a `SolutionMap` that takes it, or the solvers
"""
