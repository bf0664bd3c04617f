"""Models in MLflow: checkpoints as logged models, and the winner's teacher as a registered one, written and read."""

from __future__ import annotations

import difflib
import logging
import os
import pickle
import re
import tempfile
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import mlflow.pytorch
import numpy as np
import yaml
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus, Metric
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.models.model import MLMODEL_FILE_NAME
from mlflow.models.utils import get_external_mlflow_model_spec
from mlflow.types import Schema, TensorSpec
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_IS_EXTERNAL

from harness.formats import one_line
from harness.tracking.limits import clean_tags, finite, flat_params
from harness.tracking.stores import absolute_uri, open_store
from trainers.config import TrainConfig
from trainers.errors import UsageError
from trainers.models.served import Segmenter, load_segmenter, read_segmenter

Save = Callable[[LoggedModel, Path], None]
"""Writes a model's files into a folder that does not exist yet."""

CHECKPOINT = "s4.checkpoint"
"""Tag that says where the file lies."""
KEYS = ("s4.config_hash", "s4.step")
"""Tags of a version that, with its run, say what it is."""
NEEDED = ("mlflow", "torch", "torchvision", "timm", "numpy", "pillow", "pydantic", "s4-harness")
"""Packages of a process that loads the model; named here, so that MLflow does not try the model out to see."""
EXAMPLE_SIDE = 32
REGISTERED = re.compile(r"models:/(?P<name>.+)(@(?P<alias>[^@]+)|/(?P<version>\d+))")
WEIGHTS = Path("data", "model.pth")
"""Where MLflow puts a PyTorch model below its folder."""


def model_name(*parts: str) -> str:
    """Return parts as a name that MLflow accepts for models, registered or not: letters, digits, `_` and `-`."""
    return "-".join(re.sub(r"[^\w-]", "_", part, flags=re.ASCII) for part in parts if part)[:200] or "_"


def log_external(
    client: MlflowClient,
    run_id: str,
    *,
    name: str,
    uri: str,
    tags: Mapping[str, str],
    metrics: Mapping[str, float],
    step: int,
) -> str:
    """Make a checkpoint that lies at `uri` a model of a run, and return the model's id; done again, the same model.

    MLflow gets a few hundred bytes that say so; the checkpoint stays where it is. What `mlflow.create_external_model`
    does, without its global state and without a second model where one was begun.

    Args:
        name: of the model, one a run, its parts between slashes; what MLflow refuses in it is replaced.
        uri: a path that all nodes see, or a URI.
        metrics: of the run, to be shown with the model.
    """

    def save(model: LoggedModel, folder: Path) -> None:
        folder.mkdir()  # MLflow registers no version of a model without this description
        get_external_mlflow_model_spec(model).save(str(folder / MLMODEL_FILE_NAME))

    tags = {**tags, CHECKPOINT: uri, MLFLOW_MODEL_IS_EXTERNAL: "true"}
    model = _ensure_model(client, run_id, model_name(*name.split("/")), "checkpoint", tags, {}, step, save)
    _link_metrics(client, run_id, model, metrics, step)
    return str(model.model_id)


def register_winner(
    client: MlflowClient,
    run_id: str,
    *,
    name: str,
    checkpoint: str,
    config_file: str,
    tags: Mapping[str, str],
    metrics: Mapping[str, float],
    alias: str,
) -> str:
    """Register the teacher in a checkpoint, move the alias to it, and return the version; done again, the same one.

    `mlflow.pytorch.load_model("models:/NAME@champion")` returns a `trainers.models.served.Segmenter` in any process
    that has this package.

    Args:
        run_id: of the run that trained it.
        name: of the registered model; what MLflow refuses in it is replaced.
        config_file: YAML that holds the config, or holds it under `config`.

    Raises:
        UsageError: the config or the checkpoint cannot be read, or they do not belong together.
    """
    segmenter = load_segmenter(_read_config(Path(config_file)), Path(checkpoint))
    tags = clean_tags({**tags, **dict(zip(KEYS, (segmenter.config.hash, segmenter.step), strict=True))})
    name = model_name(name)
    number = _find_version(client, name, run_id, tags) or _register(client, name, run_id, segmenter, tags, metrics)
    client.set_registered_model_alias(name, alias, number)
    return number


def _ensure_model(
    client: MlflowClient,
    run_id: str,
    name: str,
    model_type: str,
    tags: Mapping[str, str],
    params: Mapping[str, Any],
    step: int,
    save: Save,
) -> LoggedModel:
    """Return the model of this name of a run, created with its files where there is none, as one of the run's outputs.

    Tags are brought up to date each time; params stay as they are at the beginning.
    """
    run, tags = client.get_run(run_id), clean_tags(tags)
    experiment = run.info.experiment_id
    models = client.search_logged_models([experiment], f"source_run_id = '{run_id}' AND name = '{name}'", max_results=1)
    if models:
        model = models[0]
    else:
        model = client.create_logged_model(experiment, name, run_id, tags, flat_params(params), model_type)
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


def _link_metrics(
    client: MlflowClient, run_id: str, model: LoggedModel, metrics: Mapping[str, float], step: int
) -> None:
    """Show metrics of the run with its model. A value that the run has is not put into its history again."""
    points = []
    for name, value in finite(metrics)[0].items():
        same = [point for point in client.get_metric_history(run_id, name) if point.value == value]
        when, at = (same[-1].timestamp, same[-1].step) if same else (model.creation_timestamp, step)
        points.append(Metric(name, value, when, at, model_id=model.model_id))
    if points:
        client.log_batch(run_id, metrics=points)


def _read_config(path: Path) -> TrainConfig:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        return TrainConfig.model_validate(data.get("config", data))
    except (OSError, ValueError, AttributeError, yaml.YAMLError) as error:
        reason = one_line(error, 200)
        raise UsageError(f"{path} must hold a config, it does not ({reason}): give the file of the training") from None


def _find_version(client: MlflowClient, name: str, run_id: str, tags: Mapping[str, str]) -> str | None:
    for registered in client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'"):
        if all(registered.tags.get(key) == tags[key] for key in KEYS):
            for key, value in tags.items():
                if registered.tags.get(key) != value:
                    client.set_model_version_tag(name, registered.version, key, value)
            return str(registered.version)
    return None


def _register(
    client: MlflowClient,
    name: str,
    run_id: str,
    segmenter: Segmenter,
    tags: Mapping[str, str],
    metrics: Mapping[str, float],
) -> str:
    def save(model: LoggedModel, folder: Path) -> None:
        place, number = model.artifact_location, model.model_id
        _save_segmenter(segmenter, folder, Model(place, run_id, model_uuid=number, model_id=number))

    # One a run and state: a run that went on after it was registered has another model.
    logged = model_name(name, *(tags[key] for key in KEYS))
    params = segmenter.config.model_dump(mode="json")
    model = _ensure_model(client, run_id, logged, "segmenter", tags, params, segmenter.step, save)
    _link_metrics(client, run_id, model, metrics, segmenter.step)
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    # By its place: MLflow would look for models:/ID at the global tracking URI.
    place = model.artifact_location
    return str(client.create_model_version(name, place, run_id, tags=tags, model_id=model.model_id).version)


def _save_segmenter(segmenter: Segmenter, folder: Path, described: Model) -> None:
    """Write the model in MLflow's format, pickled by reference, with a signature, a small example and requirements."""
    shapes = (-1, 3, -1, -1), (-1, len(segmenter.classes), -1, -1)
    signature = ModelSignature(*(Schema([TensorSpec(np.dtype(np.float32), shape)]) for shape in shapes))
    log = logging.getLogger("mlflow.pytorch")
    level = log.level
    log.setLevel(logging.ERROR)  # it warns of pickles: ours holds tensors and is read by one function
    try:
        mlflow.pytorch.save_model(
            segmenter,
            str(folder),
            mlflow_model=described,
            pickle_module=pickle,
            serialization_format="pickle",
            signature=signature,
            input_example=np.zeros((1, 3, EXAMPLE_SIDE, EXAMPLE_SIDE), np.float32),
            pip_requirements=[f"{package}=={version(package).partition('+')[0]}" for package in NEEDED],
            metadata={"classes": list(segmenter.classes), "config": segmenter.config.model_dump_json()},
        )
    finally:
        log.setLevel(level)


class RegisteredModel(NamedTuple):
    """A version of a registered model."""

    name: str
    version: str
    run_id: str | None
    """The run that trained it."""
    segmenter: Segmenter


def read_registered(tracking_uri: str, uri: str) -> RegisteredModel:
    """Return the model that `models:/NAME@ALIAS` or `models:/NAME/VERSION` means, without running its code.

    Raises:
        UsageError: there is no such model, or it is not one that s4 registered.
    """
    form = REGISTERED.fullmatch(uri)
    if form is None:
        forms = "models:/NAME@ALIAS or models:/NAME/VERSION"
        raise UsageError(f"a registered model must be {forms}, got {uri!r}: write it so")
    client = open_store(tracking_uri)
    if client is None:
        raise UsageError(f"a registered model must be in MLflow, {tracking_uri} does not exist: give --tracking-uri")
    name, alias = form["name"], form["alias"]
    try:
        read = client.get_model_version_by_alias if alias else client.get_model_version
        registered = read(name, alias or form["version"])
    except MlflowException:
        raise UsageError(_no_model(client, name, uri)) from None
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # By its place: MLflow would look for models:/NAME at the global tracking URI.
    place = client.get_model_version_download_uri(name, registered.version)
    with tempfile.TemporaryDirectory(prefix="s4-model-") as folder:
        local = download_artifacts(artifact_uri=place, dst_path=folder, tracking_uri=absolute_uri(tracking_uri))
        segmenter = read_segmenter(Path(local) / WEIGHTS)
    return RegisteredModel(name, str(registered.version), registered.run_id or None, segmenter)


def _no_model(client: MlflowClient, name: str, uri: str) -> str:
    models = {model.name: model for model in client.search_registered_models(max_results=1000)}
    if name in models:
        versions = ", ".join(str(model.version) for model in client.search_model_versions(f"name = '{name}'"))
        aliases = ", ".join(sorted(models[name].aliases)) or "none"
        return f"a registered model must have this version, got {uri}: it has {versions}; aliases {aliases}"
    near = difflib.get_close_matches(name, sorted(models), n=1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(models)[:5]) or 'none'}"
    return f"a registered model must exist, got {uri}: {hint}"
