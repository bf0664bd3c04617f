"""Gangs whose Ray is gone."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from harness.connection import RayLostError
from harness.gangs.pool import GangPool


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
