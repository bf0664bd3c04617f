from __future__ import annotations

import os
import signal
from contextlib import ExitStack

import pytest

from harness.signals import SIGNALS, as_ctrl_c, handling, interruptible


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in SIGNALS]


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_an_event_and_the_next_raises_keyboard_interrupt(number: int) -> None:
    before = handlers()
    with ExitStack() as stack:
        interrupted = stack.enter_context(interruptible())
        assert not interrupted.is_set()
        os.kill(os.getpid(), number)
        assert interrupted.is_set()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert handlers() == before


def test_what_signals_did_is_put_back_where_none_came() -> None:
    before = handlers()
    with interruptible():
        assert handlers() != before
    assert handlers() == before


def test_a_hang_up_that_is_ignored_as_under_nohup_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with handling(as_ctrl_c), interruptible() as interrupted:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not interrupted.is_set()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
