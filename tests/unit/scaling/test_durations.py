"""The times of a search, from the operations in its outbox."""

from pathlib import Path
from typing import Any

import pytest

from harness.scaling.forecast import outbox_events, read_times, search_times
from trainers.errors import UsageError


def start(number: int, seconds: float) -> dict[str, Any]:
    return {"op": "start", "trial": number, "time": int(1000 * seconds)}


def report(number: int, seconds: float, start_s: float) -> dict[str, Any]:
    return {"op": "report", "trial": number, "time": int(1000 * seconds), "metrics": {"overhead/start_s": start_s}}


def end(number: int, seconds: float) -> dict[str, Any]:
    return {"op": "end", "trial": number, "time": int(1000 * seconds)}


TWO_GANGS = [
    {"op": "open", "time": 0},
    start(0, 100), start(1, 100), report(0, 112, 11), report(1, 112, 11),
    end(1, 115), start(2, 115), report(2, 116, 1), end(0, 120), start(3, 120), end(2, 121), end(3, 130),
    {"op": "end", "time": 131_000},
]  # fmt: skip
STATES = {0: "COMPLETE", 1: "PRUNED", 2: "PRUNED", 3: "COMPLETE"}


def test_trials_keep_their_order_and_lengths_and_the_first_do_not_count_their_gangs_start() -> None:
    times = search_times(outbox_events(TWO_GANGS), STATES)
    assert [(trial.number, trial.seconds) for trial in times.trials] == [(0, 10), (1, 5), (2, 6), (3, 10)]
    assert (times.gangs, times.startup_s, times.elapsed_s) == (2, 10, 30)
    assert times.counts == {"COMPLETE": 2, "PRUNED": 2}


def test_trials_that_failed_do_not_count() -> None:
    assert [trial.number for trial in search_times(outbox_events(TWO_GANGS), {**STATES, 2: "FAIL"}).trials] == [0, 1, 3]


def test_a_trial_that_takes_anothers_place_does_not_run_beside_it() -> None:
    operations = [start(0, 0), end(0, 5), start(1, 5), end(1, 9)]
    times = search_times(outbox_events(operations), {0: "COMPLETE", 1: "COMPLETE"})
    assert times.gangs == 1


def test_a_search_that_was_resumed_is_refused() -> None:
    with pytest.raises(UsageError, match="must name a search that ran in one piece, its trial 0 began twice"):
        search_times(outbox_events([start(0, 0), end(0, 1), start(0, 50), end(0, 60)]), {0: "COMPLETE"})


def test_a_search_without_a_trial_that_counts_is_refused() -> None:
    with pytest.raises(UsageError, match="COMPLETE or PRUNED"):
        search_times(outbox_events([start(0, 0), end(0, 1)]), {0: "FAIL"})


def test_a_folder_without_a_search_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="lacks them: run s4 tune"):
        read_times(tmp_path)


def test_an_outbox_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "trials.jsonl").write_text("")
    (tmp_path / "outbox.jsonl").write_text("{")
    with pytest.raises(UsageError, match="must be the outbox of a search"):
        read_times(tmp_path)
