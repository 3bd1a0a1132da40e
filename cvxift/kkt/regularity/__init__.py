"""Whether the implicit function theorem applies at a solved point, and on which piece of the solution map it lies."""
