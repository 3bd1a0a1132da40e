"""The optimality conditions and their derivatives: residuals, reduced KKT system, factorizations, solution map."""
