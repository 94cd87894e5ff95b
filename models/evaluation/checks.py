"""Checks of the texts that a model is given, and the errors for those that it cannot use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from models.architectures.encoder_decoder import EncoderDecoder
from models.architectures.language import LanguageModel
from models.system.errors import UserError
from models.system.terminal import command
from tensorlib.messages import shown

__all__ = ["refuse_line", "require_texts", "require_translator"]


def refuse_line(line: int) -> NoReturn:
    """Raise `UserError`: the model has no finite logits for this line, counted from 0."""
    raise UserError(
        f"decoding: usable logits are required; those for line {line + 1} are NaN or infinite; the weights are spoilt, "
        "or far too large: use an earlier checkpoint, --run RUN/step-NUMBER.safetensors, or train with a lower "
        "--optim.learning-rate"
    )


def require_translator(model: EncoderDecoder, operation: str) -> None:
    """Raise `UserError` for a language model, which does not translate."""
    if isinstance(model, LanguageModel):
        raise UserError(
            f"{operation}: a model that translates is required; this run is of a language model; use "
            f"`{command()} generate`, or `{command()} evaluate --text FILE`"
        )


def require_texts(operation: str, *given: Sequence[str]) -> None:
    """Raise TypeError unless lists of texts are given. A text is none, because its characters would count as texts."""
    for texts in given:
        if isinstance(texts, str):
            raise TypeError(f"{operation}: a list of texts is required, got the text {texts!r}; write [text]")
        if not hasattr(texts, "__len__"):
            raise TypeError(f"{operation}: a list of texts is required, got {shown(texts)}")
        for i, text in enumerate(texts):
            if not isinstance(text, str):
                raise TypeError(f"{operation}: a list of texts is required, got {shown(text)} at index {i}")
