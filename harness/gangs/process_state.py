"""What one trial could leave behind in a process, and how the next is kept from seeing it."""

from __future__ import annotations

import gc
import os
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist


@dataclass(frozen=True)
class ProcessState:
    """Global settings of a process that training code may change."""

    folder: Path
    environment: dict[str, str]
    threads: int
    dtype: torch.dtype
    grad_enabled: bool
    detect_anomaly: bool
    deterministic: bool
    deterministic_warn_only: bool
    matmul_precision: str
    cudnn_benchmark: bool
    cudnn_deterministic: bool
    cudnn_allow_tf32: bool

    @classmethod
    def capture(cls) -> ProcessState:
        """Remember the settings as they are now."""
        return cls(
            folder=Path.cwd(),
            environment=dict(os.environ),
            threads=torch.get_num_threads(),
            dtype=torch.get_default_dtype(),
            grad_enabled=torch.is_grad_enabled(),
            detect_anomaly=torch.is_anomaly_enabled(),
            deterministic=torch.are_deterministic_algorithms_enabled(),
            deterministic_warn_only=torch.is_deterministic_algorithms_warn_only_enabled(),
            matmul_precision=torch.get_float32_matmul_precision(),
            cudnn_benchmark=torch.backends.cudnn.benchmark,
            cudnn_deterministic=torch.backends.cudnn.deterministic,
            cudnn_allow_tf32=torch.backends.cudnn.allow_tf32,
        )

    def restore(self) -> None:
        """Put the settings back, seed the global generators with a constant, and free what the last trial held.

        A constant seed, not the state as captured: it is the same in a process that has just been started.
        """
        gc.collect()
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        os.chdir(self.folder)
        for name in os.environ.keys() - self.environment.keys():
            del os.environ[name]
        os.environ.update(self.environment)
        torch.set_num_threads(self.threads)
        torch.set_default_dtype(self.dtype)
        torch.set_default_device(None)
        torch.autograd.set_detect_anomaly(self.detect_anomaly)
        torch.set_grad_enabled(self.grad_enabled)
        torch.use_deterministic_algorithms(self.deterministic, warn_only=self.deterministic_warn_only)
        torch.set_float32_matmul_precision(self.matmul_precision)
        torch.backends.cudnn.benchmark = self.cudnn_benchmark
        torch.backends.cudnn.deterministic = self.cudnn_deterministic
        torch.backends.cudnn.allow_tf32 = self.cudnn_allow_tf32
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002  # the legacy generator is the one that is global
        torch.manual_seed(0)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an allocator gave up: the GPU's, torch's on the CPU (a plain RuntimeError), or Python's."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


LOST_PEER = (
    "Connection reset by peer",
    "Connection closed by peer",
    "Broken pipe",
    "Timed out",
    "Connection timed out",
)
"""How Gloo says that a rank is gone (torch 2.14 raises a plain RuntimeError)."""


def is_lost_peer(error: BaseException) -> bool:
    """Return whether a collective failed because another rank is gone: nothing that the trial did."""
    if isinstance(error, dist.DistNetworkError | dist.DistBackendError):
        return True
    said = str(error)
    return isinstance(error, RuntimeError) and "gloo" in said and any(words in said for words in LOST_PEER)


def computes(device: torch.device) -> bool:
    """Return whether the device still does: after an error of the accelerator every later call fails."""
    try:
        return bool((torch.ones(2, device=device).sum() == 2).item())
    except RuntimeError:
        return False
