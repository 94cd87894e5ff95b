"""From a model to token ids: greedy, sampling, beam search, or forced decoding."""
