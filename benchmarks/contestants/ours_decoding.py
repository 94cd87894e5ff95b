"""tensorlib: decoding, and whether greedy decoding with cached keys and values equals decoding without."""

from __future__ import annotations

import numpy as np
from sizes import Size

import tensorlib as tl
from contestants import Contestant
from contestants.ours import LIBRARY, model_of
from models import Transformer
from models.decoding.beam import beam_search
from models.decoding.token_by_token import greedy
from models.text.batching import pad
from models.text.tokens import BOS, EOS

CHECKED = 4  # the approximate number of batches to check, from short to long ones


def never_ending(size: Size) -> Transformer:
    """Return a model whose targets do not end: the logit of </s> is 0, and some other is larger."""
    model = model_of(size, dropout=0.0).eval()
    weight = model.output.weight.numpy().copy()
    weight[:, EOS] = 0
    model.output.weight.replace(weight)
    return model


def decoding(size: list[int], batches: list[list[list[int]]], beam: int = 1) -> Contestant:
    """Decode batches of sources, greedily or with a beam, each target as long as its batch's longest source."""
    model = never_ending(Size(*size))

    def decoded() -> list[list[int]]:
        # As in the command line, beam search also serves a beam of 1.
        return [
            found[0].tokens
            for sources in batches
            for found in beam_search(model, sources, beam, max_length=max(map(len, sources)))
        ]

    steps = {"step": lambda: sum(map(len, decoded())), "targets": decoded, "check": lambda: check(model, batches)}
    return Contestant(LIBRARY, steps)


def check(model: Transformer, batches: list[list[list[int]]]) -> dict[str, int | float]:
    """Decode some batches again, reading the whole prefix for each token; compare tokens and logits."""
    different, farthest, total = 0, 0.0, 0
    with tl.no_grad():
        for sources in batches[:: max(len(batches) // CHECKED, 1)]:
            length = max(map(len, sources))
            cached = np.array(greedy(model, sources, max_length=length))
            source_BS, _ = pad(sources)
            visible_BS = model.visible(source_BS)
            memory_BSD = model.encode(source_BS, visible_BS)
            state = model.start(memory_BSD, visible_BS)
            prefix_BT = np.full((len(sources), 1), BOS)
            for _ in range(length):
                full_BV = model.decode(prefix_BT, memory_BSD, visible_BS).numpy()[:, -1]
                step_BV, state = model.decode_step(prefix_BT[:, -1], state)
                farthest = max(farthest, float(np.abs(full_BV - step_BV.numpy()).max()))
                prefix_BT = np.concatenate([prefix_BT, full_BV.argmax(-1)[:, None]], axis=1)
            different += int((cached != prefix_BT[:, 1:]).sum())
            total += cached.size
    return {"tokens": total, "different": different, "farthest": farthest}
