"""A standing adversary: random problems, many degenerate by construction, with references that do not use cvxift."""
