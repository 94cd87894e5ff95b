"""Learning by contrast: how the number and the kind of negatives decide what a sentence encoder learns, and how fast.

    python examples/experiments/negatives.py         # on the built-in phrasebook
    python examples/experiments/negatives.py --out DIR --train-tsv train.tsv --valid-tsv val.tsv --test-tsv test.tsv

An encoder reads sentences of two languages and gives each a vector. It is trained so that a sentence is nearer to its
translation (the positive) than to other sentences (the negatives), and then has to find the translation of each test
sentence among all test sentences, and among the sentences of the training text too (the distractors).

A TSV file has a sentence, a tab and its translation in each line. Multi30k: `paste train.de train.en > train.tsv`, of
the files of https://github.com/multi30k/dataset, data/task1/raw (image captions; non-commercial research and
education). Run again after an interruption, it measures only what is missing.
"""

from __future__ import annotations

import random
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from page import Page, Results, arguments, figure, run, whole
from runs import add_text, parts_of_text, settings

import tensorlib as tl
from models import SentenceEncoder, SentenceEncoderConfig, Tokenizer
from models.evaluation.retrieval import retrieval
from models.system.errors import UserError
from models.text.lines import without_empty
from models.training.contrastive import ContrastiveConfig, ContrastiveTrainer

TESTED = 1000  # of a longer test part, this many pairs
CURVE = 6  # validations of each training

KINDS = {
    "in batch": "the translations of the other sentences of the batch, which are encoded anyway",
    "uniform": "drawn uniformly from the training text; one draw serves all sentences of the batch",
    "hard": "for each sentence, those of 512 drawn that the encoder, as it was at most 100 steps before, finds nearest",
}


def main() -> None:
    """Measure what is missing, and write the page."""
    parser = arguments(__doc__, "negatives")
    add_text(parser)
    parser.add_argument("--steps", type=whole(1), default=250, help="steps of each training")
    parser.add_argument("--long-steps", type=whole(1), default=1000, help="steps of the two last trainings")
    parser.add_argument("--long-width", type=whole(8, 8), default=384, help="width in the two last trainings")
    parser.add_argument("--batch", type=whole(3), default=128, help="pairs in a batch")
    parser.add_argument(
        "--numbers", type=whole(1), nargs="+", default=[1, 4, 16, 64], help="numbers of negatives to compare"
    )
    parser.add_argument("--hard", type=whole(1), nargs="+", default=[1, 4], help="numbers of hard negatives")
    parser.add_argument("--layers", type=whole(1), default=1, help="layers of the encoder")
    parser.add_argument(
        "--width", type=whole(8, 8), default=128, help="width of the encoder, and of the bag of subwords"
    )
    parser.add_argument("--vocabulary", type=whole(1), default=8000, help="number of subwords")
    parser.add_argument("--learning-rate", type=float, default=2e-4, help="Adam's learning rate")
    parser.add_argument("--embedding-rate", type=float, default=50, help="that of the embeddings, as a multiple")
    options = parser.parse_args()
    experiment = Experiment(options)
    results = Results(options.out / "results.jsonl", settings(options))
    found = {
        name: results.measure(name, lambda run=run: experiment.run(**run)) for name, run in experiment.runs.items()
    }
    write(experiment, found, options.out / "page.html")


class Experiment:
    """The text, and the trainings to compare."""

    def __init__(self, options: Any) -> None:
        parts = [without_empty(part)[0] for part in parts_of_text(options)]
        self.text = "the given text" if options.train_tsv else "the built-in phrasebook, Chinese and English"
        shuffled = random.Random(0)
        self.train, self.valid, self.test = (
            part if i == 0 or len(part) <= TESTED else shuffled.sample(part, TESTED) for i, part in enumerate(parts)
        )
        if not (self.train and self.valid and self.test):
            raise UserError("pairs to train, validate and test with are required; a part has none")
        self.options = options
        self.tokenizer = Tokenizer.train(self.train, vocabulary_size=options.vocabulary)
        self.runs = self._runs(options)

    def _runs(self, options: Any) -> dict[str, dict[str, Any]]:
        """Return the settings of each training by name."""
        numbers, every = options.numbers, options.batch - 1
        if not all(0 < number < every for number in numbers):
            raise UserError(
                f"numbers of negatives from 1 to {every - 1}, less than a batch, are required; got {numbers}"
            )
        runs: dict[str, dict[str, Any]] = {}
        runs |= {f"in batch {n}": {"in_batch": n} for n in [*numbers, every]}
        runs |= {f"uniform {n}": {"in_batch": 0, "uniform": n} for n in [*numbers, every]}
        runs |= {f"hard {n}": {"in_batch": 0, "hard": n} for n in options.hard}
        runs[f"in batch {every} and hard {options.hard[0]}"] = {"hard": options.hard[0]}
        runs |= {f"{loss} in batch {every}": {"loss": loss} for loss in ("triplet", "margin")}
        runs[f"triplet hard {options.hard[0]}"] = {"loss": "triplet", "in_batch": 0, "hard": options.hard[0]}
        runs["bag"] = {"layers": 0}
        long = {"steps": options.long_steps, "width": options.long_width, "dropout": 0.2}
        runs |= {"long": long, "long bag": {**long, "layers": 0}}
        return runs

    def run(
        self, layers: int | None = None, steps: int = 0, width: int = 0, dropout: float = 0.1, **settings: Any
    ) -> dict[str, Any]:
        """Train an encoder; return its accuracy after each sixth, its time, and its measures on the test part."""
        o = self.options
        steps, width, layers = steps or o.steps, width or o.width, o.layers if layers is None else layers
        config = ContrastiveConfig(
            steps=steps,
            batch=o.batch,
            learning_rate=o.learning_rate,
            embedding_rate=o.embedding_rate,
            warmup=steps // 10,
            mine_every=min(100, max(steps // 4, 1)),
            **settings,
        )
        tl.seed(0)
        size = SentenceEncoderConfig(layers=layers, width=width, feed_forward=2 * width, dropout=dropout)
        encoder = SentenceEncoder(size, self.tokenizer, tl.default_generator())
        trainer, seconds, curve = ContrastiveTrainer(encoder, self.train, self.valid, config), 0.0, []
        with tl.threads():
            while trainer.progress.step < steps:
                began = time.perf_counter()
                trainer.step()
                seconds += time.perf_counter() - began
                if trainer.progress.step % max(steps // CURVE, 1) == 0 or trainer.progress.step == steps:
                    curve.append([seconds, *asdict(trainer.validate()).values()])
            return {"seconds": seconds, "curve": curve, "parameters": encoder.parameter_count(), **self.tested(encoder)}

    def tested(self, encoder: SentenceEncoder) -> dict[str, Any]:
        """Return how well an encoder finds the translations of the test sentences."""
        sources, targets = map(list, zip(*self.test, strict=True))
        distractors = [[pair[side] for pair in self.train] for side in (0, 1)]
        return {
            "test": asdict(retrieval(encoder, sources, targets)),
            "back": asdict(retrieval(encoder, targets, sources, side="target")),
            "distracted": asdict(retrieval(encoder, sources, targets, distractors[1])),
        }


def write(experiment: Experiment, found: dict[str, Any], path: Path) -> None:
    """Write the page."""
    o, every = experiment.options, experiment.options.batch - 1
    page = Page("Negatives: how many, and which")
    page.findings(findings(found, experiment))
    page.text(
        f"""The text is {experiment.text}: {len(experiment.train):,} pairs to train with, {len(experiment.test):,} to
        test. The encoder has {o.layers} layer(s) of width {o.width} above {experiment.tokenizer.source_size:,} embedded
        subwords, and one vector for each sentence, the mean over its subwords. A step takes a batch of {o.batch} pairs.
        The loss is InfoNCE at temperature 0.05 in both directions, if nothing else is said."""
    )
    page.text("\n\n".join(f"Negatives {kind}: {meaning}." for kind, meaning in KINDS.items()))
    page.heading("By number and kind")
    numbers, axes = figure(2)
    for kind in KINDS:
        names = [name for name in experiment.runs if name.rpartition(" ")[0] == kind]
        counts = [int(name.rpartition(" ")[2]) for name in names]
        for axis, measure in zip(axes, ("test", "distracted"), strict=True):
            axis.plot(counts, [100 * found[name][measure]["accuracy_1"] for name in names], "o-", label=kind)
    for axis, measure in zip(axes, ("test", "distracted"), strict=True):
        axis.set(
            xscale="log", xlabel="negatives of each sentence", title=f"among {candidates(found, measure):,} sentences"
        )
        axis.legend()
    axes[0].set_ylabel("accuracy@1, %")
    page.figure(numbers, f"Accuracy after {o.steps} steps, by the number of negatives of each sentence.")
    page.heading("By time")
    times, (axis,) = figure()
    shown = [f"in batch {every}", f"uniform {every}", f"hard {o.hard[-1]}", f"triplet in batch {every}", "bag"]
    for name in shown:
        curve = found[name]["curve"]
        axis.plot([point[0] for point in curve], [100 * point[3] for point in curve], "o-", label=name)
    axis.set(xlabel="seconds of training", ylabel="validation accuracy@1, %")
    axis.legend()
    page.figure(times, "Accuracy on the validation part, by the time of training; validation itself is not counted.")
    page.heading("All measurements")
    page.table(HEADS, [row(name, found[name], found) for name in experiment.runs])
    page.write(path)


HEADS = [
    "training",
    "accuracy@1",
    "backwards",
    "accuracy@10",
    "mean 1/rank",
    "with distractors",
    "ms a step",
    "seconds",
]


def row(name: str, one: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Return a row of the table."""
    test, steps = one["test"], one["curve"][-1][1]
    return [
        name,
        percent(test["accuracy_1"]),
        percent(one["back"]["accuracy_1"]),
        percent(test["accuracy_10"]),
        f"{test['reciprocal_rank']:.3f}",
        percent(one["distracted"]["accuracy_1"]),
        f"{1000 * one['seconds'] / steps:.0f}",
        f"{one['seconds']:.0f}",
    ]


def findings(found: dict[str, Any], experiment: Experiment) -> list[str]:
    """Return what was found, in sentences that hold whatever the numbers are."""
    o, every = experiment.options, experiment.options.batch - 1

    def accuracy(name: str, measure: str = "distracted") -> str:
        return percent(found[name][measure]["accuracy_1"])

    def slower(name: str) -> str:
        return f"{found[name]['seconds'] / found[f'in batch {every}']['seconds']:.1f}"

    among, least = f"among {candidates(found, 'distracted'):,} sentences", min(experiment.options.numbers)
    hardest = o.hard[-1]
    return [
        f"After {o.long_steps:,} steps an encoder of width {o.long_width} finds the translation of "
        f"{accuracy('long', 'test')} of the test sentences among {candidates(found, 'test'):,}, and of "
        f"{accuracy('long')} {among}.",
        f"A bag of subwords, which knows no word order, finds {accuracy('long bag', 'test')} and "
        f"{accuracy('long bag')} in {slowness(found)} of the time.",
        f"The number: {least} negative(s) in the batch give {accuracy(f'in batch {least}')} {among}, all {every} give "
        f"{accuracy(f'in batch {every}')}, for the same work.",
        f"The kind: {every} uniform ones, which have to be encoded, give {accuracy(f'uniform {every}')} in "
        f"{slower(f'uniform {every}')} times the time; {hardest} hard ones {accuracy(f'hard {hardest}')} in "
        f"{slower(f'hard {hardest}')} times the time, against {accuracy(f'uniform {closest(hardest, o)}')} with "
        f"{closest(hardest, o)} uniform ones.",
        f"The loss, with all negatives of the batch: InfoNCE {accuracy(f'in batch {every}')}, triplet "
        f"{accuracy(f'triplet in batch {every}')}, margin {accuracy(f'margin in batch {every}')}.",
    ]


def closest(number: int, options: Any) -> int:
    """Return the number of uniform negatives, among those measured, that is closest."""
    return min([*options.numbers, options.batch - 1], key=lambda n: abs(n - number))


def slowness(found: dict[str, Any]) -> str:
    """Return the time of the bag relative to that of the encoder."""
    return percent(found["long bag"]["seconds"] / found["long"]["seconds"])


def candidates(found: dict[str, Any], measure: str) -> int:
    """Return the number of sentences that are ranked."""
    return int(found["long"][measure]["candidates"])


def percent(fraction: float) -> str:
    """Return a fraction in percent."""
    return f"{100 * fraction:.1f} %"


if __name__ == "__main__":
    run(main)
