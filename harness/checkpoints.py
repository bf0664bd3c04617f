"""What lies in the folder of a trial. Imports nothing: thin processes read it."""

from __future__ import annotations

from pathlib import Path

LATEST, PREVIOUS, NEXT = "latest.pt", "previous.pt", "next.pt"
"""A trial's checkpoint, the one before it, for the case that the newer cannot be read, and the one being written."""
APART = "step-*.pt"
"""States that a scheduler had saved, to come back to or to clone."""


def checkpoint_folder(root: Path, number: int) -> Path:
    """Return where a trial's checkpoints lie, below the search's."""
    return root / f"{number:05d}"


def apart(folder: Path, step: int) -> Path:
    """Return the name of a state that is saved apart; names sort by step."""
    return folder / APART.replace("*", f"{step:08d}")
