"""Load of a cluster's nodes, a sample of each every ten seconds, for as long as a search runs.

The driver's thread reads its own node. On every other node one actor without CPUs reads. It is asked and not waited
for: its answer is taken at the next sample. A node that joins is asked from then on; a dead one has no more samples.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, NamedTuple, Self

import psutil
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from harness.connection import ray_away

EVERY_S, FIRST_S = 10.0, 1.0
PATIENCE_S = 5.0
"""How long the end of a search waits for a sample that is being taken."""
MEGA = 1e6

Reading = Mapping[str, float]

log = logging.getLogger(__name__)


class Counters(NamedTuple):
    """Counters of a machine since it was started: seconds, CPU seconds, bytes."""

    time: float
    cpu: float
    busy: float
    received: int
    sent: int


class Meter:
    """Reads the machine that it is created on. Rates are those since the reading before."""

    def __init__(self, nvml: Any = None) -> None:
        """Begin to count. `nvml` is NVIDIA's library, by default the machine's, if it has one."""
        self._before = self._count()
        self._nvml = nvml or _nvml()

    def read(self) -> dict[str, float]:
        """Return percentages, megabytes (10^6) and megabytes a second, under the names that MLflow itself uses."""
        memory, disk, before, now = psutil.virtual_memory(), psutil.disk_usage(os.sep), self._before, self._count()
        self._before, elapsed_s = now, max(now.time - before.time, 1e-3)
        cpu = (now.busy - before.busy) / max(now.cpu - before.cpu, 1e-3)
        return {
            "cpu_utilization_percentage": 100 * min(1.0, max(0.0, cpu)),
            "system_memory_usage_megabytes": memory.used / MEGA,
            "system_memory_usage_percentage": memory.percent,
            "disk_usage_percentage": disk.percent,
            "disk_available_megabytes": disk.free / MEGA,
            "network_receive_megabytes_per_s": (now.received - before.received) / MEGA / elapsed_s,
            "network_transmit_megabytes_per_s": (now.sent - before.sent) / MEGA / elapsed_s,
            **_cards(self._nvml),
        }

    def _count(self) -> Counters:
        network, times = psutil.net_io_counters(), psutil.cpu_times()
        cpu = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)  # counted as user time, too
        idle = times.idle + getattr(times, "iowait", 0.0)
        return Counters(time.monotonic(), cpu, cpu - idle, network.bytes_recv, network.bytes_sent)


def _nvml() -> Any:
    """Return NVIDIA's library, ready to be asked, as Ray brings it along; none where there is no driver."""
    with suppress(Exception):
        from ray._private.thirdparty import pynvml

        pynvml.nvmlInit()
        return pynvml
    return None


def _cards(nvml: Any) -> dict[str, float]:
    """Return the readings of this machine's GPUs; what a card does not tell is left out."""
    reading: dict[str, float] = {}
    with suppress(Exception):  # no library, or the driver is gone
        for index in range(nvml.nvmlDeviceGetCount()):
            card = nvml.nvmlDeviceGetHandleByIndex(index)
            for read in (_utilization, _memory, _power):
                with suppress(Exception):
                    reading |= {f"gpu_{index}_{name}": value for name, value in read(nvml, card).items()}
    return reading


def _utilization(nvml: Any, card: Any) -> dict[str, float]:
    return {"utilization_percentage": float(nvml.nvmlDeviceGetUtilizationRates(card).gpu)}


def _memory(nvml: Any, card: Any) -> dict[str, float]:
    memory = nvml.nvmlDeviceGetMemoryInfo(card)
    return {
        "memory_usage_megabytes": memory.used / MEGA,
        "memory_usage_percentage": 100 * memory.used / memory.total,
    }


def _power(nvml: Any, card: Any) -> dict[str, float]:
    milliwatts, most = nvml.nvmlDeviceGetPowerUsage(card), nvml.nvmlDeviceGetEnforcedPowerLimit(card)
    return {"power_usage_watts": milliwatts / 1000, "power_usage_percentage": 100 * milliwatts / most}


class RayNodes:
    """The nodes of the active Ray session, named by their hosts."""

    def __init__(self) -> None:
        self._here = ray.get_runtime_context().get_node_id()
        self._meter = Meter()
        self._names: dict[str, str] = {}
        self._actors: dict[str, Any] = {}
        self._answers: dict[str, Any] = {}

    def sample(self) -> Iterator[tuple[str, Reading]]:
        """Yield what was asked for at the last sample and has been answered, and this node's own reading."""
        if ray_away() is not None:  # a GCS that is gone would be waited for
            return
        alive = {node["NodeID"]: node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"]}
        for node in self._actors.keys() - alive.keys():
            self._forget(node)
        for node, host in alive.items():
            self._names.setdefault(node, f"{host}-{node[:6]}" if host in self._names.values() else host)
            reading = self._meter.read() if node == self._here else self._exchange(node)
            if reading:
                yield self._names[node], reading

    def close(self) -> None:
        """End the actors; where Ray is gone they have ended."""
        if ray_away() is not None:
            return
        for actor in self._actors.values():
            ray.kill(actor)

    def _exchange(self, node: str) -> Reading | None:
        """Return a node's answer, if it is there, and ask again unless one is still awaited."""
        reading: Reading | None = None
        if node in self._answers:
            if not ray.wait([self._answers[node]], timeout=0)[0]:
                return None
            try:
                reading = ray.get(self._answers.pop(node))
            except ray.exceptions.RayError as error:
                log.debug("node %s does not answer: %s", self._names[node], error)
                self._forget(node)
        if node not in self._actors:
            place = NodeAffinitySchedulingStrategy(node, soft=False)
            self._actors[node] = ray.remote(num_cpus=0)(Meter).options(scheduling_strategy=place).remote()
        self._answers[node] = self._actors[node].read.remote()
        return reading

    def _forget(self, node: str) -> None:
        self._actors.pop(node, None)
        self._answers.pop(node, None)


def ray_nodes() -> RayNodes | None:
    """Return the nodes of the active Ray session; none without one."""
    return RayNodes() if ray.is_initialized() else None


class NodeMetrics:
    """A context in which a thread samples nodes; where Ray does not run here, it does nothing."""

    def __init__(
        self,
        record: Callable[[str, Reading], object],
        every_s: float = EVERY_S,
        find: Callable[[], RayNodes | None] = ray_nodes,
    ) -> None:
        """Prepare. `record` takes a node's name and its reading; `find` is called when the context is entered."""
        self._record, self._every_s, self._find = record, every_s, find
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        nodes = self._find()
        if nodes is not None:
            self._thread = threading.Thread(target=self._work, args=(nodes,), name="s4-nodes", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join(PATIENCE_S)

    def _work(self, nodes: RayNodes) -> None:
        wait_s = min(FIRST_S, self._every_s)
        while not self._ended.wait(wait_s):
            wait_s = self._every_s
            try:
                for node, reading in nodes.sample():
                    self._record(node, reading)
            except Exception as error:  # no search is lost for a sample
                log.debug("no sample of the nodes: %s", error)
        nodes.close()
