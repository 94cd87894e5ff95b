"""What `mutants.py` is made of: the formulas, the changes to them, and a plugin of pytest."""
