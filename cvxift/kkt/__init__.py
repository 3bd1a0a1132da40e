"""The optimality conditions and their derivatives: residuals, the reduced KKT system, factorizations, polish, solution map."""
