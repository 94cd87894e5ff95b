"""Limits on the numbers that a user may give."""

__all__ = ["LARGEST"]

LARGEST = 2**63 - 1  # the largest integer that TOML and NumPy's int64 can hold
