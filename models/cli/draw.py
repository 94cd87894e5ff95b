"""`tensorlib draw`: the computation graph of a model's loss as a picture, or as a page that steps through it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

import tensorlib as tl
from models.architectures.build import Config, build_model
from models.architectures.encoder_decoder import EncoderDecoder
from models.architectures.language import LanguageConfig, LanguageModel
from models.architectures.recurrent import RecurrentConfig
from models.architectures.transformer import TransformerConfig
from models.cli.options import Whole
from models.runs.loading import load_run
from models.system.errors import UserError
from models.system.files import require_writable
from models.text.batching import make_batch
from models.text.tokens import PAD

__all__ = ["draw"]

SMALL: dict[str, Config] = {
    "transformer": TransformerConfig(20, 20, layers=2, width=16, heads=2, feed_forward=32, max_length=16),
    "lstm": RecurrentConfig(20, 20, layers=2, width=16, max_length=16, kind="lstm"),
    "gru": RecurrentConfig(20, 20, layers=2, width=16, max_length=16, kind="gru"),
    "rnn": RecurrentConfig(20, 20, layers=2, width=16, max_length=16, kind="rnn"),
    "language": LanguageConfig(20, layers=2, width=16, heads=2, feed_forward=32, max_length=16),
}

LOOK = Parameter(group="Pictures")
SWITCH = Parameter(negative="", show_default=False)
SEVERAL = Parameter(negative="", show_default=False, consume_multiple=True)
PLAIN: dict[str, Any] = {
    "passes": "forward", "show": (), "color": "kind", "direction": "down", "size": None, "formulas": False,
    "fold_repeats": None,
}  # fmt: skip

PAIRS = [([4, 5, 6, 3], [7, 8, 9]), ([5, 3], [9])]  # of different lengths, so that a picture of both includes padding


def draw(
    *,
    run: Path | None = None,
    model: Literal["transformer", "lstm", "gru", "rnn", "language"] | None = None,
    out: Path | None = None,
    depth: Whole | None = None,
    passes: Annotated[Literal["forward", "backward", "both"], LOOK] = "forward",
    show: Annotated[
        tuple[Literal["values", "gradients", "statistics", "memory", "operations"], ...], LOOK, SEVERAL
    ] = (),
    color: Annotated[Literal["kind", "gradient"], LOOK] = "kind",
    formulas: Annotated[bool, LOOK, SWITCH] = False,
    fold_repeats: Annotated[bool, LOOK, SWITCH] = False,
    direction: Annotated[Literal["down", "right"], LOOK] = "down",
    size: Annotated[Literal["page", "slide"] | None, LOOK] = None,
    step: Annotated[bool, SWITCH] = False,
) -> int:
    """Draw the computation graph of a model's loss on one small batch, or make a page that steps through it.

    Args:
        run: a run's directory, or one checkpoint in it. [the newest in runs/, its best weights]
        model: a small untrained model instead of a run's.
        out: the picture. Its suffix chooses the format: svg, html, png, jpg or pdf; or dot or gv, which need no
            renderer. Of --step: the page, whose suffix is html. [graph.svg, or steps.html with --step]
        depth: modules are drawn open down to this depth; each deeper module is one box. [2; with --step, as many
            levels as fit]
        passes: what is drawn; in the backward pass gradients flow upwards, or to the left.
        show: what boxes say besides shapes, one or more.
        color: the kind of a box, or the norm of its gradient, from blue, where it vanishes, to red.
        formulas: open attention, softmax, layer norm and losses, too: draw the ops of their formulas.
        fold_repeats: draw one of several equal layers, as "layers ×2".
        direction: in which data flows.
        size: fold further and shrink until it fits an upright A4 page or a 16:9 slide.
        step: write a page that steps through forward and backward, on one sentence pair: each op with its formula and
            gradient rule, values, and gradients as they arrive.
    """
    _check_options(run, model, depth)
    look: dict[str, Any] = {"passes": passes, "show": show, "color": color, "direction": direction, "size": size}
    look |= {"formulas": formulas, "fold_repeats": fold_repeats or None}
    if step and look != PLAIN:
        raise UserError(
            "draw: --step takes no option of pictures; leave it out, or keep only --run, --model, --out and --depth"
        )
    out = out or Path("steps.html" if step else "graph.svg")
    require_writable(out, "draw --out")
    drawn = build_model(SMALL[model]) if model else load_run(run, "numpy").model
    opened = 2 if depth is None else depth
    try:
        with tl.record_formulas():
            loss = _small_loss(drawn.train(), PAIRS[:1] if step else PAIRS)
        if step:
            tl.step_through(loss, out, names={"loss": loss}, depth=depth)
        else:
            tl.draw(loss, out, depth=opened, **look)
    except (ValueError, RuntimeError) as error:  # an invalid suffix, or no renderer
        raise UserError(str(error)) from None
    what = "one sentence pair, forward and backward" if step else "two sentences"
    what += f", opened to depth {opened}" if not step and size is None else ""
    print(f"{out}: the loss of {drawn.parameter_count():,} parameters on {what}")
    return 0


def _check_options(run: Path | None, model: str | None, depth: int | None) -> None:
    if run is not None and model is not None:
        raise UserError(f"draw: only one of --run and --model is allowed; got {run} and {model}; leave out one")
    if depth is not None and depth < 0:
        raise UserError(f"draw: --depth must be at least 0, got {depth}; a large number opens everything")


def _small_loss(model: EncoderDecoder, pairs: Sequence[tuple[list[int], list[int]]]) -> tl.Tensor:
    """Return the loss of made-up sentence pairs."""
    batch = make_batch(pairs)
    source_BS = batch.source_BS[:, :0] if isinstance(model, LanguageModel) else batch.source_BS
    return tl.cross_entropy(model(source_BS, batch.target_in_BT), batch.target_out_BT, ignore_index=PAD)
