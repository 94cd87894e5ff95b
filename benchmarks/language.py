"""A language model compared with the same model in PyTorch: perplexity after the same batches, and tokens/s.

    python benchmarks/language.py TRAIN.txt VALID.txt [--steps 1000] [--layers 4] [--width 256] [--heads 8]
        [--feed-forward 1024] [--vocabulary 8000] [--context 256] [--batch 8] [--dropout 0] [--learning-rate 1e-3]
        [--tokens 200] [--texts 1 16]

Both start from the same weights, read the same windows of the text in the same order, and take the same steps of Adam:
linear warmup over a tenth of the steps, then a cosine to 0, gradients clipped to norm 1. In each step they take turns,
so a slow moment of the machine affects both. Without dropout, only rounding differs. Then both predict the validation
text from the same overlapping windows, and continue prompts from it greedily with cached keys and values.

The text of docs/language.md comes from the Debian packages bible-kjv and bible-kjv-text (public domain):

    bible gen1:1-rev22:21 > bible.txt < /dev/null
    head -n 70000 bible.txt > train.txt; tail -n 3000 bible.txt > valid.txt

Prints both perplexities, training tokens/s, and generated tokens/s. The exit status is 1 if the perplexities differ by
more than 1 %.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from measure import OURS, table
from numpy.typing import NDArray

import tensorlib as tl
from models.architectures.language import LanguageConfig, LanguageModel
from models.decoding.token_by_token import greedy
from models.evaluation.text_model import TextLoss, stream_loss
from models.text.batching import POSITIONS, Batch
from models.text.lines import read_lines
from models.text.size import utf8_length
from models.text.stream import encode_lines, scored_windows, window_batch, windows
from models.text.subwords import Tokenizer
from models.text.tokens import BOS, EOS, PAD
from nn import optim
from nn.schedules import cosine

CLOSE = 0.01  # relative difference of perplexities
PROMPT = 16  # tokens of a prompt
BETAS, EPS = (0.9, 0.98), 1e-9


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("train")
    parser.add_argument("valid")
    for name, default in (
        ("steps", 1000), ("layers", 4), ("width", 256), ("heads", 8), ("feed-forward", 1024), ("vocabulary", 8000),
        ("context", 256), ("batch", 8), ("tokens", 200), ("seed", 0),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--positions", default="rotary", choices=["rotary", "sinusoidal", "learned", "none"])
    parser.add_argument("--texts", type=int, nargs="+", default=[1, 16], help="how many texts are generated together")
    return parser.parse_args()


def batches_of(ids: NDArray[np.int32], context: int, batch: int, steps: int, seed: int) -> list[Batch]:
    """Return a batch for each step: windows of the text, cut at another offset in each pass over it."""
    rng, found = np.random.default_rng(seed), list[Batch]()
    while len(found) < steps:
        spans = rng.permutation(windows(len(ids), context, int(rng.integers(context))))
        groups = [spans[i : i + batch] for i in range(0, len(spans) - batch + 1, batch)] or [spans]
        found += [window_batch([ids[a:b] for a, b in group]) for group in groups]
    return found[:steps]


class Ours:
    """The model in tensorlib."""

    def __init__(self, model: LanguageModel, rate: float) -> None:
        self.model = model.train()
        self.adam = optim.Adam(model.named_parameters(), rate, betas=BETAS, eps=EPS)

    def step(self, batch: Batch, rate: float) -> float:
        """Take a step, and return the loss."""
        self.adam.learning_rate = rate
        loss = self.model.loss(batch.source_BS, batch.target_in_BT, batch.target_out_BT)
        loss.backward()
        optim.clip_grad_norm(self.model.parameters(), 1.0)
        self.adam.step()
        self.adam.zero_grad()
        return float(loss.item())

    def loss(self, ids: NDArray[np.int32]) -> float:
        """Return the loss on a text."""
        return stream_loss(self.model, ids).loss

    def generate(self, prompts: list[list[int]], tokens: int) -> list[list[int]]:
        """Continue prompts greedily by so many tokens."""
        return greedy(self.model, prompts, max_length=tokens, min_length=tokens)


class Theirs:
    """The same model in PyTorch."""

    def __init__(self, model: LanguageModel, rate: float) -> None:
        import torch
        from contestants.torch_language import TorchLanguageModel

        self.torch, self.model = torch, TorchLanguageModel(model.config, model.state_dict()).train()
        self.adam = torch.optim.Adam(self.model.parameters(), rate, betas=BETAS, eps=EPS, fused=True)

    def _loss(self, batch: Batch, reduction: str) -> Any:
        ids, wanted = self.torch.tensor(batch.target_in_BT), self.torch.tensor(batch.target_out_BT)
        entropy = self.torch.nn.functional.cross_entropy
        return entropy(self.model(ids).flatten(0, 1), wanted.flatten(), ignore_index=PAD, reduction=reduction)

    def step(self, batch: Batch, rate: float) -> float:
        """Take a step, and return the loss."""
        for group in self.adam.param_groups:
            group["lr"] = rate
        self.adam.zero_grad()
        loss = self._loss(batch, "mean")
        loss.backward()
        self.torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.adam.step()
        return float(loss.item())

    def loss(self, ids: NDArray[np.int32]) -> float:
        """Return the loss on a text."""
        longest, total = self.model.config.max_length, 0.0
        spans, rows = list(scored_windows(len(ids), longest)), max(POSITIONS // longest, 1)
        self.model.eval()
        with self.torch.no_grad():
            for several in (spans[i : i + rows] for i in range(0, len(spans), rows)):
                batch = window_batch([ids[a:c] for a, _, c in several], [b - a for a, b, _ in several])
                total += float(self._loss(batch, "sum").item())
        self.model.train()
        return total / len(ids)

    def generate(self, prompts: list[list[int]], tokens: int) -> list[list[int]]:
        """Continue prompts greedily by so many tokens, with cached keys and values; without the context's end."""
        found, cache = [], list[Any]()
        ids = self.torch.tensor([[BOS, *prompt] for prompt in prompts])
        self.model.eval()
        with self.torch.inference_mode():
            for _ in range(tokens):
                logits = self.model(ids, cache)[:, -1]
                logits[:, EOS] = -math.inf  # as on the other side
                ids = logits.argmax(dim=-1, keepdim=True)
                found.append(ids[:, 0].tolist())
        self.model.train()
        return [list(row) for row in zip(*found, strict=True)]


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    value = run()
    return time.perf_counter() - began, value


def train(sides: dict[str, Ours | Theirs], batches: list[Batch], peak: float) -> dict[str, list[float]]:
    """Let both take all steps in turn; return the seconds of each step."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    schedule = cosine(peak, max(len(batches) // 10, 1), len(batches))
    for number, batch in enumerate(batches, start=1):
        rate, losses = schedule(number), []
        for name, side in sides.items():
            spent, loss = timed(lambda side=side, batch=batch, rate=rate: side.step(batch, rate))
            seconds[name].append(spent)
            losses.append(f"{name} {loss:.4f}")
        if number % max(len(batches) // 20, 1) == 0:
            print(f"step {number}/{len(batches)}  loss: {', '.join(losses)}", file=sys.stderr, flush=True)
    return seconds


def main() -> int:
    asked = options()
    lines, valid = read_lines(asked.train), read_lines(asked.valid)
    tokenizer = Tokenizer.train([(line, "") for line in lines], vocabulary_size=asked.vocabulary)
    ids, valid_ids = (encode_lines(tokenizer.target, text) for text in (lines, valid))
    sizes = (asked.layers, asked.width, asked.heads, asked.feed_forward, asked.dropout)
    config = LanguageConfig(tokenizer.target_size, *sizes, positions=asked.positions, max_length=asked.context)
    tl.seed(asked.seed)
    model = LanguageModel(config, tl.default_generator())
    print(f"{len(ids):,} tokens to train on, {len(valid_ids):,} to validate, {model.parameter_count():,} parameters")
    with tl.threads():
        sides = {"PyTorch": Theirs(model, asked.learning_rate), OURS: Ours(model, asked.learning_rate)}
        batches = batches_of(ids, asked.context, asked.batch, asked.steps, asked.seed)
        seconds = train(sides, batches, asked.learning_rate)
        tokens, size = statistics.median(batch.tokens for batch in batches), utf8_length(valid)
        found = {name: TextLoss(side.loss(valid_ids), len(valid_ids), size) for name, side in sides.items()}
        rows = []
        for name, side in sides.items():
            row = [name, f"{found[name].perplexity:.4f}", f"{found[name].byte_perplexity:.5f}"]
            row.append(f"{tokens / statistics.median(seconds[name]):,.0f}")
            for texts in asked.texts:
                prompts = [valid_ids[i * PROMPT : (i + 1) * PROMPT].tolist() for i in range(texts)]
                side.generate(prompts, 2)
                spent, _ = timed(lambda side=side, prompts=prompts: side.generate(prompts, asked.tokens))
                row.append(f"{texts * asked.tokens / spent:,.0f}")
            rows.append(row)
    heads = [f"after {asked.steps} steps", "perplexity per token", "per byte", "training tokens/s"]
    print(table([*heads, *[f"generated tokens/s, {n} at once" for n in asked.texts]], rows))
    a, b = (found[name].perplexity for name in sides)
    print(f"the perplexities differ by {abs(a / b - 1):.3%}")
    return int(not abs(a / b - 1) <= CLOSE)


if __name__ == "__main__":
    sys.exit(main())
