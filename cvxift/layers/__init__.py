"""What every framework's layer shares: its core, its options, solved points by θ, and the NumPy face."""
