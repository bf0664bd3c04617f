"""Trained models by the words that name them: a training, a trial, an MLflow run or a registered model."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from harness.ledger import LEDGER, read_ledger
from harness.run_folder import EVALUATION, LATEST, RunInfo, checkpoint_folder, named_folder, read_run
from harness.run_folder import run_names as folder_names
from harness.tracking.stores import RecordedRun, asking, find_record, run_names
from harness.trials import Trial, TrialState
from harness.tuning.objectives import parse_objectives
from trainers.config import TrainConfig
from trainers.errors import UsageError
from trainers.methods import with_method
from trainers.models.served import Segmenter, load_segmenter
from trainers.overrides import apply_overrides

LOCAL = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,63})(/(?P<trial>.+))?")
FORMS = "NAME, NAME/TRIAL, NAME/VARIANT/SEED, an MLflow run's id or name, or models:/NAME@ALIAS"

LISTED = 20
"""Names of trials in a refusal, at most."""


@dataclass(frozen=True)
class TrainedRun:
    """A trained model, and where it comes from."""

    title: str
    """As people call it: `first`, `css_quick-001/9`, `models:/NAME/3`."""
    config: TrainConfig
    out: Path
    """Where its evaluations go."""
    checkpoint: Path | None = None
    """Absolute; none where a registered model was read."""
    segmenter: Segmenter | None = None
    """The registered model."""
    origin: tuple[Path, int] | None = None
    """Folder of the training or search, and number of the trial in it; a training is trial 0."""
    run_id: str | None = None
    """Its MLflow run, where the way to the model passed it."""

    def load(self, device: torch.device | None = None) -> Segmenter:
        """Return the teacher on a device (default: the CPU).

        Raises:
            DataError: the checkpoint cannot be read or is another config's.
        """
        if self.segmenter is not None:
            return self.segmenter.to(device or torch.device("cpu"))
        assert self.checkpoint is not None  # noqa: S101  # there is one or the other
        return load_segmenter(self.config, self.checkpoint, device)


def find_run(word: str, storage: Path, tracking_uri: str) -> TrainedRun:
    """Return what a word means: first a folder below `storage`, then a run in MLflow.

    Args:
        word: `NAME` of a training, or of a search (its best complete trial); `NAME/TRIAL` of a search, confirmation or
            ablation, of the latter two also `NAME/VARIANT/SEED`; the id or the name of an MLflow run;
            `models:/NAME@ALIAS` or `models:/NAME/VERSION`.
        tracking_uri: of MLflow; asked only where the folders do not have the answer.

    Raises:
        UsageError: nothing is meant, or several things, or the checkpoint is not there.
    """
    if word.startswith("models:/"):
        return _registered(word, storage, tracking_uri)
    local = LOCAL.fullmatch(word)
    if local is not None and (folder := named_folder(storage, local["name"])).is_dir():
        return local_run(folder, local["trial"])
    with asking(tracking_uri):
        record = find_record(tracking_uri, word)
        if record is None:
            raise UsageError(_unknown(word, storage, tracking_uri))
    return _recorded(record, storage)


def local_run(folder: Path, trial: int | str | None = None) -> TrainedRun:
    """Return a training (no trial), or a trial of a search, confirmation or ablation by number or label, by its folder.

    Raises:
        UsageError: the folder holds none of them, there is no such trial, or its checkpoint is not there.
    """
    info = read_run(folder)
    if info.trainer != "css":
        raise UsageError(f"a model must be one of this project's trainer, {folder.name} was trained by {info.trainer}")
    base = TrainConfig.model_validate(info.config)
    if info.kind != "train":
        return _trial(folder, trial, info, base)
    if trial not in (None, 0, "0"):
        raise UsageError(f"a training has no trials, got {folder.name}/{trial}: write {folder.name}")
    if not (folder / LATEST).exists():
        raise UsageError(f"a training must have a checkpoint, there is none yet in {folder}: wait for its report")
    return TrainedRun(folder.name, base, folder / EVALUATION, folder / LATEST, origin=(folder, 0))


def labels_of(info: RunInfo) -> Mapping[int, str]:
    """Return what the trainings of an ablation or a confirmation are called, `VARIANT/SEED`, by number."""
    return {number: f"{variant}/{seed}" for number, (variant, seed) in enumerate(info.request.get("runs", ()))}


def _trial(folder: Path, trial: int | str | None, info: RunInfo, base: TrainConfig) -> TrainedRun:
    searched = info.kind == "search"
    objectives = info.request.get("options", {}).get("objective") if searched else None
    maximise = parse_objectives(objectives or [info.metric])[0].maximise
    trials = read_ledger(folder / LEDGER, maximise).trials
    kept = [key for key in sorted(trials) if (checkpoint_folder(folder / "trials", key) / LATEST).exists()]
    labels = labels_of(info)
    has = f"{folder.name} keeps the checkpoints of {_listed([labels.get(key, str(key)) for key in kept])}"
    number = next((key for key, label in labels.items() if label == trial), None)
    if number is None and trial is not None:
        if not str(trial).isdecimal():
            form = "a number or VARIANT/SEED" if labels else "a number"
            raise UsageError(f"a trial must be {form}, got {folder.name}/{trial}: {has}")
        number = int(trial)
    if number is None:
        number = _best(trials.values(), maximise) if searched else None
        if number is None:
            why = "has no complete trial yet" if searched else "is no search, whose best could be meant"
            form = f"{folder.name}/{'VARIANT/SEED' if labels else 'TRIAL'}"
            raise UsageError(f"a trial must be named as {form}, for {folder.name} {why}; {has}")
    if number not in trials:
        raise UsageError(f"a trial must be one of 0 to {max(trials, default=0)}, got {folder.name}/{number}: {has}")
    if number not in kept:
        state = trials[number].state
        raise UsageError(f"a trial must have its checkpoint, {folder.name}/{number} ({state}) has none: {has}")
    config = apply_overrides(base, with_method(trials[number].overrides))
    if config.hash != trials[number].config_hash:
        raise UsageError(
            f"{folder.name}/{number} must mean the same now as then, its config had hash {trials[number].config_hash} "
            f"and has {config.hash}: use the version of s4 that trained it"
        )
    checkpoint = checkpoint_folder(folder / "trials", number) / LATEST
    out = folder / EVALUATION / f"trial-{number:03d}"
    title = f"{folder.name}/{labels.get(number, str(number))}"
    return TrainedRun(title, config, out, checkpoint, origin=(folder, number))


def _best(trials: Iterable[Trial], maximise: bool) -> int | None:
    sign = -1 if maximise else 1
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE and trial.best]
    return min(complete, key=lambda trial: (sign * trial.best["value"], trial.number)).number if complete else None


def _recorded(run: RecordedRun, storage: Path) -> TrainedRun:
    if run.folder is None:
        raise UsageError(f"an MLflow run must be one that s4 recorded, {run.run_id} has no tag s4.folder: take another")
    folder = next((place for place in (run.folder, storage.resolve() / run.folder.name) if place.is_dir()), None)
    if folder is None:
        raise UsageError(
            f"the folder of a run must be seen from here, that of {run.run_id} is {run.folder}: mount it, or copy it "
            f"to {storage.resolve() / run.folder.name}"
        )
    trained = local_run(folder, run.trial)
    if run.config_hash not in (None, trained.config.hash):
        raise UsageError(
            f"{folder} must hold what {run.run_id} recorded (config {run.config_hash}), it holds {trained.config.hash}"
            ": give another --storage"
        )
    return replace(trained, run_id=run.run_id if run.config_hash else None)


def _registered(uri: str, storage: Path, tracking_uri: str) -> TrainedRun:
    from harness.tracking.models import read_registered  # imports MLflow

    with asking(tracking_uri):
        model = read_registered(tracking_uri, uri)
    out = storage.resolve() / "models" / model.name / f"v{model.version}"
    title = f"models:/{model.name}/{model.version}"
    return TrainedRun(title, model.segmenter.config, out, segmenter=model.segmenter, run_id=model.run_id)


def _unknown(word: str, storage: Path, tracking_uri: str) -> str:
    known = sorted({*folder_names(storage)} | run_names(tracking_uri))
    near = difflib.get_close_matches(word.partition("/")[0], known, n=3)
    others = f"known: {', '.join(known[:5])}" if known else "train first"
    hint = f"did you mean {' or '.join(near)}?" if near else others
    return f"RUN must be {FORMS}, got {word!r}, which is none in {storage.resolve()} or {tracking_uri}: {hint}"


def _listed(names: list[str]) -> str:
    if not names:
        return "no trials"
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"trials {', '.join(names[:LISTED])}{more}"
