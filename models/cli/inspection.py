"""`tensorlib draw`, `check`, `inspect` and `info`: looking at what there is."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import numpy as np

import nn
import tensorlib as tl
from models.architectures.build import build_model
from models.architectures.transformer import Transformer, TransformerConfig
from models.runs.checkpoint import load_weights, read_checkpoint
from models.runs.loading import load_run, open_backend
from models.system.errors import UserError
from models.text.batching import make_batch
from models.text.tokens import PAD
from tensorlib.transforms import gradcheck as checking

__all__ = ["check", "check_transformer", "draw", "info", "inspect"]

SMALL = TransformerConfig(
    source_vocabulary=20, target_vocabulary=20, layers=2, width=16, heads=2, feed_forward=32, max_length=16
)


def draw(
    *,
    run: Path | None = None,
    model: Literal["transformer"] | None = None,
    out: Path = Path("graph.svg"),
    depth: int = 2,
) -> int:
    """Draw the computation graph of a model's loss on one small batch.

    Args:
        run: a run's directory, or one checkpoint in it. [the newest in runs/, its best weights]
        model: a small model without training, instead of a run's.
        out: the picture; its ending says the format: svg, png, jpg, pdf, or dot and gv, which need no renderer.
        depth: down to which depth modules are opened; below it each is one box.
    """
    if run is not None and model is not None:
        raise UserError(f"draw: --run or --model is required, not both; got {run} and {model}")
    if out.parent != Path() and not out.parent.is_dir():
        raise UserError(f"draw: a directory to write to is required; there is no {out.parent}; make it first")
    drawn = build_model(SMALL) if model else load_run(run, "numpy").model
    try:
        tl.draw(_small_loss(drawn.train()), out, depth=depth)
    except (ValueError, RuntimeError) as error:  # an ending or a depth that can't be, or no renderer
        raise UserError(str(error)) from None
    print(f"{out}: the loss of {drawn.parameter_count():,} parameters on two sentences, opened to depth {depth}")
    return 0


def _small_loss(model: Transformer) -> tl.Tensor:
    """Return the loss of two made-up sentences of different lengths, so that padding is part of the picture."""
    batch = make_batch([([4, 5, 6, 3], [7, 8, 9]), ([5, 3], [9])])
    return tl.cross_entropy(model(batch.source_BS, batch.target_in_BT), batch.target_out_BT, ignore_index=PAD)


def check(*op: str, backend: str = "numpy") -> int:
    """Check the gradients of every op and of the whole Transformer against finite differences, to second order.

    Exit status 1 if one is wrong.

    Args:
        op: ops to check, or transformer. [all]
        backend: numpy (CPU) or cupy (a CUDA GPU).
    """
    backend, failures = open_backend(backend), []
    for i, report in enumerate(_reports(op, backend)):
        if i == 0:
            print(f"{'op':<28}{'samples':>8}{'1st order':>12}{'2nd order':>12}  dtype    backend", flush=True)
        row = f"{report.op:<28}{report.samples:>8}{report.first:>12.1e}{report.second:>12.1e}"
        print(f"{row}  {report.dtype:<8} {report.backend}{'  WRONG' if report.failure else ''}", flush=True)
        if report.failure:
            failures.append(report.failure)
    for failure in failures:
        print(f"tensorlib: check: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _reports(ops: tuple[str, ...], backend: str) -> Iterator[checking.Report]:
    names = [name for name in ops if name != "transformer"]
    try:
        if names or not ops:
            yield from checking.check(names, backend)
    except ValueError as error:
        raise UserError(f"{error}, and transformer") from None
    if not ops or "transformer" in ops:
        yield check_transformer(backend)


def check_transformer(backend: str) -> checking.Report:
    """Check the gradient of an encoder-decoder's logits with respect to all its parameters, padding included."""
    tiny = TransformerConfig(5, 5, layers=1, width=4, heads=2, feed_forward=3, dropout=0.0, max_length=4)
    model = Transformer(tiny, generator=tl.Generator(0)).astype("float64").to(backend).eval()
    batch = make_batch([([4, 3], [4, 4]), ([4, 4, 3], [4])])
    rng = np.random.default_rng(0)
    # Not as initialised: where biases are zero and gains are one, an error that multiplies them goes unseen.
    points = {name: x + 0.3 * rng.standard_normal(x.shape) for name, x in model.state_dict().items()}

    def logits(*tensors: tl.Tensor) -> tl.Tensor:
        weights = dict(zip(points, tensors, strict=True))
        return nn.functional_call(model, weights, batch.source_BS, batch.target_in_BT)

    first, second, failure = 0.0, 0.0, None
    try:
        result = tl.gradcheck(logits, *points.values(), name="transformer", backend=backend)
        first, second = result.first, result.second or 0.0
    except tl.GradcheckError as error:
        failure = str(error)
    return checking.Report("transformer", 1, first, second, "float64", backend, failure)


def inspect(checkpoint: Path, /) -> int:
    """Show what is in a checkpoint; exit status 0 only if it is whole.

    Args:
        checkpoint: a file that `tensorlib train` wrote.
    """
    found = read_checkpoint(checkpoint)
    load_weights(build_model(found.model_config), found, checkpoint)  # or they are another model's than it says
    bad = [name for name, array in found.model.items() if not np.isfinite(array).all()]
    if bad:
        raise UserError(f"checkpoint {checkpoint}: finite weights are required; {bad[0]} is not")
    progress = found.progress
    print(f"{checkpoint}: whole, {checkpoint.stat().st_size:,} bytes")
    print(f"step {progress.step}, epoch {progress.epoch + 1}, {progress.batch} batches into it")
    if progress.best_loss is not None:
        bleu = "" if progress.best_bleu is None else f", BLEU {progress.best_bleu:.2f}"
        print(f"best validation loss {progress.best_loss:.4f}{bleu}, at step {progress.best_step}")
    if found.averaged:
        print(f"the mean of the weights of steps {', '.join(map(str, found.averaged))}")
    if found.latest:
        print("the weights are a moving average; those that training goes on from are kept beside them")
    settings = ", ".join(f"{key} {value}" for key, value in asdict(found.model_config).items() if value is not None)
    print(f"model: {sum(a.size for a in found.model.values()):,} parameters; {settings}")
    if found.optimizer:
        print(f"optimizer: {found.config['optim']['name']}, {sum(a.size for a in found.optimizer.values()):,} numbers")
    for name, array in found.model.items():
        print(f"    {name:<52} {array.dtype}  {' x '.join(map(str, array.shape))}")
    return 0


PACKAGES = ("numpy", "sentencepiece", "safetensors", "sacrebleu", "threadpoolctl", "cupy", "graphviz")


def info() -> int:
    """Show versions, backends, GPU, and what does the matrix products."""
    from threadpoolctl import threadpool_info

    print(f"tensorlib {version('tensorlib')}, Python {platform.python_version()}, {platform.platform()}")
    print("packages: " + ", ".join(f"{name} {_version(name)}" for name in PACKAGES))
    print("backend numpy: yes")
    print(f"backend cupy: {_gpu()}")
    print(f"kernels: {tl.thread_count()} threads")
    for pool in threadpool_info():
        kernels = f", {pool['architecture']} kernels" if "architecture" in pool else ""
        name = f"{pool['internal_api']} {pool.get('version') or ''}".strip()
        print(f"{pool['user_api']}: {name}{kernels}, {pool['num_threads']} threads")
    return 0


def _version(package: str) -> str:
    names = ("cupy-cuda13x", "cupy-cuda12x", "cupy") if package == "cupy" else (package,)
    for name in names:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "not installed"


def _gpu() -> str:
    try:
        backend = tl.get_backend("cupy")
    except RuntimeError as error:
        return f"no ({error})"
    device = backend.xp.cuda.runtime.getDeviceProperties(0)
    return f"yes, {device['name'].decode()}, {device['totalGlobalMem'] / 2**30:.0f} GiB"
