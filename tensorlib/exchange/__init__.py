"""Exchange of values with NumPy, other array libraries, pickle and files."""
