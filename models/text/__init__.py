"""Conversion of text to batches of token ids, and of token ids to text."""
