"""What a Transformer can learn without positions, and with sinusoidal, learned and rotary ones.

Without positions the encoder's output is a bag of words: permuting the source only permutes the memory, and
cross-attention sums over it in any order. So the decoder cannot know the order of its source. It can sort a sequence,
which takes only the symbols and their number, but neither copy nor reverse it.

    python examples/experiments/positions.py
"""

from __future__ import annotations

from typing import Any

import numpy as np
from learning import FIRST, TASKS, fit, sequences, smooth, task_batch
from page import Page, Results, arguments, figure, whole
from page import run as experiment
from runs import settings

import tensorlib as tl
from models.architectures.transformer import Transformer, TransformerConfig
from models.decoding.token_by_token import greedy
from models.text.tokens import BOS, EOS

POSITIONS = ("none", "sinusoidal", "learned", "rotary")
SYMBOLS = 20
TESTED = 200  # sequences of each length
PERMUTED = 20  # sequences


def new_model(positions: str, o: Any) -> Transformer:
    """Return a small Transformer."""
    vocabulary = FIRST + SYMBOLS
    sizes = {"layers": 2, "width": o.width, "heads": 4, "feed_forward": 2 * o.width, "max_length": 2 * o.longest + 2}
    config = TransformerConfig(vocabulary, vocabulary, **sizes, dropout=0.0, norm="pre", positions=positions)
    return Transformer(config, tl.Generator(0))


def run(task: str, positions: str, o: Any) -> dict[str, Any]:
    """Train on a task with sequences of up to `longest` symbols; test with shorter and longer ones."""
    random, model = np.random.default_rng(1), new_model(positions, o)

    def loss(step: int) -> tl.Tensor:
        batch = task_batch(task, sequences(o.batch, o.longest, SYMBOLS, random))
        return model.loss(batch.source_BS, batch.target_in_BT, batch.target_out_BT)

    found = fit(model, loss, o.steps, rate=2e-3, good_enough=0.003)
    tested = {n: accuracy(model, task, n) for n in tested_lengths(o)}
    return {"losses": found["losses"], "steps": len(found["losses"]), "tested": tested, "change": change(model, o)}


def tested_lengths(o: Any) -> list[int]:
    """Return lengths up to twice the longest of training."""
    return sorted({max(1, round(o.longest * part)) for part in (0.5, 0.75, 1, 1.125, 1.25, 1.5, 2)})


def accuracy(model: Transformer, task: str, length: int) -> float:
    """Return the fraction of unseen sequences of this length whose answers are completely right."""
    random = np.random.default_rng(2)
    rows = (FIRST + random.integers(SYMBOLS, size=(TESTED, length))).tolist()
    answers = greedy(model, [[*row, EOS] for row in rows], max_length=length + 1)
    return sum(answer == TASKS[task](row) for answer, row in zip(answers, rows, strict=True)) / TESTED


def change(model: Transformer, o: Any) -> float:
    """Return the largest change of any log-probability when the symbols of the source are permuted.

    It is the largest of `PERMUTED` sequences, each permuted once.
    """
    random, largest = np.random.default_rng(3), 0.0
    for row in sequences(PERMUTED, o.longest, SYMBOLS, random):
        permuted, target = random.permutation(row).tolist(), [[BOS, *row]]
        with tl.no_grad():
            both = [tl.log_softmax(model([[*source, EOS]], target)).numpy() for source in (row, permuted)]
        largest = max(largest, float(np.abs(both[0] - both[1]).max()))
    return largest


def findings(found: dict[Any, Any], o: Any) -> list[str]:
    """Return what was found, in sentences that hold whatever the numbers are."""
    changes = {kind: found["copy", kind]["change"] for kind in POSITIONS}
    longer = longer_length(o)
    done = {"copy": "copied", "reverse": "reversed", "sort": "sorted"}
    without, sinusoidal = (
        ", ".join(f"{_right(found[task, kind], o.longest)} are {done[task]}" for task in TASKS)
        for kind in ("none", "sinusoidal")
    )
    copied = ", ".join(f"{_right(found['copy', kind], longer)} ({kind})" for kind in POSITIONS if kind != "none")
    return [
        f"Of unseen sequences of {o.longest} symbols, without positions {without} without an error; with sinusoidal "
        f"ones {sinusoidal}.",
        f"Permuting the source, in {PERMUTED} sequences, changed a log-probability of the model trained to copy by at "
        f"most {changes['none']:.0e} without positions, and by at most {changes['sinusoidal']:.2g} with sinusoidal "
        "ones.",
        f"Trained on at most {o.longest} symbols and tested on {longer}, models with positions copy without an error "
        f"in this many cases: {copied}.",
    ]


def longer_length(o: Any) -> int:
    """Return a length that is tested and longer than those of training, but not by far."""
    return min(n for n in tested_lengths(o) if n > 1.2 * o.longest)


def _right(one: dict[str, Any], length: int) -> str:
    return f"{one['tested'][str(length)]:.0%}"


def show(results: dict[str, Any], o: Any) -> None:
    """Write the page."""
    page = Page("What can be learned without positions?")
    found = {(task, kind): results[f"{task}, {kind}"] for task in TASKS for kind in POSITIONS}
    page.findings(findings(found, o))
    page.text(
        f"Transformers of 2 + 2 layers and width {o.width} learn to copy, reverse and sort sequences of "
        f"{(o.longest + 1) // 2} to {o.longest} symbols, each one of {SYMBOLS}, in at most {o.steps} steps of "
        f"{o.batch} new sequences."
    )
    page.heading("Whole sequences that are right")
    rows = [
        [kind, *(f"{_right(found[task, kind], o.longest)} ({found[task, kind]['steps']} steps)" for task in TASKS)]
        for kind in POSITIONS
    ]
    page.table([f"positions, length {o.longest}", *TASKS], rows)
    page.heading("A permuted source")
    page.text(
        f"The largest change of any log-probability, in {PERMUTED} sequences, when the symbols of the source change "
        "places, after training. Without positions it can only be a rounding error: the encoder permutes its output "
        "with its input, and attention sums over it. Whether a task is learned is another question."
    )
    rows = [[kind, *(f"{found[task, kind]['change']:.1e}" for task in TASKS)] for kind in POSITIONS]
    page.table(["positions", *TASKS], rows)
    page.heading("Learning, and longer sequences")
    made, axes = figure(len(TASKS), sharey=True)
    for ax, task in zip(axes, TASKS, strict=True):
        for kind in POSITIONS:
            ax.semilogy(smooth(found[task, kind]["losses"], 25), label=kind)
        ax.set(title=task, xlabel="step")
    axes[0].set(ylabel="cross-entropy in nats")
    axes[0].legend()
    page.figure(made, "The loss while training, a mean of 25 steps.")
    made, axes = figure(len(TASKS), sharey=True)
    for ax, task in zip(axes, TASKS, strict=True):
        for kind in POSITIONS:
            tested = found[task, kind]["tested"]
            ax.plot([int(n) for n in tested], list(tested.values()), marker="o", markersize=4, label=kind)
        ax.axvline(o.longest, color="gray", linestyle=":")
        ax.set(title=task, xlabel="length")
    axes[0].set(ylabel="sequences right")
    axes[0].legend()
    page.figure(
        made, f"Sequences answered correctly, by length; none in training was longer than {o.longest} (dotted)."
    )
    page.write(o.out / "page.html")


def main() -> None:
    """Measure what is missing, then write the page."""
    parser = arguments(__doc__, "positions")
    parser.add_argument("--width", type=whole(8, 8), default=64)
    parser.add_argument("--batch", type=whole(1), default=64)
    parser.add_argument("--steps", type=whole(1), default=2000)
    parser.add_argument("--longest", type=whole(2), default=12, help="symbols in a sequence to train on")
    o = parser.parse_args()
    results = Results(o.out / "results.jsonl", settings(o))
    for task in TASKS:
        for kind in POSITIONS:
            results.measure(f"{task}, {kind}", lambda task=task, kind=kind: run(task, kind, o))
    show(results.values, o)


if __name__ == "__main__":
    experiment(main)
