"""Scripts that are written without spaces between words, and the recognition of text in them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from itertools import islice

__all__ = ["UNSPACED", "dense_script"]

_HAN = "\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_KANA = "\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9d"
_HANGUL = "\u1100-\u11ff\u3130-\u318f\uac00-\ud7a3"
_SOUTH_EAST = {
    "Thai": "\u0e00-\u0e7f",
    "Lao": "\u0e80-\u0eff",
    "Tibetan": "\u0f00-\u0fff",
    "Burmese": "\u1000-\u109f",
    "Khmer": "\u1780-\u17ff",
}

UNSPACED = _HAN + _KANA + "".join(_SOUTH_EAST.values())
"""The characters, in a regular expression's class, of all scripts without spaces between words."""

SENTENCES = 1000  # of a text that are looked at
SHARE = 0.2  # of the letters; Chinese text has more even if it is full of foreign names, English text about China less
KANA = 0.1  # of the letters of Japanese text that are Han or kana


def dense_script(texts: Iterable[str]) -> str:
    """Return which script the text is mainly in, if words cannot be found in it by spaces alone, and "" otherwise.

    The names are "Chinese", "Japanese", "Korean" (whose spaces separate phrases rather than words), "Thai", "Lao",
    "Tibetan", "Burmese" and "Khmer".

    >>> from models.text.scripts import dense_script
    >>> [dense_script([text]) for text in ("我有一只猫。", "猫がいる。", "고양이가 있다.", "มีแมว", "I have a cat: 猫.")]
    ['Chinese', 'Japanese', 'Korean', 'Thai', '']
    """
    counts = Counter("".join(islice(texts, SENTENCES)))

    def count(characters: str) -> int:
        return sum(counts[char] for char in re.findall(f"[{characters}]", "".join(counts)))

    kana, han = count(_KANA), count(_HAN)
    found = {"Japanese" if kana > KANA * (kana + han) else "Chinese": kana + han, "Korean": count(_HANGUL)}
    found |= {name: count(characters) for name, characters in _SOUTH_EAST.items()}
    letters = sum(n for char, n in counts.items() if char.isalpha() or re.match(f"[{UNSPACED}]", char))
    name = max(found, key=lambda name: found[name])
    return name if found[name] > SHARE * letters else ""
