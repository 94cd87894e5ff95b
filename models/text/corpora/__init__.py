"""Training text that is built in, generated, or freely available; the training code depends on none of it."""
