"""Sweeps: one problem at many parameter values, over processes or machines."""
