from __future__ import annotations

from pathlib import Path

import pytest

from harness.ledger import Clock, History, Ledger, Span, read_ledger, read_times
from harness.trials import Trial, TrialState
from trainers.errors import UsageError


def written(path: Path, state: TrialState | None = None, error: str | None = None) -> None:
    """A ledger of one trial with two reports, and an end if a state is given."""
    ledger = Ledger(path, "dev/miou")
    trial = Trial(3, {"x": 0.25}, {"loss.x": 0.25}, "hash")
    ledger.on_start(trial)
    for step, value in ((10, 0.4), (20, 0.3)):
        trial.take_in({"step": float(step), "dev/miou": value}, value)
        ledger.on_report(trial)
    if state is not None:
        trial.state, trial.error = state, error
        ledger.on_end(trial)
    ledger.close()


def test_a_trial_comes_back_as_it_was(tmp_path: Path) -> None:
    written(tmp_path / "l", TrialState.PRUNED)
    trial = read_ledger(tmp_path / "l").trials[3]
    assert trial == Trial(
        3,
        {"x": 0.25},
        {"loss.x": 0.25},
        "hash",
        state=TrialState.PRUNED,
        metrics={"step": 20.0, "dev/miou": 0.3},
        best={"value": 0.4, "step": 10.0},
        values=[(10, 0.4), (20, 0.3)],
    )


def test_a_trial_without_an_end_was_interrupted(tmp_path: Path) -> None:
    written(tmp_path / "l")
    assert read_ledger(tmp_path / "l").trials[3].state is TrialState.INTERRUPTED


def test_a_trial_that_went_on_is_one_trial(tmp_path: Path) -> None:
    written(tmp_path / "l", TrialState.INTERRUPTED, "interrupted")
    ledger = Ledger(tmp_path / "l", "dev/miou")
    ledger.on_start(Trial(3, {"x": 0.25}, {"loss.x": 0.25}, "hash"))
    ledger.on_end(Trial(3, {}, {}, state=TrialState.COMPLETE))
    ledger.close()
    trial = read_ledger(tmp_path / "l").trials[3]
    assert (trial.state, trial.error, trial.values) == (TrialState.COMPLETE, None, [(10, 0.4), (20, 0.3)])


def test_what_was_spent_is_the_last_entry(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l", "dev/miou")
    ledger.spent(10.0, 20.0)
    ledger.spent(30.0, 60.0)
    ledger.close()
    history = read_ledger(tmp_path / "l")
    assert (history.elapsed_s, history.device_s) == (30.0, 60.0)


def test_seconds_of_cards_are_read_again_by_name(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l", "dev/miou")
    ledger.spent(10.0, 30.0, {"H100": 20.0, "A100": 10.0})
    ledger.close()
    assert read_ledger(tmp_path / "l").card_s == read_times(tmp_path / "l").card_s == {"H100": 20.0, "A100": 10.0}


def test_devices_times_seconds_are_counted_by_card() -> None:
    moments = iter([0.0, 5.0, 8.0, 10.0])
    clock = Clock(History(), lambda: next(moments))
    clock.hold({"H100": 2.0})  # from the beginning
    clock.hold({"H100": 2.0, "A100": 1.0})  # at 5 s
    clock.hold({"A100": 1.0})  # at 8 s
    assert clock.card_s == {"H100": 16.0, "A100": 5.0}


def test_a_session_goes_on_from_what_earlier_ones_have_cost() -> None:
    moments = iter([100.0, 103.0, 103.0])
    clock = Clock(History(elapsed_s=10.0, device_s=50.0, card_s={"H100": 40.0}), lambda: next(moments))
    clock.hold({"H100": 2.0})
    assert clock.device_s == 56.0
    assert clock.card_s == {"H100": 46.0}  # 10 s are of a version that named none


def test_half_a_line_of_a_killed_driver_is_passed_over(tmp_path: Path) -> None:
    written(tmp_path / "l")
    with (tmp_path / "l").open("a") as file:
        file.write('{"event":"report","trial":3,"met')
    assert read_ledger(tmp_path / "l").trials[3].step == 20


def test_what_follows_half_a_line_can_be_read(tmp_path: Path) -> None:
    written(tmp_path / "l")
    with (tmp_path / "l").open("a") as file:
        file.write('{"event":"report","trial":3,"met')
    ledger = Ledger(tmp_path / "l", "dev/miou")
    ledger.on_end(Trial(3, {}, {}, state=TrialState.COMPLETE))
    ledger.close()
    assert read_ledger(tmp_path / "l").trials[3].state is TrialState.COMPLETE


def test_no_ledger_is_an_empty_history(tmp_path: Path) -> None:
    assert read_ledger(tmp_path / "none").trials == {}


@pytest.mark.parametrize(
    "line",
    [
        b'{"something": "else"}', b"garbage", b"\xff\xfe", b"5", b'"text"', b"[]", b"null",
        b'{"event":"start","trial":"3","params":{},"overrides":{},"config_hash":""}',
        b'{"event":"start","trial":4,"params":[],"overrides":{},"config_hash":""}',
        b'{"event":"report","trial":3,"metrics":[1],"value":0.5}',
        b'{"event":"report","trial":3,"metrics":{"step":"ten"},"value":0.5}',
        b'{"event":"report","trial":3,"metrics":{"step":30},"value":"high"}',
        b'{"event":"report","trial":9,"metrics":{"step":30},"value":0.5}',
        b'{"event":"end","trial":"3","state":"COMPLETE","error":null}',
        b'{"event":"end","trial":3,"state":"ELSEWHERE","error":null}',
        b'{"event":"end","trial":3,"state":"FAIL","error":{}}',
        b'{"event":"spent","trial":null,"elapsed_s":"long","device_s":1}',
        b'{"event":"spent","trial":null,"elapsed_s":1,"device_s":1,"card_s":{"H100":"long"}}',
        b'{"event":"spent","trial":null,"elapsed_s":1,"device_s":1,"card_s":5}',
        b'{"event":"started","trial":null,"shared":{"ray":"late"},"gangs":{}}',
        b'{"event":"started","trial":null,"shared":{},"gangs":{"0":5}}',
        b'{"event":7,"trial":3}',
    ],
)  # fmt: skip
def test_a_ledger_with_a_line_that_is_no_event_is_refused_in_one_line(line: bytes, tmp_path: Path) -> None:
    written(tmp_path / "l")
    with (tmp_path / "l").open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(UsageError, match=r"must be the ledger of a run, it is not: .*take that line out") as refused:
        read_ledger(tmp_path / "l")
    assert "\n" not in str(refused.value)


def test_a_clock_that_is_set_back_makes_no_time_negative(tmp_path: Path) -> None:
    moments = iter([1000.0, 1010.0, -2585.0, -2580.0, -2570.0])  # an hour back between the reports
    ledger = Ledger(tmp_path / "l", "dev/miou", clock=lambda: next(moments))
    trial = Trial(0, {}, {}, "hash")
    ledger.on_start(trial)
    for step in (10, 20):
        trial.take_in({"step": float(step), "dev/miou": 0.4}, 0.4)
        ledger.on_report(trial)
    trial.state = TrialState.COMPLETE
    ledger.on_end(trial)
    ledger.close()
    assert read_times(tmp_path / "l").spans == [Span(0, 0.0, 15.0, "COMPLETE")]
