"""The arithmetic behind `bench_search.py`, on made-up times, and that what it starts is ended."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from bench_search import median_interval
from marked_processes import marked
from search_timeline import EventLog, Side, read_events, spans, steady_trials_per_hour, wall_for


def search(*trials: tuple[float, float, int]) -> list[dict[str, Any]]:
    """Events of trials that start, end and have done steps; the horizon is 9."""
    events: list[dict[str, Any]] = []
    for number, (start, end, steps) in enumerate(trials):
        events.append({"event": "start", "time": start, "trial": number})
        events.append({"event": "end", "time": end, "trial": number, "steps": steps, "failed": False})
    return sorted(events, key=lambda event: event["time"])


def side(events: list[dict[str, Any]], wall_s: float, places: int = 1) -> Side:
    return Side(len(events) // 2, spans(events, places, 9), wall_s, 0.0, cut_short=False, processes_left=0)


ONE_AFTER_THE_OTHER = search((0, 5, 9), (6, 8, 3), (10, 19, 9), (21, 22, 3), (24, 30, 9))


def test_a_trial_keeps_its_place_until_the_next_starts() -> None:
    assert [span.held_s for span in spans(ONE_AFTER_THE_OTHER, 1, 9)] == [6, 4, 11, 3, None]


def test_of_two_places_the_one_that_is_free_is_taken() -> None:
    events = search((0, 4, 9), (1, 9, 9), (5, 6, 3), (7, 12, 9), (11, 13, 9))
    held = {span.start: span.held_s for span in spans(events, 2, 9)}
    assert held == {0: 5, 1: 10, 5: 2, 7: None, 11: None}


def test_a_trial_is_pruned_where_it_ended_before_the_horizon() -> None:
    assert [span.kind for span in spans(ONE_AFTER_THE_OTHER, 1, 9)] == [
        "complete",
        "pruned",
        "complete",
        "pruned",
        "complete",
    ]


def test_the_first_trial_and_the_last_do_not_count_as_steady() -> None:
    assert steady_trials_per_hour(side(ONE_AFTER_THE_OTHER, 30), 1) == pytest.approx(3600 / ((4 + 11 + 3) / 3))


def test_a_search_that_ran_every_trial_takes_what_it_took() -> None:
    assert wall_for(side(ONE_AFTER_THE_OTHER, 31), side(ONE_AFTER_THE_OTHER, 2), 1) == 31


def test_trials_that_were_not_run_cost_what_their_kind_cost() -> None:
    like = side(ONE_AFTER_THE_OTHER + search((31, 32, 3), (33, 34, 9)), 34)
    assert wall_for(side(ONE_AFTER_THE_OTHER, 31), like, 1) == pytest.approx(31 + 3.5 + 11)


def test_a_search_with_too_few_trials_cannot_be_extrapolated() -> None:
    with pytest.raises(ValueError, match="run more"):
        wall_for(side(search((0, 5, 9)), 6), side(ONE_AFTER_THE_OTHER, 30), 1)


def test_events_are_read_as_they_were_noted(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.note("start", trial="a")
    log.note("end", trial="a", steps=3)
    read = [{key: value for key, value in event.items() if key != "time"} for event in read_events(log._path)]
    assert read == [{"event": "start", "trial": "a"}, {"event": "end", "trial": "a", "steps": 3}]


def test_the_interval_of_the_median_holds_it_in_95_of_100_cases() -> None:
    draws = np.random.default_rng(0)
    samples = draws.normal(size=(2000, 41))
    intervals = [median_interval(sample.tolist()) for sample in samples]
    covered = np.mean([low <= 0 <= high for low, high in intervals])
    assert 0.94 < covered < 0.99  # at least 0.95, up to the error of 2000 samples


def test_a_process_that_left_its_group_is_ended_too(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import subprocess, sys, time\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True)\n"
        "time.sleep(60)\n"
    )
    with (tmp_path / "log").open("w") as log, marked(script, log=log, patience_s=0.5) as running:
        while len(running.living()) < 2:
            pass
    assert running.living() == []
