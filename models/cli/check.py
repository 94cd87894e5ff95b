"""`tensorlib check`: the gradients of every op and of the whole Transformer, against finite differences."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import numpy as np

import nn
import tensorlib as tl
from models.architectures.transformer import Transformer, TransformerConfig
from models.runs.loading import open_backend
from models.system.errors import UserError
from models.text.batching import make_batch
from tensorlib.optable import check as table

__all__ = ["check", "check_transformer"]


def check(*op: str, backend: str = "numpy") -> int:
    """Check the gradients of every op and of the whole Transformer against finite differences, to second order.

    The exit status is 1 if any gradient is wrong.

    Args:
        op: names of the ops to check; "transformer" is the whole model. [everything]
        backend: numpy (CPU) or cupy (a CUDA GPU).
    """
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


def _reports(ops: Sequence[str], backend: str) -> Iterator[table.CheckReport]:
    names = [name for name in ops if name != "transformer"]
    try:
        if names or not ops:
            yield from table.check(names, backend)
    except ValueError as error:
        raise UserError(f"{error}, and transformer") from None
    if not ops or "transformer" in ops:
        yield check_transformer(backend)


def check_transformer(backend: str) -> table.CheckReport:
    """Check the gradient of an encoder-decoder's logits with respect to all its parameters, on a batch with padding."""
    tiny = TransformerConfig(5, 5, layers=1, width=4, heads=2, feed_forward=3, dropout=0.0, max_length=4)
    model = Transformer(tiny, generator=tl.Generator(0)).astype("float64").to(backend).eval()
    batch = make_batch([([4, 3], [4, 4]), ([4, 4, 3], [4])])
    rng = np.random.default_rng(0)
    # Perturb the initial values: with zero biases and unit gains, a gradient that wrongly omits them could pass.
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
    return table.CheckReport("transformer", 1, first, second, "float64", backend, failure)
