"""Stages of a start: each begins where the one before ended, and together they are the whole."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from invented.starts import DRIVER as BEFORE
from invented.starts import FIRST, LAST, SHARED, made_start

from harness.gangs.dispatcher import Dispatcher
from harness.gangs.messages import Job
from harness.gangs.starting import Starting
from harness.ledger import LEDGER, Ledger, read_ledger, read_times
from harness.start import DRIVER, GANG, TOLD, Start, process_began
from harness.trials import Trial


def took(stages: Any) -> dict[str, float]:
    return {stage.name: stage.took_s for stage in stages}


def test_stages_follow_each_other_without_a_gap_and_sum_to_the_span() -> None:
    stages = made_start(FIRST).stages()
    ends = [stage.ended_s for stage in stages]
    assert [stage.name for stage in stages] == [*DRIVER, *GANG, *TOLD]
    assert [stage.began_s for stage in stages] == [0.0, *ends[:-1]]
    assert sum(stage.took_s for stage in stages) == pytest.approx(131.0 - 100.0)


def test_a_process_that_was_there_before_it_was_asked_for_took_no_time() -> None:
    assert took(made_start(FIRST).stages())["process"] == 0.0
    assert took(made_start(FIRST).stages())["group"] == pytest.approx(116.0 - 112.0)


@pytest.mark.parametrize("lost", [*DRIVER, *GANG])
def test_a_stage_without_a_stamp_is_part_of_the_next(lost: str) -> None:
    whole, known = made_start(FIRST), made_start(FIRST)
    for stamps in (known.shared, known.gangs[0]):
        stamps.pop(lost, None)
    before, after = took(whole.stages()), took(known.stages())
    assert lost not in after
    assert sum(after.values()) == pytest.approx(sum(before.values()))


def test_what_runs_beside_the_stages_is_told_apart_with_its_own_beginning() -> None:
    mlflow, drawn = made_start(FIRST).meanwhile()
    assert (mlflow.began_s, mlflow.took_s, drawn.began_s, drawn.took_s) == (10.5, 4.5, 11.0, 3.0)


def test_the_way_is_that_of_the_gang_that_reported_first_whatever_its_number() -> None:
    both = made_start(LAST, FIRST)
    assert both.by_report == [1, 0]
    assert took(both.stages())["report"] == pytest.approx(FIRST["report"] - FIRST["first_step"])
    assert both.took_s == 31.0


def test_the_last_gangs_stages_sum_to_the_time_from_the_asking_to_its_report() -> None:
    stages = made_start(LAST, FIRST).stages_of(0)
    assert stages[0].began_s == 11.0
    assert sum(stage.took_s for stage in stages) == pytest.approx(LAST["report"] - SHARED["gangs"])


def test_a_gang_that_has_not_reported_is_neither_first_nor_last() -> None:
    waiting = {name: stamp - 50.0 for name, stamp in FIRST.items() if name != "report"}
    assert made_start(waiting, FIRST).by_report == [1]


def test_a_start_without_a_report_took_nothing_yet() -> None:
    assert Start().stages() == []
    assert made_start(FIRST, shared={**BEFORE, "controllers": 112.0}).took_s == 0.0


def test_of_each_stamp_the_first_is_kept() -> None:
    known = made_start({"report": 130.0})
    known.take_in(made_start({"report": 999.0, "trial": 126.0}, shared={"told": 999.0}))
    assert (known.shared["told"], known.gangs[0]) == (131.0, {"report": 130.0, "trial": 126.0})


def test_a_process_knows_when_it_began() -> None:
    code = "from harness.start import process_began; print(process_began())"
    before = time.time()
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=os.environ)
    assert before - 0.05 <= float(printed.stdout) <= time.time() + 0.05
    assert process_began() < before


def ledger_of(folder: Path) -> Ledger:
    return Ledger(folder / LEDGER, "dev/miou", clock=lambda: 1000.0)


def test_a_ledger_keeps_of_each_session_the_start_that_was_written_last(tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path)
    for gangs in (made_start(FIRST), made_start(FIRST, LAST)):
        ledger.started(gangs)  # of a session that nobody wrote down: version 0.1 had none
    ledger.begin_session({})
    ledger.begin_session({})
    ledger.started(Start(SHARED, {3: FIRST}))
    ledger.close()
    assert read_times(tmp_path / LEDGER).starts == {
        -1: made_start(FIRST, LAST),
        1: Start(SHARED, {3: FIRST}),
    }


def test_a_start_is_no_event_of_a_trial(tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path)
    ledger.started(made_start(FIRST))
    ledger.close()
    assert read_ledger(tmp_path / LEDGER).trials == {}


def test_the_dispatcher_stamps_what_it_gives_and_gets() -> None:
    async def search() -> Start:
        dispatcher = Dispatcher()
        await dispatcher.note_start({"warm_up": 1.0}, 4)
        await dispatcher.submit(Job("a", {}, "", ""))
        await dispatcher.next_trial(4)
        report = asyncio.create_task(dispatcher.report(4, "a", {"step": 1.0, "time/first_step_unix": 5.0}))
        await dispatcher.next_report("a")
        report.cancel()
        return await dispatcher.started()

    noted = asyncio.run(search())
    assert set(noted.shared) == {"submitted"}
    assert set(noted.gangs[4]) == {"warm_up", "trial", "first_step", "report"}
    assert (noted.gangs[4]["warm_up"], noted.gangs[4]["first_step"]) == (1.0, 5.0)


def test_the_start_is_written_until_each_gang_has_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = [made_start(FIRST, shared={}), made_start(FIRST, shared={}), made_start(FIRST, LAST, shared={})]
    monkeypatch.setattr("harness.gangs.starting.call_with_retry", lambda method: method.pop(0))
    dispatcher, ledger = type("Handle", (), {"started": known}), ledger_of(tmp_path)
    ledger.begin_session({})
    starting = Starting(Start(dict(BEFORE)), dispatcher, ledger, gangs=2)
    for number in (0, 0, 1, 1, 2, 3, 4):  # the first report of trial 1 came from gang 0, too
        starting.on_report(Trial(number, {}, {}))
    ledger.close()
    assert known == []
    assert read_times(tmp_path / LEDGER).starts[0].by_report == [0, 1]
