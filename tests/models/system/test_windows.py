"""What Windows lacks or refuses: a run is trained, resumed and used all the same. Its refusals are simulated."""

import ast
import errno
import io
import os
import re
import subprocess
import sys

import pytest

from models.cli.main import main
from models.system import terminal
from models.system.machine import processor
from models.system.stopping import Stopped, Stopper
from models.system.terminal import command, is_broken_pipe, quoted, shows_colors
from tensorlib.exchange import safetensors
from tensorlib.exchange.safetensors import write_atomically
from tests import ROOT, as_windows
from tests.small_runs import config_maker, train

simulated = pytest.mark.skipif(not as_windows.FILES_OPEN.is_dir(), reason="needs /proc to see which files are open")


def windows(program, *arguments, cwd, stdin=b""):
    """Run a program in a process that refuses what Windows refuses, with the encoding of a western European one."""
    head = "import sys; from tests import as_windows; as_windows.install()\n"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "0", "PYTHONIOENCODING": "cp1252"}
    code = [sys.executable, "-c", head + program, *map(str, arguments)]
    return subprocess.run(code, cwd=cwd, input=stdin, env=environment, capture_output=True, timeout=120)


def tensorlib(*arguments, cwd, stdin=b""):
    return windows("from models.cli.main import main; sys.exit(main())", *arguments, cwd=cwd, stdin=stdin)


@simulated
def test_a_run_is_trained_resumed_and_used_with_the_same_bytes(tmp_path):
    config = config_maker(tmp_path)(bleu_sentences=2, save_every=4, keep=2, optim={"schedule": "constant"})
    train(config, tmp_path / "here")
    config_file = tmp_path / "here" / "config.toml"
    done = tensorlib("train", "--config", config_file, "--steps", 8, "--out", "there", cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    (tmp_path / "there" / ".step-00000012.safetensors.abcdefgh").touch()
    done = tensorlib("train", "--resume", "--out", "there", "--steps", 13, cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    assert b"removed what a killed process left unfinished: there" in done.stderr
    assert sorted(os.listdir(tmp_path / "there")) == sorted(os.listdir(tmp_path / "here"))
    for name in set(os.listdir(tmp_path / "here")) - {"speed.jsonl"}:
        assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "here" / name).read_bytes(), name
    for arguments in (
        ("train", "--resume", "--out", "there"),  # it is finished
        ("translate", "--run", "there", "--attention", "page.html"),
        ("evaluate", "--run", "there", "--tsv", "valid.tsv", "--output", "out.txt", "--errors"),
        ("average", "there", "--last", "2"),
        ("inspect", "there/best.safetensors"),
        ("data", "reverse", "data"),
        ("train", "--train-tsv", "none.tsv", "--valid-tsv", "valid.tsv"),
        ("info",),
    ):
        done = tensorlib(*arguments, cwd=tmp_path, stdin="one two\n我有一只猫\n".encode())
        assert done.returncode == (2 if "none.tsv" in arguments else 0), (arguments, done.stderr.decode())
        assert b"Traceback" not in done.stderr


@simulated
def test_the_simulation_refuses(tmp_path):
    """Otherwise the test above could not fail."""
    program = """
import os, signal, pathlib
def refused(error, function, *arguments):
    try:
        function(*arguments)
    except error:
        return True
folder, path = pathlib.Path("folder"), pathlib.Path("folder/file")
folder.mkdir()
path.write_bytes(b"")
assert refused(PermissionError, os.open, "folder", os.O_RDONLY)
with path.open():
    assert refused(PermissionError, path.unlink) and refused(PermissionError, path.replace, "other")
    assert refused(PermissionError, folder.rename, "other")
assert refused(FileExistsError, path.rename, "folder")
assert refused(ImportError, __import__, "fcntl") and not hasattr(os, "fork") and not hasattr(signal, "SIGHUP")
path.unlink()
"""
    done = windows(program, cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()


def test_a_file_that_is_being_read_is_replaced_once_the_reader_closes_it(tmp_path, monkeypatch):
    path, tries, really = tmp_path / "file", [], os.replace
    path.write_bytes(b"old")

    def replace(source, target):
        tries.append(target)
        if len(tries) <= refusals:
            error = PermissionError(13, "The process cannot access the file", str(target))
            error.winerror = 32
            raise error
        really(source, target)

    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(safetensors.time, "sleep", lambda seconds: None)
    refusals = 3
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new" and len(tries) == 4
    refusals = 10**9  # a reader that never ends
    with pytest.raises(PermissionError):
        write_atomically(path, b"newest")
    assert path.read_bytes() == b"new" and os.listdir(tmp_path) == ["file"] and len(tries) < 200


@pytest.mark.parametrize("number, raised", [(errno.EINVAL, False), (errno.ENOTSUP, False), (errno.EIO, True)])
def test_a_directory_that_cannot_be_synced(tmp_path, monkeypatch, number, raised):
    """Some network file systems sync files only. An error of the disk is another matter."""
    really = os.fsync

    def fsync(handle):
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            raise OSError(number, os.strerror(number))
        really(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    if raised:
        with pytest.raises(OSError, match=os.strerror(number)):
            write_atomically(tmp_path / "file", b"new")
    else:
        write_atomically(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"


def test_control_break_stops_a_run(monkeypatch):
    """It is also the signal of a console that is closed."""
    import signal

    monkeypatch.delattr(signal, "SIGHUP")
    monkeypatch.setattr(signal, "SIGBREAK", signal.SIGUSR1, raising=False)
    with Stopper() as stopper:
        stopper.patient = True
        signal.raise_signal(signal.SIGUSR1)
        with pytest.raises(Stopped) as stopped:
            stopper.check()
    assert stopped.value.signal_number == signal.SIGUSR1


def test_what_to_type_is_quoted_for_its_shells(monkeypatch):
    assert [quoted(word) for word in ("run", "my run", "a'b")] == ["run", "'my run'", "'a'\"'\"'b'"]
    monkeypatch.setattr(terminal, "WINDOWS", True)
    assert [quoted(word) for word in ("run", "my run", "a'b", r"C:\x")] == ["run", '"my run"', "a'b", r"C:\x"]


def test_the_command_to_type_may_be_on_another_drive(tmp_path, monkeypatch):
    script = tmp_path / "tensorlib"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    monkeypatch.setattr("sys.argv", [str(script)])
    monkeypatch.setenv("PATH", "/nowhere")

    def relpath(path):
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    monkeypatch.setattr(os.path, "relpath", relpath)
    assert command() == str(script)


def test_the_script_of_pip_is_named_without_its_extension(monkeypatch):
    """Pip's script sets sys.argv[0] to its path without ".exe", where there is no file."""
    monkeypatch.setattr("sys.argv", ["bin/tensorlib"])
    monkeypatch.setattr(terminal.shutil, "which", lambda name: f"{name}.EXE" if "/" in name else None)
    monkeypatch.setattr(os.path, "exists", lambda path: path.endswith(".EXE"))
    assert command() == "bin/tensorlib.EXE"


def test_a_reader_that_has_quit(monkeypatch):
    closed = OSError(errno.EINVAL, "Invalid argument")
    assert is_broken_pipe(BrokenPipeError()) and not is_broken_pipe(closed)
    monkeypatch.setattr(terminal, "WINDOWS", True)
    assert is_broken_pipe(closed) and not is_broken_pipe(OSError(errno.EINVAL, "Invalid argument", "a file"))

    def full(*arguments):
        raise closed

    monkeypatch.setattr("models.cli.info.info", full)
    monkeypatch.setattr("models.cli.main.silence", lambda stream: None)
    assert main(["info"]) == 141


def test_the_old_console_shows_no_colors(monkeypatch):
    class Console(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("WT_SESSION", raising=False)
    assert shows_colors(Console()) and not shows_colors(io.StringIO())
    monkeypatch.setattr(terminal, "WINDOWS", True)
    assert not shows_colors(Console())
    monkeypatch.setenv("WT_SESSION", "1")  # Windows Terminal
    assert shows_colors(Console())


FILES = [file for package in ("tensorlib", "nn", "models") for file in sorted((ROOT / package).rglob("*.py"))]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_file_needs_what_windows_lacks(file):
    text = file.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(text)):
        where = f"{file.name}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            named = {name.partition(".")[0] for name in names}
            guarded = "readline" in named and "suppress(ImportError)" in text
            assert guarded or not named & set(as_windows.MISSING_MODULES), where
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("os", "signal"):
            missing = {*as_windows.MISSING_IN_OS, *as_windows.MISSING_SIGNALS}
            owner, name = ast.unparse(node.value), node.attr
            assert name not in missing or f'hasattr({owner}, "{name}")' in text, where
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("open", "read_text", "write_text")):
            check_encoding(node, where)
    # translate.py compares names that the user gives with /dev/stdin and /dev/fd; machine.py does without /proc
    if file.name not in ("translate.py", "machine.py"):
        assert not re.search(r"[\"'](/dev/|/tmp|/proc)", text)


def test_a_machine_without_proc_has_a_name(monkeypatch):
    def missing(self, **options):
        raise FileNotFoundError(self)

    monkeypatch.setattr("pathlib.Path.read_text", missing)
    monkeypatch.setattr("platform.processor", lambda: "Intel64 Family 6")
    assert re.fullmatch(r"Intel64 Family 6, \d+ cores", processor())


def check_encoding(call, where):
    """Require an encoding, since the default is the system's, and no text to be written, since Windows adds CRs."""
    name = ast.unparse(call.func)
    if name in ("os.open", "_open", "safe_open", "open_backend", "read_text", "subprocess.Popen"):
        return
    mode = next((arg.value for arg in call.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)), "r")
    if name.endswith("open") and "b" in mode:
        return
    assert any(keyword.arg == "encoding" for keyword in call.keywords), where
    assert name.endswith("read_text") or "devnull" in ast.unparse(call), f"{where}: write bytes"
