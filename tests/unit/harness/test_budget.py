"""What a search costs: against Ray's own ASHA on random trials, a simulation of gangs, and closed forms."""

import heapq
import random
import statistics
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.tune.schedulers import ASHAScheduler
from ray.tune.schedulers.trial_scheduler import TrialScheduler

from harness.planning import arithmetic as budget
from harness.planning.arithmetic import Pace, Shape
from harness.run_folder import LATEST, NEXT, PREVIOUS
from harness.tuning.config import SearchConfig
from harness.tuning.retention import KEPT_APART

SHAPE = Shape(
    trials=32, gangs=4, workers_per_gang=1, horizon=900, every=50, scheduler="asha", grace_steps=150, reduction_factor=3
)
PACE = Pace(step_s=0.1, evaluate_s=2.0, save_s=0.5, start_s=1.0, checkpoint_bytes=10)


def asha(shape: Shape) -> Any:
    return ASHAScheduler(
        time_attr="step",
        metric="value",
        mode="max",
        max_t=shape.horizon,
        grace_period=shape.grace_steps,
        reduction_factor=shape.reduction_factor,
    )


def end_of_trial(scheduler: Any, shape: Shape, trial: Any, draw: random.Random) -> int:
    """Report to Ray's scheduler until it stops the trial or the horizon is reached; every value is drawn anew."""
    scheduler.on_trial_add(None, trial)
    step = 0
    while step < shape.horizon:
        step = min(step + shape.every, shape.horizon)
        result = {"step": step, "value": draw.random()}
        if scheduler.on_trial_result(None, trial, result) == TrialScheduler.STOP:
            break
    scheduler.on_trial_complete(None, trial, result)
    return step


def ends_in_ray(shape: Shape, seed: int) -> list[int]:
    scheduler, draw = asha(shape), random.Random(seed)
    return [
        end_of_trial(scheduler, shape, SimpleNamespace(trial_id=str(number)), draw) for number in range(shape.trials)
    ]


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_trials_pass_rungs_as_often_as_in_rays_asha(factor: int) -> None:
    shape = replace(SHAPE, reduction_factor=factor)
    repeats = 150
    runs = [ends_in_ray(shape, seed) for seed in range(repeats)]
    for steps, expected in budget.expected_ends(shape):
        seen = [float(run.count(steps)) for run in runs]
        # Four standard errors; and a little for the convexity of an expectation of an expectation at later rungs.
        assert statistics.fmean(seen) == pytest.approx(expected, abs=4 * statistics.stdev(seen) / repeats**0.5 + 0.15)


@pytest.mark.parametrize(("grace", "every"), [(150, 50), (100, 30), (1, 50), (7, 7), (450, 400), (900, 50), (1, 900)])
def test_decisions_are_taken_at_the_reports_where_rays_asha_takes_them(grace: int, every: int) -> None:
    shape = replace(SHAPE, trials=40, grace_steps=grace, every=every)
    stopped = {step for seed in range(40) for step in ends_in_ray(shape, seed)} - {shape.horizon}
    assert stopped == set(budget.decisions(shape))


def test_one_arrival_always_passes_and_two_pass_one_and_a_half_times() -> None:
    assert budget.expected_passes(1, 3) == 1
    assert budget.expected_passes(2, 3) == pytest.approx(1.5)


def test_the_passes_are_the_sum_over_arrivals_of_the_chance_of_each() -> None:
    chances = [1.0] + [(j / 4 + 1 - 1 / 4) / (j + 1) for j in range(1, 50)]
    assert budget.expected_passes(50, 4) == pytest.approx(sum(chances))


def test_no_trial_is_lost_between_the_rungs() -> None:
    assert sum(trials for _, trials in budget.expected_ends(SHAPE)) == pytest.approx(32)
    assert [steps for steps, _ in budget.expected_ends(SHAPE)] == [150, 450, 900]


@pytest.mark.parametrize("scheduler", ["none", "median", "hyperband", "pbt"])
def test_what_is_not_foreseen_is_planned_as_if_nothing_were_stopped(scheduler: str) -> None:
    steps = budget.total_steps(replace(SHAPE, scheduler=scheduler))
    assert steps.expected == steps.most == 32 * 900


def test_the_least_is_one_full_trial_and_the_first_rung_of_the_others() -> None:
    assert budget.total_steps(SHAPE).least == 900 + 31 * 150


shapes = st.builds(
    Shape,
    trials=st.integers(1, 300),
    gangs=st.just(1),
    workers_per_gang=st.integers(1, 4),
    horizon=st.integers(1, 2000),
    every=st.integers(1, 300),
    scheduler=st.sampled_from(["asha", "none", "median", "pbt"]),
    grace_steps=st.integers(1, 500),
    reduction_factor=st.integers(2, 5),
)


@given(shape=shapes, gangs=st.integers(1, 64))
@settings(max_examples=100)
def test_the_expectation_lies_between_the_bounds(shape: Shape, gangs: int) -> None:
    shape = replace(shape, gangs=min(gangs, shape.trials), grace_steps=min(shape.grace_steps, shape.horizon))
    for least, expected, most in (
        (found.least, found.expected, found.most)
        for found in (budget.total_steps(shape), budget.busy_s(shape, PACE), budget.wall_s(shape, PACE))
    ):
        assert least * (1 - 1e-9) <= expected <= most * (1 + 1e-9)


def test_a_trial_costs_its_steps_its_evaluations_its_start_and_its_checkpoints() -> None:
    # 900 steps, 18 evaluations: 127 s, so 4 checkpoints by the clock and one at the end.
    assert PACE.trial_s(900, SHAPE) == pytest.approx(1 + 90 + 36 + 5 * 0.5)
    # 150 steps, 3 evaluations, 22 s: stopped before a checkpoint was due.
    assert PACE.trial_s(150, SHAPE) == pytest.approx(1 + 15 + 6)


def test_a_trial_saves_at_most_at_every_report() -> None:
    slow = replace(PACE, step_s=10.0)
    assert slow.trial_s(100, SHAPE) == pytest.approx(1 + 1000 + 4 + 2 * 0.5)


def finished_at(shape: Shape, pace: Pace, draw: random.Random) -> float:
    """Play a search in virtual time: the gang that is free first reports first, and Ray's ASHA decides."""
    scheduler = asha(shape)
    free = [(0.0, gang) for gang in range(shape.gangs)]
    heapq.heapify(free)
    last = 0.0
    for number in range(shape.trials):
        now, gang = heapq.heappop(free)
        steps = end_of_trial(scheduler, shape, SimpleNamespace(trial_id=str(number)), draw)
        last = max(last, now + pace.trial_s(steps, shape))
        heapq.heappush(free, (now + pace.trial_s(steps, shape), gang))
    return last


@pytest.mark.parametrize("gangs", [1, 4, 8])
def test_the_wall_clock_is_that_of_a_simulated_search(gangs: int) -> None:
    shape = replace(SHAPE, trials=64, gangs=gangs)
    seen = [finished_at(shape, PACE, random.Random(seed)) for seed in range(80)]
    found = budget.wall_s(shape, PACE)
    assert statistics.fmean(seen) == pytest.approx(found.expected, rel=0.1)
    assert found.least <= min(seen)
    assert max(seen) <= found.most


def test_trials_that_are_not_stopped_run_in_rounds() -> None:
    shape = replace(SHAPE, scheduler="none", trials=9, gangs=4)
    full = PACE.trial_s(900, shape)
    assert budget.wall_s(shape, PACE).expected == pytest.approx(3 * full)


def test_gangs_keep_their_devices_until_the_end() -> None:
    shape = replace(SHAPE, scheduler="none", trials=5, gangs=4, workers_per_gang=2)
    assert budget.device_s(shape, PACE).expected == pytest.approx(8 * 2 * PACE.trial_s(900, shape))


def test_checkpoints_are_the_best_the_baseline_and_three_of_each_live_trial() -> None:
    assert budget.most_checkpoints(SHAPE, keep=5) == 5 + 1 + 3 * 4
    assert budget.most_checkpoints(replace(SHAPE, trials=3, gangs=1), keep=5) == 3 + 3
    assert budget.most_checkpoints(replace(SHAPE, scheduler="pbt"), keep=5) == 4 * 32 + 4


def test_a_plan_supposes_what_a_search_does_where_nothing_is_said() -> None:
    plan = SearchConfig.of()
    assert plan.save_interval_s == budget.SAVE_INTERVAL_S
    assert plan.min_free_gib * 2**30 == budget.MIN_FREE


def test_a_live_trial_has_as_many_files_as_gangs_and_keeper_leave() -> None:
    assert len({LATEST, PREVIOUS, NEXT}) == budget.LIVE
    assert len({LATEST, PREVIOUS}) + KEPT_APART == budget.PAUSED


def test_the_largest_number_of_trials_that_fits_is_found() -> None:
    assert budget.most_trials(SHAPE, lambda shape: shape.trials <= 17) == 17
    assert budget.most_trials(SHAPE, lambda shape: False) == 0


def test_fewer_trials_than_gangs_are_tried_with_fewer_gangs() -> None:
    tried: list[Shape] = []
    budget.most_trials(SHAPE, lambda shape: bool(tried.append(shape)))
    assert all(shape.gangs <= shape.trials for shape in tried)


def test_the_smallest_number_of_gangs_that_fits_is_found() -> None:
    assert budget.least_gangs(SHAPE, 20, lambda shape: shape.gangs >= 7) == 7
    assert budget.least_gangs(SHAPE, 6, lambda shape: shape.gangs >= 7) is None
