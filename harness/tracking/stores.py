"""MLflow's stores: where records go when nobody says otherwise, the client, and searches of runs."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from trainers.errors import UsageError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

ALLOW_FOLDER = "MLFLOW_ALLOW_FILE_STORE"
DATABASE = "mlflow.db"
ARTIFACTS = "mlartifacts"
EXPERIMENT = "s4"
"""Of MLflow, that runs are recorded in."""
OUTBOX = "outbox.jsonl"
"""In the folder of each run."""
PARENT = "mlflow.parentRunId"
"""Tag of a run that stands below another one."""
SQLITE = b"SQLite format 3\0"
"""What every SQLite database begins with."""
WITH_PASSWORD = re.compile(r"[\w+.-]+://[^:/@]*:[^@]*@")
"""A database's URI as SQLAlchemy reads it, USER:PASSWORD@ in it."""


def default_tracking_uri(folder: Path | None = None) -> str:
    """Return the URI of the SQLite store in a folder (default: the working directory)."""
    return f"sqlite:///{(folder or Path.cwd()).resolve() / DATABASE}"


def absolute_uri(tracking_uri: str | None) -> str:
    """Return the URI with a relative path made absolute, so that every process means the same file or folder.

    None means the SQLite store in the working directory.

    Raises:
        UsageError: it holds a password, which would be shown and written down with it; or it is a folder, and MLflow
            was not told to take one; or it is a file that is no SQLite database.
    """
    if tracking_uri is None:
        return default_tracking_uri()
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
    if scheme != "sqlite" or not separator:
        return tracking_uri
    _check_database(Path(path))
    return f"sqlite:///{Path(path).resolve()}"


def _check_database(path: Path) -> None:
    if not path.is_file():
        return
    with path.open("rb") as file:
        begins = file.read(len(SQLITE))
    if begins not in (b"", SQLITE):
        raise UsageError(
            f"records must go to a SQLite database, {path} is none: move it away; runs are safe in their folders, and "
            f"where {OUTBOX}.done is removed from one, s4 sync NAME sends all its records to a new database"
        )


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


def connect_client(tracking_uri: str) -> MlflowClient:
    """Return a client; imports MLflow, which takes seconds, and keeps its chatter about tables off the terminal."""
    from mlflow import MlflowClient

    for name in ("alembic", "mlflow.store", "mlflow.tracking"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return MlflowClient(tracking_uri)


def open_store(tracking_uri: str) -> MlflowClient | None:
    """Return a client; none where the store is a SQLite file that does not exist, for asking would create it."""
    uri = absolute_uri(tracking_uri)
    return connect_client(uri) if may_exist(uri) else None


def may_exist(uri: str) -> bool:
    """Return whether a store is there as far as can be told without MLflow."""
    scheme, _, path = uri.partition(":///")
    return scheme != "sqlite" or Path(path).exists()


def find_runs(client: MlflowClient, experiment: str, condition: str) -> Iterator[Run]:
    """Yield the runs of an experiment, by its id, that meet a condition; MLflow hands them out by pages."""
    token: str | None = None
    while True:
        page = client.search_runs([experiment], condition, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


class RecordedRun(NamedTuple):
    """What an MLflow run says of the training behind it."""

    run_id: str
    folder: Path | None
    """Of the training or search; none where another program recorded the run."""
    trial: int | None
    """None: the run is that of a whole search."""
    config_hash: str | None


def find_record(tracking_uri: str, word: str) -> RecordedRun | None:
    """Return the run that has this id or, if there is one alone, this name; none where there is none.

    Raises:
        UsageError: several runs have the name.
    """
    client = open_store(tracking_uri)
    if client is None or not word or any(mark in word for mark in "'\"`\\"):
        return None
    from mlflow.exceptions import MlflowException

    try:
        runs = [client.get_run(word)]
    except MlflowException:
        runs = list(client.search_runs(_experiments(client), f"attributes.run_name = '{word}'", max_results=5))
    if len(runs) > 1:
        listed = ", ".join(f"{run.info.run_id} (of {run.data.tags.get('s4.search', '?')})" for run in runs)
        raise UsageError(f"a run's name must be that of one run, {word!r} is that of {listed}: give an id")
    if not runs:
        return None
    tags = runs[0].data.tags
    folder = Path(tags["s4.folder"]) if tags.get("s4.folder") else None
    trial = int(tags["s4.trial"]) if "s4.trial" in tags else None
    return RecordedRun(str(runs[0].info.run_id), folder, trial, tags.get("s4.config_hash"))


def run_names(tracking_uri: str) -> set[str]:
    """Return the names of searches and trainings that MLflow knows, the newest 1000 runs of them."""
    client = open_store(tracking_uri)
    runs = client.search_runs(_experiments(client), "tags.`s4.kind` != 'trial'") if client is not None else []
    return {str(run.info.run_name) for run in runs}


def run_of(tracking_uri: str, folder: Path, trial: int) -> str | None:
    """Return the id of the MLflow run of a trial, found by the first operation of the outbox in its folder, or none."""
    search_id, client = search_id_of(folder), open_store(tracking_uri)
    experiment = client.get_experiment_by_name(EXPERIMENT) if client is not None else None
    if client is None or experiment is None or search_id is None:
        return None
    condition = f"tags.`s4.search_id` = '{search_id}' and tags.`s4.trial` = '{trial}'"
    runs = client.search_runs([experiment.experiment_id], condition, max_results=1)
    return str(runs[0].info.run_id) if runs else None


def search_id_of(folder: Path) -> str | None:
    """Return what tags all runs of a run in MLflow, by the first operation of its outbox; none where that is not known.

    Names can be given again once a folder is removed; this cannot.
    """
    try:
        with (folder / OUTBOX).open(encoding="utf-8") as lines:
            return str(json.loads(next(lines))["search_id"])
    except (OSError, ValueError, StopIteration, KeyError, TypeError):
        return None


def _experiments(client: MlflowClient) -> list[str]:
    return [experiment.experiment_id for experiment in client.search_experiments(max_results=1000)]


NO_JOBS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
"""Environment of a tracking server (MLflow 3.17): else it keeps some ten processes that poll for jobs of language-model
evaluation."""
