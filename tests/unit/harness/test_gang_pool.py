"""Gangs whose Ray is gone."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.cluster import WorkerResources
from harness.connection import RayLostError
from harness.gangs.pool import GangPool


@pytest.mark.parametrize(
    ("use_gpu", "cpus", "resources", "threads", "decoders", "devices"),
    [
        (False, None, {"CPU": 1}, 1, None, 1),
        (True, None, {"CPU": 1, "GPU": 1}, None, None, 1),
        (False, 3, {"CPU": 3}, 3, 3, 3),
        (True, 3, {"CPU": 3, "GPU": 1}, 3, 3, 1),
    ],
)
def test_a_worker_takes_its_cpus_and_computes_and_decodes_with_as_many_threads(
    use_gpu: bool,
    cpus: int | None,
    resources: dict[str, int],
    threads: int | None,
    decoders: int | None,
    devices: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ray.put", lambda spec: spec)
    pool = GangPool(None, None, 1, (1,), tmp_path, WorkerResources(use_gpu, cpus))  # type: ignore[arg-type]
    trainer = pool._trainer(pool._spec, "gang-0")
    assert trainer.scaling_config.resources_per_worker == resources
    assert (pool.worker.threads, pool.worker.cpus_per_worker, pool.worker.devices) == (threads, decoders, devices)


def test_a_gang_is_not_started_anew_where_ray_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    starts: list[str] = []

    class Trainer:
        def fit(self) -> None:
            raise RuntimeError("the controller's actor died")

    def trainer(spec: Any, name: str) -> Trainer:
        starts.append(name)
        return Trainer()

    def lost() -> bool:
        raise RayLostError("Ray's raylet died")

    pool = GangPool.__new__(GangPool)
    pool._broken, pool._closing, pool._sizes = [], threading.Event(), (1,)
    monkeypatch.setattr(pool, "_trainer", trainer)
    monkeypatch.setattr("harness.gangs.pool.check_ray", lost)
    pool._keep_up(SimpleNamespace(gang=0))  # type: ignore[arg-type]
    assert (starts, pool.broken) == (["gang-0"], "Ray's raylet died")
