"""Text to train on that comes with the project, is generated, or can be had freely; none of it is known to training."""
