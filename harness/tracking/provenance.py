"""Which code produced a record."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path


def git_sha(path: Path = Path(__file__)) -> str | None:
    """Return the commit of the repository that tracks this file, with `-dirty` where it has changes; none outside one.

    An installed copy that only happens to lie below somebody's repository has no commit.
    """
    git = shutil.which("git")
    if git is None:
        return None

    def ask(*arguments: str) -> str:
        command = [git, "-C", str(path.parent), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)  # noqa: S603  # fixed words
        return done.stdout.strip()

    try:
        ask("ls-files", "--error-unmatch", path.name)
        return ask("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (subprocess.SubprocessError, OSError):
        return None
