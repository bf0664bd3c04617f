"""`s4 plan --space`: what a search costs, and what is refused before anything is spent."""

import json
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.cli.main import run
from harness.cli.plan import PANELS, SEARCH, plan
from harness.cli.tune import tune
from harness.cluster import Slots
from harness.experiment import CssExperiment
from harness.planning import arithmetic as budget
from harness.planning import search_cost as module
from harness.planning.arithmetic import Shape
from harness.planning.measure import Timing, time_config
from harness.planning.search_cost import (
    Disk,
    SearchCost,
    check_caps,
    check_disk,
    counted_bytes,
    plan_search,
    to_json,
    to_table,
)
from harness.tuning.config import SearchConfig
from trainers.errors import UsageError
from trainers.overrides import apply_overrides, parse_settings
from trainers.presets import load_preset

SMALL = (
    "model.width=8",
    "loss.queries=16",
    "loss.negatives=16",
    "data.dev=16",
    "data.labelled=16",
    "data.unlabelled=32",
)
SHAPE = Shape(
    trials=16, gangs=2, workers_per_gang=1, horizon=900, every=50, scheduler="none", grace_steps=150, reduction_factor=3
)
TIMING = Timing(
    steps=20,
    step_s=4.0,
    evaluate_s=0.0,
    save_s=0.0,
    start_s=0.0,
    checkpoint_bytes=10,
    device="1 CPU thread",
    unit="CPU",
)  # an hour a trial
DISK = Disk(checkpoint=10, keep=5, files=12, free=2**40)


def costing(shape: Shape = SHAPE, timing: Timing | None = TIMING, disk: Disk = DISK, slots: int = 2) -> SearchCost:
    return SearchCost("some", "a space", shape, Slots(slots, "CPU"), disk, timing)


@pytest.fixture
def _two_cpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "local_slots", lambda *_: Slots(2, "CPU"))
    monkeypatch.chdir(tmp_path)


def planned(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """What `s4 plan --space css_quick` writes as JSON."""
    line = ["plan", "--space", "css_quick", "--json", *words]
    for setting in SMALL:
        line += ["--set", setting]
    assert run(line) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.usefixtures("_two_cpus")
def test_a_plan_is_the_arithmetic_of_what_was_timed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    found = planned(capsys, "--trials", "12", "--keep-checkpoints", "3")
    shape = replace(SHAPE, trials=12, scheduler="asha")
    timing = Timing(**found["timing"])
    cost = costing(shape, timing)
    assert cost.pace is not None
    assert found["timing"]["steps"] == 20
    assert min(timing.step_s, timing.evaluate_s, timing.save_s, timing.start_s) > 0
    assert found["hours"]["expected"] * 3600 == pytest.approx(budget.wall_s(shape, cost.pace).expected)
    assert found["device_hours"]["expected"] == pytest.approx(2 * found["hours"]["expected"])
    assert found["steps"] == budget.total_steps(shape)._asdict()
    assert found["disk"]["files"] == 3 + 1 + 3 * 2
    assert list(tmp_path.iterdir()) == []


def test_a_worker_of_two_cpus_holds_two_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.cluster.cores", lambda: 4)
    options = SearchConfig.of(space="css_quick", cpus_per_worker=2, scheduler="none")
    cost = plan_search(CssExperiment.of("digits_css"), options, Path("runs"), timed=False)
    assert (cost.shape.gangs, cost.shape.devices_per_worker) == (2, 2)
    assert budget.device_s(cost.shape, TIMING).expected == 4 * budget.wall_s(cost.shape, TIMING).expected
    assert "2 x 1 worker = 2 of 2 places of 2 CPUs" in str(to_table(cost).rows)


def test_gangs_that_share_a_gpu_take_turns_on_it_in_a_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr("harness.cluster.cores", lambda: 16)
    options = SearchConfig.of(space="css_quick", gangs_per_gpu=4, scheduler="none")
    cost = plan_search(CssExperiment.of("digits_css"), options, Path("runs"), timed=False)._replace(timing=TIMING)
    alone = cost._replace(shape=replace(cost.shape, gangs=2, devices_per_worker=1))
    assert (cost.shape.gangs, cost.shape.devices_per_worker) == (8, 0.25)
    assert cost.pace is not None
    assert alone.pace is not None
    assert cost.pace.step_s == 4 * alone.pace.step_s
    assert budget.device_s(cost.shape, cost.pace).expected == budget.device_s(alone.shape, alone.pace).expected
    rows = str(to_table(cost).rows)
    assert "8 x 1 worker = 8 of 8 places of 1/4 GPU and 1 CPU" in rows
    assert "take its time in turns" in rows


def test_a_plan_does_not_measure_how_many_gangs_share() -> None:
    options = SearchConfig.of(space="css_quick", gangs_per_gpu="auto")
    with pytest.raises(UsageError, match="a plan must have a number of gangs a GPU, got --gangs-per-gpu auto"):
        plan_search(CssExperiment.of("digits_css"), options, Path("runs"), timed=False)


@pytest.mark.usefixtures("_two_cpus")
def test_without_timing_a_checkpoint_is_counted_and_hours_are_not_known(capsys: pytest.CaptureFixture[str]) -> None:
    found = planned(capsys, "--no-time")
    assert (found["timing"], found["hours"], found["device_hours"]) == (None, None, None)
    assert found["disk"]["checkpoint"] > 0


def test_the_counted_checkpoint_is_about_the_size_of_the_file(tmp_path: Path) -> None:
    config = apply_overrides(load_preset("digits_css"), parse_settings([*SMALL, "schedule.steps=2"]))
    threads = torch.get_num_threads()
    timing = time_config(config, 1, tmp_path)
    assert timing.steps == 2  # no more than there are
    assert counted_bytes(config) == pytest.approx(timing.checkpoint_bytes, rel=0.15)
    assert torch.get_num_threads() == threads
    assert list(tmp_path.iterdir()) == []


def test_a_worker_of_several_is_timed_on_its_share_of_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr("harness.planning.measure.warm_up", lambda config, run: seen.append(config))
    config = apply_overrides(load_preset("digits_css"), parse_settings([*SMALL, "schedule.steps=1"]))
    time_config(config, 4, tmp_path)
    assert (seen[0].schedule.labelled_batch, seen[0].schedule.unlabelled_batch) == (2, 2)


def test_workers_share_evaluations() -> None:
    timing = replace(TIMING, evaluate_s=8.0)
    pace = costing(replace(SHAPE, workers_per_gang=4), timing).pace
    assert pace is not None
    assert pace.evaluate_s == 2.0


def test_what_takes_longer_than_the_cap_is_refused_with_what_would_fit() -> None:
    # 16 trials of an hour on 2 gangs take 8 hours; 6 rounds of 2 fit in 6 hours, and so do 3 gangs (6 rounds).
    with pytest.raises(UsageError) as refused:
        check_caps(costing(slots=8), max_hours=6.5)
    assert str(refused.value) == (
        "the search must keep to --max-hours 6.5, expected are 8 hours for 16 trials on 2 x 1 CPUs: "
        "--trials 12 or --gangs 3 would fit"
    )


def test_more_gangs_than_there_are_places_are_not_offered() -> None:
    with pytest.raises(UsageError, match="--trials 12 would fit"):
        check_caps(costing(slots=2), max_hours=6.5)


def test_devices_are_held_by_all_gangs() -> None:
    with pytest.raises(UsageError, match=r"--max-device-hours 15, expected are 16 CPU-hours .* --trials 14 would fit"):
        check_caps(costing(), max_device_hours=15)


def test_where_not_even_one_trial_fits_the_horizon_is_too_long() -> None:
    with pytest.raises(UsageError, match=r"lower schedule\.steps, not even one trial fits"):
        check_caps(costing(), max_hours=0.5)


def test_what_meets_the_caps_exactly_is_not_refused() -> None:
    check_caps(costing(), max_hours=8, max_device_hours=16)


def test_hours_that_were_timed_on_other_hardware_are_not_compared() -> None:
    cost = costing()._replace(slots=Slots(8, "GPU"))
    with pytest.raises(UsageError, match="hours must be timed on what the gangs run on, GPUs, got 1 CPU thread"):
        check_caps(cost, max_hours=100)
    assert any("the gangs will have GPUs" in str(cell) for _, cell in to_table(cost).rows)
    assert to_json(cost)["comparable"] is False


def test_checkpoints_that_the_disk_cannot_hold_are_refused_with_what_would_fit(tmp_path: Path) -> None:
    # A baseline and three of each of two gangs are 7, so 9 leave room for 2 of the best.
    with pytest.raises(UsageError) as refused:
        check_disk(costing(disk=Disk(2**30, 5, 12, 9 * 2**30 + budget.MIN_FREE)), tmp_path)
    assert str(refused.value) == (
        f"checkpoints must fit in {tmp_path}, 12 of 1.00 GiB need 12.00 GiB, and of 9.25 GiB that are free a search "
        "leaves 256 MiB: --keep-checkpoints 2, another --storage, or make room"
    )


def test_a_disk_that_cannot_hold_the_live_trials_wants_fewer_gangs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"256 MiB: fewer --gangs, another --storage"):
        check_disk(costing(disk=Disk(2**30, 5, 12, 4 * 2**30)), tmp_path)


def test_checkpoints_that_fit_exactly_are_not_refused(tmp_path: Path) -> None:
    check_disk(costing(disk=Disk(10, 5, 12, 120 + budget.MIN_FREE)), tmp_path)


def test_a_search_is_planned_with_the_defaults_of_the_command_that_runs_it() -> None:
    known, planned = signature(tune).parameters, signature(plan).parameters
    for name in set(PANELS[SEARCH]) - {"space"}:
        assert planned[name].default == known[name].default == SearchConfig.model_fields[name].default


@pytest.mark.parametrize("scheduler", ["asha", "none", "median"])
def test_the_table_says_what_is_expected_and_what_was_measured(scheduler: str) -> None:
    table = to_table(costing(replace(SHAPE, scheduler=scheduler)))
    cells = " ".join(str(cell) for row in table.rows for cell in row)
    said = {"asha": "6.79 go on (expected)", "none": "none is stopped", "median": "not foreseen"}[scheduler]
    for part in (said, "20 steps in one process", "step 4 s", "2 x 1 worker = 2 of 2 CPUs", "12 at once at most"):
        assert part in cells


WRONG = {
    "plan --trials 4": "--trials must be in the plan of a search, got it in another: add --space",
    "plan --max-hours 4": "--max-hours must be in the plan of a search",
    "plan --space css_quick --memory 4": "--memory must be in the plan of a training, got it in another: leave it out",
    "plan --space css_quik": "got 'css_quik': did you mean css_quick?",
    "plan --space css_quick --gangs 3": "gangs x workers must be at most the 2 CPUs there are, got 3 x 1 = 3",
    "plan --space css_quick --no-time --max-hours 1": "--max-hours must be compared with times, got --no-time",
    "plan --space css_quick --grace-steps 901": "--grace-steps must be at most the horizon, 900 steps",
    "plan --space css_quick --workers 3": "schedule.labelled_batch is shared by all workers",
    "plan --space css_quick --set loss.lambda_u=2": "loss.lambda_u is searched there",
    "plan --space css_quick --address 127.0.0.1:1": "a Ray cluster must run at 127.0.0.1:1",
}


@pytest.mark.usefixtures("_two_cpus")
@pytest.mark.parametrize("line", WRONG)
def test_a_mistake_in_the_plan_of_a_search_is_answered_in_one_line(
    line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(line.split()) == 2
    captured = capsys.readouterr()
    assert WRONG[line] in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
