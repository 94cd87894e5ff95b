"""How long a run will take, estimated by timing some of its steps on random ids: no subwords need to be learned."""

from __future__ import annotations

import dataclasses
import statistics
import time

import numpy as np

import tensorlib as tl
from models.architectures.build import build_model
from models.runs.config import TrainConfig
from models.text.batching import make_batch
from models.text.tokens import EOS
from models.training.optimizer import make_optimizer
from nn import optim

__all__ = ["rehearsed_seconds"]

STEPS = 3


def rehearsed_seconds(config: TrainConfig, subwords: float) -> float:
    """Return the seconds that a step takes on this machine; `subwords`: the mean length of the longer sentences.

    The first step is not counted, because it also allocates the memory that later steps use again.
    """
    vocabulary = config.tokenizer.vocabulary
    size = dataclasses.replace(config.model, source_vocabulary=vocabulary, target_vocabulary=vocabulary)
    model = build_model(size, tl.Generator(config.seed))
    model.to(config.backend).train()
    optimizer = make_optimizer(config, model)
    length = max(min(round(subwords), config.model.max_length), 2)
    rows = config.batch_sentences or max(config.batch_tokens // length, 1)
    ids_BS = np.random.default_rng(config.seed).integers(EOS + 1, vocabulary, (rows, length))
    batch = make_batch([([*ids, EOS], ids) for ids in ids_BS[:, :-1].tolist()])
    times = []
    for _ in range(STEPS + 1):
        began = time.perf_counter()
        for _ in range(config.optim.accumulate):
            loss = model.loss(batch.source_BS, batch.target_in_BT, batch.target_out_BT, 0.1)
            loss.backward()
        optim.clip_grad_norm(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()  # waits for the GPU
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])
