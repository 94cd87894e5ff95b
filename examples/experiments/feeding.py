"""Teacher forcing against free running: the time of a step, what is learned, and errors after a model's own errors.

Teacher forcing computes all positions of the target at once. Free running must wait for the prediction at each position
before it can compute the next: with a cache, that costs one position a step; without one, the whole beginning again.

    python examples/experiments/feeding.py                       # on the phrasebook
    python examples/experiments/feeding.py --train-tsv train.tsv --valid-tsv val.tsv --test-tsv test.tsv --pairs 10000
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from page import Page, Results, arguments, figure, whole
from page import run as experiment
from runs import add_bleu, add_text, curve, parts_of_text, settings, text_flags, trained, translator

import tensorlib as tl
from models.architectures.build import build_model
from models.architectures.encoder_decoder import EncoderDecoder
from models.architectures.recurrent import RecurrentConfig
from models.architectures.transformer import TransformerConfig
from models.evaluation.metrics import scores
from models.text.batching import Batch, encode_pairs, group_by_length, make_batch
from models.text.tokens import PAD
from models.training.feeding import FreeRunning, loss_step_by_step

MODELS = {"Transformer": "transformer", "LSTM with attention": "lstm"}
FEEDINGS = {
    "teacher forcing": ["--feeding", "teacher-forcing"],
    "scheduled sampling, half true": [
        *("--feeding", "scheduled-sampling", "--sampling.decay", "constant", "--sampling.truth", "0.5")
    ],
    "scheduled sampling, linear": ["--feeding", "scheduled-sampling"],
    "free running": ["--feeding", "free-running"],
}
COLORS = dict(zip(FEEDINGS, ("tab:blue", "tab:purple", "tab:green", "tab:orange"), strict=True))
WAYS = ("all positions at once", "fed back, with a cache", "fed back, without a cache")
LONGEST_WITHOUT_CACHE = 128  # beyond, the graphs of all beginnings take gigabytes
POSITIONS = 24  # that the errors are shown for
VOCABULARY = 2000


# ---- the time of a step ----


def new_model(name: str, width: int) -> EncoderDecoder:
    """Return a new model with two layers in encoder and decoder."""
    sizes: dict[str, Any] = {"layers": 2, "width": width, "dropout": 0.0}
    if name == "Transformer":
        config: Any = TransformerConfig(VOCABULARY, VOCABULARY, heads=4, feed_forward=2 * width, norm="pre", **sizes)
    else:
        config = RecurrentConfig(VOCABULARY, VOCABULARY, kind="lstm", **sizes)
    return build_model(config, tl.Generator(0))


def step_seconds(name: str, way: str, length: int, o: Any) -> float:
    """Return the median seconds of a step, forward and backward, for sentences of `length` words on both sides."""
    random, model = np.random.default_rng(0), new_model(name, o.width)
    ids = random.integers(4, VOCABULARY, size=(2, o.sentences, length - 1)).tolist()
    batch = make_batch([([*source, 3], target) for source, target in zip(*ids, strict=True)])

    def step() -> None:
        if way == WAYS[2]:
            loss_step_by_step(model, batch, cache=False).backward()
        else:
            inputs_BT = batch.target_in_BT if way == WAYS[0] else FreeRunning().inputs(model, batch, 1)
            model.loss(batch.source_BS, inputs_BT, batch.target_out_BT).backward()
        model.zero_grad()

    with tl.threads():
        return median_seconds(step, o.repeats)


def median_seconds(step: Callable[[], None], repeats: int) -> float:
    """Return the median seconds of `repeats` calls, after one that is not counted."""
    times = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


# ---- what is learned ----


def run_model(name: str, feeding: str, o: Any) -> dict[str, Any]:
    """Train a model; return its validation curve, its BLEU, and its errors by position on the test pairs."""
    run = o.out / f"{MODELS[name]}-{feeding.replace(', ', '-').replace(' ', '-')}"
    sizes = [
        "--model.kind",
        MODELS[name],
        "--model.layers",
        "2",
        "--model.width",
        str(o.width),
        "--model.dropout",
        "0.2",
    ]
    if name == "Transformer":
        sizes += ["--model.heads", "4", "--model.feed-forward", str(2 * o.width), "--model.norm", "pre"]
    often = str(max(o.steps // 10, 1))
    length = ["--steps", str(o.steps), "--validate-every", often, "--save-every", often, "--bleu-sentences", "200"]
    optim = ["--optim.learning-rate", "2e-3", "--optim.warmup", str(o.steps // 10), "--optim.schedule", "cosine"]
    text = [*text_flags(o), "--tokenizer.vocabulary", "4000" if o.train_tsv else "2000"]
    trained(run, *sizes, *length, *optim, *text, *FEEDINGS[feeding], "--best-by", "loss", "--keep", "1")
    found, pairs = translator(run), parts_of_text(o)[2]
    outputs = found.translate([source for source, _ in pairs])
    bleu = scores(outputs, [target for _, target in pairs], o.tokenize).bleu
    examples = encode_pairs(found.tokenizer, pairs)
    batches = [make_batch([examples[i] for i in group]) for group in group_by_length([len(t) + 1 for _, t in examples])]
    errors = {mode: by_position(found.model, batches, mode == "free") for mode in ("forced", "free")}
    return {"curve": curve(run), "bleu": bleu, **errors}


def by_position(model: EncoderDecoder, batches: list[Batch], free: bool) -> list[float]:
    """Return for each position the fraction of words that differ from the reference's word there.

    The model has read the true words so far or, if it runs `free`, its own.
    """
    wrong, total = np.zeros(POSITIONS), np.zeros(POSITIONS)
    with model.evaluating(), tl.no_grad():
        for batch in batches:
            inputs_BT = FreeRunning().inputs(model, batch, 1) if free else batch.target_in_BT
            predicted_BT = model(batch.source_BS, inputs_BT).argmax(axis=-1).numpy()
            real_BT = batch.target_out_BT != PAD
            wrong_BT = (predicted_BT != batch.target_out_BT) & real_BT
            count = min(POSITIONS, real_BT.shape[1])
            wrong[:count] += wrong_BT.sum(axis=0)[:count]
            total[:count] += real_BT.sum(axis=0)[:count]
    return (wrong / np.maximum(total, 1))[total >= 20].tolist()


# ---- the page ----


def show(results: dict[str, Any], o: Any) -> None:
    """Write the page."""
    page = Page("Teacher forcing and free running")
    seconds = {
        (name, way, n): results.get(f"seconds, {name}, {way}, {n}")
        for name in MODELS
        for way in WAYS
        for n in o.lengths
    }
    found = {(name, feeding): results[f"{name}, {feeding}"] for name in MODELS for feeding in FEEDINGS}
    page.findings(_findings(seconds, found, o))
    page.heading("Why training is parallel: the time of a step")
    page.text(
        f"Forward and backward, {o.sentences} sentences of the given number of words on both sides, 2 + 2 layers of "
        f"width {o.width}. With teacher forcing no position of a Transformer waits for another. A recurrent layer "
        "still takes its steps one after another, but in one node of the graph. Fed back with a cache: the words are "
        "predicted one by one, without recording a graph, and then one pass over all positions records the graph for "
        "the gradient. Fed back without a cache: the decoder computes the whole beginning again in every "
        "step, and records it."
    )
    for name in MODELS:
        rows = [[way, *(_ms(seconds[name, way, n]) for n in o.lengths)] for way in WAYS]
        page.table([name, *(f"{n} words" for n in o.lengths)], rows)
    made, axes = figure(2, sharey=True)
    for ax, name in zip(axes, MODELS, strict=True):
        for way in WAYS:
            points = [(n, 1e3 * seconds[name, way, n]) for n in o.lengths if seconds[name, way, n]]
            ax.loglog(*zip(*points, strict=True), marker="o", markersize=4, label=way)
        ax.set(title=name, xlabel="words")
    axes[0].set(ylabel="milliseconds a step")
    axes[0].legend()
    page.figure(made, "The time of a step, both axes logarithmic.")
    page.heading("What is learned")
    rows = [
        [f"{name}, {feeding}", f"{one['bleu']:.1f}", f"{one['curve'][-1]['loss']:.3f}", *_position_errors(one)]
        for (name, feeding), one in found.items()
    ]
    heads = ["model, feeding", "BLEU", "validation loss", "wrong at 2, forced", "at 10", "wrong at 2, free", "at 10"]
    page.table(heads, rows)
    page.text(
        "BLEU is that of greedy translations of the test text. The validation loss is measured with true words. Wrong: "
        "the percentage of predictions, at the second and tenth position, that differ from the reference's word at the "
        "same position, when the model reads true words (forced) or its own (free). So a free translation that has "
        "one word more or less than the reference is wrong at every later position, however good it is: the "
        "difference between free and forced is more than the errors that follow from errors."
    )
    made, axes = figure(2, sharey=True)
    for ax, name in zip(axes, MODELS, strict=True):
        for feeding, color in COLORS.items():
            for mode, style in (("free", "-"), ("forced", ":")):
                ax.plot(np.arange(len(found[name, feeding][mode])) + 1, found[name, feeding][mode], style, color=color,
                        label=feeding if mode == "free" else None)  # fmt: skip
        ax.set(title=name, xlabel="position in the translation")
    axes[0].set(ylabel="wrong words")
    axes[0].legend(fontsize=8)
    page.figure(made, "Wrong words by position: reading its own words (solid) and reading the true ones (dotted).")
    made, axes = figure(2, sharey=True)
    for ax, name in zip(axes, MODELS, strict=True):
        for feeding in FEEDINGS:
            points = found[name, feeding]["curve"]
            ax.plot([p["step"] for p in points], [p["bleu"] for p in points], label=feeding, color=COLORS[feeding])
        ax.set(title=name, xlabel="step")
    axes[0].set(ylabel="validation BLEU")
    axes[0].legend(fontsize=8)
    page.figure(made, "BLEU of 200 validation sentences while training.")
    page.write(o.out / "page.html")


def _findings(seconds: dict[Any, Any], found: dict[Any, Any], o: Any) -> list[str]:
    sentences = []
    for name in MODELS:
        longest = max(n for n in o.lengths if n <= LONGEST_WITHOUT_CACHE)
        once, cached, whole = (seconds[name, way, longest] for way in WAYS)
        sentences.append(
            f"{name}: for {longest} words, a step that feeds predictions back takes {cached / once:.1f} times as long "
            f"as one that computes all positions at once, and {whole / once:.1f} times without a cache."
        )
    for name in MODELS:
        bleu = ", ".join(f"{found[name, feeding]['bleu']:.1f} with {feeding}" for feeding in FEEDINGS)
        sentences.append(f"{name}: BLEU {bleu}.")
    return sentences


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1e3 * seconds:.{0 if seconds >= 0.1 else 1}f} ms"


def _position_errors(one: dict[str, Any]) -> list[str]:
    return [f"{errors[i]:.0%}" if i < len(errors) else "-" for errors in (one["forced"], one["free"]) for i in (1, 9)]


def main() -> None:
    """Measure what is missing, then write the page."""
    parser = arguments(__doc__, "feeding")
    add_text(parser)
    add_bleu(parser)
    parser.add_argument("--width", type=whole(4, 4), default=128)
    parser.add_argument("--steps", type=whole(1), default=600, help="of training")
    parser.add_argument(
        "--lengths", type=whole(2), nargs="+", default=[8, 16, 32, 64, 128, 256], help="of timed sentences"
    )
    parser.add_argument("--sentences", type=whole(1), default=8, help="in a timed batch")
    parser.add_argument("--repeats", type=whole(1), default=5, help="of a timed step")
    o = parser.parse_args()
    if min(o.lengths) > LONGEST_WITHOUT_CACHE:
        parser.error(f"--lengths: at least one of at most {LONGEST_WITHOUT_CACHE} is required; got {o.lengths}")
    results = Results(o.out / "results.jsonl", settings(o))
    for name in MODELS:
        for way in WAYS:
            for n in o.lengths:
                if way != WAYS[2] or n <= LONGEST_WITHOUT_CACHE:
                    results.measure(
                        f"seconds, {name}, {way}, {n}", lambda name=name, way=way, n=n: step_seconds(name, way, n, o)
                    )
    for name in MODELS:
        for feeding in FEEDINGS:
            results.measure(f"{name}, {feeding}", lambda name=name, feeding=feeding: run_model(name, feeding, o))
    show(results.values, o)


if __name__ == "__main__":
    experiment(main)
