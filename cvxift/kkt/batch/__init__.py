"""Batches of small dense programs: solved, accurate and differentiated at once, on the host or a device."""
