"""The models: what turns token ids into logits."""
