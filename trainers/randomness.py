"""Random generators as arguments: each is a pure function of what it is for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive_seed(seed: int, purpose: str, *keys: int) -> int:
    """Return a 63-bit seed that differs for every (seed, purpose, keys); stable across processes and versions."""
    text = f"{seed}/{purpose}/{'/'.join(str(key) for key in keys)}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, purpose: str, *keys: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a fresh generator for one purpose, such as ("augment", step) or ("contrast", rank, step).

    Nothing that is random crosses a step, so a resumed run draws what the uninterrupted one would have drawn.
    """
    return torch.Generator(device).manual_seed(derive_seed(seed, purpose, *keys))


@contextmanager
def seeded(seed: int, purpose: str, *keys: int, device: torch.device) -> Iterator[None]:
    """Let layers that draw from a device's global generator draw within as `generator` would; put its state back."""
    on_cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_cuda else []):
        global_generator = torch.cuda if on_cuda else torch.default_generator
        global_generator.manual_seed(derive_seed(seed, purpose, *keys))
        yield
