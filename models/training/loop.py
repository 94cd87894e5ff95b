"""Training: from a config to a run directory, a step at a time.

Everything that follows is decided by the config, the text and `Progress`. So a run that goes on from a checkpoint
writes the same bytes as one that was never stopped.

Shape suffixes: B batch, S source length, T target length.
"""

from __future__ import annotations

import math
import shlex
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np

import tensorlib as tl
from models.architectures.transformer import Transformer
from models.runs.checkpoint import (
    BEST,
    Checkpoint,
    Progress,
    load_weights,
    newest_checkpoint,
    prune,
    step_path,
    write_checkpoint,
)
from models.runs.config import TrainConfig, to_dict
from models.runs.directory import has_weights
from models.system.errors import UserError
from models.system.stopping import Stopped, Stopper
from models.system.terminal import command
from models.text.batching import Batch
from models.training.curves import write_curves, write_samples
from models.training.epochs import Epochs
from models.training.progress import Display, RunLog
from models.training.start import Run, tokenizer_digest
from models.training.validation import Validation, out_of_patience, record_validation, validate
from nn import optim, schedules
from nn.averaging import ExponentialMovingAverage

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
        decay = self.config.optim.ema
        self.average = ExponentialMovingAverage(self.model.named_parameters(), decay) if decay else None
        self.progress = Progress(random=tl.default_generator().state)
        self._ids = {"tokenizer": tokenizer_digest(run.tokenizer), "data": run.corpus.digest()}
        self.epochs = Epochs(run)
        self._saved = (-1, -1)  # the step of the newest checkpoint, and the step that was validated by then
        self._stopgap: Path | None = None  # what a stop saved between the steps that are saved anyway
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
        """Whether all steps or epochs are over, or validation has long found nothing better."""
        steps, epochs, p = self.config.steps, self.config.epochs, self.progress
        over = (steps and p.step >= steps) or (epochs and p.epoch >= epochs)
        return bool(over or self.out_of_patience)

    @property
    def out_of_patience(self) -> bool:
        """Whether validation has found nothing better for as long as the config waits."""
        return out_of_patience(self.progress, self.config)

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
        epoch = math.ceil(self.epochs.count(0) / self.config.optim.accumulate)
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
            with np.errstate(all="ignore"):  # what is not finite is looked for, and told
                loss, norm = self._gradients(parts, tokens)
        except FloatingPointError as error:
            self._skip(epoch, str(error))
        else:
            with np.errstate(all="ignore"):  # a learning rate far too high: the next loss tells
                self.optimizer.step()
                if self.average:
                    self.average.update(p.step)
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
        p = self.progress
        parts = self.epochs.batches(p.epoch, p.batch, self.config.optim.accumulate)
        p.batch += len(parts)
        if p.batch == self.epochs.count(p.epoch):
            p.epoch, p.batch = p.epoch + 1, 0
        return parts

    # ---- validation, checkpoints ----

    def validate(self) -> None:
        """Validate, tell and log what was found, and keep the weights if they are the best so far."""
        began, p, run = time.perf_counter(), self.progress, self.run
        try:
            with self._averaged():
                found = validate(self.model, run, self.stopper.check)
        except FloatingPointError as loss:
            raise UserError(
                f"train: a finite validation loss is required, got {loss} at step {p.step}; {self._remedy()}"
            ) from None
        best = record_validation(found, p, self.config)
        bleu = {} if found.bleu is None else {"bleu": found.bleu}
        self.log.write(kind="valid", step=p.step, loss=found.loss, **bleu, best=best, samples=found.samples)
        self.log.write_speed(kind="valid", step=p.step, seconds=time.perf_counter() - began)
        self._show(found, best)
        if best:
            self._write(run.path / BEST)
        write_curves(run.path)
        write_samples(run.path)

    def _show(self, found: Validation, best: bool) -> None:
        star = " (the best so far)" if best else ""
        p, line = self.progress, self.display.line
        line(f"step {p.step}/{max(self.total, p.step)}  {found}{star}")
        for sample in found.samples:
            wrong = "" if sample["output"] == sample["reference"] else f"  [{sample['reference']}]"
            line(f"    {sample['source']} -> {sample['output']}{wrong}")
        if self.out_of_patience:
            line(f"step {p.step}: ended early; {p.waited} validations in a row were no better than step {p.best_step}")

    def _averaged(self) -> AbstractContextManager[None]:
        """Put the weights to use into the model inside: the moving average, if there is one."""
        return self.average.applied() if self.average else nullcontext()

    def save(self) -> None:
        """Write this step's checkpoint, unless it stands already, and remove the oldest ones.

        What a stop had saved goes too, so that a run leaves the same checkpoints whether it was stopped or not.
        """
        now = (self.progress.step, self.progress.validated)
        if self._saved == now:
            return
        began = time.perf_counter()
        self.log.sync()
        path = step_path(self.run.path, self.progress.step)
        self._write(path)
        stopgap = self._stopgap
        self._note_saved(path)
        if stopgap and stopgap != path:
            stopgap.unlink(missing_ok=True)
        prune(self.run.path, self.config.keep)
        self.log.write_speed(kind="save", step=self.progress.step, seconds=time.perf_counter() - began)

    def _note_saved(self, path: Path) -> None:
        """Note that the newest checkpoint is `path`, of this step, and whether it is one that only a stop had saved."""
        self._saved = (self.progress.step, self.progress.validated)
        self._stopgap = None if self._is_due(self.config.save_every) else path

    def _write(self, path: Path) -> None:
        with self._averaged():
            state = self.model.state_dict()
        moments, latest = self.optimizer.state_dict(), self.model.state_dict() if self.average else {}
        parts = [*state.items(), *moments.items(), *latest.items()]
        bad = [name for name, array in parts if not np.isfinite(array).all()]
        if bad:
            raise UserError(f"train: finite weights are required; {bad[0]} is not; lower --optim.learning-rate")
        config = {k: v for k, v in to_dict(self.config).items() if not k.startswith(("train_", "valid_"))}
        del config["backend"]  # like the paths of the text: where a run is made is not what it is
        checkpoint = Checkpoint(state, moments, self.model.config, self.progress, config, **self._ids, latest=latest)
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
            if self.average:
                self.average.begin()
                self.model.load_state_dict(checkpoint.latest)
            self.optimizer.load_state_dict(checkpoint.optimizer)
        except ValueError as error:
            raise UserError(f"checkpoint {path}: {error}") from None
        self.progress = checkpoint.progress
        self._note_saved(path)
        tl.default_generator().state = self.progress.random


def resume_command(run: Path) -> str:
    """Return what to type to go on with a run."""
    return f"{command()} train --resume --out {shlex.quote(str(run))}"
