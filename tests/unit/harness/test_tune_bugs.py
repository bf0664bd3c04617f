"""What is mended of Tune: its placement groups are not removed by the garbage collector, in any thread."""

from __future__ import annotations

from typing import Any

import pytest
import ray
from ray.air.execution import PlacementGroupResourceManager
from ray.air.execution.resources import placement_group as placement_groups

from harness.tuning import run


@pytest.fixture
def removed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Let Ray seem to be there, and note which groups it is asked to remove."""
    removed: list[Any] = []
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(placement_groups, "remove_placement_group", removed.append)
    monkeypatch.setattr(PlacementGroupResourceManager, "__del__", PlacementGroupResourceManager.__del__)
    monkeypatch.setattr(run.usage, "tag_callbacks", run.usage.tag_callbacks)
    return removed


def holder_of(group: str) -> PlacementGroupResourceManager:
    manager = PlacementGroupResourceManager()
    manager._acquired_pgs.add(group)
    return manager


def test_a_manager_that_is_forgotten_asks_ray_for_nothing(removed: list[Any]) -> None:
    run._mend_tune()
    manager = holder_of("group")
    del manager
    assert removed == []


def test_a_loop_that_ends_in_order_removes_its_groups(removed: list[Any]) -> None:
    run._mend_tune()
    holder_of("group").clear()
    assert removed == ["group"]
