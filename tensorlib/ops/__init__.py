"""The ops, with one file for each family. Each Function is defined next to the public functions that apply it."""
