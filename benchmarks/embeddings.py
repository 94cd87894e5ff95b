"""Skip-gram by negative sampling compared with the full softmax: pairs/s, in one interleaved run.

    python benchmarks/embeddings.py [--words 10000] [--width 100] [--negatives 5] [--rounds 5] [--threads 2]
                                    [--coretype unset]

Each contestant trains in a process of its own, and they take turns. Both losses are measured with several batch sizes,
and each is represented by its best one. A step is a whole step of training, as `tensorlib embed` takes it: drawing the
negatives, forward, backward, and Adagrad on the rows in use. The softmax is `tl.linear_cross_entropy`, which never
holds all logits. Words have the frequencies of Zipf's law.
"""

from __future__ import annotations

import statistics
import sys
from functools import partial

from measure import Worker, describe, duration, environment, interleave, parser, started, table

BATCHES = {"negative-sampling": (2048, 4096, 8192, 16384), "softmax": (512, 1024, 2048, 4096)}


def main() -> int:
    options_of = parser(__doc__, rounds=5)
    for name, value in (("--words", 10_000), ("--width", 100), ("--negatives", 5)):
        options_of.add_argument(name, type=int, default=value)
    options = options_of.parse_args()
    env = environment(options.threads, options.coretype)
    sides = {f"{loss}, {batch:,} pairs": (loss, batch) for loss, batches in BATCHES.items() for batch in batches}
    common = {"words": options.words, "width": options.width, "negatives": options.negatives}
    target = "contestants.ours_embeddings:training"
    starters = {
        side: partial(Worker, target, {"loss": loss, "batch": batch} | common, env)
        for side, (loss, batch) in sides.items()
    }
    with started(starters) as workers:
        print(describe({"tensorlib": next(iter(workers.values()))}, env), flush=True)
        medians = {side: statistics.median(times) for side, times in interleave(workers, options.rounds).items()}
    speeds = {side: batch / medians[side] for side, (_, batch) in sides.items()}
    rows = [[side, duration(medians[side]), f"{speed:,.0f}"] for side, speed in speeds.items()]
    print(f"\n{table(['one step', 'median', 'pairs/s'], rows)}\n")
    best = {loss: max(speeds[side] for side, (own, _) in sides.items() if own == loss) for loss in BATCHES}
    fast, slow = best["negative-sampling"], best["softmax"]
    print(
        f"{options.words:,} words, width {options.width}, {options.negatives} negatives: {fast:,.0f} pairs/s by "
        f"negative sampling, {slow:,.0f} by the softmax: {fast / slow:.1f} times as many"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
