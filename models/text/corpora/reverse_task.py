"""The reverse task of JoeyNMT (Kreutzer et al. 2019, section 4): write a sequence of numbers backwards.

A model that cannot distinguish positions cannot learn this task. Training sequences have up to 25 numbers, validation
and test sequences up to 30.
"""

from __future__ import annotations

from random import Random

__all__ = ["reverse_files"]

NUMBERS = 50  # 0 to 49
PARTS = {"train": (50_000, 25), "valid": (1000, 30), "test": (1000, 30)}  # pairs, and length of the longest


def reverse_files(seed: int = 42) -> dict[str, bytes]:
    """Return the contents of train.tsv, valid.tsv and test.tsv; a line is a sequence, a tab, the sequence reversed.

    Lengths are uniform from 1 to the part's maximum, numbers uniform from 0 to 49, as in JoeyNMT's
    scripts/generate_reverse_task.py. Short sequences may occur in several parts: there are only 50 of length 1.
    """
    random = Random(seed).random  # the method of Python's generator that is guaranteed not to change between versions
    files = {}
    for part, (count, longest) in PARTS.items():
        lines = []
        for _ in range(count):
            words = [str(int(NUMBERS * random())) for _ in range(1 + int(longest * random()))]
            lines.append(f"{' '.join(words)}\t{' '.join(reversed(words))}\n")
        files[f"{part}.tsv"] = "".join(lines).encode()
    return files
