"""A picture takes bounded time: the estimate, the limit, and no renderer that outlives its caller."""

import os
import signal
import subprocess
import sys
import time

import pytest

import tensorlib as tl
from tensorlib.graphs import drawing, rendering
from tensorlib.graphs.folding import fold
from tensorlib.graphs.placing import rows_of_boxes, work_to_place
from tests import ROOT
from tests.recorded import leaf

posix = pytest.mark.skipif(os.name != "posix", reason="the renderer of this test is a shell script")


def loop(steps):
    y, w = leaf(3), leaf(3)
    for _ in range(steps):
        y = y + w * 1e-3
    return y


# ---- the estimate ----------------------------------------------------------------------------------------------------


def test_a_box_is_below_all_that_point_to_it_and_a_leaf_just_above_its_first_user():
    x = leaf(3)
    y = tl.tanh(tl.tanh(tl.tanh(x)) * leaf(3))
    assert list(rows_of_boxes(fold(tl.graph(y))).values()) == [2, 3, 4, 5, 1, 3]


def test_work_is_the_square_of_the_arrows_that_pass_a_row():
    x = leaf(3)
    y = tl.tanh(tl.tanh(tl.tanh(x)))
    assert work_to_place(fold(tl.graph(y))) == 0
    assert work_to_place(fold(tl.graph(y + x))) == 3  # one arrow passes three rows
    assert work_to_place(fold(tl.graph(tl.exp(y + x) * x))) == 2 * 2 * 3 + 1 + 1


def test_a_circle_of_boxes_is_estimated_too():
    with tl.module_scope("a"):
        x = tl.tanh(leaf(3))
    y = tl.exp(x)
    with tl.module_scope("a"):
        y = y + x
    assert work_to_place(fold(tl.graph(y), 0)) >= 0


def test_a_long_loop_is_drawn_at_once_and_folded_where_placing_it_would_take_minutes(tmp_path):
    assert tl.draw(loop(150), tmp_path / "g.svg").read_bytes().count(b"148 more steps") >= 1
    svg = tl.draw(loop(150), tmp_path / "whole.svg", depth=None).read_text()
    assert "steps ×150" in svg
    assert (
        "folded at depth=None, fold_repeats=True: 302 boxes at depth=None with so many long arrows between them would "
        "take minutes to place" in svg
    )
    assert tl.draw(loop(150), tmp_path / "whole.dot", depth=None).read_text().count(" -> ") == 450


def test_what_no_depth_helps_is_said(tmp_path):
    values = [leaf(3)]
    for _ in range(45):
        values.append(tl.tanh(tl.concatenate(values).sum() * values[0]))
    with pytest.raises(ValueError, match=r"^draw: \d+ boxes at depth=2 with .*; no folding helps; draw a smaller "):
        tl.draw(values[-1], tmp_path / "g.svg")


# ---- the limit, and the caller's end ---------------------------------------------------------------------------------


@pytest.fixture
def slow(tmp_path, monkeypatch):
    """Install a renderer that never ends. It runs under a shell, as a wrapped `dot` does, and notes its process."""
    command = tmp_path / "bin" / "dot"
    command.parent.mkdir()
    command.write_text(
        f"#!/bin/sh\nsleep 100 &\necho $! > {tmp_path}/pid.new\nmv {tmp_path}/pid.new {tmp_path}/pid\nwait\n"
    )
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")
    yield tmp_path / "pid"
    if (tmp_path / "pid").exists() and is_running(tmp_path / "pid"):
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def wait_until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def is_running(pid_file):
    state = subprocess.run(["ps", "-o", "stat=", "-p", pid_file.read_text().strip()], capture_output=True, text=True)
    return state.stdout.strip()[:1] not in ("", "Z")


@posix
def test_a_picture_that_takes_too_long_is_one_line_and_ends_the_renderer(tmp_path, monkeypatch, slow):
    monkeypatch.setattr(drawing, "SECONDS", 2.0)
    (tmp_path / "g.svg").write_text("old")
    with pytest.raises(RuntimeError) as caught:
        tl.draw(loop(2), tmp_path / "g.svg")
    assert str(caught.value) == (
        f"draw: 6 boxes at depth=2: {tmp_path}/bin/dot was not done after 2 s; "
        "pass a smaller depth, draw a smaller graph, or write a .dot file"
    )
    assert (tmp_path / "g.svg").read_text() == "old"
    assert wait_until(lambda: not is_running(slow))


@posix
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_no_renderer_outlives_its_caller(tmp_path, slow, name):
    program = (
        "import signal, tensorlib as tl\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "tl.draw(tl.Tensor(1.0, requires_grad=True) * 2, 'g.svg')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    caller = subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, env=environment, stderr=subprocess.PIPE)
    assert wait_until(slow.exists) and is_running(slow)
    caller.send_signal(getattr(signal, name))
    assert wait_until(lambda: not is_running(slow))
    complaint = caller.communicate()[1].decode()
    assert caller.returncode != 0 and ("KeyboardInterrupt" in complaint) == (name == "SIGINT")
    assert not (tmp_path / "g.svg").exists()


@posix
def test_a_renderer_that_cannot_start_or_reads_nothing_is_one_line(tmp_path):
    (tmp_path / "dot").write_text("no program")
    with pytest.raises(RuntimeError, match=r"^draw: .*dot failed with status 1: .*Permission denied") as caught:
        rendering.render("digraph {}", "svg", str(tmp_path / "dot"), 20.0)
    assert "\n" not in str(caught.value)
    with pytest.raises(RuntimeError, match=r"false failed with status 1: $"):
        rendering.render("//" + "x" * 1_000_000, "svg", "false", 20.0)


@posix
def test_a_large_text_and_a_large_picture_pass(tmp_path):
    echo = tmp_path / "dot"
    echo.write_text("#!/bin/sh\nexec cat\n")
    echo.chmod(0o755)
    text = "äöü" * 1_000_000
    assert rendering.render(text, "svg", str(echo), 60.0) == text.encode()
