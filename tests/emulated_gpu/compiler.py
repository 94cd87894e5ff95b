"""Compiling CUDA sources by g++ for this computer, once for each source and set of options."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

HEADER = Path(__file__).with_name("cuda_on_host.h")
FLAGS = (
    *("-std=gnu++17", "-O2", "-fPIC", "-w"),
    "-ffp-contract=off",  # no fused multiply-add, as --fmad=false
    *("-fno-strict-aliasing", "-fno-ipa-reference"),  # another fiber may have changed any variable
    *("-fno-gnu-unique", "-fvisibility=hidden"),  # otherwise two libraries would share their shared arrays
    "-fsanitize=bounds,alignment",  # the header has what these call
)


def compiler() -> str | None:
    """Return g++, or None if this computer has none."""
    return shutil.which(os.environ.get("CXX", "g++"))


def folder() -> Path:
    """Return the folder for compiled libraries."""
    name = f"tensorlib-emulated-gpu-{os.getuid()}"
    path = Path(tempfile.gettempdir()) / name
    path.mkdir(exist_ok=True)
    return path


class CompileException(Exception):
    """CuPy's error for a source that does not compile."""


def _run(command: list[str], code: str) -> str:
    done = subprocess.run(command, input=code, capture_output=True, text=True)
    if done.returncode:
        raise CompileException(done.stderr)
    return done.stdout


def definitions(options: tuple[str, ...]) -> tuple[str, ...]:
    """Return the options that g++ understands, which are the definitions."""
    return tuple(o for o in options if o.startswith("-D"))


@cache
def library(code: str, options: tuple[str, ...] = ()) -> Library:
    """Compile a source of CUDA C and load it. Raises CompileException with the messages of g++."""
    return Library(code, definitions(options))


class Library:
    """A loaded library: its kernels by name, with their launch bounds."""

    def __init__(self, code: str, options: tuple[str, ...]) -> None:
        digest = hashlib.sha256("\0".join((HEADER.read_text(), code, *FLAGS, *options)).encode()).hexdigest()[:32]
        path = folder() / f"{digest}.so"
        names = path.with_suffix(".json")
        if not path.exists():
            self._compile(code, options, path, names)
        described = json.loads(names.read_text())
        self.bounds = described["bounds"]
        self.library = ctypes.PyDLL(str(path))  # holds Python's lock: kernels run one after another
        addresses, sizes = ((ctypes.c_ulonglong * len(shared))(*shared) for shared in described["shared"])
        self.library.emulated_shared(len(sizes), addresses, sizes, ctypes.c_ulonglong(described["anchor"]))

    @staticmethod
    def _compile(code: str, options: tuple[str, ...], path: Path, names: Path) -> None:
        gxx = compiler()
        if gxx is None:
            raise CompileException("the emulated GPU needs g++ to compile CUDA sources; install it, or set CXX")
        bounds = kernels_in(_run([gxx, "-E", "-P", "-w", "-x", "c++", *options, "-"], code))
        whole = f'#include "{HEADER}"\n#line 1 "kernel.cu"\n{code}\n'
        whole += "".join(f"EMULATED_LAUNCHER({name})\n" for name in bounds)
        part = path.with_suffix(f".{os.getpid()}.part")
        _run([gxx, *FLAGS, *options, "-c", "-x", "c++", "-", "-o", f"{part}.o"], whole)
        _run([gxx, "-shared", f"{part}.o", "-o", str(part)], "")  # without the library of the sanitizers
        os.remove(f"{part}.o")
        symbols = [line.split() for line in _run(["nm", "-S", str(part)], "").splitlines()]
        # Variables of functions have names in _ZZ; those of constants are in sections for reading only ("r").
        shared = [s for s in symbols if len(s) == 4 and s[2] in "bBdDuVW" and s[3].startswith("_ZZ")]
        (anchor,) = [int(s[0], 16) for s in symbols if s[-1] == "emulated_shared"]
        described = {
            "bounds": bounds, "anchor": anchor, "shared": [[int(s[i], 16) for s in shared] for i in (0, 1)],
        }  # fmt: skip
        temporary = names.with_suffix(f".{os.getpid()}.names")
        temporary.write_text(json.dumps(described))
        temporary.replace(names)
        part.replace(path)

    def function(self, name: str) -> Any:
        return getattr(self.library, name)


def kernels_in(code: str) -> dict[str, int]:
    """Return the kernels that a preprocessed source defines, with the most threads of each by its launch bounds."""

    def as_word(match: re.Match[str]) -> str:
        first = match[1].split(",")[0].strip()
        return f" bound_{first if first.isdigit() else 1024} "

    code = re.sub(r"__launch_bounds__\s*\(((?:[^()]|\([^()]*\))*)\)", as_word, code)
    found = {}
    for match in re.finditer(r'extern\s+"C"\s+((?:\w+\s+)*?\w+)\s*\(', code):
        *words, name = match[1].split()
        if "__global__" in words:
            found[name] = next((int(w[6:]) for w in words if re.fullmatch(r"bound_\d+", w)), 1024)
    return found
