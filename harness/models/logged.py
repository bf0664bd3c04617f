"""Models of MLflow runs. Everything here may be done again without changing anything, and goes on where it broke off.

No function uses MLflow's global state (the active run, the tracking URI), so any thread may call them.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from harness.tracking.limits import TAG_LENGTH, clean_name, clean_value, finite, flat_params

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

Save = Callable[[Any, Path], None]
"""Writes a `LoggedModel`'s files into a folder that does not exist yet."""


def model_name(*parts: str) -> str:
    """Return parts as a name that MLflow accepts for models, registered or not: letters, digits, `_` and `-`."""
    return "-".join(re.sub(r"[^\w-]", "_", part, flags=re.ASCII) for part in parts if part)[:200] or "_"


def ensure_model(
    client: MlflowClient,
    run_id: str,
    name: str,
    save: Save,
    *,
    model_type: str,
    tags: Mapping[str, str],
    params: Mapping[str, Any] | None = None,
    step: int = 0,
) -> LoggedModel:
    """Return the model of this name of a run, created with its files where there is none, as one of the run's outputs.

    Args:
        client: of the store.
        run_id: of the run that trained it.
        name: from `model_name`.
        save: called only where the files are not there yet.
        model_type: what it is, for people.
        tags: brought up to date, each time.
        params: nested; kept as they are at the beginning.
        step: optimizer steps of the model.
    """
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    run = client.get_run(run_id)
    tags = {clean_name(key): clean_value(value, TAG_LENGTH) for key, value in tags.items()}
    condition = f"source_run_id = '{run_id}' AND name = '{name}'"
    found = client.search_logged_models([run.info.experiment_id], condition, max_results=1)
    model = found[0] if found else client.create_logged_model(
        run.info.experiment_id, name, run_id, tags, flat_params(params or {}), model_type
    )  # fmt: skip
    if model.status != LoggedModelStatus.READY:
        with tempfile.TemporaryDirectory(prefix="s4-model-") as folder:
            save(model, Path(folder) / "model")
            client.log_model_artifacts(model.model_id, str(Path(folder) / "model"))
        client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    stale = {key: value for key, value in tags.items() if model.tags.get(key) != value}
    if stale:
        client.set_logged_model_tags(model.model_id, stale)
    outputs = run.outputs.model_outputs if run.outputs else []
    if model.model_id not in {output.model_id for output in outputs}:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step)])
    return model


def link_metrics(
    client: MlflowClient, run_id: str, model: LoggedModel, metrics: Mapping[str, float], step: int
) -> None:
    """Show metrics of the run with its model. A value that the run has is not put into its history again."""
    from mlflow.entities import Metric

    points = []
    for name, value in finite(metrics)[0].items():
        same = [point for point in client.get_metric_history(run_id, name) if point.value == value]
        when, at = (same[-1].timestamp, same[-1].step) if same else (model.creation_timestamp, step)
        points.append(Metric(name, value, when, at, model_id=cast("str", model.model_id)))
    if points:
        client.log_batch(run_id, metrics=points)
