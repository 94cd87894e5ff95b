"""Evaluation of a model: translations, scores, attention weights and error analysis."""
