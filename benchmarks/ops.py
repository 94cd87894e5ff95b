"""Single ops, forward and backward, compared with PyTorch's: each side in its own process, in the shapes of "small".

    python benchmarks/ops.py [--rounds 9] [--coretype unset|Haswell|asis] [--threads N] [--only softmax attention]

Prints the median time of each op and how many times as fast tensorlib is. Ops that are fused in tensorlib are compared
with the ops that users of PyTorch would write instead. "Adam" is the update of one matrix.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from functools import partial

from contestants.shapes import SHAPES
from measure import OURS, REST, Worker, describe, duration, environment, parser, ratios, started, table

SIDES = {OURS: "contestants.ours_ops:every", "PyTorch eager": "contestants.torch_ops:every"}
TURN = 0.02  # the least seconds of a turn


def compare(workers: Mapping[str, Worker], op: str, rounds: int) -> dict[str, float]:
    """Return the median seconds of one op on each side."""
    calls = {}
    for name, worker in workers.items():
        worker.run(op, 3)
        calls[name] = max(1, min(2000, int(TURN / min(worker.run(op, 3)))))
    times: dict[str, list[float]] = {name: [] for name in workers}
    for _ in range(rounds):
        for name, worker in workers.items():
            time.sleep(REST)
            times[name] += worker.run(op, 2, calls[name])[1:]  # the first call finds cold caches and sleeping threads
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def main() -> None:
    arguments = parser(__doc__, rounds=9)
    arguments.add_argument("--only", nargs="+", default=list(SHAPES), choices=list(SHAPES), metavar="OP")
    options = arguments.parse_args()
    env = environment(options.threads, options.coretype)
    with started({name: partial(Worker, target, {}, env) for name, target in SIDES.items()}) as workers:
        print(describe(workers, env), flush=True)
        rows: list[Sequence[str]] = []
        for op in options.only:
            medians = compare(workers, op, options.rounds)
            faster = [f"{ratio:.2f}" for name, ratio in ratios(medians).items() if name != OURS]
            shape = " x ".join(map(str, SHAPES[op]))
            rows.append([op, shape, *map(duration, medians.values()), *faster])
        heads = [f"{OURS}'s speedup"] * (len(workers) - 1)
        print(f"\n{table(['forward and backward', 'shape', *workers, *heads], rows)}")


if __name__ == "__main__":
    main()
