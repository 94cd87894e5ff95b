"""Losses and perplexities stay short, however large they are."""

import doctest
import io
import math
import re

import pytest

from models.cli.display import Display
from models.evaluation.metrics import TokenLoss, worst_loss
from models.system import numbers
from models.system.numbers import shown_loss, shown_perplexity
from models.training.validation import Validation

LOSSES = [0.0, 3.25, 13.8, 612.5, 708.9, 709.1, 800.0, 1e4, 1e33, 1e300, math.inf, -1e25, math.nan]


def test_the_examples_run():
    results = doctest.testmod(numbers)
    assert results.attempted and not results.failed


@pytest.mark.parametrize("loss", LOSSES)
def test_no_loss_is_too_large_to_show(loss):
    result = TokenLoss(loss, 1)
    shown = str(Validation(result.loss, result.perplexity, 12.5, []))
    assert len(shown) < 70 and len(shown_loss(loss)) <= 10
    assert float(shown_loss(loss)) == pytest.approx(loss, rel=0.06, abs=1e-3, nan_ok=True)


def test_a_perplexity_is_exact_or_said_to_be_over_a_million():
    shown = {loss: shown_perplexity(TokenLoss(loss, 1).perplexity) for loss in LOSSES}
    assert shown[3.25] == f"{math.exp(3.25):.2f}" and shown[13.8] == f"{math.exp(13.8):.2f}"
    assert shown[612.5] == shown[709.1] == shown[1e300] == shown[math.inf] == ">1e6" and shown[math.nan] == "nan"


def test_progress_fits_a_line_whatever_the_loss():
    display = Display(io.StringIO())
    display.SECONDS = -1.0
    display.begin(0, 10)
    for loss in (2.5, 1e33):
        display._recent.clear()
        display.step(1, loss, 100, 1e-3, 0.1)
    lines = display.stream.getvalue().splitlines()
    assert [re.search("loss (.*?)  ", line)[1] for line in lines] == ["2.500", "1.0e+33"]


def test_a_model_with_random_weights_has_not_diverged():
    """Its loss is about the logarithm of the vocabulary."""
    for vocabulary in (100, 8000, 50000):
        assert math.log(vocabulary) + 1 < worst_loss(vocabulary) < 30
    assert worst_loss(1) > 0
