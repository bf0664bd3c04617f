"""A process that cannot be part of a gang says why, and is not started for ever."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from harness.cluster import WorkerResources
from harness.gangs import worker
from harness.gangs.dispatcher import Dispatcher
from harness.gangs.entry import gang_loop


class Direct:
    """Stands for the Dispatcher's handle."""

    def __init__(self) -> None:
        self.dispatcher = Dispatcher()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.dispatcher, name)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Direct:
    """Process of rank 0 on a node whose GPU does not work."""

    def ranks() -> None:
        raise RuntimeError("Found no NVIDIA driver\non your system")

    monkeypatch.setattr(worker, "Ranks", ranks)
    monkeypatch.setattr(worker, "call_with_retry", lambda method, *arguments: asyncio.run(method(*arguments)))
    monkeypatch.setattr(
        worker.ray, "train", SimpleNamespace(get_context=lambda: SimpleNamespace(get_world_rank=lambda: 0))
    )
    return Direct()


def test_it_is_started_anew_until_the_search_is_given_up_in_its_words(here: Direct) -> None:
    spec: Any = SimpleNamespace(gang=0, dispatcher=here, resources=WorkerResources(use_gpu=True))
    for _ in range(Dispatcher.max_starts):
        with pytest.raises(RuntimeError, match="no NVIDIA driver"):
            worker.train_trials(spec)
    worker.train_trials(spec)  # it ends in order, and Ray Train does not start it again
    reason = str(asyncio.run(here.dispatcher.close_reason()))
    assert reason == (
        "gang 0 died 5 times in a row before it could train: RuntimeError: Found no NVIDIA driver on your system"
    )


def test_an_experiment_that_workers_cannot_import_ends_the_search_in_as_many_words(
    here: Direct, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(_: object) -> None:
        raise RuntimeError("a traceback\nModuleNotFoundError: No module named 'moons'")

    monkeypatch.setattr("ray.get", unreadable)
    monkeypatch.setattr("harness.gangs.client.call_with_retry", worker.call_with_retry)
    config = {"spec": None, "dispatcher": here, "gang": 0}
    for _ in range(Dispatcher.max_starts):
        with pytest.raises(RuntimeError, match="No module named 'moons'"):
            gang_loop(config)
    gang_loop(config)
    assert str(asyncio.run(here.dispatcher.close_reason())) == (
        "gang 0 died 5 times in a row before it could train: ModuleNotFoundError: No module named 'moons': workers "
        "must be able to import what the experiment is made of, as by PYTHONPATH"
    )
