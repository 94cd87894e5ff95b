"""From the RNN to the Transformer: five models of about equal size, trained on the same text for the same epochs.

    python examples/experiments/ladder.py --train-tsv train.tsv --valid-tsv val.tsv --test-tsv test.tsv --tokenize none

On two cores this takes hours on Multi30k, German to English, and about an hour on the phrasebook, which is the text if
none is given; add --epochs 1 for a try.
"""

from __future__ import annotations

from typing import Any

from page import Page, Results, arguments, figure, whole
from page import run as experiment
from runs import add_bleu, add_text, by_length, curve, parts_of_text, settings, text_flags, trained, translator

from models.evaluation.metrics import scores
from tensorlib.messages import plural

RECURRENT = {"layers": 2, "dropout": 0.3}
MODELS: dict[str, dict[str, Any]] = {
    # The widths give all about 6 million parameters, with 8,000 shared subwords and tied embeddings.
    "RNN": {"kind": "rnn", "attention": "none", "width": 512, **RECURRENT},
    "GRU": {"kind": "gru", "attention": "none", "width": 376, **RECURRENT},
    "LSTM": {"kind": "lstm", "attention": "none", "width": 340, **RECURRENT},
    "LSTM with attention": {"kind": "lstm", "attention": "dot", "width": 328, **RECURRENT},
    "Transformer": {
        "kind": "transformer",
        "layers": 3,
        "width": 256,
        "heads": 8,
        "feed-forward": 512,
        "norm": "pre",
        "dropout": 0.3,
        "attention-dropout": 0.1,
        "feed-forward-dropout": 0.1,
    },
}
RATES = {"Transformer": 2e-3}
RATE = 1e-3  # of the others
SERIES = "https://github.com/bentrevett/pytorch-seq2seq"  # of PyTorch tutorials; Multi30k, German to English, greedily
PUBLISHED = {"GRU": "20.6", "LSTM": "13.8", "LSTM with attention": "28.3 (a GRU)", "Transformer": "36.5"}
EDGES = (8, 11, 14, 18)  # of the groups of sentences, in words of the source


def run_model(name: str, o: Any) -> dict[str, Any]:
    """Train a model and translate the test text."""
    run = o.out / name.lower().replace(" ", "-")
    model = MODELS[name] | ({"width": o.width} if o.width else {})
    flags = [word for key, value in model.items() for word in (f"--model.{key}", str(value))]
    flags += ["--model.tie-embeddings", "--optim.learning-rate", str(RATES.get(name, RATE))]
    flags += ["--tokenizer.vocabulary", str(o.vocabulary), "--batch-tokens", str(o.batch_tokens)]
    flags += ["--epochs", str(o.epochs), "--optim.schedule", "cosine", "--optim.warmup", str(o.warmup)]
    flags += ["--validate-every", "0", "--save-every", "0", "--keep", "1", "--best-by", "bleu"]
    flags += ["--bleu-sentences", "1000", "--bleu-tokenize", o.tokenize]
    trained(run, *text_flags(o), *flags)
    found, (_, _, pairs) = translator(run), parts_of_text(o)
    outputs, references = found.translate([source for source, _ in pairs]), [target for _, target in pairs]
    groups = by_length(pairs, EDGES)
    return {
        "parameters": found.model.parameter_count(),
        "curve": curve(run),
        "bleu": scores(outputs, references, o.tokenize).bleu,
        "by length": [
            scores([outputs[i] for i in group], [references[i] for i in group], o.tokenize).bleu if group else None
            for group in groups
        ],
        "sizes": [len(group) for group in groups],
        "samples": [list(row) for row in zip([s for s, _ in pairs], references, outputs, strict=True)][:3],
    }


def bleu_at(points: list[dict[str, Any]], seconds: float) -> float | None:
    """Return the best validation BLEU that was reached within this time of training; None if none was measured."""
    return max((point["bleu"] for point in points if point["seconds"] <= seconds), default=None)


def equal_time(found: dict[str, Any]) -> tuple[dict[str, float], str, dict[str, float | None]]:
    """Return the seconds of each training, which is the shortest, and the validation BLEU of all within that time."""
    times = {name: one["curve"][-1]["seconds"] for name, one in found.items()}
    shortest = min(times, key=lambda name: times[name])
    return times, shortest, {name: bleu_at(one["curve"], times[shortest] + 1e-6) for name, one in found.items()}


def findings(found: dict[str, Any], o: Any) -> list[str]:
    """Return what was found, in sentences that hold whatever the numbers are."""
    times, shortest, equal = equal_time(found)
    bleu = {name: one["bleu"] for name, one in found.items()}
    epochs = plural(o.epochs, "epoch")
    minutes = f"{times[shortest] / 60:.0f}" if times[shortest] >= 60 else "less than one"
    reached = [f"{name} {value:.1f}" for name, value in equal.items() if value is not None]
    return [
        f"BLEU on the test text after {epochs}, greedily, one training of each: "
        f"{', '.join(f'{name} {bleu[name]:.1f}' for name in sorted(bleu, key=bleu.__getitem__))}.",
        f"The fastest training, of the model {shortest}, took this many minutes: {minutes}. The best BLEU on the "
        f"validation text within that time: {', '.join(reached)}"
        f"{'' if len(reached) == len(equal) else '; no validation yet of the others'}.",
    ]


def show(results: dict[str, Any], o: Any) -> None:
    """Write the page."""
    page = Page("From the RNN to the Transformer")
    found = {name: results[name] for name in MODELS}
    times, _, equal = equal_time(found)
    page.findings(findings(found, o))
    page.text(
        f"""All models learn from the same batches, with the same subwords, by Adam with a rate that rises for
        {plural(o.warmup, "step")} and falls along a cosine. The highest rate is not the same: {RATES["Transformer"]:g}
        for the Transformer, {RATE:g} for the others. The recurrent encoders read in both directions. Without attention
        the decoder starts from the encoder's last state and sees nothing else of the source.

        Published: the figures in a series of PyTorch tutorials, {SERIES}, for Multi30k, German to English, translated
        greedily; BLEU of lower-cased words. The LSTM and the GRU there have 14 million parameters, the model with
        attention 21 million: it is a GRU with additive attention, whose result goes into every step. The Transformer
        has 9 million. Those here have the number in the table, about 6 million if no --width is given. On other text
        the figures cannot be compared."""
    )
    rows = [
        [
            name,
            f"{one['parameters'] / 1e6:.1f} M",
            f"{one['bleu']:.1f}",
            PUBLISHED.get(name, "-"),
            f"{one['curve'][-1]['loss']:.3f}",
            _number(equal[name]),
            f"{times[name] / 60:.0f} min",
            f"{one['curve'][-1]['tokens'] / times[name]:,.0f}",
        ]
        for name, one in found.items()
    ]
    heads = [
        "model",
        "parameters",
        "test BLEU",
        "published",
        "validation loss",
        "validation BLEU, equal time",
        "training",
    ]
    page.table([*heads, "tokens/s"], rows)
    made, axes = figure(2, sharey=True)
    for name, one in found.items():
        points = one["curve"]
        axes[0].plot(range(1, len(points) + 1), [p["bleu"] for p in points], marker="o", markersize=3, label=name)
        axes[1].plot([p["seconds"] / 60 for p in points], [p["bleu"] for p in points], marker="o", markersize=3)
    axes[0].set(xlabel="epoch", ylabel="validation BLEU")
    axes[1].set(xlabel="minutes of training")
    axes[0].legend(fontsize=8)
    page.figure(made, "The same curves over epochs and over time.")
    if sum(size > 0 for size in next(iter(found.values()))["sizes"]) > 1:  # without spaces a sentence is one word
        _show_lengths(page, found)
    page.heading("Translations")
    for i, (source, reference, _) in enumerate(found["Transformer"]["samples"]):
        page.table([source, reference], [[name, one["samples"][i][2]] for name, one in found.items()], text=True)
    page.write(o.out / "page.html")


def _show_lengths(page: Page, found: dict[str, Any]) -> None:
    page.heading("By length of the source")
    bounds = ["1", *(str(edge + 1) for edge in EDGES)]
    names = [f"{low} to {high} words" for low, high in zip(bounds, map(str, EDGES), strict=False)]
    sizes = next(iter(found.values()))["sizes"]
    heads = [f"{name} ({n})" for name, n in zip([*names, f"{bounds[-1]} and more"], sizes, strict=True)]
    page.table(["BLEU", *heads], [[name, *map(_number, one["by length"])] for name, one in found.items()])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def main() -> None:
    """Train what is missing, then write the page."""
    parser = arguments(__doc__, "ladder")
    add_text(parser)
    add_bleu(parser)
    parser.add_argument("--epochs", type=whole(1), default=10)
    parser.add_argument(
        "--width", type=whole(0, 8), default=0, help="of all models; 0: so that they are of about equal size"
    )
    parser.add_argument("--vocabulary", type=whole(1), default=8000)
    parser.add_argument("--batch-tokens", type=whole(1), default=2048)
    parser.add_argument("--warmup", type=whole(1), default=400)
    o = parser.parse_args()
    results = Results(o.out / "results.jsonl", settings(o))
    for name in MODELS:
        results.measure(name, lambda name=name: run_model(name, o))
    show(results.values, o)


if __name__ == "__main__":
    experiment(main)
