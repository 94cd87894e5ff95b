"""BLEU of tokenised, lower-cased output against raw references, which compares systems with different tokenisers.

    python benchmarks/detokenised.py OUTPUT REFERENCE LANGUAGE

OUTPUT holds translations by a model trained on Moses-tokenised text, REFERENCE holds the raw text, and LANGUAGE is the
code of their language (en, de, ...). Moses' detokeniser (sacremoses) joins the tokens of the output. Case is ignored,
because the output is lower-cased. The program needs the extra `peers`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sacrebleu.metrics import BLEU

try:
    from sacremoses import MosesDetokenizer
except ImportError:
    raise SystemExit('detokenised.py needs sacremoses, which is not installed; pip install -e ".[peers]"') from None

from models.text.lines import read_lines


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("output", type=Path)
    arguments.add_argument("reference", type=Path)
    arguments.add_argument("language")
    given = arguments.parse_args()
    detokenise = MosesDetokenizer(lang=given.language).detokenize
    outputs = [detokenise(line.split()) for line in read_lines(given.output)]
    bleu: Any = BLEU(lowercase=True)
    score = bleu.corpus_score(outputs, [read_lines(given.reference)])
    print(f"detokenised BLEU {score.score:.2f}  {bleu.get_signature()}")


if __name__ == "__main__":
    main()
