"""What a search or a training can run on: GPUs, or CPUs where there are none."""

from __future__ import annotations

from dataclasses import dataclass

from harness.cli.options import cores
from trainers.errors import UsageError


@dataclass(frozen=True)
class Slots:
    """What workers can be put on."""

    count: int
    unit: str
    """`CPU` or `GPU`."""


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
            f"= {needed}: lower --gangs or --workers-per-gang"
        )
    return min(wished or fit, trials)


def local_slots() -> Slots:
    """Return this machine's GPUs, or its CPUs where it has none."""
    import torch

    gpus = torch.cuda.device_count()
    return Slots(gpus, "GPU") if gpus else Slots(cores(), "CPU")


def cluster_slots() -> Slots:
    """Return the GPUs of the cluster that was joined, or its CPUs where it has none."""
    import ray

    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0))
    return Slots(gpus, "GPU") if gpus else Slots(int(resources.get("CPU", 0)), "CPU")
