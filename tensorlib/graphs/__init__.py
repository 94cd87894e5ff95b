"""The recorded graph as data, folded and drawn."""
