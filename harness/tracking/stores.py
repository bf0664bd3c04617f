"""MLflow's stores: where records go when nobody says otherwise, the client, and searches of runs."""

from __future__ import annotations

import difflib
import json
import logging
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.client import HTTPException
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

from harness.formats import one_line
from harness.run_folder import check_writable
from trainers.errors import UsageError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

ALLOW_FOLDER = "MLFLOW_ALLOW_FILE_STORE"
DATABASE = "mlflow.db"
ARTIFACTS = "mlartifacts"
EXPERIMENT = "s4"
"""Of MLflow, that runs are recorded in where nobody says otherwise."""
OUTBOX = "outbox.jsonl"
"""In the folder of each run."""
PARENT = "mlflow.parentRunId"
"""Tag of a run that stands below another one."""
NOTE, COLOUR = "mlflow.note.content", "mlflow.runColor"
"""Tags of a run that MLflow's pages show as its description, in Markdown, and draw its mark and its curves with."""
SQLITE = b"SQLite format 3\0"
"""What every SQLite database begins with."""
SCHEMES = (
    "http", "https", "sqlite", "postgresql", "mysql", "mssql", "file", "databricks", "databricks-uc", "uc",
)  # fmt: skip
"""Of the stores that MLflow 3.17 has."""
ANSWER_S = 3.0
"""How long a server may take to answer before it is said that it does not."""
WITH_PASSWORD = re.compile(r"[\w+.-]+://[^:/@]*:[^@]*@")
"""A database's URI as SQLAlchemy reads it, USER:PASSWORD@ in it."""


def default_tracking_uri(folder: Path | None = None) -> str:
    """Return the URI of the SQLite store in a folder (default: the working directory)."""
    return f"sqlite:///{(folder or Path.cwd()).resolve() / DATABASE}"


def absolute_uri(tracking_uri: str | None) -> str:
    """Return the URI with a relative path made absolute, so that every process means the same file or folder.

    None means the SQLite store in the working directory.

    Raises:
        UsageError: MLflow has no such store; it holds a password, which would be shown and written down with it; it is
            a folder, and MLflow was not told to take one; or it is a file that is no SQLite database.
    """
    if tracking_uri is None:
        return default_tracking_uri()
    _check_scheme(tracking_uri)
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
    try:
        with path.open("rb") as file:
            good = file.read(len(SQLITE)) in (b"", SQLITE)
    except OSError:  # it is not there yet, or a folder
        good = not path.is_dir()
    if not good:
        raise UsageError(
            f"records must go to a SQLite database, {path} is none: move it away; runs are safe in their folders, and "
            f"where {OUTBOX}.done is removed from one, s4 sync NAME sends all its records to a new database"
        )


@cache
def _known_schemes() -> tuple[str, ...]:
    """Return MLflow's own schemes and those of plugins; to look for these takes tens of milliseconds."""
    return (*SCHEMES, *(plugin.name for plugin in entry_points(group="mlflow.tracking_store")))


def _check_scheme(tracking_uri: str) -> None:
    """Refuse a store that MLflow does not have: all of a run would be recorded nowhere."""
    scheme, colon, rest = tracking_uri.partition(":")
    scheme, _, driver = scheme.partition("+")
    known = _known_schemes()
    near = difflib.get_close_matches(scheme.lower(), known, n=1)
    if not tracking_uri.strip():
        wrong, hint = "it is empty", "leave it out for mlflow.db here"
    elif colon and scheme not in known:
        wrong = f"its scheme is none of {', '.join(known)}"
        hint = f"did you mean {near[0]}?" if near else "did you mean http://?" if rest[:1].isdigit() else "take one"
    elif scheme in ("http", "https") and not (rest.startswith("//") and _host_of(tracking_uri)):
        wrong, hint = "it names no server", f"write {scheme}://HOST:PORT"
    elif scheme == "sqlite" and not driver and not re.match("///.", rest):
        wrong, hint = "it names no file", "write sqlite:///FILE"
    else:
        return
    # What may hold a password is not shown.
    given = repr(tracking_uri) if "@" not in tracking_uri else f"one that begins with {scheme!r}"
    raise UsageError(f"a tracking URI must be one of MLflow's, got {given}, {wrong}: {hint}")


def _host_of(uri: str) -> str | None:
    try:
        parts = urlsplit(uri)
        return parts.hostname if parts.port is None or parts.port else None
    except ValueError:  # a port that is no number, or half an IPv6 address
        return None


def silence(tracking_uri: str) -> str | None:
    """Return why a store takes no records now, in words; none where a server answers. Databases are not asked."""
    if tracking_uri.partition("+")[0].startswith(("postgresql", "mysql", "mssql")):
        from sqlalchemy import create_engine

        try:
            create_engine(tracking_uri)
        except Exception as error:  # its driver is not installed, or it is no URI of that driver
            return one_line(error, 200)
    if not tracking_uri.startswith(("http://", "https://")):
        return None
    why: list[str | None] = [f"no answer within {ANSWER_S:g} s"]

    def ask() -> None:
        try:
            urlopen(f"{tracking_uri.rstrip('/')}/health", timeout=ANSWER_S).close()  # noqa: S310  # http or https
        except HTTPError as error:
            why.append(f"answer {error.code}" if error.code >= 500 else None)
        except (OSError, HTTPException) as error:
            reason = str(getattr(error, "reason", error))
            why.append(None if "CERTIFICATE" in reason else reason)  # one that MLflow was told to take, maybe
        else:
            why.append(None)

    asking = threading.Thread(target=ask, daemon=True)  # to look a name up has no limit of its own
    asking.start()
    asking.join(ANSWER_S)
    return why[-1]


@contextmanager
def asking(tracking_uri: str) -> Iterator[None]:
    """Turn what MLflow raises within into one line.

    Raises:
        UsageError: MLflow cannot be reached, or its store cannot be read.
    """
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in ("mlflow", "sqlalchemy"):
            raise
        reason = one_line(error, 200)
        raise UsageError(
            f"MLflow must be reachable at {tracking_uri}, it is not ({reason}): check --tracking-uri"
        ) from None


def is_server(tracking_uri: str) -> bool:
    """Return whether the URI is that of a tracking server, which keeps artifacts its own way."""
    return tracking_uri.startswith(("http://", "https://", "databricks"))


def check_places(folder: Path, tracking_uri: str) -> None:
    """Refuse the folder of a run, or a SQLite file for its records and artifacts, that cannot be written or made.

    Raises:
        UsageError: which one cannot.
    """
    check_writable(folder, "--storage", whole=True)
    check_store(tracking_uri)


def check_store(tracking_uri: str) -> None:
    """Refuse a SQLite file for records and artifacts that cannot be written or made.

    Raises:
        UsageError: it cannot.
    """
    scheme, _, path = tracking_uri.partition(":///")
    if scheme == "sqlite":
        for place in (Path(path), Path(path).parent, Path(path).parent / ARTIFACTS):
            check_writable(place, "--tracking-uri")


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
        runs = list(client.search_runs(experiment_ids(client), f"attributes.run_name = '{word}'", max_results=5))
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
    runs = client.search_runs(experiment_ids(client), "tags.`s4.kind` != 'trial'") if client is not None else []
    return {str(run.info.run_name) for run in runs}


def run_of(tracking_uri: str, folder: Path, trial: int) -> str | None:
    """Return the id of the MLflow run of a trial, found by the first operation of the outbox in its folder, or none."""
    search_id, client = search_id_of(folder), open_store(tracking_uri)
    experiment = client.get_experiment_by_name(experiment_of(folder)) if client is not None else None
    if client is None or experiment is None or search_id is None:
        return None
    condition = f"tags.`s4.search_id` = '{search_id}' and tags.`s4.trial` = '{trial}'"
    runs = client.search_runs([experiment.experiment_id], condition, max_results=1)
    return str(runs[0].info.run_id) if runs else None


def search_id_of(folder: Path) -> str | None:
    """Return what tags all runs of a run in MLflow, by the first operation of its outbox; none where that is not known.

    Names can be given again once a folder is removed; this cannot.
    """
    return _opening(folder, "search_id")


def experiment_of(folder: Path) -> str:
    """Return the name of MLflow's experiment that a run is recorded in, by the first operation of its outbox."""
    return _opening(folder, "experiment") or EXPERIMENT


def _opening(folder: Path, key: str) -> str | None:
    try:
        with (folder / OUTBOX).open(encoding="utf-8") as lines:
            return str(json.loads(next(lines))[key])
    except (OSError, ValueError, StopIteration, KeyError, TypeError):
        return None


def experiment_ids(client: MlflowClient) -> list[str]:
    """Return the ids of all experiments that are not in the trash."""
    return [experiment.experiment_id for experiment in client.search_experiments(max_results=1000)]


NO_JOBS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
"""Environment of a tracking server (MLflow 3.17): else it keeps some ten processes that poll for jobs of language-model
evaluation."""
