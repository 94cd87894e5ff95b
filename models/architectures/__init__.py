"""The models: from token ids to logits."""
