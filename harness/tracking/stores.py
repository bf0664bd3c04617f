"""Where records go when nobody says otherwise, and what to tell MLflow about it."""

from __future__ import annotations

from pathlib import Path

DATABASE = "mlflow.db"
ARTIFACTS = "mlartifacts"
OUTBOX = "outbox.jsonl"
"""In the folder of each search and training."""


def default_tracking_uri(folder: Path | None = None) -> str:
    """Return the URI of the SQLite store in a folder (default: the working directory)."""
    return f"sqlite:///{(folder or Path.cwd()).resolve() / DATABASE}"


def absolute_uri(tracking_uri: str) -> str:
    """Return the URI with a relative SQLite path made absolute, so that every process means the same file."""
    scheme, separator, path = tracking_uri.partition(":///")
    if scheme != "sqlite" or not separator or Path(path).is_absolute():
        return tracking_uri
    return f"sqlite:///{Path(path).resolve()}"


def is_server(tracking_uri: str) -> bool:
    """Return whether the URI is that of a tracking server, which keeps artifacts its own way."""
    return tracking_uri.startswith(("http://", "https://", "databricks"))


def artifact_location(tracking_uri: str) -> str | None:
    """Return where a new experiment keeps its artifacts; none where a server decides.

    An absolute folder beside the SQLite file, or in the working directory, for MLflow's own default depends on where
    the command that reads it later is started.
    """
    if is_server(tracking_uri):
        return None
    scheme, _, path = absolute_uri(tracking_uri).partition(":///")
    folder = Path(path).parent if scheme == "sqlite" else Path.cwd()
    return (folder / ARTIFACTS).as_uri()
