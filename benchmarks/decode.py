"""Decoding beside transformers' MarianMTModel of the same sizes, in turn, each in a process of its own.

    python benchmarks/decode.py [tiny|small|base ...] [--beam 1] [--rounds 5] [--sentences 200] [--batch 50]
                                [--coretype unset]

The weights are untrained and the sentences random ids, of lengths like those of Multi30k's subwords. Sentences are
sorted by length and decoded in batches, with keys and values kept, on both sides; each target is as long as the longest
source of its batch, since neither side may end a sentence: so both make the same number of tokens, and the gain from
letting finished sentences leave the batch is not in these figures. With --beam 4 both keep four targets of each
sentence open to the end (num_beams=4 there): where none ends, no rule for stopping early has anything to say.

Prints target tokens/s, and whether tensorlib's decoding with kept keys and values equals decoding without, token for
token, and how far apart the logits are; the exit status is 1 if a token differs or a logit by more than 1e-5.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

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

SIDES = {OURS: "contestants.ours_decoding:decoding", "MarianMTModel": "contestants.marian:decoding"}
CLOSE = 1e-5
EOS = 3


def batches_of(size: Size, sentences: int, batch: int) -> list[list[list[int]]]:
    """Return sources, each ending in </s>, sorted by length and cut into batches."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.normal(15, 5, sentences).round(), 5, 40).astype(int)
    sources = [[*rng.integers(FIRST_WORD, size.vocabulary, n - 1).tolist(), EOS] for n in sorted(lengths)]
    return [sources[i : i + batch] for i in range(0, sentences, batch)]


def compare(name: str, options: Any, env: dict[str, str]) -> tuple[str, bool]:
    """Return what to print for one size, and whether decoding with and without kept keys agrees."""
    size = SIZES[name]
    way = f"beam {options.beam}" if options.beam > 1 else "greedy"
    batches = batches_of(size, options.sentences, options.batch)
    arguments = {"size": size, "batches": batches, "beam": options.beam}
    with started({side: partial(Worker, target, arguments, env) for side, target in SIDES.items()}) as workers:
        text = describe(workers, env)
        times = {side: quartiles(seconds) for side, seconds in interleave(workers, options.rounds, warmups=1).items()}
        tokens = {side: worker.value for side, worker in workers.items()}
        assert len(set(tokens.values())) == 1, f"the sides make different numbers of tokens: {tokens}"
        faster = ratios({side: median for side, (_, median, _) in times.items()})
        rows = []
        for side, (low, median, high) in times.items():
            peak = megabytes(workers[side].finish()["peak"])
            spread = f"{duration(low)} .. {duration(high)}"
            rows.append([side, duration(median), spread, f"{faster[side]:.2f}", f"{tokens[side] / median:,.0f}", peak])
        heads = [
            f"{name}, {options.sentences} sentences, {way}",
            "median",
            "quartiles",
            f"{OURS} is faster by",
            "tokens/s",
            "peak memory",
        ]
        text += f"\n\n{table(heads, rows)}"
        workers[OURS].run("check")
        found = workers[OURS].value
    text += (
        f"\n\n{name}: with and without kept keys and values, {found['different']} of {found['tokens']:,} tokens differ"
    )
    text += f", logits by at most {found['farthest']:.1e}\n"
    return text, found["different"] == 0 and found["farthest"] <= CLOSE


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
