"""One training step of the encoder-decoder (forward, backward, Adam), compared with PyTorch and JAX in the same run.

    python benchmarks/step.py [tiny|small|base ...] [--rounds 10] [--coretype unset|Haswell|asis] [--threads N]
    python benchmarks/step.py base --only tensorlib "PyTorch eager" --json times.json
    python benchmarks/step.py --backend cupy          # on a GPU, with PyTorch eager alone

Post-norm, dropout 0.1 on embeddings, attention, hidden values and sub-layers, label smoothing 0.1, float32. Every
contestant runs in its own process, with the same number of threads, and takes its turn while the others sleep. Warm-up
steps, before the first round and at the beginning of each turn, are not counted. The code for each peer
(`contestants/`) is what its users would write: PyTorch eager, under autocast to bfloat16 (which a processor without
AVX512_BF16 emulates), and compiled; JAX; HIPS autograd. Peers that are not installed (extra `peers`) are left out, and
so is tensorlib in bf16 where `tensorlib info` says that it isn't there.

Prints for each size the median step, its quartiles, how many times as fast tensorlib is, target tokens/s, peak memory,
and how much of that the library held before the model was built. A last line gives tensorlib's share of the peak of
NumPy's BLAS, measured in the same rounds; it counts only the operations of matrix products. The peak is BLAS's fastest
product, the step a median: on a machine whose speed varies, the share of BLAS's median says more.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from measure import (
    OURS,
    Starter,
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
)
from sizes import SIZES, Size, step_flops

PEAK = "BLAS peak"
CONTESTANTS: dict[str, tuple[str, dict[str, Any]]] = {
    OURS: ("contestants.ours:step", {}),
    "tensorlib bf16": ("contestants.ours:step", {"precision": "bf16"}),
    "PyTorch eager": ("contestants.torch_step:step", {}),
    "PyTorch bf16": ("contestants.torch_step:step", {"bf16": True}),
    "torch.compile": ("contestants.torch_step:step", {"compiled": True}),
    "JAX jit": ("contestants.jax_step:step", {}),
    "HIPS autograd": ("contestants.hips_step:step", {}),
}


def starters(size: Size, backend: str, only: Sequence[str], env: Mapping[str, str]) -> dict[str, Starter]:
    """Return functions that start the contestants that were asked for."""
    if backend == "numpy":
        made = {name: (target, {**more, "size": size}) for name, (target, more) in CONTESTANTS.items()}
        made[PEAK] = ("contestants.ours:blas_peak", {})
    else:
        made = {
            OURS: ("contestants.ours:step", {"size": size, "backend": backend}),
            "PyTorch eager": ("contestants.torch_step:step", {"size": size, "device": "cuda"}),
            "PyTorch bf16": ("contestants.torch_step:step", {"size": size, "device": "cuda", "bf16": True}),
        }
    return {name: partial(Worker, *what, env) for name, what in made.items() if not only or name in only}


def measure(size: Size, options: argparse.Namespace, describes: bool) -> dict[str, dict[str, Any]]:
    """Return the raw times and all answers of each contestant."""
    env = environment(options.threads, options.coretype)
    with started(starters(size, options.backend, options.only, env)) as workers:
        if describes:
            print(describe(workers, env), flush=True)
        times = interleave(workers, options.rounds)
        return {
            name: {"seconds": times[name], "value": worker.value, **worker.ready, **worker.finish()}
            for name, worker in workers.items()
        }


def report(name: str, size: Size, found: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the table of one size, and a line about the peak of BLAS."""
    spread = {side: quartiles(result["seconds"]) for side, result in found.items()}
    models = [side for side in found if side != PEAK]
    faster = ratios({side: spread[side][1] for side in models})
    rows = []
    for side in models:
        low, median, high = spread[side]
        times = [duration(median), f"{duration(low)} .. {duration(high)}", f"{faster[side]:.2f}" if faster else "-"]
        memory = [megabytes(found[side]["peak"]), megabytes(found[side]["resident"])]
        rows.append([side, *times, f"{size.tokens / median:,.0f}", *memory, f"{found[side]['value']:.3f}"])
    heads = ["median step", "quartiles", f"{OURS}'s speedup", "target tokens/s", "peak memory", "library's", "loss"]
    text = f"\n{table([name, *heads], rows)}" if rows else ""
    if PEAK in found:
        peak, usual = (found[PEAK]["flops"] / t for t in (min(found[PEAK]["seconds"]), spread[PEAK][1]))
        text += f"\n\n{name}: BLAS peak {peak / 1e9:.0f} GFLOP/s, median {usual / 1e9:.0f}; "
        text += f"matrix products of a step {step_flops(size) / 1e9:.1f} GFLOP"
        if OURS in found:
            ours = step_flops(size) / spread[OURS][1]
            text += f", so {OURS} runs at {ours / peak:.0%} of the peak, {ours / usual:.0%} of the median"
    return text


def main() -> None:
    arguments = parser(__doc__, rounds=10)
    arguments.add_argument("sizes", nargs="*", type=one_of(SIZES), metavar="|".join(SIZES))
    arguments.add_argument("--backend", default="numpy", choices=["numpy", "cupy"])
    arguments.add_argument("--only", nargs="+", default=[], choices=[*CONTESTANTS, PEAK], metavar="CONTESTANT")
    arguments.add_argument("--json", type=Path, help="write all raw times to this file")
    options = arguments.parse_args()
    results = {}
    for i, name in enumerate(options.sizes or list(SIZES)):
        results[name] = measure(SIZES[name], options, describes=i == 0)
        print(report(name, SIZES[name], results[name]), flush=True)
        if options.json:
            options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
