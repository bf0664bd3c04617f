"""Runs and registered models read from MLflow."""

from __future__ import annotations

import difflib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from harness.tracking.limits import clean_name, finite
from harness.tracking.sender import connect_client
from harness.tracking.stores import OUTBOX, absolute_uri
from trainers.errors import UsageError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from trainers.models.served import Segmenter

WEIGHTS = Path("data", "model.pth")
"""Where MLflow puts a PyTorch model below its folder."""


@dataclass(frozen=True)
class Record:
    """What an MLflow run says of the training behind it."""

    run_id: str
    folder: Path | None
    """Of the training or search; none where another program recorded the run."""
    trial: int | None
    """None: the run is that of a whole search."""
    config_hash: str | None


@dataclass(frozen=True)
class Registered:
    """A version of a registered model."""

    name: str
    version: str
    run_id: str | None
    """The run that trained it."""
    segmenter: Segmenter


def find_record(tracking_uri: str, word: str) -> Record | None:
    """Return the run that has this id or, if there is one alone, this name; none where there is none.

    Raises:
        UsageError: several runs have the name.
    """
    from mlflow.exceptions import MlflowException

    client = open_store(tracking_uri)
    if client is None or not word or any(mark in word for mark in "'\"`\\"):
        return None
    try:
        return _record(client.get_run(word))
    except MlflowException:
        pass
    runs = list(client.search_runs(_experiments(client), f"attributes.run_name = '{word}'", max_results=5))
    if len(runs) > 1:
        listed = ", ".join(f"{run.info.run_id} (of {run.data.tags.get('s4.search', '?')})" for run in runs)
        raise UsageError(f"a run's name must be that of one run, {word!r} is that of {listed}: give an id")
    return _record(runs[0]) if runs else None


def run_names(tracking_uri: str) -> set[str]:
    """Return the names of searches and trainings that MLflow knows, the newest 1000 runs of them."""
    client = open_store(tracking_uri)
    if client is None:
        return set()
    runs = client.search_runs(_experiments(client), "tags.`s4.kind` != 'trial'")
    return {cast("str", run.info.run_name) for run in runs}


def run_of(tracking_uri: str, folder: Path, trial: int) -> str | None:
    """Return the id of the MLflow run of a trial, found by what the outbox in its folder began with, or none."""
    try:
        with (folder / OUTBOX).open(encoding="utf-8") as lines:
            opening = json.loads(next(lines))
        experiment, search_id = opening["experiment"], opening["search_id"]
    except (OSError, ValueError, StopIteration, KeyError, TypeError):
        return None
    client = open_store(tracking_uri)
    found = client.get_experiment_by_name(experiment) if client is not None else None
    if client is None or found is None:
        return None
    condition = f"tags.`s4.search_id` = '{search_id}' and tags.`s4.trial` = '{trial}'"
    runs = client.search_runs([found.experiment_id], condition, max_results=1)
    return cast("str", runs[0].info.run_id) if runs else None


def record_evaluation(
    tracking_uri: str, run_id: str, metrics: Mapping[str, float], step: int, files: Path, folder: str
) -> int:
    """Log metrics that the run has not, or has other values of, and the files as artifacts; how the run ended stays.

    Done twice it changes nothing.

    Args:
        tracking_uri: of MLflow.
        run_id: of the run.
        metrics: by name.
        step: optimizer steps of the model.
        files: a folder, whose files all become artifacts.
        folder: of the run's artifacts, in which they are put.

    Returns:
        How many metrics were logged.
    """
    import time

    from mlflow.entities import Metric

    client = connect_client(absolute_uri(tracking_uri))
    has = client.get_run(run_id).data.metrics
    now = int(time.time() * 1000)
    values, _ = finite(metrics)
    new = [Metric(name, value, now, step) for name, value in values.items() if has.get(name) != value]
    if new:
        client.log_batch(run_id, metrics=new)
    client.log_artifacts(run_id, str(files), clean_name(folder))
    return len(new)


def read_registered(tracking_uri: str, uri: str) -> Registered:
    """Return the model that `models:/NAME@ALIAS` or `models:/NAME/VERSION` means, without running its code.

    Raises:
        UsageError: there is no such model, or it is not one that s4 registered.
    """
    from mlflow.exceptions import MlflowException

    client = open_store(tracking_uri)
    name, mark, version = _split(uri)
    if client is None:
        raise UsageError(f"a registered model must be in MLflow, {tracking_uri} does not exist: give --tracking-uri")
    try:
        found: Any = (
            client.get_model_version_by_alias(name, version) if mark == "@" else client.get_model_version(name, version)
        )
    except MlflowException as error:
        raise UsageError(_no_model(client, name, uri, error)) from None
    segmenter = _download(client, tracking_uri, name, str(found.version))
    return Registered(name, str(found.version), found.run_id or None, segmenter)


def open_store(tracking_uri: str) -> MlflowClient | None:
    """Return a client; none where the store is a SQLite file that does not exist, for asking would create it."""
    uri = absolute_uri(tracking_uri)
    scheme, _, path = uri.partition(":///")
    return None if scheme == "sqlite" and not Path(path).exists() else connect_client(uri)


def _download(client: MlflowClient, tracking_uri: str, name: str, version: str) -> Segmenter:
    from mlflow.artifacts import download_artifacts

    from trainers.models.served import read_segmenter

    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # By its place: MLflow would look for models:/NAME at the global tracking URI.
    where = client.get_model_version_download_uri(name, version)
    with tempfile.TemporaryDirectory(prefix="s4-model-") as folder:
        local = download_artifacts(artifact_uri=where, dst_path=folder, tracking_uri=absolute_uri(tracking_uri))
        return read_segmenter(Path(local) / WEIGHTS)


def _split(uri: str) -> tuple[str, str, str]:
    """Return name, `@` or `/`, and alias or version."""
    rest = uri.removeprefix("models:/")
    for mark in ("@", "/"):
        name, found, version = rest.rpartition(mark)
        if found and name and version and (mark == "@" or version.isdecimal()):
            return name, mark, version
    raise UsageError(f"a registered model must be models:/NAME@ALIAS or models:/NAME/VERSION, got {uri!r}: write it so")


def _no_model(client: MlflowClient, name: str, uri: str, error: Exception) -> str:
    known = sorted(model.name for model in client.search_registered_models(max_results=1000))
    if name in known:
        [model] = [model for model in client.search_registered_models(max_results=1000) if model.name == name]
        versions = ", ".join(str(one.version) for one in client.search_model_versions(f"name = '{name}'"))
        aliases = ", ".join(sorted(model.aliases)) or "none"
        return f"a registered model must have this version, got {uri}: it has {versions}; aliases {aliases}"
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known[:5]) or 'none'}"
    return f"a registered model must exist, got {uri}: {hint}"


def _record(run: Run) -> Record:
    tags = run.data.tags
    folder, trial = tags.get("s4.folder"), tags.get("s4.trial")
    return Record(
        cast("str", run.info.run_id),
        Path(folder) if folder else None,
        int(trial) if trial is not None else None,
        tags.get("s4.config_hash"),
    )


def _experiments(client: MlflowClient) -> list[str]:
    return [experiment.experiment_id for experiment in client.search_experiments(max_results=1000)]
