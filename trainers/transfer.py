"""From the host to a rank's device, without a wait."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Return the tensor on the device; to CUDA through page-locked memory, so that the host does not wait.

    It keeps its type: a change of type is for the device, after fewer bytes have crossed.
    """
    pinned = tensor.pin_memory() if (tensor.device.type, device.type) == ("cpu", "cuda") else tensor
    return pinned.to(device, non_blocking=True)


def send_together(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Return the tensors, float32 or bool, on the device, in one copy: of small ones each takes as long as all."""
    packed = send(torch.cat([tensor.flatten().float() for tensor in tensors]), device)
    parts = torch.split(packed, [tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape).to(tensor.dtype) for part, tensor in zip(parts, tensors, strict=True)]
