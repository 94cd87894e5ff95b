"""The name and shape of each parameter of a model, known from its config before any memory is allocated.

So the size of a checkpoint's tensors is checked before a model is built from the checkpoint's config.
"""

from __future__ import annotations

from models.architectures.language import LanguageConfig
from models.architectures.layers import LayersConfig
from models.architectures.recurrent import RecurrentConfig
from models.architectures.transformer import TransformerConfig

__all__ = ["language_shapes", "recurrent_shapes", "transformer_shapes"]

Shapes = dict[str, tuple[int, ...]]


def transformer_shapes(config: TransformerConfig) -> Shapes:
    """Return the shapes of the parameters of `Transformer(config)` by name."""
    shapes = _ends(config)
    if config.positions == "learned":
        shapes |= {f"{side}_positions.weight": (config.max_length, config.width) for side in ("source", "target")}
    return shapes | _stack("encoder", config) | _stack("decoder", config, "cross_attention")


def language_shapes(config: LanguageConfig) -> Shapes:
    """Return the shapes of the parameters of `LanguageModel(config)` by name."""
    V, D = config.vocabulary, config.width
    shapes: Shapes = {"embedding.weight": (V, D)}
    if not config.tie_embeddings:
        shapes["output.weight"] = (D, V)
    if config.positions == "learned":
        shapes |= {"positions.weight": (config.max_length, D)}
    return shapes | _stack("decoder", config)


def _stack(stack: str, config: LayersConfig, *more_attention: str) -> Shapes:
    """Return the shapes of the layers of an encoder, or of a decoder, which has more attention."""
    D, F = config.width, config.feed_forward
    norm = {"weight": (D,), "bias": (D,)}
    parts = dict.fromkeys(("attention", *more_attention), _linear("projection", D, 3 * D) | _linear("output", D, D))
    parts["feed_forward"] = _linear("hidden", D, F) | _linear("output", F, D)
    shapes: Shapes = {}
    for i in range(config.layers):
        for name, shapes_of_part in parts.items():
            path = f"{stack}.layers.{i}.{name}"
            shapes |= {f"{path}.{key}": shape for key, shape in shapes_of_part.items()}
            shapes |= {f"{path}_residual.norm.{key}": shape for key, shape in norm.items()}
    if config.norm == "pre":
        shapes |= {f"{stack}.norm.{key}": shape for key, shape in norm.items()}
    return shapes


def recurrent_shapes(config: RecurrentConfig) -> Shapes:
    """Return the shapes of the parameters of `RecurrentTranslator(config)` by name."""
    D, gates = config.width, {"rnn": 1, "gru": 3, "lstm": 4}[config.kind]
    shapes = _ends(config)
    for stack, directions in (("encoder", 2), ("decoder", 1)):
        H = D // directions  # of each direction, so that both together have width D
        for i in range(config.layers * directions):
            path = f"{stack}.cells.{i}"
            shapes |= {f"{path}.weight_x": (D, gates * H), f"{path}.weight_h": (H, gates * H)}
            shapes |= {f"{path}.bias": (gates * H,)} | ({f"{path}.bias_h": (H,)} if config.kind == "gru" else {})
    if config.attention != "none":
        shapes |= {"attention.key.weight": (D, D)} | _linear("attention.output", 2 * D, D)
    if config.attention == "additive":
        shapes |= _linear("attention.query", D, D) | {"attention.score.weight": (D, 1)}
    return shapes


def _ends(config: RecurrentConfig | TransformerConfig) -> Shapes:
    """Return the shapes of the embeddings, and of the projection to logits."""
    source, target, D = config.source_vocabulary, config.target_vocabulary, config.width
    tied: Shapes = {"source_embedding.weight": (source, D)}
    untied: Shapes = {"target_embedding.weight": (target, D), "output.weight": (D, target)}
    return tied if config.tie_embeddings else tied | untied


def _linear(name: str, inputs: int, outputs: int) -> Shapes:
    return {f"{name}.weight": (inputs, outputs), f"{name}.bias": (outputs,)}
