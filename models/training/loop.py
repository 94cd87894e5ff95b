"""The training loop.

The config, the text and a checkpoint determine everything that follows: a resumed run writes the same log.jsonl and the
same checkpoints, byte for byte, as one that was never stopped.
"""

from __future__ import annotations

import math
import shlex
import time

import numpy as np

import tensorlib as tl
from models.runs.checkpoint import step_path
from models.runs.directory import has_weights
from models.system.errors import CheckpointError, UserError
from models.system.stopping import Stopped, Stopper
from models.system.terminal import command
from models.text.batching import Batch
from models.training.curves import write_curves, write_samples
from models.training.epochs import Epochs
from models.training.log import ProgressDisplay, RunLog
from models.training.milestones import estimated_steps, is_done, is_due, out_of_patience
from models.training.optimizer import make_optimizer, make_schedule
from models.training.saving import CheckpointSaver, averaged_weights
from models.training.start import Run
from models.training.validation import record_validation, report_lines, validate
from nn import optim
from nn.averaging import ExponentialMovingAverage

__all__ = ["Trainer"]


class Trainer:
    """Trains a run, from its newest checkpoint to its end."""

    def __init__(self, run: Run, display: ProgressDisplay, stopper: Stopper) -> None:
        self.run, self.config, self.model = run, run.config, run.model
        self.display, self.stopper = display, stopper
        self.optimizer = make_optimizer(self.config, self.model)
        decay = self.config.optim.ema
        self.average = ExponentialMovingAverage(self.model.named_parameters(), decay) if decay else None
        self.saver = CheckpointSaver(run, self.optimizer, self.average)
        self.progress = self.saver.restore(warn=display.line)
        self.epochs = Epochs(run)
        self.total = estimated_steps(self.config, self.epochs.count(0))
        self.schedule = make_schedule(self.config, self.total)
        self.log = RunLog(run.path, self.progress.step, self.progress.validated, warn=display.line)

    def train(self) -> None:
        """Train to the end. Raises `Stopped` if a signal asks for a stop, after saving unless the stop is `at_once`."""
        self.display.begin(self.progress.step, self.total)
        try:
            self._after_step()  # a stop may have interrupted the validation of the last step
            while not self.done:
                self.stopper.check()
                self.step()
                self._after_step()
        except Stopped as stopped:
            if not stopped.at_once:  # a stop at once leaves an inconsistent state, which must not be saved
                self.save()
                path = step_path(self.run.path, self.progress.step)
                resume = f"{command()} train --resume --out {shlex.quote(str(self.run.path))}"
                stopped.saved = f"at step {self.progress.step}; saved {path}; resume with: {resume}"
            raise
        finally:
            self.display.end()
            self.log.close()

    @property
    def done(self) -> bool:
        """Whether no step remains: all steps or epochs are complete, or patience has run out."""
        return is_done(self.progress, self.config)

    @property
    def finished(self) -> bool:
        """Whether no step remains and the last validation, which a stop may interrupt, is complete."""
        return self.done and self.progress.validated == self.progress.step

    @property
    def out_of_patience(self) -> bool:
        """Whether training ended early because validation no longer improved."""
        return out_of_patience(self.progress, self.config)

    def step(self) -> None:
        """Take one step with `accumulate` batches, or with fewer if the epoch has fewer left."""
        began, p = time.perf_counter(), self.progress
        p.step += 1
        epoch = p.epoch + 1
        batches = self._next_batches()
        tokens = sum(batch.tokens for batch in batches)
        self.optimizer.learning_rate = learning_rate = self.schedule(p.step)
        try:
            with np.errstate(all="ignore"):  # non-finite values are detected and reported instead
                loss, norm = self._gradients(batches, tokens)
        except FloatingPointError as error:
            self._skip(epoch, str(error))
        else:
            with np.errstate(all="ignore"):  # an overflow here makes the next loss non-finite, and is reported then
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

    def _next_batches(self) -> list[Batch]:
        p = self.progress
        batches = self.epochs.batches(p.epoch, p.batch, self.config.optim.accumulate)
        if not batches:
            path, count = step_path(self.run.path, p.step - 1), self.epochs.count(p.epoch)
            raise CheckpointError(
                f"checkpoint {path}: epoch {p.epoch + 1} has only {count} batches; got batch {p.batch}"
            )
        p.batch += len(batches)
        if p.batch == self.epochs.count(p.epoch):
            p.epoch, p.batch = p.epoch + 1, 0
        return batches

    def _gradients(self, batches: list[Batch], tokens: int) -> tuple[float, float]:
        """Accumulate the gradients of the mean loss over all `tokens`, as if all batches were a single one.

        Return the loss, and the norm of the gradient before clipping. Raises FloatingPointError if either is not
        finite.
        """
        total, smoothing = 0.0, self.config.optim.label_smoothing
        for batch in batches:
            # The sum over the batch divided by the tokens of the whole step: averaging each batch separately would
            # weight the tokens of a small batch more than those of a large one.
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
        """Record a step that left weights and optimizer unchanged; raise `UserError` after too many in a row."""
        p, limit = self.progress, self.config.optim.max_skipped
        p.skipped += 1
        self.log.write(kind="skipped", step=p.step, epoch=epoch, reason=reason)
        self.display.line(f"step {p.step}: skipped, {reason}")
        if p.skipped >= limit:
            raise UserError(
                f"train: a finite loss and gradient are required; {limit} steps in a row were skipped ({reason}); "
                f"{self._remedy()}"
            )

    def _remedy(self) -> str:
        remedy = "train again with a lower --optim.learning-rate, or a higher --optim.warmup"
        if has_weights(self.run.path):
            return f"earlier checkpoints are in {self.run.path}; {remedy}"
        return remedy

    def _after_step(self) -> None:
        p, config = self.progress, self.config
        if is_due(config.validate_every, p, config) and p.validated != p.step:
            self.validate()
        if is_due(config.save_every, p, config):
            self.save()

    def validate(self) -> None:
        """Validate, log and show the result, and save the weights if they are the best so far."""
        began, p = time.perf_counter(), self.progress
        try:
            with averaged_weights(self.average):
                result = validate(self.model, self.run, self.stopper.check)
        except FloatingPointError as loss:
            raise UserError(
                f"train: a finite validation loss is required, got {loss} at step {p.step}; {self._remedy()}"
            ) from None
        best = record_validation(result, p, self.config)
        bleu = {} if result.bleu is None else {"bleu": result.bleu}
        self.log.write(kind="valid", step=p.step, loss=result.loss, **bleu, best=best, samples=result.samples)
        self.log.write_speed(kind="valid", step=p.step, seconds=time.perf_counter() - began)
        for line in report_lines(result, best, p, self.config, self.total):
            self.display.line(line)
        if best:
            self.saver.save_best(p)
        write_curves(self.run.path)
        write_samples(self.run.path)

    def save(self) -> None:
        """Write this step's checkpoint, unless it already exists."""
        if self.saver.is_saved(self.progress):
            return
        began = time.perf_counter()
        self.log.sync()
        self.saver.save(self.progress)
        self.log.write_speed(kind="save", step=self.progress.step, seconds=time.perf_counter() - began)
