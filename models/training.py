"""Training: from a config to a run directory, a step at a time.

Everything that follows is decided by the config, the text and `Progress`. So a run that goes on from a checkpoint
writes the same bytes as one that was never stopped.

Shape suffixes: B batch, S source length, T target length.
"""

from __future__ import annotations

import math
import shlex
import time
from pathlib import Path
from typing import Any

import numpy as np

import tensorlib as tl
from models.batching import Batch, batches, epoch_batches, lengths
from models.checkpoint import (
    BEST,
    Checkpoint,
    Progress,
    load_weights,
    newest_checkpoint,
    prune,
    step_path,
    write_checkpoint,
)
from models.config import TrainConfig, to_dict
from models.errors import UserError
from models.evaluation import Translator, token_loss
from models.preparing import Run, tokenizer_digest
from models.progress import Display, RunLog
from models.runs import has_weights
from models.stopping import Stopped, Stopper
from models.terminal import command
from models.transformer import Transformer
from nn import optim, schedules

__all__ = ["Trainer", "make_optimizer", "make_schedule", "resume_command"]


def make_optimizer(config: TrainConfig, model: Transformer) -> optim.Optimizer:
    """Return the optimizer that the config asks for."""
    c = config.optim
    if c.name == "sgd":
        return optim.SGD(model.named_parameters(), c.learning_rate, momentum=c.momentum, weight_decay=c.weight_decay)
    kind = optim.Adam if c.name == "adam" else optim.AdamW
    return kind(model.named_parameters(), c.learning_rate, betas=c.betas, eps=c.eps, weight_decay=c.weight_decay)


def make_schedule(config: TrainConfig, total: int) -> schedules.Schedule:
    """Return the learning rate as a function of the step, from 1; `total` is where a cosine ends."""
    c = config.optim
    if c.schedule == "noam":
        return schedules.noam(config.model.width, c.warmup, c.learning_rate)
    if c.schedule == "cosine":
        return schedules.cosine(c.learning_rate, c.warmup, total, c.final_learning_rate)
    kind = schedules.constant if c.schedule == "constant" else schedules.inverse_sqrt
    return kind(c.learning_rate, c.warmup)


class Trainer:
    """Takes the steps of a run, from where its newest checkpoint stands to its end."""

    def __init__(self, run: Run, display: Display, stopper: Stopper) -> None:
        self.run, self.config, self.model = run, run.config, run.model
        self.display, self.stopper = display, stopper
        self.optimizer = make_optimizer(self.config, self.model)
        self.progress = Progress(random=tl.default_generator().state)
        self._ids = {"tokenizer": tokenizer_digest(run.tokenizer), "data": run.corpus.digest()}
        self._lengths = lengths(run.examples.train)
        self._groups: tuple[int, list[Any]] = (-1, [])
        self._saved = (-1, -1)  # the step of the newest checkpoint, and the step that was validated by then
        self._restore()
        self.total = self._total_steps()
        self.schedule = make_schedule(self.config, self.total)
        self.log = RunLog(run.path, self.progress.step, self.progress.validated, display.line)

    # ---- the loop ----

    def train(self) -> None:
        """Train to the end. A stop, when one is asked for, comes after a checkpoint: `Stopped`."""
        self.display.begin(self.progress.step, self.total)
        try:
            self._after_step()  # a validation that a stop broke off
            while not self.done:
                self.stopper.check()
                self.step()
                self._after_step()
        except Stopped as stopped:
            if not stopped.at_once:  # else in the middle of anything: nothing that could be saved
                stopped.saved = self._save_stopped()
            raise
        finally:
            self.display.end()
            self.log.close()

    def _save_stopped(self) -> str:
        self.save()
        path = step_path(self.run.path, self.progress.step)
        return f"at step {self.progress.step}; saved {path}; go on with: {resume_command(self.run.path)}"

    @property
    def finished(self) -> bool:
        """Whether all is done, the last validation too, which a stop may have broken off."""
        return self.done and self.progress.validated == self.progress.step

    @property
    def done(self) -> bool:
        """Whether all steps or epochs are over."""
        steps, epochs = self.config.steps, self.config.epochs
        return bool((steps and self.progress.step >= steps) or (epochs and self.progress.epoch >= epochs))

    def _after_step(self) -> None:
        if self._is_due(self.config.validate_every) and self.progress.validated != self.progress.step:
            self.validate()
        if self._is_due(self.config.save_every):
            self.save()

    def _is_due(self, every: int) -> bool:
        step = self.progress.step
        return step > 0 and (self.done or (step % every == 0 if every else self.progress.batch == 0))

    def _total_steps(self) -> int:
        """Return the number of steps; with epochs of batches by tokens an estimate, for each epoch cuts anew."""
        epoch = math.ceil(len(self._epoch(0)) / self.config.optim.accumulate)
        limits = [self.config.steps, self.config.epochs * epoch]
        return min(limit for limit in limits if limit)

    # ---- a step ----

    def step(self) -> None:
        """Take one step: of `accumulate` batches, or of those that are left in the epoch."""
        began, p = time.perf_counter(), self.progress
        p.step += 1
        epoch = p.epoch + 1
        parts = self._next_batches()
        tokens = sum(batch.tokens for batch in parts)
        self.optimizer.learning_rate = learning_rate = self.schedule(p.step)
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is looked for, and told
                loss, norm = self._gradients(parts, tokens)
        except FloatingPointError as error:
            self._skip(epoch, str(error))
        else:
            with np.errstate(all="ignore"):  # a learning rate far too high: the next loss tells
                self.optimizer.step()
            p.skipped = 0
            seconds = time.perf_counter() - began
            values = {"loss": loss, "learning_rate": learning_rate, "gradient_norm": norm, "tokens": tokens}
            self.log.write(kind="train", step=p.step, epoch=epoch, **values)
            self.log.write_speed(kind="train", step=p.step, tokens=tokens, seconds=seconds)
            self.display.step(p.step, loss, tokens, learning_rate, seconds)
        finally:
            self.optimizer.zero_grad()
            p.random = tl.default_generator().state

    def _gradients(self, parts: list[Batch], tokens: int) -> tuple[float, float]:
        """Add up the gradients of the mean loss over all `tokens` of all parts, as if they were one batch.

        Return the loss, and the norm of the gradient before it was clipped. Raises FloatingPointError where either is
        not finite.
        """
        total = 0.0
        for batch in parts:
            smoothing = self.config.optim.label_smoothing
            # The sum over all tokens, divided by those of the whole step: a mean for each part would give the
            # tokens of a small part more weight than those of a large one.
            summed = self.model.loss(batch.source_BS, batch.target_in_BT, batch.target_out_BT, smoothing, "sum")
            loss = summed * (1 / tokens)
            value = float(loss.item())
            if not math.isfinite(value):
                raise FloatingPointError(f"the loss is {value}")
            loss.backward()
            total += value
        try:
            return total, optim.clip_grad_norm(self.model.parameters(), self.config.optim.clip or math.inf)
        except ValueError as error:
            raise FloatingPointError(str(error)) from None

    def _skip(self, epoch: int, reason: str) -> None:
        """Leave weights and optimizer as they were. After too many in a row it is no accident."""
        p, most = self.progress, self.config.optim.max_skipped
        p.skipped += 1
        self.log.write(kind="skipped", step=p.step, epoch=epoch, reason=reason)
        self.display.line(f"step {p.step}: skipped, {reason}")
        if p.skipped >= most:
            raise UserError(
                f"train: a finite loss is required; {most} steps in a row had none ({reason}); {self._remedy()}"
            )

    def _remedy(self) -> str:
        remedy = "lower --optim.learning-rate, or raise --optim.warmup"
        return f"the checkpoints in {self.run.path} are from before; {remedy}" if has_weights(self.run.path) else remedy

    def _next_batches(self) -> list[Batch]:
        p, groups = self.progress, self._epoch(self.progress.epoch)
        chosen = groups[p.batch : p.batch + self.config.optim.accumulate]
        p.batch += len(chosen)
        if p.batch == len(groups):
            p.epoch, p.batch = p.epoch + 1, 0
        return list(batches(self.run.examples.train, chosen))

    def _epoch(self, epoch: int) -> list[Any]:
        """Return the batches of an epoch, as indices: a function of seed and epoch alone."""
        if self._groups[0] != epoch:
            c = self.config
            tokens, sentences = c.batch_tokens or None, c.batch_sentences or None
            groups = epoch_batches(
                self._lengths, seed=c.seed, epoch=epoch, tokens_per_batch=tokens, sentences_per_batch=sentences
            )
            self._groups = (epoch, groups)
        return self._groups[1]

    # ---- validation, checkpoints ----

    def validate(self) -> None:
        """Measure the loss on the validation part, translate some of it, and keep the best weights."""
        began, p, run = time.perf_counter(), self.progress, self.run
        with np.errstate(all="ignore"):  # after a divergence all is infinite, and one message enough
            result = token_loss(self.model, run.examples.valid, self.stopper.check)
        if not math.isfinite(result.loss):
            raise UserError(
                f"train: a finite validation loss is required, got {result.loss} at step {p.step}; {self._remedy()}"
            )
        pairs = run.corpus.valid[: self.config.samples]
        outputs = Translator(self.model, run.tokenizer).translate([s for s, _ in pairs], stop=self.stopper.check)
        best = p.best_loss is None or result.loss < p.best_loss
        p.validated = p.step
        if best:
            p.best_step, p.best_loss = p.step, result.loss
        samples = [{"source": s, "reference": r, "output": o} for (s, r), o in zip(pairs, outputs, strict=True)]
        self.log.write(kind="valid", step=p.step, loss=result.loss, best=best, samples=samples)
        self.log.write_speed(kind="valid", step=p.step, seconds=time.perf_counter() - began)
        self._show(result.loss, result.perplexity, best, samples)
        if best:
            self._write(run.path / BEST)

    def _show(self, loss: float, perplexity: float, best: bool, samples: list[dict[str, str]]) -> None:
        star = " (the best so far)" if best else ""
        where = f"step {self.progress.step}/{self.total}"
        self.display.line(f"{where}  validation loss {loss:.4f}, perplexity {perplexity:.2f}{star}")
        for sample in samples:
            wrong = "" if sample["output"] == sample["reference"] else f"  [{sample['reference']}]"
            self.display.line(f"    {sample['source']} -> {sample['output']}{wrong}")

    def save(self) -> None:
        """Write this step's checkpoint, unless it stands already, and remove the oldest ones."""
        now = (self.progress.step, self.progress.validated)
        if self._saved == now:
            return
        began = time.perf_counter()
        self.log.sync()
        self._write(step_path(self.run.path, self.progress.step))
        self._saved = now
        prune(self.run.path, self.config.keep)
        self.log.write_speed(kind="save", step=self.progress.step, seconds=time.perf_counter() - began)

    def _write(self, path: Path) -> None:
        state, moments = self.model.state_dict(), self.optimizer.state_dict()
        bad = [name for name, array in [*state.items(), *moments.items()] if not np.isfinite(array).all()]
        if bad:
            raise UserError(f"train: finite weights are required; {bad[0]} is not; lower --optim.learning-rate")
        config = {k: v for k, v in to_dict(self.config).items() if not k.startswith(("train_", "valid_"))}
        del config["backend"]  # like the paths of the text: where a run is made is not what it is
        checkpoint = Checkpoint(state, moments, self.model.config, self.progress, config, **self._ids)
        try:
            write_checkpoint(path, checkpoint)
        except OSError as error:
            kept = "; the checkpoints before it stand" if has_weights(self.run.path) else ""
            raise OSError(error.errno, f"{error.strerror or error}{kept}", str(path)) from None

    def _restore(self) -> None:
        """Go to where the newest whole checkpoint stands, if there is one."""
        found = newest_checkpoint(self.run.path, self.display.line)
        if found is None:
            return
        path, checkpoint = found
        for what, digest in self._ids.items():
            if getattr(checkpoint, what) != digest:
                raise UserError(
                    f"checkpoint {path}: the {what} that it was trained with is required; this run's is another; "
                    "put it back, or train anew without --resume"
                )
        load_weights(self.model, checkpoint, path)
        try:
            self.optimizer.load_state_dict(checkpoint.optimizer)
        except ValueError as error:
            raise UserError(f"checkpoint {path}: {error}") from None
        self.progress = checkpoint.progress
        self._saved = (self.progress.step, self.progress.validated)
        tl.default_generator().state = self.progress.random


def resume_command(run: Path) -> str:
    """Return what to type to go on with a run."""
    return f"{command()} train --resume --out {shlex.quote(str(run))}"
