"""Mutation testing: which formulas there are, how each is changed, and what runs inside pytest."""
