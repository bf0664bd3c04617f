"""The nodes of the Ray that is connected, and the slots for workers."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import socket
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from harness.connection import KNOCK_TIMEOUT_S
from harness.formats import counted
from trainers.errors import UsageError

PROGRAMS = ("s4-harness", "torch", "ray", "numpy")
"""Packages that must be of one version everywhere."""
SURVEY_TIMEOUT_S = 60.0
"""How long a node may take to start a process and answer."""
VISIBLE_S = 10.0
"""How long a file may take to be seen on another node: network file systems cache what folders hold."""


def check_fit(gangs: int, workers_per_gang: int, use_gpu: bool, resources: Mapping[str, float] | None = None) -> None:
    """Refuse gangs that the cluster could never hold all at once: the search would wait for ever.

    Raises:
        UsageError: with the numbers.
    """
    here = ray.cluster_resources() if resources is None else resources
    workers = gangs * workers_per_gang
    for resource in ("CPU", "GPU") if use_gpu else ("CPU",):
        have = int(here.get(resource, 0))
        if workers > have:
            raise UsageError(
                f"{gangs} gangs of {workers_per_gang} need {workers} {resource}s, the cluster has {have}: "
                "use fewer gangs or workers per gang, or a larger cluster"
            )


@dataclass(frozen=True)
class Node:
    """A node that is alive."""

    id: str
    address: str
    resources: Mapping[str, float]
    leaving: bool = False
    """Whether it is being drained: it runs what it runs, and will be gone soon."""
    port: int = 0
    """At which its raylet listens."""


class ClusterNodes(NamedTuple):
    """The cluster's living nodes at one moment."""

    nodes: tuple[Node, ...]

    @property
    def ids(self) -> frozenset[str]:
        """Of the nodes."""
        return frozenset(node.id for node in self.nodes)

    @property
    def leaving(self) -> frozenset[str]:
        """Ids of the nodes that will be gone soon."""
        return frozenset(node.id for node in self.nodes if node.leaving)

    def slots(self, unit: str) -> int:
        """Return how many workers of one CPU or GPU each (`unit`) the nodes that stay can hold."""
        return sum(int(node.resources.get(unit, 0)) for node in self.nodes if not node.leaving)

    def held(self, workers: int, unit: str) -> dict[str, float]:
        """Return what workers of one CPU or GPU each hold, by the card's name, `CPU`, or `GPU` where Ray has no name.

        Where cards of several types are not all held, each type counts by its share of the slots.
        """
        cards = Counter[str]()
        for node in (node for node in self.nodes if not node.leaving):
            card = next(_cards(node.resources), unit) if unit == "GPU" else unit
            cards[card] += int(node.resources.get(unit, 0))
        share = min(workers / max(cards.total(), 1), 1.0)
        return {card: count * share for card, count in cards.items() if count}


def _cards(resources: Mapping[str, float]) -> Iterator[str]:
    """Yield the names of types of cards, as Ray writes them among resources."""
    yield from (name.partition(":")[2] for name in resources if name.startswith("accelerator_type:"))


def cluster_nodes() -> ClusterNodes:
    """Ask the cluster for its nodes; takes milliseconds."""
    draining = ray._private.state.state.get_draining_nodes()
    nodes = []
    for node in (node for node in ray.nodes() if node["Alive"]):
        name, address, port = node["NodeID"], node["NodeManagerAddress"], node["NodeManagerPort"]
        nodes.append(Node(name, address, node["Resources"], name in draining, port))
    return ClusterNodes(tuple(nodes))


def reachable(nodes: ClusterNodes) -> ClusterNodes:
    """Return the nodes whose raylets take a connection: Ray goes on believing in a node after its death."""
    return ClusterNodes(tuple(node for node in nodes.nodes if _answers(node)))


def _answers(node: Node) -> bool:
    try:
        socket.create_connection((node.address, node.port), timeout=KNOCK_TIMEOUT_S).close()
    except OSError:
        return False
    return True


def check_nodes(folder: Path) -> None:
    """Refuse nodes that do not see the storage folder, or run other programs, before anything is trained.

    Nodes without CPUs for work are left out. One node alone needs no check.

    Raises:
        UsageError: which nodes, and what is different there.
    """
    here = ray.get_runtime_context().get_node_id()
    others = [node for node in cluster_nodes().nodes if node.id != here and node.resources.get("CPU", 0) >= 1]
    if not others:
        return
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f".seen-{uuid.uuid4().hex}"
    probe.write_text("")
    try:
        answers = {node.address: _ask(node, probe) for node in others}
        _refuse_silent(answers)
        found = {address: ray.get(answer) for address, answer in answers.items()}
    finally:
        for file in folder.glob(f"{probe.name}*"):
            file.unlink(missing_ok=True)
    blind = [address for address, answer in found.items() if not answer["sees"]]
    if blind:
        raise UsageError(
            f"all nodes must see the same folder {folder}, {_listed(blind)} cannot read or write this one's files "
            "there: give --storage a folder of a shared file system, mounted at the same path on every node"
        )
    ours = _programs()
    for address, answer in found.items():
        for name, version in ours.items():
            if answer["programs"][name] != version:
                raise UsageError(
                    f"all nodes must run the same {name}, {address} has {answer['programs'][name]} and this one "
                    f"{version}: install the same environment there"
                )


def _ask(node: Node, probe: Path) -> Any:
    strategy = NodeAffinitySchedulingStrategy(node.id, soft=False)
    return ray.remote(num_cpus=0, max_retries=0)(_answer).options(scheduling_strategy=strategy).remote(str(probe))


def _answer(probe: str) -> dict[str, Any]:
    path = Path(probe)
    deadline = time.monotonic() + VISIBLE_S
    while not (sees := path.exists()) and path.parent.exists() and time.monotonic() < deadline:
        time.sleep(0.5)
    if sees:
        try:
            path.with_name(f"{path.name}-{uuid.uuid4().hex}").write_text("")
        except OSError:
            sees = False
    return {"sees": sees, "programs": _programs()}


def _programs() -> dict[str, str]:
    return {"Python": platform.python_version(), **{name: importlib.metadata.version(name) for name in PROGRAMS}}


def _refuse_silent(answers: Mapping[str, Any]) -> None:
    done, _ = ray.wait(list(answers.values()), num_returns=len(answers), timeout=SURVEY_TIMEOUT_S)
    silent = [address for address, answer in answers.items() if answer not in done]
    if silent:
        raise UsageError(
            f"all nodes must be able to start a Python process, {_listed(silent)} did not within {SURVEY_TIMEOUT_S:g} "
            "s: look at ray's logs there (/tmp/ray/session_latest/logs), or take the nodes out of the cluster"
        )


def _listed(addresses: list[str]) -> str:
    return ", ".join(sorted(addresses))


@dataclass(frozen=True)
class Slots:
    """What workers can be put on."""

    count: int
    unit: str
    """`CPU` or `GPU`."""


@dataclass(frozen=True)
class Allocation:
    """Gangs of workers, a CPU or a GPU each."""

    gangs: int = 1
    workers_per_gang: int = 1
    most_gangs: int = 0
    """Gangs are added up to this number where nodes join; 0: none is."""
    use_gpu: bool = False

    @property
    def words(self) -> str:
        """For people: `2 gangs x 1 worker`."""
        return f"{counted(self.gangs, 'gang')} x {counted(self.workers_per_gang, 'worker')}"


def allocate(slots: Slots, workers: int, gangs: int | None, trials: int) -> Allocation:
    """Return gangs as wished, or as many as fit, more where nodes join; but no more than there are trials.

    Raises:
        UsageError: they do not fit.
    """
    most = trials if gangs is None else 0
    return Allocation(gang_count(slots, workers, gangs, trials), workers, most, slots.unit == "GPU")


def gang_count(slots: Slots, workers: int, wished: int | None, trials: int) -> int:
    """Return how many gangs to start: as wished, or as many as fit, but no more than there are trials.

    Raises:
        UsageError: they do not fit.
    """
    fit = slots.count // workers
    needed = (wished or 1) * workers
    if needed > slots.count:
        raise UsageError(
            f"gangs x workers must be at most the {slots.count} {slots.unit}s there are, got {wished or 1} x {workers} "
            f"= {needed}: lower --gangs or --workers"
        )
    return min(wished or fit, trials)


def cores() -> int:
    """Return how many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def local_slots() -> Slots:
    """Return this machine's GPUs, or its CPUs where it has none."""
    import torch

    gpus = torch.cuda.device_count()
    return Slots(gpus, "GPU") if gpus else Slots(cores(), "CPU")


def cluster_slots() -> Slots:
    """Return the GPUs of the cluster that was joined, or its CPUs where it has none."""
    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0))
    return Slots(gpus, "GPU") if gpus else Slots(int(resources.get("CPU", 0)), "CPU")


def machine() -> dict[str, str]:
    """Return what a session trains on and with, for people: devices and versions. A Ray session must be active."""
    slots, resources = cluster_slots(), ray.cluster_resources()
    cards = ", ".join(_cards(resources))
    hosts = sum(node.resources.get(slots.unit, 0) >= 1 for node in cluster_nodes().nodes)
    devices = counted(slots.count, slots.unit) + (f" ({cards})" if cards else "") + f" on {counted(hosts, 'host')}"
    software = [f"{name} {importlib.metadata.version(name)}" for name in ("torch", "ray")]
    return {"devices": devices, "software": ", ".join([*software, f"Python {platform.python_version()}"])}
