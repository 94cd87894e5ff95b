"""How good a model is: translations, scores, attention weights, errors."""
