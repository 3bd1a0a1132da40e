"""The numbers that the judgement of a point compares with; cases beside each: tests/kkt/test_regularity_layers.py."""

PROMISE = 1e-6  # relative error that a derivative may have without a word: the promise of the library
CLEAR = 1e-4  # part of the largest slack or multiplier that all others exceed where no kink is looked for
REGULAR = 1e-9  # reciprocal condition number of the equilibrated K above which no null vector is looked for
GROWN = 1e6  # size of K⁻¹r, equilibrated, from which a null vector of a sparse K is looked for; a null one gives 1e7
NULL = 1e-4  # part of a random vector that solving K r for r must lose for K to be singular: its condition is over 1e12
PULLED = 1e-6  # cosine between a null vector of K and θ's pull from which that entry of θ pulls the rows apart
LOOSE = 1e-6  # part of the largest force on a column, in units, under which nothing is seen to hold the column
FELT = 1e-6  # part of its unit that an output must move along a flat direction to feel it
NOISE = 1e-9  # part of the largest entry, each in its unit, under which an entry of a derivative is rounding
NOISE_CURVED = 1e-5  # the same where pieces are known up to their curvature over STEP
FAST = 1e-6  # share of the multipliers' motion near a kink of a curved cone, of the size of 1/STEP, that tells of u's
STEP = 1e-6  # part of each row's and column's size by which the pieces around a degenerate point are reached
FAR = 1.0  # distance in units of a column from which a neighbour, STEP of θ away, is no limit of solutions
SOLVED = 1e-3  # residual of a neighbour, as a part of the step to it, up to which it is a solution
MEAN_STEPS = (4e-5, 1e-5, 2.5e-6)  # the same where a mean over both sides is taken, whose error is the step's square
DIFFERENT = 1e-6  # relative difference between pieces from which they are two, for linear constraints
DIFFERENT_CURVED = 1e-4  # the same where a piece is known up to its curvature over STEP
SAME_POINT = 1e-8  # relative distance up to which the rows tight at a neighbour meet in the point itself
JUMP = 1e-3  # part of the solution's size that a neighbour off all pieces is away at least: STEP with a slope of 1000
STEEP = 1e-2  # relative difference of derivatives at two distances from a point from which the map is told to be steep
MANY = 64  # weak rows up to which their effect on the outputs is computed before pieces are looked for
MULTIPLIER = 1e-3  # margin under which a cone gets a multiplier where curvature vanishes, and that multiplier's part
FAR_STEP = 1e-3  # part of the program's size by which a derivative is tried that only the solutions can bear out
BORNE_OUT = 1e-2  # relative difference from them that it may have: the step's curvature, not another derivative
SETTLED = 0.1  # part of its distance to a kink by which a Newton step may move a cone: a fourth power's moves by 1/3
