"""CTranslate2, an engine in C++ that such models are deployed with: decoding by a model with tensorlib's weights."""

from __future__ import annotations

import os
import tempfile

import ctranslate2
import numpy as np
from ctranslate2.specs import Activation, TransformerSpec
from sizes import Size

from contestants import Contestant

SPECIAL = ["<pad>", "<unk>", "<s>", "</s>"]  # in the order of their ids
RECTIFIED = Activation.RELU


def decoding(size: list[int], batches: list[list[list[int]]], beam: int = 1) -> Contestant:
    """Decode batches of sources, greedily or with a beam, each target as long as its batch's longest source."""
    shape = Size(*size)
    words = SPECIAL + [f"word{i}" for i in range(len(SPECIAL), shape.vocabulary)]
    number = {word: i for i, word in enumerate(words)}
    with tempfile.TemporaryDirectory() as directory:
        spec = specification(shape)
        spec.register_source_vocabulary(words)
        spec.register_target_vocabulary(words)
        spec.validate()
        spec.save(directory)
        threads = len(os.sched_getaffinity(0))
        translator = ctranslate2.Translator(directory, device="cpu", compute_type="float32", intra_threads=threads)
    texts = [[[words[i] for i in source] for source in sources] for sources in batches]

    def decoded() -> list[list[str]]:
        found = []
        for sources in texts:
            length = max(map(len, sources))
            found += translator.translate_batch(
                sources, beam_size=beam, max_decoding_length=length, min_decoding_length=length, max_batch_size=0
            )
        return [result.hypotheses[0] for result in found]

    steps = {
        "step": lambda: sum(map(len, decoded())),
        "targets": lambda: [[number[word] for word in target] for target in decoded()],
    }
    return Contestant(f"CTranslate2 {ctranslate2.__version__}, {translator.compute_type}", steps)


def specification(size: Size) -> TransformerSpec:
    """Return CTranslate2's description of the model that tensorlib decodes with, and its weights."""
    from contestants.ours_decoding import never_ending  # at the top, every process would import both libraries

    model = never_ending(size)
    weights = {name: parameter.numpy() for name, parameter in model.named_parameters()}
    positions = model.target_positions.table.numpy()
    spec = TransformerSpec.from_config((size.layers, size.layers), size.heads, pre_norm=False, activation=RECTIFIED)

    def linear(layer, weight: np.ndarray, bias: np.ndarray | None = None) -> None:  # type: ignore[no-untyped-def]
        layer.weight = np.ascontiguousarray(weight.T)
        if bias is not None:
            layer.bias = bias

    def norm(layer, name: str) -> None:  # type: ignore[no-untyped-def]
        layer.gamma, layer.beta = weights[f"{name}.weight"], weights[f"{name}.bias"]

    def attention(layer, name: str, parts: list[slice]) -> None:  # type: ignore[no-untyped-def]
        weight, bias = (weights[f"{name}.projection.{kind}"] for kind in ("weight", "bias"))
        for part, projection in zip(parts, layer.linear, strict=False):
            linear(projection, weight[:, part], bias[part])
        linear(layer.linear[-1], weights[f"{name}.output.weight"], weights[f"{name}.output.bias"])
        norm(layer.layer_norm, f"{name}_residual.norm")

    own, cross = [slice(None)], [slice(0, size.width), slice(size.width, None)]
    for side, name in ((spec.encoder, "encoder"), (spec.decoder, "decoder")):
        side.position_encodings.encodings = positions
        for number, layer in enumerate(side.layer):
            prefix = f"{name}.layers.{number}"
            attention(layer.self_attention, f"{prefix}.attention", own)
            if name == "decoder":
                attention(layer.attention, f"{prefix}.cross_attention", cross)
            for part, kind in ((layer.ffn.linear_0, "hidden"), (layer.ffn.linear_1, "output")):
                linear(part, *(weights[f"{prefix}.feed_forward.{kind}.{field}"] for field in ("weight", "bias")))
            norm(layer.ffn.layer_norm, f"{prefix}.feed_forward_residual.norm")
    spec.encoder.embeddings[0].weight = weights["source_embedding.weight"]
    spec.decoder.embeddings.weight = weights["target_embedding.weight"]
    linear(spec.decoder.projection, weights["output.weight"])
    return spec
