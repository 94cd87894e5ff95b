"""The names of the package `models`: imported on first use, and listed by `dir`."""

import subprocess
import sys

import pytest

import models
from tests import ROOT


def test_every_public_name_can_be_imported_and_is_listed():
    for name in models.__all__:
        assert getattr(models, name).__name__ == name
    assert {*models.__all__} == {*models._MODULES} <= {*dir(models)}
    with pytest.raises(AttributeError, match="module 'models' has no attribute 'Transfomer'"):
        _ = models.Transfomer


def test_nothing_is_imported_before_its_use():
    program = "import sys, models; assert not {'numpy', 'tensorlib', 'nn'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, cwd=ROOT)
