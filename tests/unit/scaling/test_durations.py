"""The times of a search, from the events in its ledger."""

import json
from pathlib import Path

import pytest

from harness.scaling.forecast import TrialEvent, read_times, search_times
from trainers.errors import UsageError


def start(number: int, seconds: float) -> TrialEvent:
    return TrialEvent("start", number, seconds)


def report(number: int, seconds: float, start_s: float) -> TrialEvent:
    return TrialEvent("report", number, seconds, start_s)


def end(number: int, seconds: float) -> TrialEvent:
    return TrialEvent("end", number, seconds)


TWO_GANGS = [
    start(0, 100), start(1, 100), report(0, 112, 11), report(1, 112, 11),
    end(1, 115), start(2, 115), report(2, 116, 1), end(0, 120), start(3, 120), end(2, 121), end(3, 130),
]  # fmt: skip
STATES = {0: "COMPLETE", 1: "PRUNED", 2: "PRUNED", 3: "COMPLETE"}


def test_trials_keep_their_order_and_lengths_and_the_first_do_not_count_their_gangs_start() -> None:
    times = search_times(TWO_GANGS, STATES)
    assert [(trial.number, trial.seconds) for trial in times.trials] == [(0, 10), (1, 5), (2, 6), (3, 10)]
    assert (times.gangs, times.startup_s, times.elapsed_s) == (2, 10, 30)
    assert times.counts == {"COMPLETE": 2, "PRUNED": 2}


def test_trials_that_failed_do_not_count() -> None:
    assert [trial.number for trial in search_times(TWO_GANGS, {**STATES, 2: "FAIL"}).trials] == [0, 1, 3]


def test_a_trial_that_takes_anothers_place_does_not_run_beside_it() -> None:
    events = [start(0, 0), end(0, 5), start(1, 5), end(1, 9)]
    times = search_times(events, {0: "COMPLETE", 1: "COMPLETE"})
    assert times.gangs == 1


def test_a_search_that_was_resumed_is_refused() -> None:
    with pytest.raises(UsageError, match="must name a search that ran in one piece, its trial 0 began twice"):
        search_times([start(0, 0), end(0, 1), start(0, 50), end(0, 60)], {0: "COMPLETE"})


def test_a_search_without_a_trial_that_counts_is_refused() -> None:
    with pytest.raises(UsageError, match="COMPLETE or PRUNED"):
        search_times([start(0, 0), end(0, 1)], {0: "FAIL"})


def test_a_folder_without_a_search_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="lacks it: run s4 tune"):
        read_times(tmp_path)


def test_a_ledger_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "trials.jsonl").write_text("{}\n")
    with pytest.raises(UsageError, match="must be the ledger of a run"):
        read_times(tmp_path)


def test_a_ledger_without_times_is_refused(tmp_path: Path) -> None:
    began = {"event": "start", "trial": 0, "params": {}, "overrides": {}, "config_hash": ""}
    ended = {"event": "end", "trial": 0, "state": "COMPLETE", "error": None}
    (tmp_path / "trials.jsonl").write_text(f"{json.dumps(began)}\n{json.dumps(ended)}\n")
    with pytest.raises(UsageError, match="whose ledger holds times"):
        read_times(tmp_path)
