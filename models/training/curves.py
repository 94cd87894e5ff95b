"""Pictures of a run: curves of loss and BLEU, and translations as they improve. All come from log.jsonl alone.

They are therefore the same whether or not the run was interrupted, and can be deleted without loss.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from models.system.numbers import shown_loss
from models.training.log import read_log
from tensorlib.exchange.safetensors import write_atomically

__all__ = ["write_curves", "write_samples"]

POINTS = 200  # least number of points of a long training curve; each is the mean of a group of steps
BLUE, GREY = "#1f5fa8", "#9aa4b1"

Entries = Sequence[Mapping[str, Any]]
Point = tuple[float, float]


def write_curves(run: Path) -> None:
    """Draw loss.svg, and bleu.svg if BLEU was measured. Do nothing without matplotlib (the extra `plot`)."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        return
    entries = list(read_log(run))
    valid = [(e["step"], e["loss"]) for e in entries if e["kind"] == "valid"]
    bleu = [(e["step"], e["bleu"]) for e in entries if "bleu" in e]
    pictures = {}
    if valid:  # otherwise a user has removed the log
        title = "lowest validation loss"
        pictures["loss.svg"] = _plot("loss, nats per subword", title, valid, min, 3, _smoothed(entries))
    if bleu:
        pictures["bleu.svg"] = _plot("BLEU", "highest validation BLEU", bleu, max, 2)
    for name, svg in pictures.items():
        write_atomically(run / name, svg)


def _smoothed(entries: Entries) -> list[Point]:
    """Return a point for each group of consecutive steps: its middle step, and its mean training loss per token."""
    steps = [(e["step"], e["loss"], e["tokens"]) for e in entries if e["kind"] == "train"]
    width = max(1, len(steps) // POINTS)
    curve = []
    for start in range(0, len(steps), width):
        part = steps[start : start + width]
        loss = sum(loss * tokens for _, loss, tokens in part) / sum(tokens for _, _, tokens in part)
        curve.append(((part[0][0] + part[-1][0]) / 2, loss))
    return curve


def _plot(
    quantity: str,
    title: str,
    points: Sequence[Point],
    best_of: Callable[..., Point],
    digits: int,
    training: Sequence[Point] = (),
) -> bytes:
    """Return an SVG of the validation curve, drawn over the training curve, with the best validation in the title."""
    import matplotlib
    from matplotlib.figure import Figure

    # Element ids are derived from the salt and no date is written, so equal logs give equal bytes. Text is not
    # converted to paths.
    with matplotlib.rc_context({"svg.hashsalt": "tensorlib", "svg.fonttype": "none", "font.size": 10}):
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        axes = figure.add_subplot()
        if training:
            label = "training, with dropout and smoothing"
            axes.plot(*zip(*training, strict=True), color=GREY, linewidth=1, label=label)
        axes.plot(*zip(*points, strict=True), color=BLUE, marker="o", markersize=3, linewidth=1.6, label="validation")
        step, value = best_of(points, key=lambda point: point[1])
        axes.plot([step], [value], color=BLUE, marker="o", markersize=7, fillstyle="none", linestyle="none")
        axes.set_title(f"{title} {shown_loss(value, digits)}, at step {step:,}", loc="left", fontsize=11)
        axes.set_xlabel("step")
        axes.set_ylabel(quantity)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e6e9ee", linewidth=0.8)
        axes.set_axisbelow(True)
        if training:
            axes.legend(frameon=False)
        svg = io.BytesIO()
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    return svg.getvalue()


def write_samples(run: Path) -> None:
    """Write samples.txt: a few validation sentences, each with its reference and every change of its translation."""
    changes: dict[tuple[int, str, str], list[tuple[int, str]]] = {}
    for entry in read_log(run):
        for i, sample in enumerate(entry["samples"] if entry["kind"] == "valid" else []):
            outputs = changes.setdefault((i, sample["source"], sample["reference"]), [])
            if not outputs or outputs[-1][1] != sample["output"]:
                outputs.append((entry["step"], sample["output"]))
    blocks = []
    for (_, source, reference), outputs in changes.items():
        rows = [("source", source), ("reference", reference), *[(f"step {step}", text) for step, text in outputs]]
        blocks.append("".join(f"{name:<14}{text}".rstrip() + "\n" for name, text in rows))
    if blocks:
        head = "Validation sentences, and how their translations changed as training went on.\n\n"
        write_atomically(run / "samples.txt", (head + "\n".join(blocks)).encode("utf-8", "replace"))
