"""`tensorlib check`: the gradients of every op and of whole models, and that no model sees what it must not."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import nn
import tensorlib as tl
from models.architectures.build import Config, build_model
from models.architectures.encoder_decoder import EncoderDecoder
from models.architectures.language import LanguageConfig
from models.architectures.recurrent import RecurrentConfig
from models.architectures.transformer import TransformerConfig
from models.evaluation.causality import prove
from models.runs.loading import load_run, open_backend
from models.system.errors import UserError
from models.text.batching import make_batch
from tensorlib.optable import check as table

__all__ = ["check", "check_model"]


TINY: dict[str, Config] = {
    "transformer": TransformerConfig(5, 5, layers=1, width=4, heads=2, feed_forward=3, dropout=0.0, max_length=4),
    "language-model": LanguageConfig(5, layers=1, width=4, heads=1, feed_forward=3, dropout=0.0, max_length=4),
    "rnn-translator": RecurrentConfig(5, 5, kind="rnn", attention="none", layers=1, width=4, dropout=0.0),
    "gru-translator": RecurrentConfig(5, 5, kind="gru", attention="additive", layers=1, width=4, dropout=0.0),
    "lstm-translator": RecurrentConfig(5, 5, kind="lstm", attention="dot", layers=1, width=4, dropout=0.0),
}


SIZES: dict[str, Any] = {"layers": 2, "width": 8, "heads": 2, "feed_forward": 12, "max_length": 16}
CAUSAL: dict[str, Config] = {
    "transformer": TransformerConfig(32, 32, **SIZES),
    "transformer-pre-rotary": TransformerConfig(32, 32, **SIZES, norm="pre", positions="rotary"),
    "transformer-learned": TransformerConfig(32, 32, **SIZES, positions="learned", tie_embeddings=True),
    "language-model": LanguageConfig(32, **SIZES),
    "language-model-post": LanguageConfig(32, **SIZES, norm="post", positions="sinusoidal"),
    "rnn-translator": RecurrentConfig(32, 32, kind="rnn", attention="none", width=8),
    "gru-translator": RecurrentConfig(32, 32, kind="gru", attention="additive", width=8),
    "lstm-translator": RecurrentConfig(32, 32, kind="lstm", attention="dot", width=8),
}


def check(*op: str, backend: str = "numpy", causality: bool = False, run: Path | None = None) -> int:
    """Check the gradients of every op and of whole models against finite differences, to second order.

    The exit status is 1 if any gradient is wrong.

    With --causality, prove instead that a model's logits depend on no later target token, no padding and no other
    sentence. Where they can, a line names the op, its module and the line that called it, and the exit status is 1.

    Args:
        op: names of the ops to check; "transformer", "language-model", "rnn-translator", "gru-translator" and
            "lstm-translator" are whole models. With --causality: names of models. [everything]
        backend: numpy (CPU) or cupy (a CUDA GPU).
        causality: prove which tokens the logits can depend on, in training, evaluation and decoding token by token.
        run: with --causality, the model of a run: its directory, or a checkpoint in it.
    """
    if causality:
        return _check_causality(op, backend, run)
    if run is not None:
        raise UserError(f"check: --run needs --causality; got --run {run} alone; gradients are checked of all ops")
    failures = []
    for i, report in enumerate(_reports(op, open_backend(backend))):
        if i == 0:
            print(f"{'op':<28}{'samples':>8}{'1st order':>12}{'2nd order':>12}  dtype    backend", flush=True)
        row = f"{report.op:<28}{report.samples:>8}{report.first:>12.1e}{report.second:>12.1e}"
        print(f"{row}  {report.dtype:<8} {report.backend}{'  WRONG' if report.failure else ''}", flush=True)
        if report.failure:
            failures.append(report.failure)
    for failure in failures:
        print(f"tensorlib: check: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _check_causality(names: Sequence[str], backend: str, run: Path | None) -> int:
    """Print what is proved of each model, and where it fails; return the exit status."""
    if backend != "numpy":
        raise UserError(f"check: --causality needs --backend numpy, got {backend}; the proof holds for all backends")
    failures, models = [], _causal_models(names, run)
    print(f"{'model':<26}{'computed':<34}{'pairs':>6}  independent", flush=True)
    for name, model in models.items():
        for report in prove(model):
            proved = "not proved" if report.failures else "proved"
            print(f"{name:<25} {report.way:<34}{report.pairs:>6}  {proved}", flush=True)
            failures += [f"{name}, {report.way}: {failure}" for failure in report.failures]
    for failure in failures:
        print(f"tensorlib: check: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _causal_models(names: Sequence[str], run: Path | None) -> dict[str, EncoderDecoder]:
    """Return a run's model, or each small model that is named."""
    if run is not None:
        if names:
            raise UserError(f"check: --run names the only model; got also {', '.join(names)}; leave them out")
        return {str(run): load_run(run, "numpy").model}
    if unknown := [name for name in names if name not in CAUSAL]:
        raise UserError(f"check: no model is called {', '.join(unknown)}; known: {', '.join(CAUSAL)}")
    return {name: build_model(config, tl.Generator(0)) for name, config in CAUSAL.items() if not names or name in names}


def _reports(names: Sequence[str], backend: str) -> Iterator[table.CheckReport]:
    ops = [name for name in names if name not in TINY]
    try:
        if ops or not names:
            yield from table.check(ops, backend)
    except ValueError as error:
        raise UserError(f"{error}, and {', '.join(TINY)}") from None
    for name in TINY:
        if not names or name in names:
            yield check_model(name, backend)


def check_model(name: str, backend: str) -> table.CheckReport:
    """Check the gradient of a whole model's logits with respect to all its parameters, on a batch with padding."""
    model = build_model(TINY[name], tl.Generator(0)).astype("float64").to(backend).eval()
    batch = make_batch([([4, 3], [4, 4]), ([4, 4, 3], [4])])
    source_BS = batch.source_BS[:, :0] if name == "language-model" else batch.source_BS  # which has no prompt to read
    rng = np.random.default_rng(0)
    # Perturb the initial values: with zero biases and unit gains, a gradient that wrongly omits them could pass.
    points = {name: x + 0.3 * rng.standard_normal(x.shape) for name, x in model.state_dict().items()}

    def logits(*tensors: tl.Tensor) -> tl.Tensor:
        weights = dict(zip(points, tensors, strict=True))
        return nn.functional_call(model, weights, source_BS, batch.target_in_BT)

    first, second, failure = 0.0, 0.0, None
    try:
        result = tl.gradcheck(logits, *points.values(), name=name, backend=backend)
        first, second = result.first, result.second or 0.0
    except tl.GradcheckError as error:
        failure = str(error)
    return table.CheckReport(name, 1, first, second, "float64", backend, failure)
