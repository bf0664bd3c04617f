"""The nodes of the Ray that is connected, and the slots for workers."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import socket
import time
import uuid
from collections.abc import Mapping
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
    gangs_per_gpu: int = 1
    """How many gangs of one worker share a GPU."""
    cpus: int = 1

    @property
    def unit(self) -> str:
        """What workers are counted by: `CPU` or `GPU`."""
        return "GPU" if self.use_gpu else "CPU"

    @property
    def devices(self) -> float:
        """GPUs that a worker holds, or CPUs."""
        return 1 / self.gangs_per_gpu if self.use_gpu else self.cpus

    @property
    def for_ray(self) -> dict[str, float]:
        """As Ray's resources, which it counts to four digits."""
        return {"CPU": self.cpus} | ({"GPU": int(1e4 / self.gangs_per_gpu) / 1e4} if self.use_gpu else {})

    def fit(self, resources: Mapping[str, float]) -> int:
        """Return how many workers these resources hold."""
        by_cpu = int(resources.get("CPU", 0)) // self.cpus
        return min(by_cpu, int(resources.get("GPU", 0)) * self.gangs_per_gpu) if self.use_gpu else by_cpu

    @property
    def words(self) -> str:
        """What is not as usual, for people: `4 gangs a GPU, 2 CPUs a worker`; "" where nothing is."""
        shared = f"{self.gangs_per_gpu} gangs a GPU" if self.gangs_per_gpu > 1 else ""
        return ", ".join(filter(None, [shared, f"{self.cpus} CPUs a worker" if self.cpus > 1 else ""]))


def check_fit(
    gangs: int, workers_per_gang: int, worker: WorkerResources, resources: Mapping[str, float] | None = None
) -> None:
    """Refuse gangs that the cluster could never hold all at once: the search would wait for ever.

    Raises:
        UsageError: with the numbers.
    """
    here = ray.cluster_resources() if resources is None else resources
    workers = gangs * workers_per_gang
    for resource, share in worker.for_ray.items():
        need, have = workers * share, int(here.get(resource, 0))
        if need > have:
            raise UsageError(
                f"{gangs} gangs of {workers_per_gang} need {need:.4g} {resource}s, the cluster has {have}: "
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

    def fit(self, worker: WorkerResources) -> int:
        """Return how many such workers the nodes that stay can hold."""
        return sum(worker.fit(node.resources) for node in self.nodes if not node.leaving)


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
    cpus: int | None = None
    """Beside GPUs; none: as many as are asked for."""

    @property
    def use_gpu(self) -> bool:
        """Whether workers have GPUs."""
        return self.unit == "GPU"

    def fit(self, worker: WorkerResources) -> int:
        """Return how many workers can be put on them."""
        if not self.use_gpu:
            return worker.fit({"CPU": self.count})
        cpus = self.count * worker.gangs_per_gpu * worker.cpus if self.cpus is None else self.cpus
        return worker.fit({"GPU": self.count, "CPU": cpus})


@dataclass(frozen=True)
class Allocation:
    """Gangs of workers, and what a worker takes."""

    gangs: int = 1
    workers_per_gang: int = 1
    most_gangs: int = 0
    """Gangs are added up to this number where nodes join; 0: none is."""
    worker: WorkerResources = WorkerResources()

    @property
    def devices(self) -> float:
        """GPUs or CPUs that all gangs hold."""
        return self.gangs * self.workers_per_gang * self.worker.devices

    @property
    def words(self) -> str:
        """For people: `2 gangs x 1 worker`."""
        own = f" ({self.worker.words})" if self.worker.words else ""
        return f"{counted(self.gangs, 'gang')} x {counted(self.workers_per_gang, 'worker')}{own}"


def allocate(slots: Slots, workers: int, gangs: int | None, trials: int, gangs_per_gpu: int = 1) -> Allocation:
    """Return gangs as wished, or as many as fit, more where nodes join; but no more than there are trials.

    Raises:
        UsageError: they do not fit, or cannot share GPUs.
    """
    worker = worker_on(slots, workers, gangs_per_gpu)
    return Allocation(gang_count(slots, workers, gangs, trials, worker), workers, 0 if gangs else trials, worker)


def worker_on(slots: Slots, workers: int, gangs_per_gpu: int = 1) -> WorkerResources:
    """Return what each of a gang's `workers` takes.

    Raises:
        UsageError: GPUs are to be shared where there are none, or by gangs of several workers.
    """
    if gangs_per_gpu > 1 and not slots.use_gpu:
        raise UsageError(f"--gangs-per-gpu {gangs_per_gpu} must have GPUs to share, there are none: leave it out")
    if gangs_per_gpu > 1 and workers > 1:  # NCCL refuses two ranks on one GPU, and a gang's could meet there
        raise UsageError(
            f"gangs that share a GPU must have one worker, got --gangs-per-gpu {gangs_per_gpu} and --workers "
            f"{workers}: leave one of them out"
        )
    return WorkerResources(slots.use_gpu, gangs_per_gpu)


def gang_count(slots: Slots, workers: int, wished: int | None, trials: int, worker: WorkerResources) -> int:
    """Return how many gangs to start: as wished, or as many as fit, but no more than there are trials.

    Raises:
        UsageError: they do not fit.
    """
    places = slots.fit(worker)
    needed = (wished or 1) * workers
    if needed > places:
        there = f"the {slots.count} {slots.unit}s there are"
        if places != slots.count:
            there = f"the {places} workers that {counted(slots.count, slots.unit)} and the CPUs hold"
            there += f" ({worker.words})" if worker.words else ""
        raise UsageError(
            f"gangs x workers must be at most {there}, got {wished or 1} x {workers} = {needed}: "
            "lower --gangs or --workers"
        )
    return min(wished or places // workers, trials)


def cores() -> int:
    """Return how many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def local_slots() -> Slots:
    """Return this machine's GPUs, or its CPUs where it has none."""
    import torch

    gpus = torch.cuda.device_count()
    return Slots(gpus, "GPU", cores()) if gpus else Slots(cores(), "CPU")


def cluster_slots() -> Slots:
    """Return the GPUs of the cluster that was joined, or its CPUs where it has none."""
    resources = ray.cluster_resources()
    gpus, cpus = int(resources.get("GPU", 0)), int(resources.get("CPU", 0))
    return Slots(gpus, "GPU", cpus) if gpus else Slots(cpus, "CPU")


def machine(worker: WorkerResources) -> dict[str, str]:
    """Return what a session trains on and with, for people: devices and versions. A Ray session must be active."""
    slots, resources = cluster_slots(), ray.cluster_resources()
    cards = ", ".join(name.partition(":")[2] for name in resources if name.startswith("accelerator_type:"))
    hosts = sum(node.resources.get(slots.unit, 0) >= 1 for node in cluster_nodes().nodes)
    devices = counted(slots.count, slots.unit) + (f" ({cards})" if cards else "") + f" on {counted(hosts, 'host')}"
    software = [f"{name} {importlib.metadata.version(name)}" for name in ("torch", "ray")]
    shared = {"sharing": worker.words} if worker.words else {}
    return {"devices": devices, **shared, "software": ", ".join([*software, f"Python {platform.python_version()}"])}
