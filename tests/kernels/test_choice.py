"""TENSORLIB_KERNELS chooses the kernels for a CPU."""

import os
import subprocess
import sys

import pytest

from tensorlib.kernels.numba import available
from tests import ROOT


def import_with(given, code=""):
    code = "import sys\n" + code + "from tensorlib.kernels import chosen\nprint(chosen())"
    environment = {**os.environ, "TENSORLIB_KERNELS": given}
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(("given", "kind"), [("0", "0"), ("numpy", "numpy"), ("", "numba"), ("1", "numba")])
def test_the_environment_chooses(given, kind):
    done = import_with(given)
    assert done.stdout == (kind if available() or kind != "numba" else "numpy") + "\n", done.stderr


@pytest.mark.parametrize(
    ("given", "message"),
    [("cuda", "TENSORLIB_KERNELS: must be 0, numpy or numba, got 'cuda'; unset it for the fastest"),
     ("numba", "TENSORLIB_KERNELS: numba is required, but not installed; pip install numba")],
)  # fmt: skip
def test_a_choice_that_cannot_be_made_is_an_error(given, message):
    done = import_with(given, "sys.modules['numba'] = None\n")
    assert done.returncode and message in done.stderr


CONSOLE_SCRIPT = "import runpy, sys; sys.argv = ['tensorlib', 'info']\n"
CONSOLE_SCRIPT += "sys.exit(runpy.run_path('tensorlib/console_script.py')['main']())"


@pytest.mark.parametrize("command", [["-c", CONSOLE_SCRIPT], ["-m", "tensorlib", "info"]])
def test_the_command_says_so_in_one_line(command):
    environment = {**os.environ, "TENSORLIB_KERNELS": "cuda"}
    done = subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "got 'cuda'" in done.stderr


def test_info_names_the_kernels():
    for given, text in (("0", "kernels: none, because TENSORLIB_KERNELS=0, on "), ("numpy", "kernels: NumPy's on ")):
        environment = {**os.environ, "TENSORLIB_KERNELS": given}
        command = [sys.executable, "-m", "tensorlib", "info"]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert text in done.stdout, done.stderr
