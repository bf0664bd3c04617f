"""From the host to a rank's device, without a wait."""

from __future__ import annotations

import torch
from torch import Tensor


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Return the tensor on the device; to CUDA through page-locked memory, so that the host does not wait.

    Its type is another matter: change it there, for a copy of another type is made on the host first.
    """
    pinned = tensor.pin_memory() if device.type == "cuda" else tensor
    return pinned.to(device, non_blocking=True)
