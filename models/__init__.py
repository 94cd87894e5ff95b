"""The architectures, their data, training and decoding."""
