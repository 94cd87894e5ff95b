"""The name and shape of each parameter of a model, known from its config before any memory is allocated.

So the size of a checkpoint's tensors is checked before a model is built from the checkpoint's config.
"""

from __future__ import annotations

from models.architectures.transformer import TransformerConfig

__all__ = ["parameter_shapes"]

Shapes = dict[str, tuple[int, ...]]


def parameter_shapes(config: TransformerConfig) -> Shapes:
    """Return the shapes of the parameters of `Transformer(config)` by name."""
    D, F = config.width, config.feed_forward
    norm = {"weight": (D,), "bias": (D,)}
    attention = _linear("projection", D, 3 * D) | _linear("output", D, D)
    sublayers = {"attention": attention, "feed_forward": _linear("hidden", D, F) | _linear("output", F, D)}
    stacks = {"encoder": sublayers, "decoder": sublayers | {"cross_attention": attention}}
    shapes: Shapes = {"source_embedding.weight": (config.source_vocabulary, D)}
    if not config.tie_embeddings:
        shapes |= {
            "target_embedding.weight": (config.target_vocabulary, D),
            "output.weight": (D, config.target_vocabulary),
        }
    if config.positions == "learned":
        shapes |= {f"{side}_positions.weight": (config.max_length, D) for side in ("source", "target")}
    for stack, parts in stacks.items():
        for i in range(config.layers):
            for name, shapes_of_part in parts.items():
                path = f"{stack}.layers.{i}.{name}"
                shapes |= {f"{path}.{key}": shape for key, shape in shapes_of_part.items()}
                shapes |= {f"{path}_residual.norm.{key}": shape for key, shape in norm.items()}
        if config.norm == "pre":
            shapes |= {f"{stack}.norm.{key}": shape for key, shape in norm.items()}
    return shapes


def _linear(name: str, inputs: int, outputs: int) -> Shapes:
    return {f"{name}.weight": (inputs, outputs), f"{name}.bias": (outputs,)}
