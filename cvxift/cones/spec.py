"""The product cone and its blocks, which belong to the program that states them; named here for those who work with the
cones."""

from cvxift.program.cones import Block, Cones, Part

__all__ = ["Block", "Cones", "Part"]
