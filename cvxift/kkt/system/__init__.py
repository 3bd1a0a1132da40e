"""The KKT system of a point, in the basis of the cones: assembled, factorized, solved; of one point, or of a batch."""
