"""Decoding compared with MarianMTModel of transformers and with CTranslate2; they take turns in their own processes.

    python benchmarks/decode.py [tiny|small|base ...] [--beam 1] [--rounds 5] [--sentences 200] [--batch 50]
                                [--coretype unset]

The weights are untrained, and CTranslate2 has those of tensorlib; the sentences are random ids, with lengths like those
of Multi30k in subwords. All sides sort sentences by length and decode them in batches, with cached keys and values. No
side may end a sentence, so each target is as long as the longest source of its batch, and all sides generate the same
number of tokens. These figures therefore do not include the gain from removing finished sentences from the batch. With
--beam 4 all keep four targets of each sentence open to the end (num_beams=4 in transformers), so rules for early
stopping have no effect.

Prints target tokens/s, how many targets are those of CTranslate2, whether tensorlib's decoding with cached keys and
values equals decoding without them, token for token, and how far the logits differ. The exit status is 1 if a token
differs or a logit differs by more than 1e-5.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from functools import partial

import numpy as np
from measure import (
    OURS,
    Worker,
    describe,
    duration,
    environment,
    interleave,
    megabytes,
    one_of,
    parser,
    quartiles,
    ratios,
    started,
    table,
)  # fmt: skip
from sizes import FIRST_WORD, SIZES, Size

CTRANSLATE = "CTranslate2"
SIDES = {
    OURS: "contestants.ours_decoding:decoding",
    "MarianMTModel": "contestants.marian:decoding",
    CTRANSLATE: "contestants.ctranslate:decoding",
}
CLOSE = 1e-5
EOS = 3


def batches_of(size: Size, sentences: int, batch: int) -> list[list[list[int]]]:
    """Return sources, each ending in </s>, sorted by length and divided into batches."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.normal(15, 5, sentences).round(), 5, 40).astype(int)
    sources = [[*rng.integers(FIRST_WORD, size.vocabulary, n - 1).tolist(), EOS] for n in sorted(lengths)]
    return [sources[i : i + batch] for i in range(0, sentences, batch)]


def compare(name: str, options: Namespace, env: dict[str, str]) -> tuple[str, bool]:
    """Return the text to print for one size, and whether decoding with and without cached keys agrees."""
    size = SIZES[name]
    method = f"beam {options.beam}" if options.beam > 1 else "greedy"
    batches = batches_of(size, options.sentences, options.batch)
    arguments = {"size": size, "batches": batches, "beam": options.beam}
    with started({side: partial(Worker, target, arguments, env) for side, target in SIDES.items()}) as workers:
        text = describe(workers, env)
        times = {side: quartiles(seconds) for side, seconds in interleave(workers, options.rounds, warmups=1).items()}
        tokens = {side: worker.value for side, worker in workers.items()}
        assert len(set(tokens.values())) == 1, f"the sides generate different numbers of tokens: {tokens}"
        faster = ratios({side: median for side, (_, median, _) in times.items()})
        rows = []
        for side, (low, median, high) in times.items():
            peak = megabytes(workers[side].finish()["peak"])
            spread = f"{duration(low)} .. {duration(high)}"
            rows.append([side, duration(median), spread, f"{faster[side]:.2f}", f"{tokens[side] / median:,.0f}", peak])
        heads = [
            f"{name}, {options.sentences} sentences, {method}",
            "median",
            "quartiles",
            f"{OURS}'s speedup",
            "tokens/s",
            "peak memory",
        ]
        text += f"\n\n{table(heads, rows)}"
        if CTRANSLATE in workers:
            same, total = agreement(workers[OURS], workers[CTRANSLATE])
            text += f"\n\n{name}: {same} of {total} targets are the same as CTranslate2's"
        workers[OURS].run("check")
        found = workers[OURS].value
    text += f"\n\n{name}: with and without cached keys and values, {found['different']} of {found['tokens']:,} tokens"
    text += f" differ, logits by at most {found['farthest']:.1e}\n"
    return text, found["different"] == 0 and found["farthest"] <= CLOSE


def agreement(ours: Worker, theirs: Worker) -> tuple[int, int]:
    """Return how many targets of two sides with the same weights are equal, and how many there are."""
    for worker in (ours, theirs):
        worker.run("targets")
    pairs = list(zip(ours.value, theirs.value, strict=True))
    return sum(own == other for own, other in pairs), len(pairs)


def main() -> int:
    arguments = parser(__doc__, rounds=5)
    arguments.add_argument("sizes", nargs="*", type=one_of(SIZES), metavar="|".join(SIZES))
    arguments.add_argument("--beam", type=int, default=1)
    arguments.add_argument("--sentences", type=int, default=200)
    arguments.add_argument("--batch", type=int, default=50)
    options = arguments.parse_args()
    env = environment(options.threads, options.coretype)
    agree = True
    for name in options.sizes or ["small"]:
        text, good = compare(name, options, env)
        print(text, flush=True)
        agree = agree and good
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
