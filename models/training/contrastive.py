"""Training of a sentence encoder on pairs of translations, by contrast with negatives of three kinds.

Config, text and a checkpoint determine everything that follows: a resumed training writes the same checkpoints, byte
for byte, as one that was never stopped.

Shape suffixes: B pairs of a batch, N texts, K negatives of each pair, M texts that a batch encodes, D width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import tensorlib as tl
from models.architectures.sentence_encoder import SentenceEncoder, Side
from models.evaluation.retrieval import retrieval
from models.runs.checkpoint import digest, tokenizer_digest
from models.runs.checkpoint_checks import check_keys, checked_section, require_dict
from models.runs.nested_dicts import flat_items
from models.system.errors import CheckpointError, UserError
from models.system.files import require_writable
from models.text.lines import Pair
from models.text.random_bits import random_bits
from models.text.sampling import HardNegatives, InBatchNegatives, KnownPositives, PairPositives, UniformNegatives
from models.training.contrastive_config import ContrastiveConfig
from models.training.corpus import Corpus
from nn import optim, schedules
from nn.states import shape_mismatches
from tensorlib.exchange.safetensors import load_with_metadata
from tensorlib.messages import shown

__all__ = ["ContrastiveConfig", "ContrastiveTrainer", "Record"]

SIDES: tuple[Side, Side] = ("source", "target")
EPOCH, UNIFORM, HARD = 0, 1, 2  # what a stream of random numbers is for

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Record:
    """What a validation found."""

    step: int
    loss: float  # mean training loss since the last validation
    to_target: float  # accuracy@1 of finding the target of a source among all validation targets
    to_source: float  # and of finding the source of a target


@dataclass
class Progress:
    """How far a training has come."""

    step: int = 0
    random: tuple[int, int] = (0, 0)  # state of the generator of dropout
    mined: int = 0  # how often the text has been encoded to find hard negatives
    validated: int = 0  # step of the last validation
    losses: float = 0.0  # sum of the losses since


class ContrastiveTrainer:
    """Trains an encoder on pairs.

    A step encodes the B sources and targets of a batch, and the sampled negatives of both languages, each text once:
    then it compares every source with all targets among them that are its negatives, and every target with all such
    sources; the loss is the mean of both directions. Another translation of the same text is never a negative.

    >>> pairs = [("eins", "one"), ("zwei", "two"), ("drei", "three"), ("vier", "four")]
    >>> tl.seed(0)
    >>> tokenizer = models.Tokenizer.train(pairs, vocabulary_size=290)
    >>> encoder = models.SentenceEncoder(models.SentenceEncoderConfig(layers=0, width=32), tokenizer)
    >>> config = ContrastiveConfig(steps=30, batch=4, learning_rate=0.01, warmup=5)
    >>> trainer = ContrastiveTrainer(encoder, pairs, pairs, config)
    >>> trainer.train().to_target
    1.0

    path: where checkpoints are written, one file, each replacing the last; if it exists, training goes on from there.
    """

    def __init__(
        self,
        encoder: SentenceEncoder,
        pairs: Sequence[Pair],
        valid: Sequence[Pair],
        config: ContrastiveConfig,
        path: str | Path | None = None,
    ) -> None:
        config.check()
        path = None if path is None else Path(path)
        if path is not None:
            require_writable(path, "training an encoder: checkpoint")
        if len(pairs) < config.batch or not valid:
            raise UserError(
                f"training an encoder: at least {config.batch} pairs, a batch, are required, and pairs to validate "
                f"with; got {len(pairs)} and {len(valid)}"
            )
        self.encoder, self.config, self.path, self.valid = encoder, config, path, valid
        self.loss = config.make_loss()
        self.optimizers = _optimizers(encoder, config)
        self.schedule = schedules.cosine(config.learning_rate, config.warmup, config.steps)
        self.texts = [list(dict.fromkeys(pair[side] for pair in pairs)) for side in (0, 1)]
        number = [{text: i for i, text in enumerate(texts)} for texts in self.texts]
        source_P, target_P = (np.array([number[side][pair[side]] for pair in pairs]) for side in (0, 1))
        self.positives = PairPositives(source_P, target_P)
        self.known = [  # the positives among the texts of each side, for anchors of the other
            KnownPositives(target_P, source_P, len(self.texts[0])),
            KnownPositives(source_P, target_P, len(self.texts[1])),
        ]
        self._check_hard()
        self.rows = [encoder.encode_texts(self.texts[s], SIDES[s]) for s in (0, 1)]
        self.mined: list[NDArray[np.floating]] = []  # vectors of all texts, from the last time that they were encoded
        self.progress = Progress(random=tl.default_generator().state)
        self._text = Corpus([*pairs], [*valid], [], []).digest()
        self._epoch, self._drawn = 0, self.positives.draw(random_bits(config.seed, EPOCH, 0))
        if path is not None and path.exists():
            self._restore(path)

    def _check_hard(self) -> None:
        """Raise `UserError` if a text has fewer negatives than are asked for."""
        positives = [max(len(self.known[s].of(i)) for i in range(len(self.texts[1 - s]))) for s in (0, 1)]
        fewest = min(len(self.texts[s]) - positives[s] for s in (0, 1))
        if self.config.hard > fewest:
            raise UserError(
                f"training an encoder: texts that are no translations of a text are required, {self.config.hard} for "
                f"the setting hard; a text has {fewest}; use a smaller number, or more pairs"
            )

    # ---- steps ----

    def train(self, until: int | None = None, report: Callable[[Record], object] = lambda record: None) -> Record:
        """Train to the end, or to step `until`; return the last record. Errors: those of `step`.

        report: called with the record of each validation.
        """
        c, p = self.config, self.progress
        last, record = c.steps if until is None else min(until, c.steps), None
        self.encoder.train()
        with tl.threads():  # BLAS on one thread, whose results do not depend on the number of cores
            while p.step < last:
                self.step()
                if p.step == c.steps or (c.validate_every and p.step % c.validate_every == 0):
                    record = self.validate()
                    report(record)
                if self.path and (p.step == last or (c.save_every and p.step % c.save_every == 0)):
                    self.save(self.path)
            return record or self.validate()

    def step(self) -> float:
        """Take one step; return the loss. Errors: `FloatingPointError` if loss or gradient is not finite."""
        c, p = self.config, self.progress
        if c.hard and p.step >= p.mined * c.mine_every:
            self.mined = [self.encoder.embed_rows(self.rows[s], SIDES[s]) for s in (0, 1)]
            p.mined += 1
        loss = self._loss(self._batch(p.step))
        value = float(loss.item())
        if not math.isfinite(value):
            raise FloatingPointError(f"training an encoder: the loss is {value} at step {p.step + 1}")
        loss.backward()
        try:
            optim.clip_grad_norm(self.encoder.parameters(), c.clip)
        except ValueError as error:
            raise FloatingPointError(f"training an encoder: {error}, at step {p.step + 1}") from None
        for optimizer, multiple in self.optimizers:
            optimizer.learning_rate = self.schedule(p.step + 1) * multiple
            optimizer.step()
            optimizer.zero_grad()
        p.step, p.random, p.losses = p.step + 1, tl.default_generator().state, p.losses + value
        return value

    def _batch(self, step: int) -> tuple[Ids, Ids]:
        """Return the sources and targets of a batch: all pairs once an epoch, but for a rest less than a batch."""
        size = self.config.batch
        epoch, batch = divmod(step, len(self.positives.anchors_P) // size)
        if epoch != self._epoch:
            self._epoch, self._drawn = epoch, self.positives.draw(random_bits(self.config.seed, EPOCH, epoch))
        sources_P, targets_P = self._drawn
        return sources_P[batch * size : (batch + 1) * size], targets_P[batch * size : (batch + 1) * size]

    def _loss(self, batch: tuple[Ids, Ids]) -> tl.Tensor:
        """Return the mean of the losses in both directions. Below, a list holds one thing for each side, s."""
        drawn = [self._negatives(s, anchors_B=batch[1 - s], positives_B=batch[s]) for s in (0, 1)]
        pools = [np.unique(np.concatenate([batch[s], drawn[s].reshape(-1)])) for s in (0, 1)]
        vectors = [self.encoder.forward_rows([self.rows[s][i] for i in pools[s]], SIDES[s]) for s in (0, 1)]
        own = [vectors[s][np.searchsorted(pools[s], batch[s])] for s in (0, 1)]
        excluded = [self._excluded(s, batch[1 - s], pools[s], drawn[s]) for s in (0, 1)]
        to_source, to_target = (self.loss(own[1 - s], own[s], vectors[s], excluded[s]) for s in (0, 1))
        return (to_source + to_target) / 2

    def _negatives(self, side: int, anchors_B: Ids, positives_B: Ids) -> Ids:
        """Return texts of a side for each anchor, (B, K): negatives, but for known positives among them."""
        c, step, B, size = self.config, self.progress.step, len(anchors_B), len(self.texts[side])
        others = B - 1 if c.in_batch is None else min(c.in_batch, B - 1)
        drawn = [InBatchNegatives().draw(positives_B, others)]
        if c.uniform:
            shared_1K = UniformNegatives(size).draw(random_bits(c.seed, UNIFORM, step, side), [0], c.uniform)
            drawn.append(np.broadcast_to(shared_1K, (B, c.uniform)))
        if c.hard:
            anchors_ND, items_ND = self.mined[1 - side], self.mined[side]
            hard = HardNegatives(
                lambda anchors: anchors_ND[anchors] @ items_ND.T,
                self.known[side],
                UniformNegatives(size, self.known[side]),
                c.candidates,
            )
            drawn.append(hard.draw(random_bits(c.seed, HARD, step, side), anchors_B, c.hard))
        return np.concatenate(drawn, axis=1)

    def _excluded(self, side: int, anchors_B: Ids, pool_M: Ids, negatives_BK: Ids) -> NDArray[np.bool_]:
        """Return which texts of a pool are not negatives of each anchor, (B, M)."""
        excluded_BM = np.ones((len(anchors_B), len(pool_M)), bool)
        np.put_along_axis(excluded_BM, np.searchsorted(pool_M, negatives_BK), False, axis=1)
        return excluded_BM | self.known[side].contains(anchors_B, np.broadcast_to(pool_M, excluded_BM.shape))

    # ---- validation and checkpoints ----

    def validate(self) -> Record:
        """Return the accuracy in both directions among the validation pairs, and the loss since the last time."""
        p = self.progress
        sources, targets = map(list, zip(*self.valid, strict=True))
        to_target = retrieval(self.encoder, sources, targets).accuracy_1
        to_source = retrieval(self.encoder, targets, sources, side="target").accuracy_1
        record = Record(p.step, p.losses / max(p.step - p.validated, 1), to_target, to_source)
        p.losses, p.validated = 0.0, p.step
        return record

    def save(self, path: str | Path) -> None:
        """Write a checkpoint atomically. Errors: `FloatingPointError` if a weight is not finite."""
        tensors = self._tensors()
        bad = [name for name, array in tensors.items() if not np.isfinite(array).all()]
        if bad:
            raise FloatingPointError(f"training an encoder: {bad[0]} is not finite at step {self.progress.step}")
        metadata = {"settings": self._settings(), "progress": asdict(self.progress)}
        tl.save(tensors, path, metadata | {"digest": digest(tensors, metadata)})

    def _tensors(self) -> dict[str, np.ndarray]:
        tensors = {f"model.{name}": array for name, array in self.encoder.state_dict().items()}
        for optimizer, _ in self.optimizers:
            tensors |= {f"optimizer.{name}": array for name, array in optimizer.state_dict().items()}
        return tensors | {f"mined.{side}": vectors for side, vectors in zip(SIDES, self.mined, strict=False)}

    def _settings(self) -> dict[str, Any]:
        """Return what a checkpoint must have in common with this training."""
        parts = {"encoder": asdict(self.encoder.config), "training": asdict(self.config)}
        return parts | {"tokenizer": tokenizer_digest(self.encoder.tokenizer), "text": self._text}

    def _restore(self, path: Path) -> None:
        """Go on from a checkpoint. Errors: `CheckpointError` if it is damaged, forged, or of another training."""
        try:
            tensors, metadata = load_with_metadata(path)
            self.progress = self._checked(tensors, metadata, f"checkpoint {path}")
            self.encoder.load_state_dict(_part(tensors, "model."))
            for optimizer, _ in self.optimizers:
                own = {name: tensors[f"optimizer.{name}"] for name in optimizer.state_dict()}
                optimizer.load_state_dict(own)
        except (UserError, OSError, ValueError, RecursionError) as error:
            why = str(error).removeprefix(f"checkpoint {path}: ")
            raise CheckpointError(f"checkpoint {path}: {why}; restore it, or remove it to start again") from None
        mined = _part(tensors, "mined.")
        self.mined = [mined[side] for side in SIDES] if mined else []
        tl.default_generator().state = self.progress.random

    def _checked(self, tensors: Mapping[str, np.ndarray], metadata: dict[str, Any], where: str) -> Progress:
        """Return the progress of a checkpoint. Errors: `UserError`, if it is not one of this training."""
        if metadata.pop("digest", None) != digest(tensors, metadata):
            raise UserError("a file that matches its own digest is required")
        check_keys(metadata, ("settings", "progress"), where)
        theirs = dict(flat_items(require_dict(metadata["settings"], where, "settings")))
        ours = dict(flat_items(self._settings()))
        for key in sorted({*ours, *theirs}):
            if shown(theirs.get(key)) != shown(ours.get(key)) or (key in theirs) != (key in ours):
                found, now = shown(theirs.get(key)), shown(ours.get(key))
                raise UserError(
                    f"the settings that it was trained with are required; {key} is {found} in it, now {now}"
                )
        progress = checked_section(Progress, metadata["progress"], where, "progress")
        if progress.step > self.config.steps or progress.validated > progress.step:
            raise UserError(f"progress within {self.config.steps} steps is required, got {progress}")
        expected = {name: array.shape for name, array in self._tensors().items() if not name.startswith("mined.")}
        if progress.mined:
            expected |= {f"mined.{s}": (len(t), self.encoder.width) for s, t in zip(SIDES, self.texts, strict=True)}
        problems = shape_mismatches(expected, {name: array.shape for name, array in tensors.items()})
        problems += [f"{name} must be finite" for name, array in tensors.items() if not np.isfinite(array).all()]
        if problems:
            raise UserError(f"tensors that fit the encoder are required; {'; '.join(problems[:3])}")
        return progress


def _optimizers(encoder: SentenceEncoder, config: ContrastiveConfig) -> list[tuple[optim.Adam, float]]:
    """Return the optimizer of the embeddings and, if there are other parameters, theirs; each with its multiple."""
    embeddings = {id(tower.embedding.weight) for tower in encoder.towers}
    named = [*encoder.named_parameters()]
    parts = [[pair for pair in named if (id(pair[1]) in embeddings) == first] for first in (True, False)]
    multiples = (config.embedding_rate, 1.0)
    return [(optim.Adam(part, config.learning_rate), k) for part, k in zip(parts, multiples, strict=True) if part]


def _part(tensors: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}
