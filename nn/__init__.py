"""Modules, layers, attention, losses and optimizers."""
