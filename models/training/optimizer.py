"""The optimizer and the learning rate schedule that a config names."""

from __future__ import annotations

from models.architectures.encoder_decoder import EncoderDecoder
from models.runs.config import TrainConfig
from models.training.milestones import estimated_steps
from nn import optim, schedules

__all__ = ["make_optimizer", "make_schedule", "raised_rate", "unreached_peak"]


def make_optimizer(config: TrainConfig, model: EncoderDecoder) -> optim.Optimizer:
    """Return the config's optimizer for the parameters of a model."""
    c = config.optim
    if c.name == "sgd":
        return optim.SGD(model.named_parameters(), c.learning_rate, momentum=c.momentum, weight_decay=c.weight_decay)
    kind = optim.Adam if c.name == "adam" else optim.AdamW
    return kind(model.named_parameters(), c.learning_rate, betas=c.betas, eps=c.eps, weight_decay=c.weight_decay)


def make_schedule(config: TrainConfig, total: int) -> schedules.Schedule:
    """Return the learning rate as a function of the step, counted from 1; a cosine ends at step `total`."""
    c = config.optim
    if c.schedule == "noam":
        return schedules.noam(config.model.width, c.warmup, c.learning_rate)
    if c.schedule == "cosine":
        return schedules.cosine(c.learning_rate, c.warmup, total, c.final_learning_rate)
    kind = schedules.constant if c.schedule == "constant" else schedules.inverse_sqrt
    return kind(c.learning_rate, c.warmup)


def unreached_peak(config: TrainConfig, total: int) -> str:
    """Return a message if the learning rate will still be rising when training ends after `total` steps, else ""."""
    warmup = config.optim.warmup
    if total >= warmup:
        return ""
    reached = make_schedule(config, total)(total)
    return (
        f"the learning rate rises for {warmup:,} steps, but training ends after about {total:,}, at {reached:.2g}; "
        f"lower --optim.warmup, for example to {max(total // 10, 1):,}, or train longer"
    )


def raised_rate(before: TrainConfig, after: TrainConfig, batches: int, step: int) -> str:
    """Return a message if a run that continues after `step` does so at a higher learning rate than it had, else "".

    That is so if the schedule ends with training, which now ends later. batches: the number in the first epoch.
    """
    if before.optim != after.optim:  # with --resume-with, which asks for another rate
        return ""
    old, new = (make_schedule(config, estimated_steps(config, batches))(step) for config in (before, after))
    if new <= 1.001 * old:
        return ""
    end = "--steps" if after.steps else "--epochs"
    return f"the learning rate rises from {old:.2g} to {new:.2g}, because the {after.optim.schedule} follows {end}"
