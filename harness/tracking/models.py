"""Models in MLflow: checkpoints as logged models, and the winner's teacher as a registered one."""

from __future__ import annotations

import logging
import pickle
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import yaml

from harness.formats import one_line
from harness.tracking.limits import TAG_LENGTH, clean_name, clean_value, finite, flat_params
from trainers.errors import UsageError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

    from trainers.config import TrainConfig
    from trainers.models.served import Segmenter

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


CHAMPION = "champion"
KEYS = ("s4.config_hash", "s4.step")
"""Tags of a version that, with its run, say what it is."""
NEEDED = ("mlflow", "torch", "torchvision", "numpy", "pillow", "pydantic", "s4-harness")
"""What a process that loads the model must have; named here, so that MLflow does not try the model out to see."""
EXAMPLE_SIDE = 32


def register_winner(
    client: MlflowClient,
    run_id: str,
    *,
    name: str,
    checkpoint: str,
    config_file: str,
    tags: Mapping[str, str] | None = None,
    metrics: Mapping[str, float] | None = None,
    alias: str = CHAMPION,
) -> str:
    """Register the teacher in a checkpoint, move the alias to it, and return the version; done again, the same one.

    `mlflow.pytorch.load_model("models:/NAME@champion")` returns a `trainers.models.served.Segmenter` in any process
    that has this package.

    Args:
        client: of the store.
        run_id: of the run that trained it.
        name: of the registered model; what MLflow refuses in it is replaced.
        checkpoint: path of the file.
        config_file: YAML that holds the config, or holds it under `config`.
        tags: of the version, besides the config's hash and the step.
        metrics: of the run, to be shown with the model.
        alias: that the version gets.

    Raises:
        UsageError: the config or the checkpoint cannot be read, or they do not belong together.
    """
    from trainers.models.served import load_segmenter

    config = read_config(Path(config_file))
    segmenter = load_segmenter(config, Path(checkpoint))
    kept = {clean_name(key): clean_value(value, TAG_LENGTH) for key, value in (tags or {}).items()}
    kept |= dict(zip(KEYS, (config.hash, str(segmenter.step)), strict=True))
    name = model_name(name)
    found = _version(client, name, run_id, kept) or _register(client, name, run_id, segmenter, kept, metrics or {})
    client.set_registered_model_alias(name, alias, found)
    return found


def read_config(path: Path) -> TrainConfig:
    """Return the config in a YAML file, or under its key `config`.

    Raises:
        UsageError: there is none.
    """
    from trainers.config import TrainConfig

    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        return TrainConfig.model_validate(data.get("config", data))
    except (OSError, ValueError, AttributeError, yaml.YAMLError) as error:
        reason = one_line(error, 200)
        raise UsageError(f"{path} must hold a config, it does not ({reason}): give the file of the training") from None


def save_model(segmenter: Segmenter, folder: Path, described: Any = None) -> None:
    """Write the model in MLflow's format, pickled by reference, with a signature, a small example and requirements.

    Args:
        segmenter: the model.
        folder: that does not exist yet.
        described: an `mlflow.models.Model` to fill in; none: a new one.
    """
    import mlflow.pytorch
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    images, logits = (-1, 3, -1, -1), (-1, len(segmenter.classes), -1, -1)
    signature = ModelSignature(
        Schema([TensorSpec(np.dtype(np.float32), images)]), Schema([TensorSpec(np.dtype(np.float32), logits)])
    )
    with _quiet():
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


def _version(client: MlflowClient, name: str, run_id: str, tags: Mapping[str, str]) -> str | None:
    """Return the version that is this model already."""
    for found in client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'"):
        if all(found.tags.get(key) == tags[key] for key in KEYS):
            for key, value in tags.items():
                if found.tags.get(key) != value:
                    client.set_model_version_tag(name, found.version, key, value)
            return str(found.version)
    return None


def _register(
    client: MlflowClient,
    name: str,
    run_id: str,
    segmenter: Segmenter,
    tags: Mapping[str, str],
    metrics: Mapping[str, float],
) -> str:
    def save(model: Any, folder: Path) -> None:
        from mlflow.models import Model

        described = Model(
            artifact_path=model.artifact_location, model_uuid=model.model_id, run_id=run_id, model_id=model.model_id
        )
        save_model(segmenter, folder, described)

    # One a run and state: a run that went on after it was registered has another model.
    logged = model_name(name, tags["s4.config_hash"], tags["s4.step"])
    model = ensure_model(
        client,
        run_id,
        logged,
        save,
        model_type="segmenter",
        tags=tags,
        params=segmenter.config.model_dump(mode="json"),
        step=segmenter.step,
    )
    link_metrics(client, run_id, model, metrics, segmenter.step)
    _ensure_registered(client, name)
    # By its place: MLflow would look for models:/ID at the global tracking URI.
    where, model_id = cast("str", model.artifact_location), cast("str", model.model_id)
    made = client.create_model_version(name, where, run_id, tags=dict(tags), model_id=model_id)
    return str(made.version)


def _ensure_registered(client: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep MLflow's warning of pickles off the terminal: ours holds tensors and is read by one function."""
    log = logging.getLogger("mlflow.pytorch")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)
