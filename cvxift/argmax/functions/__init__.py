"""The public argmax functions, written once: checks, broadcasting, dimensions, docstrings.

Each function takes a `Framework` first: what it needs from PyTorch or JAX. The adapters give the functions their
signatures, with ``dim`` or ``axis``.
"""
