"""The simulator against closed forms and laws."""

import random
import statistics
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.scaling.simulate import DAY_S, Cluster, Faults, simulate, simulate_many

LENGTHS = st.lists(st.floats(0.1, 1000), min_size=1, max_size=40)


def run(durations: list[float], gangs: int = 1, seed: int = 0, **faults: float):
    return simulate(durations, Cluster(gangs, 1), replace(Faults(), **faults), random.Random(seed))


@given(LENGTHS)
def test_one_gang_takes_the_sum(durations: list[float]) -> None:
    assert run(durations).elapsed_s == pytest.approx(sum(durations))


@given(LENGTHS, st.integers(1, 64))
def test_many_gangs_take_at_least_their_share_and_at_most_one_trial_more(durations: list[float], gangs: int) -> None:
    # Graham (1969): list scheduling ends within sum / G + (1 - 1 / G) max.
    took = run(durations, gangs).elapsed_s
    share = sum(durations) / gangs
    assert max(share, max(durations)) <= took * (1 + 1e-9)
    assert took <= share + (1 - 1 / gangs) * max(durations) + 1e-6


def test_a_gang_takes_the_next_trial_as_soon_as_it_is_free() -> None:
    assert run([3.0, 1.0, 1.0, 2.0], gangs=2).elapsed_s == 4.0


def test_starting_up_is_waited_for_once() -> None:
    cluster = Cluster(gangs=2, workers=1, startup_s=10.0)
    assert simulate([5.0, 5.0, 5.0], cluster, Faults(), random.Random(0)).elapsed_s == 20.0


@settings(max_examples=30)
@given(LENGTHS, st.integers(0, 100))
def test_what_is_lost_is_what_takes_longer(durations: list[float], seed: int) -> None:
    found = run(durations, seed=seed, per_worker_day=500.0, retries=10**6)
    assert found.busy_s == pytest.approx(sum(durations) + found.lost_s)
    assert found.failed_trials == 0


def test_without_work_to_repeat_a_failure_costs_its_restart() -> None:
    found = run([1000.0] * 100, per_worker_day=500.0, checkpoint_s=0.0, restart_s=7.0, retries=10**6)
    assert found.failures > 0
    assert found.lost_s == pytest.approx(7.0 * found.failures)


def test_failures_come_at_their_rate() -> None:
    # 100 trials of 1000 s, a worker that fails once in 2000 s: a Poisson number with mean 50 and deviation 7.1.
    counts = [
        run([1000.0] * 100, seed=seed, per_worker_day=DAY_S / 2000, checkpoint_s=0.0, retries=10**6).failures
        for seed in range(40)
    ]
    assert abs(statistics.fmean(counts) - 50) < 4 * 7.1 / 40**0.5


def test_a_gang_fails_as_often_as_all_its_workers() -> None:
    faults = Faults(per_worker_day=DAY_S / 16000, checkpoint_s=0.0, retries=10**6)
    counts = [simulate([1000.0] * 100, Cluster(1, 8), faults, random.Random(seed)).failures for seed in range(40)]
    assert abs(statistics.fmean(counts) - 50) < 4 * 7.1 / 40**0.5


def test_on_average_half_an_interval_is_repeated() -> None:
    # Failures are rare against checkpoints, so they strike an interval anywhere alike.
    runs = [
        run([10_000.0] * 20, seed=seed, per_worker_day=DAY_S / 2000, checkpoint_s=100.0, restart_s=0.0, retries=10**6)
        for seed in range(30)
    ]
    mean = sum(one.lost_s for one in runs) / sum(one.failures for one in runs)
    assert mean == pytest.approx(50, rel=0.05)  # some 3000 failures, deviation 100 / sqrt(12): 1 %


def test_a_trial_that_is_struck_too_often_fails_with_its_time() -> None:
    found = run([1e6], per_worker_day=DAY_S, retries=2, restart_s=10.0)
    assert (found.failed_trials, found.failures) == (1, 3)
    assert found.lost_s == pytest.approx(found.elapsed_s)


def test_the_same_seed_gives_the_same_forecast() -> None:
    found = [simulate_many([10.0, 30.0], 50, Cluster(4, 2), Faults(per_worker_day=100.0), seed=3) for _ in range(2)]
    assert found[0] == found[1]


def test_more_failures_take_longer() -> None:
    hours = [
        simulate_many([100.0, 300.0], 200, Cluster(8, 4), Faults(per_worker_day=rate)).hours for rate in (0, 10, 100)
    ]
    assert hours == sorted(hours)
    assert hours[0] < hours[2]


def test_a_forecast_counts_devices_for_the_whole_time() -> None:
    found = simulate_many([60.0], 100, Cluster(10, 8), Faults())
    assert found.hours == pytest.approx(10 / 60)
    assert found.device_hours == pytest.approx(80 * 10 / 60)
    assert (found.lost_device_hours, found.failures, found.low, found.high) == (0, 0, found.hours, found.hours)
