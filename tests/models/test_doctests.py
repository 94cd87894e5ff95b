"""The examples in the docstrings of models: each runs, and every public name has one."""

import doctest
import importlib

import numpy as np
import pytest

import models
import tensorlib as tl


@pytest.mark.parametrize("name", sorted({*models._MODULES.values()}))
def test_the_examples_run(name):
    tl.seed(0)
    results = doctest.testmod(importlib.import_module(name), extraglobs={"np": np, "tl": tl, "models": models})
    assert results.failed == 0


def test_every_public_name_has_an_example():
    for name in models.__all__:
        mark = "::\n" if name == "load" else ">>> "  # load needs a trained run
        assert mark in (getattr(models, name).__doc__ or ""), name
