"""One process at a time trains a run; what a killed process left is taken over and removed."""

import json
import os
import platform
import re
import signal
import subprocess
import sys
import time

import portalocker
import pytest

from models.cli.main import main
from models.runs.directory import remove_temporaries
from models.runs.lock import RunLock
from models.system import files
from models.system.errors import UserError
from models.system.files import new_directory, remove_unfinished
from models.system.locking import LocksUnsupported, locked_file
from tests import ROOT
from tests.small_runs import config_maker, train

NEVER_ENDING = {"steps": 1000000, "save_every": 1, "keep": 2}


def started(folder, program, *arguments):
    """Start a program in another process, and return it once it has printed a line."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)], cwd=folder, env=environment, stdout=subprocess.PIPE
    )
    assert process.stdout.readline()
    return process


HOLD = "import sys, pathlib, time\nfrom models.runs.lock import RunLock\n"
HOLD += "lock = RunLock(pathlib.Path(sys.argv[1]))\nprint('locked', flush=True)\ntime.sleep(60)"

TRAIN = """
import io, pathlib, sys
from models.cli.display import Display
from models.system.stopping import Stopper
from models.training.loop import Trainer
from models.training.start import resume_run
trainer = Trainer(resume_run(pathlib.Path(sys.argv[1]), Stopper()), Display(io.StringIO()), Stopper())
trainer.step()
trainer.save()
print("training", flush=True)
trainer.train()
"""


@pytest.fixture
def run(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    return path


def test_a_run_in_use_is_refused_with_process_host_and_time(run):
    process = started(run, HOLD, run)
    try:
        found = rf"in use by process {process.pid} on {re.escape(platform.node())} since \d{{4}}-\d\d-\d\d \d\d:\d\d"
        with pytest.raises(UserError, match=found):
            RunLock(run)
    finally:
        process.kill()
        process.communicate()
    with RunLock(run) as lock:
        taken_over = rf"taken over from process {process.pid} on .* since .*, which did not end by itself"
        assert re.search(taken_over, lock.taken_over)


def test_a_run_that_was_released_is_free_and_names_nobody(run):
    for _ in range(2):
        with RunLock(run) as lock:
            assert not lock.taken_over
            assert json.loads((run / "writer.json").read_bytes())["process"] == os.getpid()
            with pytest.raises(UserError, match=f"in use by process {os.getpid()} on"):
                RunLock(run)
        lock.release()  # a second time
        assert os.listdir(run) == ["train.lock"]


def test_a_reused_process_number_does_not_matter(run):
    """The number of a dead process may belong to a living one, here to this; the lock itself tells."""
    record = {"process": os.getpid(), "host": platform.node(), "since": "2020-01-01 00:00:00+00:00"}
    (run / "writer.json").write_text(json.dumps(record))
    with RunLock(run) as lock:
        assert "taken over from process" in lock.taken_over


def test_the_writer_on_another_computer_may_live(run):
    record = {"process": 7, "host": "far\x1b[31m", "since": "2020-01-01 00:00:00+00:00"}
    (run / "writer.json").write_text(json.dumps(record))
    remedy = r"in use by process 7 on far\\x1b\[31m since 2020-.*; if that process has ended, remove .*writer\.json"
    with pytest.raises(UserError) as refused:
        RunLock(run)
    assert re.search(remedy, str(refused.value))
    (run / "writer.json").unlink()
    RunLock(run).release()


@pytest.mark.parametrize("record", [b"", b"{", b"[]", b'{"process": 1}', b"\xff", b"[" * 100_000])
def test_a_damaged_record_is_replaced(run, record):
    (run / "writer.json").write_bytes(record)
    with RunLock(run):
        assert json.loads((run / "writer.json").read_bytes())["process"] == os.getpid()


def test_where_files_cannot_be_locked_the_record_decides(run, monkeypatch, tmp_path):
    def unsupported(*arguments):
        raise portalocker.LockException("Function not implemented")

    monkeypatch.setattr(portalocker, "lock", unsupported)
    with pytest.raises(LocksUnsupported):
        locked_file(tmp_path / "file")
    with RunLock(run), pytest.raises(UserError, match="if that process has ended, remove"):
        RunLock(run)
    RunLock(run).release()
    with new_directory(tmp_path, "test") as temporary:
        assert remove_unfinished(tmp_path) == [] and temporary.exists()


def test_a_lock_that_its_holder_removes_while_it_is_opened_is_not_taken(tmp_path, monkeypatch):
    """A lock on a removed file would hinder nobody."""
    path, really, calls = tmp_path / "file", portalocker.lock, []

    def lock(file, flags):
        if not calls:
            path.unlink()
        calls.append(file)
        really(file, flags)

    monkeypatch.setattr(portalocker, "lock", lock)
    with locked_file(path):
        assert len(calls) == 2 and locked_file(path) is None


# ---- two commands on one run ----


@pytest.fixture
def training(tmp_path, monkeypatch):
    """Train a run in another process; return it and the run's directory."""
    monkeypatch.chdir(tmp_path)
    train(config_maker(tmp_path)(steps=1), tmp_path / "run")
    config = tmp_path / "run" / "config.toml"
    config.write_text(config.read_text().replace("steps = 1\n", "steps = 1000000\n").replace("keep = 99", "keep = 2"))
    process = started(tmp_path, TRAIN, "run")
    yield process, tmp_path / "run"
    process.kill()
    process.communicate()


def test_a_second_resume_is_refused_and_changes_nothing(training, capsys):
    process, run = training
    before = (run / "config.toml").read_bytes()
    for steps in ((), ("--steps", "2000000")):
        assert main(["train", "--resume", "--out", "run", *steps]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"run run: one process at a time may train it; in use by process {process.pid} on " in line
    assert (run / "config.toml").read_bytes() == before
    time.sleep(0.3)
    assert process.poll() is None and (run / "writer.json").exists()


def test_reading_a_run_that_trains_needs_no_lock(training, capsys):
    process, _ = training
    for _ in range(3):  # its checkpoints are replaced meanwhile
        assert main(["translate", "--run", "run", "one two"]) == 0
        assert main(["evaluate", "--run", "run", "--tsv", "valid.tsv"]) == 0
    assert process.poll() is None


def test_a_killed_run_is_taken_over_and_says_so(training, capsys):
    process, run = training
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    newest = max(run.glob("step-*")).stem.removeprefix("step-")
    assert main(["train", "--resume", "--out", "run", "--steps", str(int(newest) + 2)]) == 0
    assert f"run: taken over from process {process.pid} on " in capsys.readouterr().err
    assert not (run / "writer.json").exists()


RACE = """
import sys, pathlib
from models.runs import directory
from models.system.files import remove_unfinished
from models.system.errors import UserError
class Nothing:
    def save(self, path): pass
directory.write_config = lambda path, config: (path / "config.toml").write_text(sys.argv[2])
directory._name = lambda config: "x"
print("ready", flush=True)
sys.stdin.readline()
out = pathlib.Path(sys.argv[1]) if sys.argv[1] else None
for _ in range(50 if out is None else 1):
    try:
        remove_unfinished(out.parent if out else directory.RUNS)
        print(directory.create_run(None, Nothing(), out), flush=True)
    except UserError as error:
        print(f"refused: {error}", flush=True)
"""


@pytest.mark.parametrize("out", ["", "mine"])
def test_runs_that_begin_at_the_same_moment_do_not_share_a_directory(tmp_path, out):
    """Without --out each gets its own number; with the same --out all but one are refused."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    command = [sys.executable, "-c", RACE, out]
    processes = [subprocess.Popen([*command, str(i)], cwd=tmp_path, env=environment, **pipes) for i in range(3)]
    for process in processes:
        process.stdout.readline()
    found = []
    for process in processes:
        process.stdin.write(b"go\n")
        process.stdin.flush()
    for i, process in enumerate(processes):
        lines = process.communicate(timeout=60)[0].decode().splitlines()
        assert process.returncode == 0
        made = [line for line in lines if not line.startswith("refused: ")]
        assert all((tmp_path / line / "config.toml").read_text() == str(i) for line in made)
        assert all("a new directory is required; this one exists" in line for line in set(lines) - set(made))
        found += made
    assert len(set(found)) == len(found) == (1 if out else 150)
    assert not list(tmp_path.rglob(".*"))


def test_a_name_that_another_process_locks_first_is_not_taken(tmp_path, monkeypatch):
    """`remove_unfinished` may lock the file before its creator does, and then removes the directory of that name."""
    locked, asked = files.locked_file, []

    def second_time(path):
        asked.append(path)
        return locked(path) if len(asked) > 1 else None

    monkeypatch.setattr(files, "locked_file", second_time)
    with files.new_directory(tmp_path, "train") as temporary:
        assert len(set(asked)) == 2 and asked[1].name == f"{temporary.name}.lock"
        assert temporary.is_dir()


# ---- what killed processes leave ----


def test_the_temporaries_of_training_are_removed(run):
    dead = [".step-00000012.safetensors.ab_cd123", ".best.safetensors.00000000", ".log.jsonl.abcdefgh"]
    alive = [".average-3.safetensors.abcdefgh", "step-00000012.safetensors", ".hidden", ".notes.txt", "log.jsonl"]
    for name in dead + alive:
        (run / name).touch()
    (run / ".a.directory").mkdir()
    assert [path.name for path in remove_temporaries(run)] == sorted(dead)
    assert sorted(os.listdir(run)) == sorted([*alive, ".a.directory"])
    os.utime(run / alive[0], (1e9, 1e9))  # `average` takes no lock, but no hour either
    assert [path.name for path in remove_temporaries(run)] == [alive[0]]


NEW = """
import pathlib, sys, time
from models.system.files import new_directory
with new_directory(pathlib.Path(), "test") as temporary:
    (temporary / "config.toml").touch()
    print(temporary.name, flush=True)
    time.sleep(60)
"""


def test_an_unfinished_directory_is_removed_once_its_process_is_dead(tmp_path):
    process = started(tmp_path, NEW)
    (temporary,) = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert remove_unfinished(tmp_path) == [] and temporary.exists()
    process.kill()
    process.communicate()
    assert remove_unfinished(tmp_path) == [temporary]
    assert os.listdir(tmp_path) == []


def test_only_what_the_program_made_is_removed(tmp_path):
    (tmp_path / ".new-projects").mkdir()  # a name like ours
    (tmp_path / ".new-projects" / "thesis.tex").touch()
    (tmp_path / ".new-abcd1234").mkdir()  # by a version that locked no file
    (tmp_path / ".new-abcd1234" / ".tokenizer.model.abcdefgh").touch()
    (tmp_path / ".new-0000aaaa.lock").touch()  # killed before the directory was there
    assert [path.name for path in remove_unfinished(tmp_path)] == [".new-abcd1234"]
    assert os.listdir(tmp_path) == [".new-projects"]


def test_training_removes_them_and_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = config_maker(tmp_path)(steps=1)
    train(config, tmp_path / "run")
    for i, arguments in enumerate((["--resume"], ["--config", "run/config.toml"])):
        (tmp_path / "run" / ".step-00000001.safetensors.abcdefgh").touch()
        (tmp_path / ".new-abcd1234").mkdir()
        assert main(["train", *arguments, "--out", "run" if i == 0 else "other"]) == 0
        said = capsys.readouterr().err
        assert "removed what a killed process left unfinished: " in said and ".new-abcd1234" in said
        assert ("run/.step-00000001.safetensors.abcdefgh" in said) == (i == 0)
        assert not (tmp_path / ".new-abcd1234").exists()
    assert not list((tmp_path / "other").glob(".*"))
