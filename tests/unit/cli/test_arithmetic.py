"""The arithmetic of gangs and rungs, the names of folders, and what `--set` understands."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.cluster import Slots, gang_count, local_slots
from harness.tracking.pages import server_command
from harness.tuning.config import grace, rungs
from trainers.errors import UsageError
from trainers.overrides import parse_settings


@pytest.mark.parametrize(
    ("slots", "workers", "wished", "trials", "gangs"),
    [
        (2, 1, None, 16, 2),
        (2, 2, None, 16, 1),
        (8, 3, None, 16, 2),
        (8, 1, None, 3, 3),
        (8, 1, 4, 16, 4),
        (8, 1, 4, 2, 2),
    ],
)
def test_gangs_fill_the_machine_but_never_outnumber_the_trials(
    slots: int, workers: int, wished: int | None, trials: int, gangs: int
) -> None:
    assert gang_count(Slots(slots, "CPU"), workers, wished, trials) == gangs


@pytest.mark.parametrize(("workers", "wished"), [(3, None), (1, 3), (2, 2)])
def test_gangs_that_do_not_fit_are_refused_with_the_numbers(workers: int, wished: int | None) -> None:
    with pytest.raises(UsageError, match=f"at most the 2 CPUs there are, got {wished or 1} x {workers} = "):
        gang_count(Slots(2, "CPU"), workers, wished, 16)


def test_what_needs_more_cpus_than_there_are_is_refused_with_the_option() -> None:
    with pytest.raises(UsageError, match=r"the 2 places of 4 CPUs there are, got 1 x 3 = 3: .*--cpus-per-worker"):
        gang_count(Slots(2, "CPU", 4), 3, None, 16)


@pytest.mark.parametrize(
    ("gpus", "cpus", "slots"),
    [
        (0, None, Slots(8, "CPU")),
        (0, 3, Slots(2, "CPU", 3)),
        (4, None, Slots(4, "GPU")),
        (4, 3, Slots(2, "GPU", 3)),
        (4, 2, Slots(4, "GPU", 2)),
    ],
)
def test_the_slots_of_this_machine_have_the_cpus_of_a_worker(
    gpus: int, cpus: int | None, slots: Slots, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    monkeypatch.setattr("harness.cluster.cores", lambda: 8)
    assert local_slots(cpus) == slots


@given(st.integers(1, 10_000), st.integers(1, 10_000))
def test_the_grace_period_falls_on_a_report_within_the_horizon(steps: int, every: int) -> None:
    found = grace(steps, every, None)
    assert 1 <= found <= steps
    assert found % every == 0 or found == steps


@given(st.integers(1, 10_000), st.integers(1, 10_000), st.integers(2, 5))
def test_rungs_grow_by_the_factor_and_stay_below_the_horizon(steps: int, grace_steps: int, factor: int) -> None:
    found = rungs(steps, grace_steps, factor)
    assert all(rung < steps for rung in found)
    assert all(later == factor * earlier for earlier, later in pairwise(found))
    assert not found or found[-1] * factor >= steps


def test_settings_are_yaml_values() -> None:
    words = ["a.x=0.001", "a.y=true", "a.z=[1, 2]", "a.w=mix", "a.v=null", "a.u=a=b", "a.t="]
    assert parse_settings(words) == {
        "a.x": 1e-3, "a.y": True, "a.z": [1, 2], "a.w": "mix", "a.v": None, "a.u": "a=b", "a.t": None,
    }  # fmt: skip


def test_the_pages_are_served_to_this_machine_only_with_the_artifacts_of_the_recorder(tmp_path: Path) -> None:
    words = " ".join(server_command(f"sqlite:///{tmp_path}/mlflow.db", 5001))
    assert f"--backend-store-uri sqlite:///{tmp_path}/mlflow.db --host 127.0.0.1 --port 5001" in words
    assert f"--default-artifact-root {(tmp_path / 'mlartifacts').as_uri()}" in words
