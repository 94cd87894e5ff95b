"""The four special ids, which are the same in every vocabulary; text is never encoded as one of them."""

__all__ = ["BOS", "EOS", "PAD", "UNK"]

PAD, UNK, BOS, EOS = 0, 1, 2, 3
