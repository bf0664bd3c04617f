"""Checkpoints: written whole or not at all, read without running code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from trainers.drafts import draft_of
from trainers.errors import DataError


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write the state to `path`, atomically: a reader sees the old file or the new one, never a part.

    The draft lies beside the target, so that the rename stays on one file system; it is synced before it is renamed, so
    that a power loss leaves no empty file.
    """
    with draft_of(path) as draft, draft.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a state to the CPU. Only tensors and plain containers are accepted (`weights_only`).

    Raises:
        DataError: the file is missing or is not a checkpoint.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise DataError(f"a checkpoint must exist, got {path}: check the path") from None
    except Exception as error:  # torch raises RuntimeError, UnpicklingError, EOFError, ... for an unreadable file
        reason = str(error).partition("\n")[0] or type(error).__name__  # torch's own advice runs over many lines
        raise DataError(f"a checkpoint must be readable, got {path} ({reason}): use an older one") from error
    if not isinstance(state, dict):
        raise DataError(f"a checkpoint must hold a dictionary, got {type(state).__name__} in {path}: use another file")
    return state
