"""The training loop.

The config, the text and a checkpoint determine everything that follows: a resumed run writes the same log.jsonl and the
same checkpoints, byte for byte, as one that was never stopped.
"""

from __future__ import annotations

import math
import time
from contextlib import suppress
from dataclasses import replace

import numpy as np

import tensorlib as tl
from models.evaluation.metrics import worst_loss
from models.runs.checkpoint import step_checkpoints, step_path
from models.system.errors import CheckpointError, UserError
from models.system.memory import is_out_of_memory
from models.system.stopping import Stopped, Stopper
from models.system.terminal import command, quoted
from models.text.batching import Batch
from models.training.curves import write_curves, write_samples
from models.training.device_step import DeviceStep, ladder_for
from models.training.divergence import LOWER_RATE, Diverged, set_diverged_aside
from models.training.epochs import Epochs
from models.training.feeding import make_feeding
from models.training.log import ProgressDisplay, RunLog, read_log
from models.training.milestones import estimated_steps, is_done, is_due, out_of_patience
from models.training.optimizer import make_optimizer, make_schedule, unreached_peak
from models.training.results import Results, TakenStep
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
        self.feeding = make_feeding(self.config, self.total)
        if warning := unreached_peak(self.config, self.total):
            display.line(warning)
        self.log = RunLog(run.path, self.progress.step, self.progress.validated, warn=display.line)
        self.worst_loss = worst_loss(run.tokenizer.target_size)
        self.diverged = self.log.last_loss > self.worst_loss  # whether the latest loss is finite but huge
        self.resumed = self.progress.step > 0
        self.device_step = self._device_step()
        self.saver.follow(self.device_step.scale if self.device_step else None)
        self.results, self._arrived = Results(), 0.0

    def train(self) -> None:
        """Train to the end, then let other processes train the run.

        Raises `Stopped` if a signal asks for a stop, after saving unless the stop is `at_once`, and `Diverged`, after
        setting aside the checkpoints that diverged.
        """
        self.display.begin(self.progress.step, self.total)
        try:
            self._after_step()  # a stop may have interrupted the validation of the last step
            while not self.done:
                self.stopper.check()
                self.step()
                self._after_step()
        except Stopped as stopped:
            if not stopped.at_once:  # a stop at once leaves an inconsistent state, which must not be saved
                stopped.saved = self._save_for_stop()
            raise
        except Diverged as diverged:
            raise Diverged(f"train: {diverged}; {self._way_back()}") from None
        except Exception as error:
            if self.device_step is None or not is_out_of_memory(error):
                raise
            raise UserError(self._out_of_memory()) from None
        finally:
            self.display.end()
            self.log.close()
            self.run.lock.release()

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
        """Take one step with `accumulate` batches, or with fewer if the epoch has fewer left.

        On a device it only begins here, and is recorded in one of the next steps, or by `wait`.
        """
        began, p = time.perf_counter(), self.progress
        p.step += 1
        epoch = p.epoch + 1
        batches = self._next_batches()
        tokens = sum(batch.tokens for batch in batches)
        self.optimizer.learning_rate = learning_rate = self.schedule(p.step)
        taken = TakenStep(p.step, epoch, tokens, learning_rate, began)
        try:
            if self.device_step is None:
                self._step_on_host(batches, taken)
            else:
                fed = [replace(b, target_in_BT=self.feeding.inputs(self.model, b, p.step)) for b in batches]
                self.results.add(taken, self.device_step(fed, tokens, p.step))
        finally:
            self.optimizer.zero_grad()
            p.random = tl.default_generator().state
        self._record_arrived()

    def _step_on_host(self, batches: list[Batch], taken: TakenStep) -> None:
        try:
            with np.errstate(all="ignore"):  # non-finite values are detected and reported instead
                loss, norm = self._gradients(batches, taken.tokens)
        except FloatingPointError as error:
            self._skip(taken, str(error))
        else:
            self._prune(loss)
            with np.errstate(all="ignore"):  # an overflow here makes the next loss non-finite, and is reported then
                self.optimizer.step()
                if self.average:
                    self.average.update(taken.step)
            self._record(taken, loss, norm, time.perf_counter() - taken.began)

    def wait(self) -> None:
        """Wait until every step that was begun is recorded. Raises `Diverged` if too many were skipped."""
        self._record_arrived(wait=True)

    def _record_arrived(self, wait: bool = False) -> None:
        for result in self.results.arrived(wait):
            if result.skipped:
                self._skip(result.taken, result.reason)
                continue
            # Several steps are on their way at the same time; each took the time since the one before it arrived.
            now = time.perf_counter()
            seconds, self._arrived = now - max(result.taken.began, self._arrived), now
            self._prune(result.loss)
            self._record(result.taken, result.loss, result.norm, seconds)

    def _prune(self, loss: float) -> None:
        """Remove older checkpoints, now that the weights that may just have been saved gave a finite loss."""
        self.diverged = loss > self.worst_loss
        self.saver.prune(self.diverged)

    def _record(self, taken: TakenStep, loss: float, norm: float, seconds: float) -> None:
        """Log and show a step that was not skipped."""
        self.progress.skipped = 0
        step, tokens, rate = taken.step, taken.tokens, taken.learning_rate
        values = {"loss": loss, "learning_rate": rate, "gradient_norm": norm, "tokens": tokens}
        self.log.write(kind="train", step=step, epoch=taken.epoch, **values)
        self.log.write_speed(kind="train", step=step, tokens=tokens, seconds=seconds)
        self.display.step(step, loss, tokens, rate, seconds)

    def _device_step(self) -> DeviceStep | None:
        """Return what takes the steps of a model on a device; None for one on the host."""
        if self.model.backend.xp is np:
            return None
        ladder = ladder_for(self.config, self.epochs)
        return DeviceStep(self.config, self.model, self.optimizer, self.average, ladder)

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
            inputs_BT = self.feeding.inputs(self.model, batch, self.progress.step)
            with tl.precision(self.config.precision):
                summed = self.model.loss(batch.source_BS, inputs_BT, batch.target_out_BT, smoothing, "sum")
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

    def _skip(self, taken: TakenStep, reason: str) -> None:
        """Record a step that left weights and optimizer unchanged; raise `Diverged` after too many in a row."""
        p, limit = self.progress, self.config.optim.max_skipped
        p.skipped += 1
        self.log.write(kind="skipped", step=taken.step, epoch=taken.epoch, reason=reason)
        self.display.line(f"step {taken.step}: skipped, {reason}")
        if p.skipped >= limit:
            raise Diverged(f"a finite loss and gradient are required; {limit} steps in a row were skipped ({reason})")

    def _way_back(self) -> str:
        """Set the checkpoints aside that diverged, and return how to go on from the newest other one."""
        losses = [(entry["step"], entry["loss"]) for entry in read_log(self.run.path) if entry["kind"] == "train"]
        newest, aside = set_diverged_aside(self.run.path, losses, self.worst_loss)
        if newest or self.resumed:  # otherwise the whole run is removed
            for path in aside:
                self.display.line(f"weights that diverged are set aside: {path}")
        if newest is None:
            return f"no checkpoint is from before that; {LOWER_RATE}" if aside else LOWER_RATE
        rate = f"--resume-with optim.learning_rate --optim.learning-rate {self.config.optim.learning_rate / 10:.2g}"
        return f"{newest} is from before that; resume from it with a lower learning rate: {self._resumption()} {rate}"

    def _out_of_memory(self) -> str:
        """Record the steps before, and return what to do."""
        with suppress(Exception):  # the device may have nothing more to say
            self.wait()
        limit = "--batch-tokens" if self.config.batch_tokens else "--batch-sentences"
        newest = f"; {step_checkpoints(self.run.path)[-1]} is saved" if step_checkpoints(self.run.path) else ""
        graphs = ", and --no-capture, with which a run may also be resumed" if self.config.capture else ""
        return (
            f"train: out of memory in step {self.progress.step}; what needs less is a smaller {limit} with a larger "
            f"--optim.accumulate, a smaller model{graphs}{newest}"
        )

    def _resumption(self) -> str:
        return f"{command()} train --resume --out {quoted(str(self.run.path))}"

    def _after_step(self) -> None:
        p, config = self.progress, self.config
        if is_due(config.validate_every, p, config) and p.validated != p.step:
            self.validate()
        if is_due(config.save_every, p, config):
            self.save()

    def validate(self) -> None:
        """Validate, log and show the result, and save the weights if they are the best so far.

        Raises `Diverged` if the loss is not finite.
        """
        self.wait()
        began, p = time.perf_counter(), self.progress
        try:
            with averaged_weights(self.average):
                result = validate(self.model, self.run, self.stopper.check)
        except FloatingPointError as loss:
            raise Diverged(f"a finite validation loss is required, got {loss} at step {p.step}") from None
        self.diverged = result.diverged
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
        """Write this step's checkpoint, unless it exists already or the latest steps were skipped.

        Steps are skipped if their weights give no finite loss. The last step is saved all the same if it was validated,
        which such weights don't survive. Raises `Diverged` if the weights are not finite.
        """
        self.wait()
        p = self.progress
        if not self.saver.is_saved(p) and (not p.skipped or self.finished):
            began = time.perf_counter()
            self.log.sync()
            self.saver.save(p)
            self.log.write_speed(kind="save", step=p.step, seconds=time.perf_counter() - began)
        if self.finished:
            self.saver.prune(self.diverged)

    def _save_for_stop(self) -> str:
        """Save, unless the weights may have diverged; return what was saved and how to resume."""
        p, problem = self.progress, "the latest steps were skipped"
        try:
            self.save()
        except Diverged as diverged:
            problem = str(diverged)
        paths = step_checkpoints(self.run.path)
        if self.saver.is_saved(p):
            saved = f"saved {paths[-1]}"
        else:
            saved = f"not saved, because {problem}; {paths[-1] if paths else 'nothing'} is saved"
        return f"at step {p.step}; {saved}; resume with: {self._resumption()}"
