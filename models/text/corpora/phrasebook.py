"""The built-in phrasebook: a small grammar that says everyday things in Chinese and in English.

The held-out part asks for compositional generalisation. A sentence has a *combination*: its frame and the content
words that fill it, leaving out numbers and time words, such as (have, I, cat). Some combinations are held out whole:
我有一只猫 and 我有两只猫 are never trained on, 他有一只猫 and 我有一只狗 are. No word is.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from random import Random

from models.text.corpora.phrasebook_frames import FAMILIES, Sentence

SALT = "tensorlib phrasebook 137"  # chosen so that 我有一只猫 is in the test part
HELD_OUT = 0.04  # share of the combinations
VALID = 1 / 3  # share of the held-out combinations that go to `valid`; the others go to `test`
FRAME_SIZE = 550  # a frame with more sentences keeps a sample of this size, so that none drowns the others
LARGE_FRAMES = {"have": 5000, "do to": 3500, "do": 2500}
SMALL_FRAME = 50  # a frame with fewer sentences has none to spare: it is trained on whole


@dataclass(frozen=True)
class Phrasebook:
    """Chinese-English pairs; the three parts share no sentence in either language."""

    train: list[tuple[str, str]]
    valid: list[tuple[str, str]]
    test: list[tuple[str, str]]


def draw(text: str) -> float:
    """Draw a number in [0, 1) that depends on the text alone, not on PYTHONHASHSEED or on the order."""
    return int.from_bytes(blake2b((SALT + text).encode(), digest_size=7).digest()) / 2**56


def sentences() -> Iterator[Sentence]:
    """All frames, each thinned to a fixed size: the sentences whose draw is smallest stay."""
    frames: dict[str, list[tuple[float, Sentence]]] = {}
    for family in FAMILIES:
        for sentence in family():
            frames.setdefault(sentence.frame, []).append((draw(sentence.zh), sentence))
    for frame, drawn in frames.items():
        for _, sentence in sorted(drawn)[: LARGE_FRAMES.get(frame, FRAME_SIZE)]:
            yield sentence if len(drawn) >= SMALL_FRAME else sentence._replace(combination="")


def phrasebook() -> Phrasebook:
    """Build the phrasebook, the same in every process; training pairs come shuffled.

    Whether a sentence is held out depends on its combination alone, so that all its near copies go with it.
    """
    book = Phrasebook([], [], [])
    shuffle = Random(SALT)
    for sentence in sorted(sentences(), key=lambda _: shuffle.random()):
        share = draw(sentence.combination) / HELD_OUT if sentence.combination else 1
        part = book.train if share >= 1 else book.valid if share < VALID else book.test
        part.append((sentence.zh, sentence.en))
    return book
