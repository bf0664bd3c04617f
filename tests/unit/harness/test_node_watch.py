"""What gangs are told of nodes that die, leave or join, on a cluster made of values."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from harness.cluster import ClusterNodes, Node, WorkerResources, reachable
from harness.gangs import pool as nodes
from harness.gangs.pool import NodeMonitor


class Told:
    """Stands for the Dispatcher's handle, or the pool: writes down what is called."""

    worker = WorkerResources()

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def fit_to(self, slots: int) -> None:
        self.calls.append(("fit_to", slots))

    def __getattr__(self, name: str) -> Any:
        method = type("Method", (), {"remote": lambda _, value: self.calls.append((name, value))})
        return method()


def node(name: str, cpus: float = 2, leaving: bool = False) -> Node:
    return Node(name, f"address of {name}", {"CPU": cpus}, leaving)


def told(*moments: ClusterNodes) -> list[tuple[str, Any]]:
    """Return what is told while the cluster goes through these moments."""
    shown, here = list(moments), Told()
    watch = NodeMonitor(here, here, lambda: shown.pop(0))  # type: ignore[arg-type]
    while shown:
        watch.check()
    return here.calls


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "LOOK_S", 0.0)


def test_a_cluster_that_stays_the_same_is_only_fitted_to() -> None:
    still = ClusterNodes((node("a"), node("b", 3)))
    assert told(still, still) == [("fit_to", 5)]


def test_nodes_that_are_gone_are_lost() -> None:
    assert told(ClusterNodes((node("a"), node("b"))), ClusterNodes((node("a"),))) == [
        ("nodes_lost", ["b"]),
        ("fit_to", 2),
    ]


def test_a_leaving_node_is_told_of_once_and_holds_nothing_new() -> None:
    leaving = ClusterNodes((node("a"), node("b", leaving=True)))
    calls = told(ClusterNodes((node("a"), node("b"))), leaving, leaving)
    assert calls == [("nodes_leaving", ["b"]), ("fit_to", 2), ("fit_to", 2)]


def test_a_node_answers_while_its_raylet_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as raylet:
        here = Node("a", "127.0.0.1", {"CPU": 2}, port=raylet.getsockname()[1])
        assert reachable(ClusterNodes((here,))).ids == {"a"}
    assert reachable(ClusterNodes((here,))).ids == set()


def test_slots_are_whole_workers_of_each_node() -> None:
    assert ClusterNodes((node("a", 1.5), node("b", 0.5), node("c", 2))).fit(WorkerResources()) == 3


def test_a_slot_of_several_cpus_is_within_a_node_and_beside_a_gpu_of_its_own() -> None:
    nodes = ClusterNodes((node("a", 7), node("b", 5), Node("c", "10.0.0.3", {"CPU": 9.0, "GPU": 2.0})))
    assert nodes.fit(WorkerResources(cpus_per_worker=3)) == 2 + 1 + 3
    assert [nodes.fit(WorkerResources(True, cpus)) for cpus in (1, 4, 5, 10)] == [2, 2, 1, 0]
