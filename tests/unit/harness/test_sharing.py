"""Gangs that share GPUs: what fits, what is refused, what a measurement makes of it. No GPU is used."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.cluster import Allocation, ClusterNodes, Node, Slots, WorkerResources, allocate, check_fit, local_slots
from harness.gangs import sharing
from harness.gangs.sharing import CONTEXT, SPARE, Load, limit_memory, measure_load, measured_sharing
from harness.trials import Experiment, checked_sharing
from harness.tuning.config import SearchConfig
from trainers.errors import UsageError
from trainers.run import Run

GIB = 2**30


def test_gangs_fill_shared_gpus_as_far_as_cpus_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    found = []
    for cpus in (16, 5):
        monkeypatch.setattr("harness.cluster.cores", lambda count=cpus: count)
        found.append([allocate(local_slots(None, shared), 1, None, 100).gangs for shared in (1, 4)])
    assert found == [[2, 8], [2, 5]]


@given(st.integers(1, 64), st.integers(1, 8))
def test_ray_finds_room_for_every_gang_that_shares_a_gpu(gangs_per_gpu: int, gpus: int) -> None:
    worker = WorkerResources(use_gpu=True, gangs_per_gpu=gangs_per_gpu)
    assert worker.for_ray["GPU"] * gangs_per_gpu <= 1
    assert worker.for_ray["GPU"] * (gangs_per_gpu + 1) > 1
    there = {"CPU": 1024.0, "GPU": float(gpus)}
    assert worker.fit(there) == gpus * gangs_per_gpu
    check_fit(worker.fit(there), 1, worker, ClusterNodes((Node("a", "a", there),)))


def test_a_node_holds_what_its_own_gpus_and_cpus_do() -> None:
    nodes = ClusterNodes(
        (Node("a", "a", {"CPU": 3, "GPU": 1}), Node("b", "b", {"CPU": 64, "GPU": 2}), Node("c", "c", {"CPU": 8}))
    )
    assert nodes.fit(WorkerResources(use_gpu=True, gangs_per_gpu=4)) == 3 + 8


def test_gangs_that_share_hold_a_share_of_the_devices() -> None:
    allocation = Allocation(6, worker=WorkerResources(use_gpu=True, gangs_per_gpu=4))
    assert allocation.gangs * allocation.worker.devices == 1.5


@pytest.mark.parametrize(
    ("workers", "gangs", "message"),
    [
        (2, None, "gangs that share a GPU must have one worker, got --gangs-per-gpu 4 and --workers 2"),
        (1, 9, "at most the 8 places of 1/4 GPU and 1 CPU there are, got 9 x 1 = 9"),
    ],
)
def test_what_cannot_share_is_refused(workers: int, gangs: int | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        allocate(Slots(8, "GPU", gangs_per_gpu=4), workers, gangs, 100)


def test_cpus_are_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UsageError, match="--gangs-per-gpu 4 must have GPUs to share, there are none"):
        local_slots(None, 4)


@pytest.mark.parametrize("wish", ["0", "-1", "1.5", "all", ""])
def test_a_wish_is_a_whole_number_or_auto(wish: str) -> None:
    with pytest.raises(UsageError, match="--gangs-per-gpu must"):
        checked_sharing(wish)
    with pytest.raises(UsageError, match="--gangs-per-gpu must"):
        SearchConfig.of(gangs_per_gpu=wish)


def test_a_search_takes_numbers_and_auto() -> None:
    wishes = (1, 4, "8", "auto")
    assert [checked_sharing(SearchConfig.of(gangs_per_gpu=wish).gangs_per_gpu) for wish in wishes] == [1, 4, 8, None]


@pytest.mark.parametrize(
    ("load", "cpus", "gangs"),
    [
        (Load(GIB, 80 * GIB, 0.15), 16, 7),  # it leaves the GPU idle for 85 % of the time
        (Load(GIB, 80 * GIB, 0.15), 4, 4),  # each needs a CPU
        (Load(30 * GIB, 80 * GIB, 0.15), 16, 2),  # memory
        (Load(60 * GIB, 80 * GIB, 0.15), 16, 1),
        (Load(GIB, 80 * GIB, 1.0), 16, 1),  # no time is left
        (Load(GIB, 80 * GIB, 0.0), 64, sharing.MOST),
        (Load(90 * GIB, 80 * GIB, 1.0), 16, 1),
    ],
)
def test_memory_idle_time_and_cpus_bound_the_gangs(load: Load, cpus: int, gangs: int) -> None:
    assert load.gangs(cpus) == gangs


def test_gangs_with_their_contexts_fit_the_memory() -> None:
    load = Load(5 * GIB, 24 * GIB, 0.0)
    assert (
        load.gangs(64) * (load.peak + CONTEXT)
        <= (1 - SPARE) * load.total
        < (load.gangs(64) + 1) * (load.peak + CONTEXT)
    )


class Steps(Experiment):
    """Trains until it is told to stop, a millisecond a step."""

    def __init__(self, interruptible: bool) -> None:
        self.interruptible = interruptible
        self.steps = 0

    def warm_up(self, run: Run) -> None:
        self.steps = -1

    def train(self, overrides: Mapping[str, Any], run: Run) -> None:
        state: Any = None
        assert run.restore_from() is None
        assert self.steps == -1  # after the warm-up
        while True:
            self.steps += 1
            if self.interruptible and run.interrupted(state):
                return
            time.sleep(0.001)
            if self.steps == 200:
                run.report({"step": 200.0, "finished": 0.0}, state)
                return


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand for CUDA: one GPU of 16 GiB, of which 3 are taken, busy for 40 % of the time."""
    monkeypatch.setattr(sharing, "PROBE_S", 0.05)
    monkeypatch.setattr(sharing, "SAMPLE_S", 0.001)
    for name, value in {
        "current_device": lambda: 0, "reset_peak_memory_stats": lambda _: None, "utilization": lambda _: 40,
        "get_device_properties": lambda _: SimpleNamespace(total_memory=16 * GIB),
        "max_memory_reserved": lambda _: 3 * GIB,
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, value)


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("interruptible", [True, False])
def test_the_measurement_reads_memory_and_time_while_it_trains(interruptible: bool) -> None:
    experiment = Steps(interruptible)
    load = measure_load(experiment)
    assert (load.peak, load.total) == (3 * GIB, 16 * GIB)
    assert load.busy == (0.4 if interruptible else 1.0)  # a training that is not asked after each step is not watched
    assert experiment.steps <= 200


def test_without_gpus_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing.ray, "cluster_resources", lambda: {"CPU": 4.0})
    assert measured_sharing(Steps(True), 1, print) == 1


def test_a_gang_may_allocate_its_share_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[float] = []
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda share, _: limits.append(share))
    for gangs, device in ((1, "cuda:0"), (4, "cpu"), (4, "cuda:0")):
        limit_memory(gangs, torch.device(device))
    assert limits == [pytest.approx(0.95 / 4)]
