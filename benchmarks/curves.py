"""The same training run with each technology of kernels, on one thread and on two: how far the losses differ.

    python benchmarks/curves.py [--size tiny|small|base] [--steps 60] [--coretype unset|Haswell|asis]

A model learns to write sentences backwards, in a fresh process for each combination of kernels (compiled by Numba,
where it is installed; NumPy's; none) and threads. Prints the losses side by side, the largest relative difference from
those without kernels, and whether runs on one and on two threads give the same bits (a hash of all weights, and every
loss). The exit status is 1 if, with kernels, one and two threads give different bits, or if the losses differ by more
than 1e-3. Without kernels the bits may differ: OpenBLAS then sums in an order that depends on the number of threads.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from measure import Worker, environment, parser, table
from sizes import SIZES, Size

from models.system.machine import processor
from tensorlib.kernels.numba import available

TARGET = "contestants.ours:copying"
KINDS = {"numba": "compiled kernels", "numpy": "NumPy's kernels", "0": "no kernels"}  # values of TENSORLIB_KERNELS
TOLERANCE = 1e-3  # for errors of rounding in float32, which grow over the steps


class Run(NamedTuple):
    """One training run."""

    losses: list[float]
    hash: str


def run(size: Size, steps: int, kernels: str, threads: int, coretype: str) -> Run:
    """Train in a fresh process."""
    env = environment(threads, coretype, TENSORLIB_KERNELS=kernels)
    with Worker(TARGET, {"size": size}, env) as worker:
        losses = []
        for _ in range(steps):
            worker.run()
            losses.append(worker.value)
        return Run(losses, worker.finish()["hash"])


def largest_difference(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the largest difference between the losses of a step in two runs, relative to the loss."""
    return max(abs(x - y) / abs(y) for x, y in zip(a, b, strict=True))


def report(runs: Mapping[tuple[str, int], Run], steps: int) -> tuple[str, bool]:
    """Return the text to print, and whether the runs agree."""
    shown = sorted({0, 1, *range(9, steps, 10), steps - 1} & set(range(steps)))
    heads = [f"{KINDS[kind]}, {n} thread{'s' * (n > 1)}" for kind, n in runs]
    text = table(["step", *heads], [[str(i + 1), *(f"{r.losses[i]:.7f}" for r in runs.values())] for i in shown]) + "\n"
    agree = True
    for kind in dict.fromkeys(kind for kind, _ in runs):
        if kind != "0":
            difference = largest_difference(runs[kind, 1].losses, runs["0", 1].losses)
            agree = agree and difference <= TOLERANCE
            text += f"\n{KINDS[kind]} and none: losses differ by at most {difference:.1e} of the loss"
        same = runs[kind, 1] == runs[kind, 2]
        agree = agree and (same or kind == "0")
        text += f"\n{KINDS[kind]}, 1 and 2 threads: {'the same bits' if same else 'NOT the same bits'}"
    return text, agree


def main() -> int:
    arguments = parser(__doc__)
    arguments.add_argument("--size", default="tiny", choices=list(SIZES))
    arguments.add_argument("--steps", type=int, default=60)
    options = arguments.parse_args()
    print(f"{processor()}; size {options.size}", flush=True)
    runs = {
        (kernels, threads): run(SIZES[options.size], options.steps, kernels, threads, options.coretype)
        for kernels in KINDS
        if kernels != "numba" or available()
        for threads in (1, 2)
    }
    text, agree = report(runs, options.steps)
    print(text)
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
