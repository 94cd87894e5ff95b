"""The probability that a model assigns to a given target.

Shape suffixes: B batch, S source length, T target length, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

import tensorlib as tl
from models.decoding.checks import require_finite, require_ids, require_logits, require_methods
from models.decoding.hypothesis import Hypothesis
from models.decoding.protocols import TEACHER_FORCED, TeacherForcedModel
from models.text.batching import pad
from models.text.tokens import BOS, EOS

__all__ = ["force_decode"]


def force_decode(
    model: TeacherForcedModel,
    sources: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
    length_penalty: float = 0.0,
    ended: Sequence[bool] | None = None,
) -> list[Hypothesis]:
    """Return each target (ids without </s>) with log P of each token and of </s>, in one teacher-forced pass.

    ended: whether </s> follows each target; by default it does. No </s> follows a target that was cut at a limit.

    A target found by beam search or by `sample` gets the same probability as there, up to rounding. All logits of the
    batch are in memory at once, so sources and targets of similar length should be given together.

    Errors: FloatingPointError if a target's logits are NaN or infinite.
    """
    if not sources:
        return []
    require_methods(model, TEACHER_FORCED)
    require_ids(sources)
    require_ids(targets, "targets")
    ends = [True] * len(sources) if ended is None else ended
    written = [[*target, EOS] if end else list(target) for target, end in zip(targets, ends, strict=True)]
    out_BT, length_B = pad([ids or [EOS] for ids in written])  # an empty target gets one token, which is cut off below
    in_BT = np.concatenate([np.full((len(written), 1), BOS), out_BT[:, :-1]], axis=1)
    source_BS, _ = pad(sources)
    with model.evaluating(), tl.no_grad(), tl.threads(), np.errstate(all="ignore"):  # what overflows raises below
        visible_BS = model.visible(source_BS)
        logits_BTV = model.decode(in_BT, model.encode(source_BS, visible_BS), visible_BS)
        require_logits("decode", logits_BTV, in_BT.shape)
        out_BT1 = tl.Tensor(out_BT[:, :, None], backend=logits_BTV.backend)
        chosen_BT = tl.take_along_axis(logits_BTV, out_BT1, -1)[:, :, 0].numpy().astype(np.float64)
        total_BT = tl.logsumexp(logits_BTV, axis=-1).numpy()
    read_BT = np.arange(out_BT.shape[1]) < length_B[:, None]
    require_finite((np.isfinite(total_BT) | ~read_BT).all(axis=1), np.arange(len(written)))
    log_probs = np.minimum(chosen_BT - total_BT, 0).tolist()
    return [
        Hypothesis.from_ids(ids, row[: len(ids)], length_penalty) for ids, row in zip(written, log_probs, strict=True)
    ]
