"""The models, which map token ids to logits."""
