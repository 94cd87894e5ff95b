"""MarianMTModel of transformers, built from a config, by `generate` as its users call it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import transformers
from contestants.marian import config_of, generate, tensors
from sizes import Size
from transformers import MarianMTModel

from gpu.pytorch import peak, wait
from gpu.worker import Timed

__all__ = ["decoding"]


def decoding(
    size: Sequence[int], batches: dict[str, list[list[list[int]]]], beams: Sequence[int], device: str
) -> Timed:
    """Decode batches of sources, each target as long as its batch's longest source; steps are named "beam 1, 50"."""
    torch.manual_seed(0)
    longest = max(len(source) for given in batches.values() for sources in given for source in sources)
    model = MarianMTModel(config_of(Size(*size), longest + 2)).eval().to(device)
    model.generation_config.eos_token_id = None  # no sentence ends early, at no cost
    model.generation_config.forced_eos_token_id = None

    def build(beam: int, given: list[list[list[int]]]) -> Callable[[], int]:
        padded = [[x.to(device) for x in tensors(sources)] for sources in given]

        def run() -> int:
            return sum(generate(model, ids, visible, beam) for ids, visible in padded)

        return run

    steps = {f"beam {beam}, {name}": partial(build, beam, given) for name, given in batches.items() for beam in beams}
    library = f"PyTorch {torch.__version__}, transformers {transformers.__version__}"
    return Timed(library, steps, partial(wait, device), partial(peak, device), warm=2)
