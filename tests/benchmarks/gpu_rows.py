"""What a measurement of a card is made of: where it runs, and rows of results."""

from __future__ import annotations

import gc
from typing import NamedTuple

import torch

NEEDS_CUDA = "needs CUDA"
NOT_QUICK = "left out by --quick"
FAILED = "failed: "
"""How the reason of a row begins that should have had a figure."""


class Setting(NamedTuple):
    """Where and how thoroughly a part is measured."""

    device: torch.device
    quick: bool = False
    """Smallest sizes: shows that it works, measures nothing."""

    @property
    def cuda(self) -> bool:
        """Whether the device is a card of CUDA."""
        return self.device.type == "cuda"

    def of(self, quick: int, cpu: int, cuda: int) -> int:
        """Return the size or number that fits."""
        return quick if self.quick else cuda if self.cuda else cpu


class Row(NamedTuple):
    """A figure, or the reason why there is none."""

    what: str
    value: float | None
    unit: str = ""
    bound: float | None = None
    """What the measured ceilings of the device, or a count made beforehand, allow; in the same unit."""
    note: str = ""
    of: str = ""
    """What was measured, where a part measures several: rows with the same words are shown together."""


def missing(what: str, reason: str, of: str = "") -> Row:
    """Return a row without a figure."""
    return Row(what, None, note=reason, of=of)


def failed(what: str, error: Exception, of: str = "") -> Row:
    """Return a row that says what went wrong, on a line."""
    return missing(what, f"{FAILED}{type(error).__name__}: {' '.join(str(error).split())[:500]}", of)


def tidy(device: torch.device) -> None:
    """Collect garbage, and give the card back what no tensor needs: other processes may."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def live_bytes(device: torch.device) -> int:
    """Return the bytes of all tensors that are alive on the device, once it is tidy."""
    tidy(device)
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    storages = {}
    for one in gc.get_objects():
        if issubclass(type(one), torch.Tensor) and one.device.type == "cpu" and one.layout is torch.strided:
            storage = one.untyped_storage()
            storages[storage._cdata] = storage.nbytes()
    return sum(storages.values())
