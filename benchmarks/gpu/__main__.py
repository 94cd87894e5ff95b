"""Tests and measures on a GPU, in parts, each with its own time limit; writes gpu.md and gpu.json into a folder.

    benchmarks/gpu.sh                        # under 7 minutes on one H100
    benchmarks/gpu.sh --only step,kernels    # a second look
    benchmarks/gpu.sh --all --data DIR       # all sizes, precisions and peers, and Multi30k
    benchmarks/gpu.sh --rehearse             # the same on the CPU with tiny sizes, to find mistakes

A failure, a missing package or a time limit in one part loses no other part, and is named in the table. The exit
status is 1 if something failed or ran out of time; what is missing and goals that are not reached are no failure.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpu.machine import about, emulated
from gpu.parts import PARTS, READY, TOTAL, chosen
from gpu.report import failures, markdown
from gpu.running import run_parts

REHEARSAL = 600  # seconds after which a rehearsal gives up a part: an idle machine needs a few, a busy one many
QUICK_XLA = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


def options_from(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        "benchmarks/gpu.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [part.name for part in PARTS]

    def listed(text: str) -> list[str]:
        for name in text.split(","):
            if name not in names:
                raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(names)}")
        return text.split(",")

    parser.add_argument("--all", action="store_true", help="all sizes, precisions and peers; takes half an hour")
    parser.add_argument("--only", type=listed, default=[], metavar="PART[,PART]", help=", ".join(names))
    parser.add_argument("--out", type=Path, default=Path("gpu-results"), metavar="DIR", help="default: gpu-results")
    parser.add_argument("--data", type=Path, metavar="DIR", help="the folder of Multi30k, as for multi30k.sh")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, with tiny sizes and stand-ins")
    return parser.parse_args(arguments)


def settings_of(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return what every part needs to know; see `part.Turn`."""
    return {
        "backend": "numpy" if options.rehearse and not emulated() else "cupy",
        "device": "cpu" if options.rehearse else "cuda",
        "rehearse": options.rehearse,
        "every": options.all,
        "data": str(options.data.resolve()) if options.data else None,
        "folder": str(folder),
    }


def main() -> int:
    options = options_from()
    folder = options.out.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("TERM", "HUP"):  # ends the parts, too
        signal.signal(getattr(signal, f"SIG{name}"), lambda number, frame: sys.exit(128 + number))
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # JAX would take three quarters of the card
    parts, ready = chosen(options.only, options.all), READY
    if options.rehearse:
        os.environ.setdefault("XLA_FLAGS", QUICK_XLA)
        parts, ready = [replace(part, limit=REHEARSAL, whole=REHEARSAL) for part in parts], REHEARSAL
    results: dict[str, Any] = {"about": about(), "arguments": sys.argv[1:], "rehearsal": options.rehearse}
    began = time.monotonic()

    def write(found: dict[str, Any]) -> None:
        results.update(seconds=round(time.monotonic() - began, 1), parts=found)
        (folder / "gpu.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
        (folder / "gpu.md").write_text(markdown(results), encoding="utf-8")

    found = run_parts(
        parts,
        settings_of(options, folder),
        folder,
        every=options.all,
        ready=ready,
        total=TOTAL if not (options.all or options.only or options.rehearse) else float("inf"),
        after=write,
    )
    print((folder / "gpu.md").read_text(encoding="utf-8"))
    return 1 if failures(found) else 0


if __name__ == "__main__":
    sys.exit(main())
