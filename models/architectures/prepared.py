"""A Transformer's decoder as compiled kernels compute its steps: see `tensorlib.ops.next_position`.

Shape suffixes: B sources, S source length, R rows, D width, E = 2 D for keys and values side by side, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

import nn
import tensorlib as tl
from nn.layers import run_as_one_op
from tensorlib.engine.recording import STATE
from tensorlib.ops.next_position import DecoderLayer, SubLayer, decoder_step, panel_product, panels_of

if TYPE_CHECKING:
    from models.architectures.transformer import Transformer

__all__ = ["PreparedDecoder", "can_prepare", "takes_part_alone"]

FEWEST_SOURCES = 8  # for fewer, compiling, which takes seconds once on a machine, takes longer than decoding


def can_prepare(
    model: Transformer, memory_BSD: tl.Tensor, visible: tl.Tensor | None, layer: type, add_norm: type
) -> bool:
    """Return whether kernels compute what the modules of this model would, if `layer` is the class of its layers.

    There must be a kernel, no gradients and no recording of every op, modules of the classes known here with nothing
    overridden, one floating dtype, and inputs that need neither broadcasting nor an error message.
    """
    if (
        tl.is_grad_enabled()
        or STATE.get().formulas
        or decoder_step.dispatch(np.ndarray) is decoder_step.dispatch(object)
    ):
        return False
    if not isinstance(memory_BSD, tl.Tensor) or memory_BSD.ndim != 3 or memory_BSD.shape[2] != model.config.width:
        return False
    sources, length, _ = memory_BSD.shape
    if sources < FEWEST_SOURCES or not length:
        return False
    if visible is not None:
        is_mask = isinstance(visible, tl.Tensor) and visible.dtype == bool
        if not is_mask or visible.shape not in ((sources, length), (sources, 1, 1, length)):
            return False
    known = _is_known(model, layer, add_norm)
    return known and all(map(takes_part_alone, _modules(model))) and _are_alike([memory_BSD, *_weights(model)])


def _is_known(model: Transformer, layer_class: type, add_norm_class: type) -> bool:
    """Return whether every module that takes part in a step is of the class that it has in a new model."""
    attention, add_norm = [nn.MultiHeadAttention, nn.Linear, nn.Linear], [add_norm_class, nn.LayerNorm, nn.Dropout]
    feed_forward = [nn.FeedForward, nn.LinearRelu, nn.Linear]
    known = [layer_class, *attention, *add_norm, *attention, *add_norm, *feed_forward, *add_norm]
    layers, heads = list(model.decoder.layers), model.config.heads
    return (
        type(model.target_embedding) is nn.Embedding
        and type(model.target_positions) in (nn.SinusoidalPositions, nn.LearnedPositions, type(None))
        and (model.config.tie_embeddings or (type(model.output) is nn.Linear and model.output.bias is None))
        and all([type(m) for m in layer.modules()] == known for layer in layers)
        and {a.heads for layer in layers for a in (layer.attention, layer.cross_attention)} == {heads}
        and run_as_one_op(*(m for m in model.decoder.modules() if isinstance(m, nn.Linear | nn.LayerNorm)))
    )


def _modules(model: Transformer) -> Iterator[nn.Module]:
    """Yield every module that takes part in a step."""
    yield from (model, model.target_embedding, model.dropout, *model.decoder.modules())
    if model.target_positions is not None:
        yield model.target_positions
    if not model.config.tie_embeddings:
        yield model.output


def _weights(model: Transformer) -> list[tl.Tensor]:
    base = model.first_embedding if model.config.tie_embeddings else model.output
    return [*model.decoder.parameters(), *model.target_embedding.parameters(), base.weight]


def _are_alike(tensors: list[tl.Tensor]) -> bool:
    """Return whether all are NumPy's, and of one dtype that kernels serve."""
    dtypes = {t.dtype.char if isinstance(t.data, np.ndarray) else "" for t in tensors}
    return dtypes in ({"f"}, {"d"})


def takes_part_alone(module: nn.Module) -> bool:
    """Return whether a module has no hooks, no dropout that acts, and no method of its own."""
    own = any(callable(v) and not isinstance(v, nn.Module) for name, v in vars(module).items() if name[0] != "_")
    return not (own or module.training or module._hooks or module._pre_hooks)


class PreparedDecoder:
    """The decoder's matrices, and that of the logits, copied into the layout that kernels read."""

    def __init__(self, model: Transformer) -> None:
        self.heads, self.width = model.config.heads, model.config.width
        self.layers = [
            DecoderLayer(
                _sublayer(layer.attention.projection, layer.attention.output, layer.attention_residual),
                _sublayer(
                    layer.cross_attention.projection, layer.cross_attention.output, layer.cross_attention_residual,
                    slice(0, self.width),
                ),
                _sublayer(layer.feed_forward.hidden, layer.feed_forward.output, layer.feed_forward_residual),
            )
            for layer in model.decoder.layers
        ]  # fmt: skip
        output_weight = model.output_weight()
        self._output, self._vocabulary = panels_of(output_weight.data), output_weight.shape[1]
        self._cross: list[Any] = [layer.cross_attention.projection for layer in model.decoder.layers]
        self._norm = model.decoder.norm
        self._modules = list(_modules(model))
        self._versions = [(weight, weight.version) for weight in _weights(model)]

    def is_current(self) -> bool:
        """Return whether modules would still compute the same: gradients are off, no weight was replaced, ...

        Elements that were written into a weight's array go unnoticed.
        """
        if tl.is_grad_enabled() or STATE.get().formulas:
            return False
        same = all(weight.version == version for weight, version in self._versions)
        return same and not any(m.training or m._hooks or m._pre_hooks for m in self._modules)

    def keys_values(self, memory_BSD: np.ndarray) -> list[np.ndarray]:
        """Return each layer's keys and values (B, S, E) of the memory."""
        rows, keys_values = memory_BSD.reshape(-1, self.width), []
        for projection in self._cross:
            weight, bias = projection.weight.data[:, self.width :], projection.bias.data[self.width :]
            projected: Any = panel_product(rows, panels_of(weight), len(bias))
            projected += bias
            keys_values.append(projected.reshape(*memory_BSD.shape[:2], len(bias)))
        return keys_values

    def logits(self, x_RD: np.ndarray) -> tl.Tensor:
        """Return the logits (R, V) for the output of the layers."""
        if self._norm is not None:
            x_RD = self._norm(tl.from_numpy(x_RD)).data
        logits_RV: Any = panel_product(x_RD, self._output, self._vocabulary)
        return tl.from_numpy(logits_RV)


def _sublayer(first: Any, second: Any, residual: Any, columns: slice = slice(None)) -> SubLayer:
    norm = residual.norm
    return SubLayer(
        panels_of(first.weight.data[:, columns]), first.bias.data[columns], panels_of(second.weight.data),
        second.bias.data, norm.weight.data, norm.bias.data, norm.eps, residual.order == "pre",
    )  # fmt: skip
