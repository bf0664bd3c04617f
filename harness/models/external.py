"""A checkpoint as a model in MLflow, without a second copy of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from harness.models.logged import ensure_model, link_metrics, model_name

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHECKPOINT = "s4.checkpoint"
"""Tag that says where the file lies."""


def log_external(
    client: MlflowClient,
    run_id: str,
    *,
    name: str,
    uri: str,
    tags: Mapping[str, str] | None = None,
    metrics: Mapping[str, float] | None = None,
    params: Mapping[str, Any] | None = None,
    step: int = 0,
) -> str:
    """Make a checkpoint that lies at `uri` a model of a run, and return the model's id; done again, the same model.

    MLflow gets a few hundred bytes that say so; the checkpoint stays where it is. What `mlflow.create_external_model`
    does, without its global state and without a second model where one was begun.

    Args:
        client: of the store.
        run_id: of the run that trained it.
        name: of the model, one a run; what MLflow refuses in it is replaced.
        uri: a path that all nodes see, or a URI.
        tags: besides `s4.checkpoint`.
        metrics: of the run, to be shown with the model.
        params: nested dictionaries of scalars, such as a config.
        step: optimizer steps of the checkpoint.
    """
    from mlflow.utils.mlflow_tags import MLFLOW_MODEL_IS_EXTERNAL

    every = {**(tags or {}), CHECKPOINT: uri, MLFLOW_MODEL_IS_EXTERNAL: "true"}
    model = ensure_model(
        client, run_id, model_name(name), _save, model_type="checkpoint", tags=every, params=params, step=step
    )
    link_metrics(client, run_id, model, metrics or {}, step)
    return cast("str", model.model_id)


def _save(model: Any, folder: Path) -> None:
    """Write the description without which MLflow registers no version of the model."""
    from mlflow.models.model import MLMODEL_FILE_NAME
    from mlflow.models.utils import get_external_mlflow_model_spec

    folder.mkdir()
    get_external_mlflow_model_spec(model).save(str(folder / MLMODEL_FILE_NAME))
