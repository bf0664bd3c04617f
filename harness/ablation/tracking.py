"""An ablation in MLflow: a parent, a run for each variant and seed, and a summary of each variant beside them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from harness.ablation.evaluate import CONFIG, CONFUSION, PICTURE, SPLITS, evaluation_file
from harness.run_folder import LATEST, checkpoint_folder
from harness.tracking.recorder import MlflowRecorder
from harness.tracking.run_logger import record_data
from harness.tracking.stores import EXPERIMENT, OUTBOX
from harness.tracking.views import Chart

if TYPE_CHECKING:
    from harness.ablation.request import Request
    from harness.ablation.results import Ablation, Outcome
    from harness.trials import Trial


def open_recorder(folder: Path, request: Request, metric: str, tracking_uri: str) -> MlflowRecorder:
    """Return the recorder of an ablation; one that was begun is continued."""
    return MlflowRecorder(
        tracking_uri,
        EXPERIMENT,
        "ablation",
        folder.name,
        {
            "s4.preset": request.preset,
            "s4.plan": request.plan,
            "s4.base": request.base,
            "s4.data": request.config.data.name,
            "s4.data_digest": request.data_digest,
            "s4.objective": metric,
            "s4.horizon": str(request.config.schedule.steps),
            "s4.folder": str(folder),
        },
        folder / OUTBOX,
        metric="dev/miou",
        trial_tags=lambda trial: _tags(request, trial),
        trial_name=lambda trial: request.runs[trial.number].label,
    )


def _tags(request: Request, trial: Trial) -> dict[str, str]:
    run = request.runs[trial.number]
    return {"s4.variant": run.variant, "s4.diff": _words(request, run.variant)}


def _words(request: Request, variant: str) -> str:
    """Return what a variant sets otherwise than the base, in a line."""
    return ", ".join(f"{path}={value}" for path, value in request.difference(variant).items()) or "the base"


def record_begin(recorder: MlflowRecorder, folder: Path, request: Request) -> None:
    """Record what is compared, and on which data."""
    from trainers.data.splits import open_splits, write_splits

    write_splits(open_splits(request.config.data), folder / "splits")
    recorder.artifact("config.yaml", yaml.safe_dump(request.config.model_dump(mode="json"), sort_keys=False))
    recorder.artifact("plan.yaml", request.plan_text)
    record_data(recorder, request.config, val=True)


def record_outcomes(recorder: MlflowRecorder, folder: Path, found: Ablation, models: bool = True) -> None:
    """Record what was found after training: each run's validation scores and pictures, each variant's summary.

    Args:
        models: whether checkpoints become models, and the winner's teacher a registered one.
    """
    steps = found.request.config.schedule.steps
    for outcome in found.outcomes:
        if outcome.state != "COMPLETE":
            continue
        late = {name: value for name, value in outcome.metrics.items() if name.startswith("val/")}
        recorder.metrics(late | {"final/val_miou": outcome.metrics["val/miou"]}, steps, trial=outcome.number)
        _record_pictures(recorder, folder, outcome.number)
        checkpoint = checkpoint_folder(folder / "trials", outcome.number) / LATEST
        if models:
            recorder.model("teacher", str(checkpoint), outcome.number, metrics=_headline(outcome), step=steps)
    _record_summaries(recorder, found)
    _prepare_views(recorder, found)
    if models:
        _record_winner(recorder, folder, found)


def _record_summaries(recorder: MlflowRecorder, found: Ablation) -> None:
    compared = found.compare(found.metric)
    for variant in found.request.variants:
        versus = compared.get(variant.name)
        over = found.summary(variant.name, found.metric)
        if over.mean is None:
            continue
        tags = {
            "s4.variant": variant.name,
            "s4.n": str(over.n),
            "s4.seeds": ",".join(str(seed) for seed in found.scores(variant.name, found.metric)),
            "s4.diff": _words(found.request, variant.name),
            "s4.verdict": str(versus.verdict) if versus else "the base",
        }
        params = {**variant.overrides, "variant": variant.name, "diff": _words(found.request, variant.name)}
        recorder.aggregate(variant.name, variant.name, aggregate_metrics(found, variant.name), tags, params, over.n)


def _prepare_views(recorder: MlflowRecorder, found: Ablation) -> None:
    """Prepare two pages in MLflow: variants side by side, and the curves of all runs."""
    metric = found.metric
    bars = [f"mean/{metric}", f"std/{metric}", f"difference/mean/{metric}", f"difference/p_t/{metric}", "mean/dev/miou"]
    charts = [Chart(name, "BAR") for name in dict.fromkeys(bars)]
    recorder.view("variants", "tags.`s4.kind` = 'aggregate'", bars[0], charts)
    lines = ["dev/miou", "train/loss/total", "quality/mix/miou", "quality/logit/miou", "health/predicted_entropy"]
    recorder.view("runs", "tags.`s4.kind` = 'trial'", "dev/miou", [Chart(name, "LINE") for name in lines])


def _record_winner(recorder: MlflowRecorder, folder: Path, found: Ablation) -> None:
    """Register the best run of the variant with the highest mean, and say its verdict, for its lead may be noise."""
    best = found.best_run(found.winner) if found.winner is not None else None
    if best is None:
        return
    versus = found.compare(found.metric).get(best.variant)
    trial = checkpoint_folder(folder / "trials", best.number)
    tags = {
        "s4.search": found.name,
        "s4.variant": best.variant,
        "s4.seed": str(best.seed),
        "s4.objective": found.metric,
        "s4.verdict": str(versus.verdict) if versus else "the base",
    }
    name = f"{EXPERIMENT}-{found.name}"
    recorder.register(name, trial / LATEST, trial / CONFIG, best.number, tags=tags, metrics=_headline(best))


def _headline(outcome: Outcome) -> dict[str, float]:
    return {name: outcome.metrics[name] for name in ("val/miou", "dev/miou") if name in outcome.metrics}


def aggregate_metrics(found: Ablation, variant: str) -> dict[str, float]:
    """Return `mean/`, `std/`, `ci_low/`, `ci_high/` of every metric of a variant, and `difference/...` to the base.

    What too few seeds do not allow is left out.
    """
    metrics: dict[str, float] = {}
    for name in found.metrics:
        over = found.summary(variant, name)
        parts = {"mean": over.mean, "std": over.std, "ci_low": over.low, "ci_high": over.high}
        metrics |= {f"{part}/{name}": value for part, value in parts.items() if value is not None}
    versus = found.compare(found.metric).get(variant)
    if versus is not None:
        numbers = {"mean": versus.difference, "ci_low": versus.ci_low, "ci_high": versus.ci_high, "p_t": versus.p_t}
        metrics |= {f"difference/{part}/{found.metric}": x for part, x in numbers.items() if x is not None}
    return metrics


def _record_pictures(recorder: MlflowRecorder, folder: Path, number: int) -> None:
    """Keep a run's pictures, its IoU by class and its confusion matrices."""
    from harness.models.evaluation import classes_csv, confusion_csv
    from trainers.image_evaluation import load_image_evaluation

    trial = checkpoint_folder(folder / "trials", number)
    for picture in (PICTURE, CONFUSION):
        if (trial / picture).exists():
            recorder.file(trial / picture, trial=number)
    for split in SPLITS:
        path = evaluation_file(trial, split)
        if path.exists():
            found = load_image_evaluation(path)
            recorder.artifact(f"{split}/classes.csv", classes_csv(found), trial=number)
            recorder.artifact(f"{split}/confusion.csv", confusion_csv(found), trial=number)
