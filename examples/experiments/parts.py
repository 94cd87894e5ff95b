"""What the parts of a Transformer are for: heads, where to normalize, warmup, residual connections and two scalings.

python examples/experiments/parts.py                         # on the phrasebook
python examples/experiments/parts.py --train-tsv train.tsv --valid-tsv val.tsv --test-tsv test.tsv --pairs 10000
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np
from learning import fit, smooth
from page import Page, Results, arguments, figure, whole
from page import run as experiment
from runs import add_bleu, add_text, parts_of_text, settings

import nn
import tensorlib as tl
from models.architectures.transformer import AddNorm, Transformer, TransformerConfig
from models.evaluation.attention_weights import AttentionWeights, attention_weights
from models.evaluation.metrics import scores, token_loss
from models.evaluation.translator import Translator
from models.text.batching import Example, batches, encode_pairs, epoch_batches, lengths
from models.text.subwords import Tokenizer
from models.text.tokens import BOS

HEADS = (1, 2, 4, 8)
EXAMPLE_WORDS = (5, 9)  # the least and the most subwords of the sentence whose attention is drawn


# ---- variants ----


class WithoutResidual(AddNorm):
    """LayerNorm(Dropout(Sublayer(x))), or Dropout(Sublayer(LayerNorm(x))): nothing of x passes by the sub-layer."""

    def _sum(self, x: tl.Tensor, y: tl.Tensor) -> tl.Tensor:
        return self.norm(self.dropout(y)) if self.order == "post" else self.dropout(y)


class UnscaledAttention(nn.MultiHeadAttention):
    """softmax(q k^T) v, without the division by sqrt(K)."""

    def attend(self, q_BHTK: tl.Tensor, *args: Any, **options: Any) -> Any:
        """Multiply the queries by sqrt(K), which cancels the division."""
        return super().attend(q_BHTK * math.sqrt(q_BHTK.shape[-1]), *args, **options)


class UnscaledEmbeddings(Transformer):
    """Embeddings enter as they are, without the factor sqrt(D)."""

    def _embed(self, embedding: nn.Embedding, positions: Any, ids: Any, start: int = 0) -> tl.Tensor:
        return self.dropout(positions(embedding(ids), start))


def replaced(model: Transformer, make: Callable[[nn.Module], nn.Module | None]) -> Transformer:
    """Return the model with each part of its layers for which ``make(part)`` is a module replaced by that module."""
    for layer in [*model.encoder.layers, *model.decoder.layers]:
        for name, part in list(layer.named_children()):
            if new := make(part):
                setattr(layer, name, new)
    return model


def without_residual(config: TransformerConfig) -> Transformer:
    """Return a Transformer without residual connections."""
    return replaced(
        Transformer(config, tl.Generator(0)),
        lambda part: WithoutResidual(config) if isinstance(part, AddNorm) else None,
    )


def without_scores_scaled(config: TransformerConfig) -> Transformer:
    """Return a Transformer whose attention scores are not divided by sqrt(K)."""
    generator = tl.Generator(0)
    return replaced(
        Transformer(config, generator),
        lambda part: (
            UnscaledAttention(config.width, config.heads, config.dropout, generator)
            if isinstance(part, nn.MultiHeadAttention)
            else None
        ),
    )


def usual(config: TransformerConfig) -> Transformer:
    """Return a Transformer."""
    return Transformer(config, tl.Generator(0))


VARIANTS: dict[str, tuple[Callable[[TransformerConfig], Transformer], dict[str, Any], bool]] = {
    # name: how it is built, settings that differ from the others', and whether the learning rate rises at first
    **{f"{heads} head{'s' * (heads > 1)}": (usual, {"heads": heads}, True) for heads in HEADS},
    "pre-norm, no warmup": (usual, {}, False),
    "post-norm": (usual, {"norm": "post"}, True),
    "post-norm, no warmup": (usual, {"norm": "post"}, False),
    "no residual connections": (without_residual, {}, True),
    "scores not divided by sqrt(K)": (without_scores_scaled, {}, True),
    "embeddings not multiplied by sqrt(D)": (lambda config: UnscaledEmbeddings(config, tl.Generator(0)), {}, True),
}
USUAL = "4 heads"  # pre-norm, with warmup


# ---- training ----


@dataclasses.dataclass
class Text:
    """The text of the experiment, and its encoding."""

    tokenizer: Tokenizer
    examples: list[Example]
    valid: list[Example]
    test: list[tuple[str, str]]


def read_text(o: Any) -> Text:
    """Return the text that the options name."""
    train, valid, test = parts_of_text(o)
    tokenizer = Tokenizer.train(train, vocabulary_size=4000 if o.train_tsv else 2000)
    kept = [(s, t) for s, t in encode_pairs(tokenizer, train) if max(len(s), len(t) + 1) <= 60]
    return Text(tokenizer, kept, encode_pairs(tokenizer, valid), test)


def run(name: str, text: Text, o: Any) -> dict[str, Any]:
    """Train a variant; return its losses, validation loss, BLEU, and for a number of heads what each looks at."""
    build, changes, warmup = VARIANTS[name]
    size, width = text.tokenizer.source_size, o.width
    config = TransformerConfig(size, size, o.layers, width, 4, 2 * width, dropout=0.1, norm="pre", max_length=256)
    model = build(dataclasses.replace(config, **changes))
    tl.seed(0)
    order = (group for epoch in count() for group in epoch_batches(
        lengths(text.examples), seed=0, epoch=epoch, tokens_per_batch=o.batch_tokens))  # fmt: skip

    def loss(step: int) -> tl.Tensor:
        (batch,) = batches(text.examples, [next(order)])
        return model.loss(batch.source_BS, batch.target_in_BT, batch.target_out_BT, label_smoothing=0.1)

    found = fit(model, loss, o.steps, rate=1e-3, warmup=o.steps // 10 if warmup else 1)
    finite = all(np.isfinite(parameter.numpy()).all() for parameter in model.parameters())
    outputs = Translator(model, text.tokenizer, failed=lambda line: None).translate([s for s, _ in text.test])
    result = {
        "losses": found["losses"],
        "valid": token_loss(model, text.valid).loss if finite else math.inf,
        "bleu": scores(outputs, [t for _, t in text.test], o.tokenize).bleu,
    }
    if name.endswith(("head", "heads")):
        result["heads"] = describe_heads(model, text)
        result["example"] = example(model, text)
    return result


def describe_heads(model: Transformer, text: Text) -> list[dict[str, Any]]:
    """Return for each layer and head of the encoder what it attends to, a mean over 100 validation sentences."""
    seen: dict[tuple[int, int], list[list[float]]] = {}
    for source, target in text.valid[:100]:
        weights = _weights(model, source, target).encoder_LHSS
        length = weights.shape[-1]
        if length < 3:
            continue
        for (layer, head), rows in ((index, weights[index]) for index in np.ndindex(weights.shape[:2])):
            entropy = -(rows * np.log(np.maximum(rows, 1e-12))).sum(axis=1).mean() / math.log(length)
            shifted = [np.trace(rows, offset=k) / (length - abs(k)) for k in (-1, 0, 1)]
            seen.setdefault((layer, head), []).append([*shifted, rows[:, -1].mean(), entropy])
    names = ("before", "itself", "after", "end", "entropy")
    return [
        {"layer": layer, "head": head, **dict(zip(names, np.mean(rows, axis=0).tolist(), strict=True))}
        for (layer, head), rows in sorted(seen.items())
    ]


def example(model: Transformer, text: Text) -> dict[str, Any]:
    """Return the attention of the encoder's last layer for a short sentence."""
    low, high = EXAMPLE_WORDS
    source, target = next(((s, t) for s, t in text.valid if low <= len(s) <= high), text.valid[0])
    weights = _weights(model, source, target).encoder_LHSS[-1]
    return {"pieces": text.tokenizer.source.pieces(source), "weights": weights.tolist()}


def _weights(model: Transformer, source: Any, target: Any) -> AttentionWeights:
    return attention_weights(model, [int(i) for i in source], [BOS, *map(int, target)])


# ---- the page ----


def findings(found: dict[str, Any]) -> list[str]:
    """Return what was found, in sentences that hold whatever the numbers are."""
    heads = {name: _bleu(found, name) for name in VARIANTS if name.endswith(("head", "heads"))}
    highest = max(heads.values(), key=float)
    best = [name for name, bleu in heads.items() if bleu == highest]
    return [
        f"BLEU at equal width, one training of each: {', '.join(f'{name} {bleu}' for name, bleu in heads.items())}. "
        f"The highest is that of {' and '.join(best)}.",
        f"Without warmup, post-norm reaches BLEU {_bleu(found, 'post-norm, no warmup')} and pre-norm "
        f"{_bleu(found, 'pre-norm, no warmup')}; with warmup {_bleu(found, 'post-norm')} and {_bleu(found, USUAL)}.",
        f"Without residual connections the model with {USUAL} reaches {_bleu(found, 'no residual connections')}.",
        f"Scores that are not divided by sqrt(K) give {_bleu(found, 'scores not divided by sqrt(K)')}, embeddings that "
        f"are not multiplied by sqrt(D) give {_bleu(found, 'embeddings not multiplied by sqrt(D)')}.",
    ]


def _bleu(found: dict[str, Any], name: str) -> str:
    return f"{found[name]['bleu']:.1f}"


def show(results: dict[str, Any], o: Any) -> None:
    """Write the page."""
    page = Page("What are the parts of a Transformer for?")
    found = {name: results[name] for name in VARIANTS}
    heads = [name for name in VARIANTS if name.endswith(("head", "heads"))]
    page.findings(findings(found))
    page.text(
        f"Transformers of {o.layers} + {o.layers} layers and width {o.width}, trained for {o.steps} steps of "
        f"{o.batch_tokens} positions. They differ only in what their name says from the one with {USUAL}, which is "
        "pre-norm and whose learning rate rises for a tenth of the steps. Each was trained once, from one seed: "
        "another seed would change every BLEU a little, so small differences mean nothing."
    )
    rows = [[name, _bleu(found, name), f"{one['valid']:.3f}"] for name, one in found.items()]
    page.table(["variant", "BLEU", "validation loss"], rows)
    groups = {"heads": heads, "norm and warmup": [USUAL, "pre-norm, no warmup", "post-norm", "post-norm, no warmup"]}
    groups["left out"] = [USUAL, *list(VARIANTS)[-3:]]
    made, axes = figure(3, sharey=True)
    for ax, (title, names) in zip(axes, groups.items(), strict=True):
        for name in names:
            ax.plot(smooth(found[name]["losses"], 20), label=name)
        ax.set(title=title, xlabel="step")
        ax.legend(fontsize=7)
    axes[0].set(ylabel="training loss, a mean of 20 steps")
    page.figure(made, "The loss while training.")
    page.heading("What different heads look at")
    page.text(
        "The encoder of the model with 4 heads. The mean attention weight on the subword before, the same, the next "
        "one, and on the end of the sentence; and the entropy of a row of weights, relative to that of equal weights: "
        "0 % looks at one subword, 100 % at all alike."
    )
    keys = ("before", "itself", "after", "end", "entropy")
    rows = [
        [f"{one['layer'] + 1}, {one['head'] + 1}", *(f"{one[key]:.0%}" for key in keys)]
        for one in found[USUAL]["heads"]
    ]
    page.table(["layer, head", *keys], rows)
    weights, pieces = np.array(found[USUAL]["example"]["weights"]), found[USUAL]["example"]["pieces"]
    made, axes = figure(len(weights), height=2.8)
    for i, (ax, one) in enumerate(zip(axes, weights, strict=True)):
        ax.imshow(one, cmap="Blues", vmin=0, vmax=1)
        ax.grid(visible=False)
        ax.set_xticks(range(len(pieces)), pieces, rotation=90, fontsize=7)
        ax.set_yticks(range(len(pieces)), pieces if i == 0 else [""] * len(pieces), fontsize=7)
        ax.set_title(f"head {i + 1}", fontsize=9)
    page.figure(made, "The encoder's last layer: from each subword (row) to all subwords (columns).")
    page.write(o.out / "page.html")


def main() -> None:
    """Measure what is missing, then write the page."""
    parser = arguments(__doc__, "parts")
    add_text(parser)
    add_bleu(parser)
    parser.add_argument("--layers", type=whole(1), default=4)
    parser.add_argument("--width", type=whole(8, 8), default=128)
    parser.add_argument("--steps", type=whole(1), default=500)
    parser.add_argument("--batch-tokens", type=whole(1), default=1024)
    o = parser.parse_args()
    text = read_text(o)
    results = Results(o.out / "results.jsonl", settings(o))
    for name in VARIANTS:
        results.measure(name, lambda name=name: run(name, text, o))
    show(results.values, o)


if __name__ == "__main__":
    experiment(main)
