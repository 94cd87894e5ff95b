"""A run on disk: its config, directory and checkpoints, and how to load one."""
