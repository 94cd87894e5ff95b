"""Training progress as a terminal, a file and a closed stream see it."""

import io
import math

import pytest

from models.cli.display import Display


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


def shown_on(stream, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    display = Display(stream)
    display.begin(99, 1000)
    display._shown = -math.inf
    display.step(100, 7.1, 400, 9e-4, 0.1)
    display.end()
    return stream.getvalue()


def test_the_bar_fits_in_80_columns(monkeypatch):
    text = shown_on(Terminal(), monkeypatch)
    assert "loss 7.10 · 4.0k tok/s · lr 9e-4]" in text
    last = next(line for line in text.split("\r") if "loss" in line)
    assert len(last) <= 80 and "|" in last


def test_the_bar_is_ascii_on_an_ascii_terminal(monkeypatch):
    class Ascii(Terminal):
        encoding = "ascii"

    text = shown_on(Ascii(), monkeypatch)
    assert "loss 7.10, 4.0k tok/s, lr 9e-4]" in text and text.isascii()


def test_steps_beyond_the_estimate_raise_the_total():
    display = Display(io.StringIO())
    display.begin(10, 11)
    for step in (11, 12):
        display._shown = -math.inf
        display.step(step, 7.1, 400, 9e-4, 0.1)
    assert [line.split()[1] for line in display.stream.getvalue().splitlines()] == ["11/11", "12/12"]


@pytest.mark.parametrize("kind", [io.StringIO, Terminal])
def test_a_closed_stream_silences_the_display(kind):
    class Closed(kind):
        left = 2

        def write(self, text):
            self.left -= 1
            if self.left < 0:
                raise BrokenPipeError

    display = Display(Closed())
    display.begin(0, 10)
    for step in range(1, 4):
        display.step(step, 1.0, 10, 1e-3, 0.1)
        display.line("a line")
    display.end()
