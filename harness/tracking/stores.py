"""Where records go when nobody says otherwise, and what to tell MLflow about it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from trainers.errors import UsageError

ALLOW_FOLDER = "MLFLOW_ALLOW_FILE_STORE"
DATABASE = "mlflow.db"
ARTIFACTS = "mlartifacts"
EXPERIMENT = "s4"
"""Of MLflow, that runs are recorded in."""
OUTBOX = "outbox.jsonl"
"""In the folder of each run."""
WITH_PASSWORD = re.compile(r"[\w+.-]+://[^:/@]*:[^@]*@")
"""A database's URI as SQLAlchemy reads it, USER:PASSWORD@ in it."""


def default_tracking_uri(folder: Path | None = None) -> str:
    """Return the URI of the SQLite store in a folder (default: the working directory)."""
    return f"sqlite:///{(folder or Path.cwd()).resolve() / DATABASE}"


def absolute_uri(tracking_uri: str) -> str:
    """Return the URI with a relative path made absolute, so that every process means the same file or folder.

    Raises:
        UsageError: it holds a password, which would be shown and written down with it; or it is a folder, and MLflow
            was not told to take one.
    """
    if is_server(tracking_uri):
        if urlsplit(tracking_uri).password is not None:
            raise UsageError(
                "a tracking URI must hold no password, this one does: put the user into MLFLOW_TRACKING_USERNAME and "
                "the password into MLFLOW_TRACKING_PASSWORD"
            )
        return tracking_uri
    if WITH_PASSWORD.match(tracking_uri):
        raise UsageError(
            "a tracking URI must hold no password, this one does: leave it out, and put it in ~/.pgpass or PGPASSWORD "
            "(PostgreSQL), or into a file that the URI names with ?read_default_file=FILE (MySQL)"
        )
    if ":" not in tracking_uri or tracking_uri.startswith("file:"):
        if os.environ.get(ALLOW_FOLDER, "").lower() not in ("true", "1"):
            raise UsageError(
                f"records must go to a database or a server, {tracking_uri} is a folder: give sqlite:///FILE, or set "
                f"{ALLOW_FOLDER}=true, with which MLflow still takes folders"
            )
        return tracking_uri if ":" in tracking_uri else Path(tracking_uri).resolve().as_uri()
    scheme, separator, path = tracking_uri.partition(":///")
    if scheme != "sqlite" or not separator or Path(path).is_absolute():
        return tracking_uri
    return f"sqlite:///{Path(path).resolve()}"


def is_server(tracking_uri: str) -> bool:
    """Return whether the URI is that of a tracking server, which keeps artifacts its own way."""
    return tracking_uri.startswith(("http://", "https://", "databricks"))


def artifact_location(tracking_uri: str) -> str | None:
    """Return where a new experiment keeps its artifacts; none where a server decides, or a folder that holds all.

    An absolute folder beside the SQLite file, or in the working directory, for MLflow's own default depends on where
    the command that reads it later is started.
    """
    scheme, _, path = absolute_uri(tracking_uri).partition(":///")
    if is_server(tracking_uri) or scheme == "file":
        return None
    folder = Path(path).parent if scheme == "sqlite" else Path.cwd()
    return (folder / ARTIFACTS).as_uri()


NO_JOBS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
"""Environment of a tracking server (MLflow 3.17): else it keeps some ten processes that poll for jobs of language-model
evaluation."""
