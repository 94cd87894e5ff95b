"""How time and peak memory of a training step grow with batch, length, width, vocabulary and depth, each varied alone.

    python benchmarks/scaling.py [length vocabulary attention ...] [--quick] [--coretype unset] [--threads N]

"attention" measures causal attention alone, forward and backward, with dropout: one sentence of up to a few thousand
positions, with 4 heads of width 64. Each point is measured in a fresh process, tensorlib and PyTorch eager in turn; the
time is the minimum over a few steps. Memory is the peak minus the memory that the process held, with its libraries,
before it built the model. Prints a table for each quantity and, if matplotlib is installed (extra `plot`), draws the
curves to `benchmarks/pictures/scaling.svg`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from measure import (
    HERE,
    OURS,
    REST,
    Disturbance,
    Missing,
    Worker,
    duration,
    environment,
    megabytes,
    one_of,
    parser,
    table,
)
from sizes import Size

from models.system.machine import processor

CENTRE = Size(width=256, heads=4, feed_forward=1024, layers=2, vocabulary=4000, batch=16, length=32)
POINTS: dict[str, Sequence[int]] = {
    "batch": (4, 8, 16, 32, 64, 128),
    "length": (16, 32, 64, 128, 256, 512),
    "width": (64, 128, 256, 512, 1024),
    "vocabulary": (1000, 4000, 16000, 32000, 64000),
    "depth": (1, 2, 4, 8),
    "attention": (256, 512, 1024, 2048, 4096),
}
HEADS, HEAD_WIDTH = 4, 64  # of the attention that is measured alone
SIDES = {OURS: "contestants.ours", "PyTorch eager": "contestants.torch_step"}
PICTURE = HERE / "pictures" / "scaling.svg"


class Point(NamedTuple):
    """The measurement for one value of one quantity."""

    seconds: float
    memory: int


def size_with(what: str, value: int) -> Size:
    """Return CENTRE with one quantity changed; the feed-forward width and the number of heads follow the width."""
    if what == "width":
        return CENTRE._replace(width=value, feed_forward=4 * value, heads=value // HEAD_WIDTH)
    return CENTRE._replace(**{"layers" if what == "depth" else what: value})


def arguments_of(what: str, value: int) -> tuple[str, dict[str, Any]]:
    """Return the function of a side that builds the contestant, and its arguments."""
    if what == "attention":
        return "attention", {"heads": HEADS, "length": value, "width": HEAD_WIDTH}
    return "step", {"size": size_with(what, value)}


def measure(target: str, arguments: Mapping[str, Any], env: Mapping[str, str], steps: int) -> Point:
    """Return the minimal time of a step and the memory that steps take, in a fresh process."""
    with Worker(target, arguments, env) as worker:
        worker.run(count=2)
        time.sleep(REST)
        disturbance = Disturbance()
        with disturbance.watched(worker):
            seconds = min(worker.run(count=steps))
        disturbance.warn()
        return Point(seconds, worker.finish()["peak"] - worker.ready["resident"])


def curve(what: str, values: Sequence[int], env: Mapping[str, str], steps: int) -> dict[str, list[Point]]:
    """Return the points of each side whose library is installed."""
    found: dict[str, list[Point]] = {side: [] for side in SIDES}
    for value in values:
        function, arguments = arguments_of(what, value)
        for side in list(found):
            try:
                found[side].append(measure(f"{SIDES[side]}:{function}", arguments, env, steps))
            except Missing as missing:
                print(f"{side} is left out: {missing}")
                del found[side]
    return found


def report(what: str, values: Sequence[int], found: Mapping[str, Sequence[Point]]) -> str:
    rows = [
        [
            f"{value:,}",
            *(duration(p[i].seconds) for p in found.values()),
            *(megabytes(p[i].memory) for p in found.values()),
        ]
        for i, value in enumerate(values)
    ]
    return table([what, *(f"{side}, time" for side in found), *(f"{side}, memory" for side in found)], rows)


PANELS = {"seconds": ("time, ms", 1e3), "memory": ("memory, MB", 1e-6)}


def draw(
    curves: Mapping[str, Mapping[str, Sequence[Point]]],
    values: Mapping[str, Sequence[int]],
    path: Path,
    fields: Sequence[str] = tuple(PANELS),
) -> None:
    """Draw time above and memory below, with one column for each quantity. The same figures give the same bytes."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "tensorlib"
    from matplotlib import pyplot

    shape = len(fields), len(curves)
    figure, axes = pyplot.subplots(
        *shape, figsize=(3.2 * shape[1], 2.8 * shape[0]), squeeze=False, layout="constrained"
    )
    for column, (what, sides) in enumerate(curves.items()):
        for row, field in enumerate(fields):
            ax, (label, scale) = axes[row, column], PANELS[field]
            for side, points in sides.items():
                ax.loglog(
                    values[what], [getattr(p, field) * scale for p in points], marker="o", markersize=3, label=side
                )
            ax.set_xticks(values[what], [f"{v:,}" for v in values[what]], rotation=60)
            ax.minorticks_off()
            ax.grid(alpha=0.3)
            ax.set(title=what if row == 0 else "", ylabel=label if column == 0 else "")
    axes[0, 0].legend(fontsize="small")
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("what", nargs="*", type=one_of(POINTS), metavar="|".join(POINTS))
    arguments.add_argument("--quick", action="store_true", help="only the three smallest values of each quantity")
    arguments.add_argument("--steps", type=int, default=4, help="timed steps per point")
    arguments.add_argument("--memory", action="store_true", help="draw only memory, which needs no idle machine")
    options = arguments.parse_args()
    env = environment(options.threads, options.coretype)
    values = {what: POINTS[what][:3] if options.quick else POINTS[what] for what in (options.what or list(POINTS))}
    print(f"{processor()}, {options.threads} threads; unless stated otherwise: {CENTRE}", flush=True)
    curves = {}
    for what in values:
        curves[what] = curve(what, values[what], env, options.steps)
        print(f"\n{report(what, values[what], curves[what])}", flush=True)
    try:
        draw(curves, values, PICTURE, ["memory"] if options.memory else list(PANELS))
        print(f"\ndrawn to {PICTURE.relative_to(HERE.parent)}")
    except ImportError as missing:
        print(f"\nno picture: {missing}")


if __name__ == "__main__":
    main()
