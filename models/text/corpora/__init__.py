"""Training text that is built in, generated or freely available. The training code does not depend on it."""
