"""From a model to token ids: greedy, sampled, by beam search, or forced."""
