"""Evaluation of a model: translations, scores, attention weights, error analysis."""
