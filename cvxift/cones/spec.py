"""The product cone and its blocks, which belong to the program that states them, under the cones' own name."""

from cvxift.program.cones import Block, Cones, Part

__all__ = ["Block", "Cones", "Part"]
