"""The reverse task of JoeyNMT (Kreutzer et al. 2019, section 4): say a sequence of numbers backwards.

Who can't tell positions apart can't do it, and the sequences to validate and test on are longer than any to learn from.
"""

from __future__ import annotations

from random import Random

__all__ = ["reverse_files"]

NUMBERS = 50  # 0 to 49
PARTS = {"train": (50_000, 25), "valid": (1000, 30), "test": (1000, 30)}  # pairs, and the longest sequence


def reverse_files(seed: int = 42) -> dict[str, bytes]:
    """Return name and content of train.tsv, valid.tsv and test.tsv: a sequence, a tab, the sequence reversed.

    Lengths are uniform from 1 to the part's longest, numbers from 0 to 49, as in JoeyNMT's
    scripts/generate_reverse_task.py. So short sequences may be in several parts: one number has but 50.
    """
    random = Random(seed).random  # of Python's generator, this is the method that stays the same in all versions
    files = {}
    for part, (count, longest) in PARTS.items():
        lines = []
        for _ in range(count):
            words = [str(int(NUMBERS * random())) for _ in range(1 + int(longest * random()))]
            lines.append(f"{' '.join(words)}\t{' '.join(reversed(words))}\n")
        files[f"{part}.tsv"] = "".join(lines).encode()
    return files
