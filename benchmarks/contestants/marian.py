"""PyTorch with transformers: decoding with a MarianMTModel of the same sizes, by `generate` as its users call it."""

from __future__ import annotations

import torch
import transformers
from sizes import Size
from transformers import MarianConfig, MarianMTModel

from contestants import Contestant

PAD = 0


def decoding(size: list[int], batches: list[list[list[int]]], beam: int = 1) -> Contestant:
    """Decode batches of sources, greedily or with a beam, each target as long as its batch's longest source."""
    shape = Size(*size)
    torch.manual_seed(0)
    longest = max(len(source) for sources in batches for source in sources)
    model = MarianMTModel(config_of(shape, longest + 2)).eval()
    model.generation_config.eos_token_id = None  # no sentence ends early, at no cost
    model.generation_config.forced_eos_token_id = None
    padded = [tensors(sources) for sources in batches]

    def step() -> int:
        count = 0
        for ids, visible in padded:
            count += generate(model, ids, visible, beam)
        return count

    return Contestant(f"PyTorch {torch.__version__}, transformers {transformers.__version__}", {"step": step})


def generate(model: MarianMTModel, ids: torch.Tensor, visible: torch.Tensor, beam: int) -> int:
    """Generate targets as long as the sources (B, S), and return the number of their tokens."""
    length = ids.shape[1]
    made = model.generate(
        input_ids=ids,
        attention_mask=visible,
        num_beams=beam,
        do_sample=False,
        use_cache=True,
        max_new_tokens=length,
        min_new_tokens=length,
    )
    return made[:, 1:].numel()  # the first is the start token


def config_of(size: Size, positions: int) -> MarianConfig:
    half = {"layers": size.layers, "attention_heads": size.heads, "ffn_dim": size.feed_forward}
    return MarianConfig(
        vocab_size=size.vocabulary,
        d_model=size.width,
        **{f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in half.items()},
        max_position_embeddings=positions,
        activation_function="relu",
        scale_embedding=True,
        share_encoder_decoder_embeddings=False,
        decoder_vocab_size=size.vocabulary,
        tie_word_embeddings=False,
        pad_token_id=PAD,
        decoder_start_token_id=PAD,
        eos_token_id=3,
        bos_token_id=2,
        forced_eos_token_id=None,
    )


def tensors(sources: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return padded ids and the attention mask."""
    rows = torch.nn.utils.rnn.pad_sequence([torch.tensor(s) for s in sources], batch_first=True, padding_value=PAD)
    return rows, (rows != PAD).long()
