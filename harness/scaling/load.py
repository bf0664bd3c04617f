"""What else a machine does while something is measured on it."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Use(NamedTuple):
    """What a rank's machine did while the rank trained."""

    machine: str
    """The same for ranks on one kernel, whatever network they live in."""
    machine_cpu_s: float
    """Of all processes."""
    own_cpu_s: float
    elapsed_s: float


class Load:
    """Looks at the machine from now until `stop`."""

    def __init__(self) -> None:
        self._begun = self._look()

    def stop(self) -> Use:
        """Return what happened."""
        machine, own, now = self._look()
        return Use(_machine(), machine - self._begun[0], own - self._begun[1], now - self._begun[2])

    def _look(self) -> tuple[float, float, float]:
        import psutil

        times = psutil.cpu_times()
        idle = times.idle + getattr(times, "iowait", 0.0)
        return sum(times[:8]) - idle, time.process_time(), time.perf_counter()  # what follows is counted twice there


def others_cores(uses: Sequence[Use]) -> float:
    """Return how many CPUs were busy with anything but the ranks; of the machine where most were."""
    machines: dict[str, list[Use]] = {}
    for use in uses:
        machines.setdefault(use.machine, []).append(use)
    return max(
        (here[0].machine_cpu_s - sum(use.own_cpu_s for use in here)) / here[0].elapsed_s for here in machines.values()
    )


def _machine() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id")
    return boot.read_text().strip() if boot.exists() else platform.node()
