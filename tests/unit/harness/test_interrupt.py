from __future__ import annotations

import os
import signal

import pytest

from harness.signals import SIGNALS, interruptible


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_an_event_and_the_next_acts_as_usual(number: int) -> None:
    before = [signal.getsignal(one) for one in SIGNALS]
    with interruptible() as interrupted:
        assert not interrupted.is_set()
        os.kill(os.getpid(), number)
        assert interrupted.is_set()
        assert [signal.getsignal(one) for one in SIGNALS] == before
    assert [signal.getsignal(one) for one in SIGNALS] == before


def test_what_signals_did_is_put_back_where_none_came() -> None:
    before = [signal.getsignal(one) for one in SIGNALS]
    with interruptible():
        assert [signal.getsignal(one) for one in SIGNALS] != before
    assert [signal.getsignal(one) for one in SIGNALS] == before
