"""Signals."""

import signal

import pytest

from models.system.stopping import Stopped, Stopper


def test_a_signal_that_was_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Stopper() as stopper:
            stopper.patient = True
            signal.raise_signal(signal.SIGINT)
            stopper.check()
            signal.raise_signal(signal.SIGHUP)
            with pytest.raises(Stopped, match="SIGHUP"):
                stopper.check()
    finally:
        signal.signal(signal.SIGINT, before)
