"""Who records, with which command, of which commit: the tags that MLflow has for that."""

from __future__ import annotations

import getpass
import shlex
import sys
from pathlib import Path

from harness.run_folder import git_sha


def command_line() -> str:
    """Return the command of this process as it can be typed again: `s4 tune ...`, or the script that calls the API."""
    called, *words = sys.argv
    ours = Path(called).name == "s4" or Path(called).parts[-3:] == ("harness", "cli", "main.py")
    return shlex.join(["s4", *words] if ours else [called, *words])


def source_tags() -> dict[str, str]:
    """Return the tags; those of which nothing is known are left out."""
    sha = git_sha() or ""
    tags = {
        "s4.git_sha": sha,
        "mlflow.source.git.commit": sha.removesuffix("-dirty"),
        "mlflow.source.name": command_line(),
        "mlflow.source.type": "JOB",  # of any other type MLflow's pages show what follows the last slash alone
        "mlflow.user": _user(),
    }
    return {key: value for key, value in tags.items() if value}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return ""
