"""Greedy decoding whose steps stay on a device: recorded once, replayed for every token, looked at every few tokens.

It finds what `token_by_token.greedy` finds, which says what the arguments mean. `device_beam` does the same for beam
search. Rows that have ended stay in the batch, so every step is the same work.

Shape suffixes: B sources, S source length, L positions there is room for, V vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

import tensorlib as tl
from models.decoding.checks import NonFiniteLogits
from models.text.batching import pad
from models.text.tokens import BOS, EOS, PAD

__all__ = ["DeviceSearch", "fixed_decoder", "greedy_on_device", "searching"]

EVERY = 8  # tokens between two looks of the host; so many more are computed after the last target has ended
NEVER = 2**31  # in place of the step in which the logits of a source became unusable


def fixed_decoder(model: Any, sources: Sequence[Sequence[int]], limit_B: np.ndarray, beam: int) -> Any:
    """Return what decodes these sources on a device, or None: the model's `fixed_decoder`, if it has one and can."""
    find = getattr(model, "fixed_decoder", None)
    if find is None or not len(sources) or limit_B.max() <= 0:
        return None
    return find(len(sources), beam, int(limit_B.max()), max(len(source) for source in sources))


@contextmanager
def searching(decoder: Any) -> Iterator[None]:
    """Let one search at a time use the decoder."""
    with decoder.lock, tl.threads(), np.errstate(all="ignore"):  # what overflows raises an error
        yield


class DeviceSearch:
    """A search with its arrays on a device, written in place. A subclass says how one token is chosen."""

    def __init__(self, decoder: Any) -> None:
        self.decoder, self.backend = decoder, decoder.model.backend
        self.xp: Any = self.backend.xp
        shape = decoder.sources, decoder.beam
        self.ids: Any = self.xp.zeros(shape, "int64")  # the latest token of each target
        self.open: Any = self.xp.zeros(shape, bool)
        self.limit: Any = self.xp.zeros((decoder.sources, 1), "int64")
        self.least: Any = self.xp.zeros(1, "int64")
        self.spoilt: Any = self.xp.zeros(decoder.sources, "int64")  # the step in which logits became unusable
        self._begin = tl.capture(self.begin, backend=self.backend)
        self._step = tl.capture(self.step, backend=self.backend)

    def begin(self, source_BS: Any, limit_B1: Any, least_1: Any, *more: Any) -> None:
        """Read the sources; open the first target of each. On the device, recorded."""
        self.decoder.begin(source_BS)
        self.limit[...] = limit_B1
        self.least[...] = least_1
        self.ids.fill(BOS)
        self.open.fill(False)
        self.open[:, :1] = limit_B1 > 0
        self.spoilt.fill(NEVER)

    def step(self) -> None:
        """Extend the open targets by a token. On the device, recorded."""
        raise NotImplementedError

    def run(self, sources: Sequence[Sequence[int]], limit_B: np.ndarray, min_length: int, *more: np.ndarray) -> int:
        """Search until no target is open; return the number of steps. Errors: FloatingPointError as `greedy`'s."""
        rows, length = self.decoder.sources, self.decoder.source_length
        source_BS = np.full((rows, length), PAD, np.int64)
        given_BS, _ = pad(sources)
        source_BS[: len(sources), : given_BS.shape[1]] = given_BS
        limit_B1 = np.zeros((rows, 1), np.int64)
        limit_B1[: len(sources), 0] = limit_B
        self._begin(source_BS, limit_B1, np.array([min_length], np.int64), *more)
        looks: deque[Any] = deque()
        steps, longest = 0, int(limit_B.max())
        while steps < longest:
            for _ in range(min(EVERY, longest - steps)):
                self._step()
                steps += 1
            looks.append(self._look())
            if len(looks) > 1 and not self._continues(looks.popleft()):  # while the device computes the next tokens
                break
        for look in looks:
            self._continues(look)
        return steps

    def _look(self) -> Any:
        return self.backend.fetch_later(self.xp.stack([self.open.any(axis=1).astype("int64"), self.spoilt]))

    def _continues(self, look: Any) -> bool:
        open_B, spoilt_B = look.value()
        if (first := spoilt_B.min()) < NEVER:
            raise NonFiniteLogits(int(np.flatnonzero(spoilt_B == first)[0]))
        return bool(open_B.any())

    def note_spoilt(self, usable_BN: Any) -> None:
        """Note the step in which the logits of an open target are not usable for the first time."""
        xp = self.xp
        bad_B = (self.open & ~usable_BN).any(axis=1)
        self.spoilt[...] = xp.minimum(self.spoilt, xp.where(bad_B, self.decoder.position, NEVER))


class GreedySearch(DeviceSearch):
    """The likeliest token at each step."""

    def __init__(self, decoder: Any) -> None:
        super().__init__(decoder)
        self.tokens: Any = self.xp.zeros((decoder.room, decoder.sources), "int64")

    def step(self) -> None:
        """Extend the targets."""
        xp, written = self.xp, self.decoder.position.copy()
        logits_BV: Any = self.decoder.next_logits(self.ids).data
        self.note_spoilt(xp.isfinite(logits_BV.max(axis=-1))[:, None])
        may_not_end_V = (written < self.least) & (xp.arange(logits_BV.shape[1]) == EOS)
        chosen_B1 = xp.where(may_not_end_V, -np.inf, logits_BV).argmax(axis=-1)[:, None]
        self.tokens[written] = chosen_B1.reshape(1, -1)
        self.ids[...] = chosen_B1
        self.open[...] = self.open & (chosen_B1 != EOS) & (written + 1 < self.limit)


def greedy_on_device(
    decoder: Any, sources: Sequence[Sequence[int]], limit_B: np.ndarray, min_length: int
) -> list[list[int]]:
    """Return the targets, without </s>."""
    with searching(decoder):
        search = decoder.searches.get("greedy") or decoder.searches.setdefault("greedy", GreedySearch(decoder))
        steps = search.run(sources, limit_B, min_length)
        tokens_TB = search.backend.to_numpy(search.tokens)[:steps]
    targets = []
    for ids_T, limit in zip(tokens_TB.T[: len(sources)], limit_B.tolist(), strict=True):
        ids = ids_T[:limit].tolist()
        targets.append(ids[: ids.index(EOS)] if EOS in ids else ids)
    return targets
