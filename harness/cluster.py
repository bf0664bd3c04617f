"""The nodes of the Ray that is connected, and the slots for workers."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import socket
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
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


@dataclass(frozen=True)
class WorkerResources:
    """What a worker takes of its node."""

    use_gpu: bool = False
    cpus_per_worker: int | None = None
    """CPUs, and threads that compute and that decode; none: a CPU, and threads as they are chosen otherwise."""
    gangs_per_gpu: int = 1
    """How many gangs of one worker share a GPU."""

    @property
    def cpus(self) -> int:
        """That it takes."""
        return self.cpus_per_worker or 1

    @property
    def threads(self) -> int | None:
        """That compute; none: as torch chooses beside a GPU."""
        return self.cpus_per_worker or (None if self.use_gpu else 1)

    @property
    def unit(self) -> str:
        """What workers are put on: `CPU` or `GPU`."""
        return "GPU" if self.use_gpu else "CPU"

    @property
    def devices(self) -> float:
        """GPUs that it holds, or CPUs."""
        return 1 / self.gangs_per_gpu if self.use_gpu else self.cpus

    @property
    def for_ray(self) -> dict[str, float]:
        """As Ray's resources, which it counts to four digits."""
        return {"CPU": self.cpus} | ({"GPU": int(1e4 / self.gangs_per_gpu) / 1e4} if self.use_gpu else {})

    def fit(self, resources: Mapping[str, float]) -> int:
        """Return how many such workers a node of these resources holds."""
        by_cpu = int(resources.get("CPU", 0)) // self.cpus
        return min(by_cpu, int(resources.get("GPU", 0)) * self.gangs_per_gpu) if self.use_gpu else by_cpu


def check_fit(gangs: int, workers_per_gang: int, worker: WorkerResources, nodes: ClusterNodes | None = None) -> None:
    """Refuse gangs that the cluster could never hold all at once: the search would wait for ever.

    Args:
        nodes: Of the cluster; none: it is asked.

    Raises:
        UsageError: with the numbers.
    """
    here = cluster_nodes() if nodes is None else nodes
    workers = gangs * workers_per_gang
    for resource, share in worker.for_ray.items():
        need, have = workers * share, int(sum(node.resources.get(resource, 0) for node in here.nodes))
        if need > have:
            raise UsageError(
                f"{gangs} gangs of {workers_per_gang} need {need:.4g} {resource}s, the cluster has {have}: "
                "use fewer gangs, workers per gang or CPUs per worker, or a larger cluster"
            )
    slots = Slots(here.fit(worker), worker.unit, worker.cpus_per_worker, worker.gangs_per_gpu)
    if workers > slots.count:
        raise UsageError(
            f"{gangs} gangs of {workers_per_gang} must find {counted(worker.cpus, 'CPU')} a worker on nodes that stay, "
            f"the cluster has {slots.words}: use fewer gangs, workers per gang or CPUs per worker, or larger nodes"
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

    def fit(self, worker: WorkerResources) -> int:
        """Return how many such workers the nodes that stay can hold."""
        return sum(worker.fit(node.resources) for node in self.nodes if not node.leaving)

    def held(self, workers: int, worker: WorkerResources) -> dict[str, float]:
        """Return the devices that so many workers hold, by the card's name: `CPU`, or `GPU` where Ray has no name.

        Where cards of several types are not all held, each type counts by its share of the places.
        """
        cards = Counter[str]()
        for node in (node for node in self.nodes if not node.leaving):
            card = next(_cards(node.resources), worker.unit) if worker.use_gpu else worker.unit
            cards[card] += worker.fit(node.resources)
        share = min(workers / max(cards.total(), 1), 1.0) * worker.devices
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
        found = {}
        for address, answer in answers.items():
            with suppress(ray.exceptions.TaskUnschedulableError):  # the node was dead, which the GCS learns late
                found[address] = ray.get(answer)
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
    """Workers that fit."""
    unit: str
    """`CPU` or `GPU`."""
    cpus: int | None = None
    """Of each worker; none: 1, and threads as they are chosen otherwise."""
    gangs_per_gpu: int = 1

    @property
    def worker(self) -> WorkerResources:
        """What a worker on one of them takes."""
        return WorkerResources(self.unit == "GPU", self.cpus, self.gangs_per_gpu)

    @property
    def words(self) -> str:
        """For people: `4 GPUs`, `2 places of 4 CPUs`, `8 places of 1/4 GPU and 1 CPU`."""
        if self.gangs_per_gpu == 1 and self.worker.cpus == 1:
            return counted(self.count, self.unit)
        gpu = "a GPU" if self.gangs_per_gpu == 1 else f"1/{self.gangs_per_gpu} GPU"
        each = [gpu] * self.worker.use_gpu + [counted(self.worker.cpus, "CPU")]
        return f"{counted(self.count, 'place')} of {' and '.join(each)}"


@dataclass(frozen=True)
class Allocation:
    """Gangs of workers, and what a worker takes."""

    gangs: int = 1
    workers_per_gang: int = 1
    most_gangs: int = 0
    """Gangs are added up to this number where nodes join; 0: none is."""
    worker: WorkerResources = WorkerResources()

    @property
    def words(self) -> str:
        """For people: `2 gangs x 1 worker`."""
        return f"{counted(self.gangs, 'gang')} x {counted(self.workers_per_gang, 'worker')}"


def allocate(slots: Slots, workers: int, gangs: int | None, trials: int) -> Allocation:
    """Return gangs as wished, or as many as fit, more where nodes join; but no more than there are trials.

    Raises:
        UsageError: they do not fit, or gangs of several workers are to share GPUs.
    """
    if slots.gangs_per_gpu > 1 and workers > 1:  # NCCL refuses two ranks on one GPU, and a gang's could meet there
        raise UsageError(
            f"gangs that share a GPU must have one worker, got --gangs-per-gpu {slots.gangs_per_gpu} and --workers "
            f"{workers}: leave one of them out"
        )
    most = trials if gangs is None else 0
    return Allocation(gang_count(slots, workers, gangs, trials), workers, most, slots.worker)


def gang_count(slots: Slots, workers: int, wished: int | None, trials: int) -> int:
    """Return how many gangs to start: as wished, or as many as fit, but no more than there are trials.

    Raises:
        UsageError: they do not fit.
    """
    fit = slots.count // workers
    needed = (wished or 1) * workers
    if needed > slots.count:
        raise UsageError(
            f"gangs x workers must be at most the {slots.words} there are, got {wished or 1} x {workers} = {needed}: "
            f"lower --gangs or --workers{' or --cpus-per-worker' * (slots.worker.cpus > 1)}"
        )
    return min(wished or fit, trials)


def cores() -> int:
    """Return how many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def local_slots(cpus: int | None = None, gangs_per_gpu: int = 1) -> Slots:
    """Return the places for workers on this machine's GPUs, or where it has none on its CPUs.

    Args:
        cpus: Of each worker; none: 1.
        gangs_per_gpu: How many gangs share a GPU.

    Raises:
        UsageError: the CPUs are no number, or there is no GPU to share.
    """
    here = Node("", "", {"CPU": cores(), "GPU": _gpus()})
    return _slots(ClusterNodes((here,)), cpus, gangs_per_gpu)


def _gpus() -> int:
    """Return how many GPUs torch sees; it is not loaded, which takes a second, where the system has no such device."""
    if sys.platform.startswith("linux") and "torch" not in sys.modules:
        kinds = ("nvidia*", "nvhost*", "nvmap", "kfd", "dxg")
        if not any(any(Path("/dev").glob(kind)) for kind in kinds):
            return 0
    import torch

    return torch.cuda.device_count()


def cluster_slots(cpus: int | None = None, gangs_per_gpu: int = 1) -> Slots:
    """Return the places for workers in the cluster that was joined, as `local_slots`."""
    return _slots(cluster_nodes(), cpus, gangs_per_gpu)


def _slots(nodes: ClusterNodes, cpus: int | None, gangs_per_gpu: int) -> Slots:
    if cpus is not None and cpus < 1:
        raise UsageError(f"--cpus-per-worker must be at least 1, got {cpus}: give more, or leave it out")
    use_gpu = any(node.resources.get("GPU", 0) >= 1 for node in nodes.nodes)
    if gangs_per_gpu > 1 and not use_gpu:
        raise UsageError(f"--gangs-per-gpu {gangs_per_gpu} must have GPUs to share, there are none: leave it out")
    worker = WorkerResources(use_gpu, cpus, gangs_per_gpu)
    return Slots(nodes.fit(worker), worker.unit, cpus, gangs_per_gpu)


def machine(worker: WorkerResources) -> dict[str, str]:
    """Return what a session trains on and with, for people: devices and versions. A Ray session must be active."""
    there = [int(node.resources.get(worker.unit, 0)) for node in cluster_nodes().nodes]
    cards = ", ".join(_cards(ray.cluster_resources()))
    hosts = counted(sum(count >= 1 for count in there), "host")
    devices = counted(sum(there), worker.unit) + (f" ({cards})" if cards else "") + f" on {hosts}"
    shared = {"sharing": f"{worker.gangs_per_gpu} gangs a GPU"} if worker.gangs_per_gpu > 1 else {}
    software = [f"{name} {importlib.metadata.version(name)}" for name in ("torch", "ray")]
    return {"devices": devices, **shared, "software": ", ".join([*software, f"Python {platform.python_version()}"])}
