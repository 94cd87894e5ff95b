"""The examples in nn's docstrings: each runs, and every public name has one."""

import doctest
import importlib
import inspect
import pkgutil

import numpy as np
import pytest

import nn
import nn.averaging
import tensorlib as tl

MODULES = ["nn", *[f"nn.{module.name}" for module in pkgutil.iter_modules(nn.__path__)]]
PUBLIC = [nn, nn.averaging, nn.init, nn.optim, nn.positions, nn.schedules]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_run(name):
    tl.seed(0)
    names = {"np": np, "tl": tl, "nn": nn, "optim": nn.optim}
    results = doctest.testmod(importlib.import_module(name), extraglobs=names)
    assert results.failed == 0


def test_every_public_class_and_function_has_an_example():
    public = {f"{module.__name__}.{name}": getattr(module, name) for module in PUBLIC for name in module.__all__}
    missing = [
        name
        for name, value in public.items()
        if (inspect.isclass(value) or inspect.isfunction(value)) and ">>>" not in (value.__doc__ or "")
    ]
    assert not missing
