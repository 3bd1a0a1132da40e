"""Which programs are an argmax with a closed form, and that form as a solution map.

reading, read_*        a canonical program's rows and columns, claimed part by part
form, tops, plans …    what was found, in the program's own places
*_map                  the closed form: outputs, derivatives to second order, the canonical point, distances to kinks
recognize, closed_map  which one; and a `SolutionMap` that takes it, or the solvers
"""
