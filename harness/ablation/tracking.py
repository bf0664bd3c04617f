"""An ablation in MLflow: a parent, a run for each variant and seed, and a summary of each variant beside them."""

from __future__ import annotations

from pathlib import Path

from harness.ablation.request import Request
from harness.ablation.results import Ablation, Outcome
from harness.run_folder import (
    CONFIG,
    CONFUSION,
    LATEST,
    OVERLAYS,
    REPRESENTATIONS,
    TRIALS,
    checkpoint_folder,
    evaluation_file,
)  # fmt: skip
from harness.tracking.recorder import MlflowRecorder
from harness.tracking.stores import EXPERIMENT
from harness.tracking.views import Chart
from harness.trials import Trial


def run_tags(request: Request, trial: Trial) -> dict[str, str]:
    """Return the tags of a run besides those of the whole."""
    run = request.runs[trial.number]
    tags = {"s4.variant": run.variant, "s4.diff": request.difference_text(run.variant)}
    digest = request.digests.get(run.label)
    return tags if digest is None else tags | {"s4.data_digest": digest}


def record_outcomes(recorder: MlflowRecorder, folder: Path, ablation: Ablation) -> None:
    """Record each run's validation scores and pictures, and each variant's summary.

    Checkpoints of this project's trainer become models, and the teacher of an ablation's winner a registered one.
    """
    info = ablation.request.info
    for outcome in ablation.outcomes:
        if outcome.state != "COMPLETE":
            continue
        late = {name: value for name, value in outcome.metrics.items() if name.startswith("val/")}
        if late:
            finals = {f"final/{name.replace('/', '_')}": value for name, value in late.items() if name == "val/miou"}
            recorder.metrics(late | finals, info.horizon, trial=outcome.number)
        _record_pictures(recorder, folder, outcome.number)
        if info.trainer == "css" and late:
            checkpoint = str(checkpoint_folder(folder / TRIALS, outcome.number) / LATEST)
            recorder.model("teacher", checkpoint, outcome.number, metrics=_headline(outcome), step=info.horizon)
    _record_summaries(recorder, ablation)
    _prepare_views(recorder, ablation)
    if info.trainer == "css" and ablation.request.confirms is None:
        _record_winner(recorder, folder, ablation)


def _record_summaries(recorder: MlflowRecorder, ablation: Ablation) -> None:
    compared = ablation.compare(ablation.metric)
    for variant in ablation.request.tried:
        versus = compared.get(variant.name)
        over = ablation.summary(variant.name, ablation.metric)
        if over.mean is None:
            continue
        tags = {
            "s4.variant": variant.name,
            "s4.n": str(over.n),
            "s4.seeds": ",".join(str(seed) for seed in ablation.scores(variant.name, ablation.metric)),
            "s4.diff": ablation.request.difference_text(variant.name),
            "s4.verdict": str(versus.verdict) if versus else "the base",
        }
        params = {**variant.overrides, "variant": variant.name, "diff": ablation.request.difference_text(variant.name)}
        recorder.aggregate(variant.name, variant.name, aggregate_metrics(ablation, variant.name), tags, params, over.n)


def _prepare_views(recorder: MlflowRecorder, ablation: Ablation) -> None:
    """Prepare two pages in MLflow: variants side by side, and the curves of all runs."""
    metric = ablation.metric
    bars = [
        f"mean/{metric}",
        f"std/{metric}",
        f"difference/mean/{metric}",
        f"difference/p_t/{metric}",
        f"mean/{ablation.request.watched}",
    ]
    charts = [Chart(name, "BAR") for name in dict.fromkeys(bars)]
    recorder.view("variants", "tags.`s4.kind` = 'aggregate'", bars[0], charts)
    watched = ablation.request.watched
    lines = [watched, "train/loss/total", "quality/mix/miou", "quality/logit/miou", "health/predicted_entropy"]
    recorder.view("runs", "tags.`s4.kind` = 'trial'", watched, [Chart(name, "LINE") for name in lines])


def _record_winner(recorder: MlflowRecorder, folder: Path, ablation: Ablation) -> None:
    """Register the best run of the variant with the highest mean, and say its verdict, for its lead may be noise."""
    best = ablation.best_run(ablation.winner) if ablation.winner is not None else None
    if best is None:
        return
    versus = ablation.compare(ablation.metric).get(best.variant)
    trial = checkpoint_folder(folder / TRIALS, best.number)
    tags = {
        "s4.search": ablation.name,
        "s4.variant": best.variant,
        "s4.seed": str(best.seed),
        "s4.objective": ablation.metric,
        "s4.verdict": str(versus.verdict) if versus else "the base",
    }
    name = f"{EXPERIMENT}-{ablation.name}"
    recorder.register(name, trial / LATEST, trial / CONFIG, best.number, tags=tags, metrics=_headline(best))


def _headline(outcome: Outcome) -> dict[str, float]:
    return {name: outcome.metrics[name] for name in ("val/miou", "dev/miou") if name in outcome.metrics}


def aggregate_metrics(ablation: Ablation, variant: str) -> dict[str, float]:
    """Return `mean/`, `std/`, `ci_low/`, `ci_high/` of every metric of a variant, and `difference/...` to the base.

    What too few seeds do not allow is left out.
    """
    metrics: dict[str, float] = {}
    for name in ablation.metrics:
        over = ablation.summary(variant, name)
        parts = {"mean": over.mean, "std": over.std, "ci_low": over.low, "ci_high": over.high}
        metrics |= {f"{part}/{name}": value for part, value in parts.items() if value is not None}
    versus = ablation.compare(ablation.metric).get(variant)
    if versus is not None:
        numbers = {"mean": versus.difference, "ci_low": versus.ci_low, "ci_high": versus.ci_high, "p_t": versus.p_t}
        metrics |= {f"difference/{part}/{ablation.metric}": x for part, x in numbers.items() if x is not None}
    return metrics


def _record_pictures(recorder: MlflowRecorder, folder: Path, number: int) -> None:
    """Keep a run's pictures, its IoU by class and its confusion matrices."""
    from harness.models.evaluation import classes_csv, confusion_csv
    from trainers.image_evaluation import load_image_evaluation

    trial = checkpoint_folder(folder / TRIALS, number)
    for picture in (OVERLAYS, REPRESENTATIONS, CONFUSION):
        if (trial / picture).exists():
            recorder.file(trial / picture, trial=number)
    for split in ("dev", "val"):
        path = evaluation_file(trial, split)
        if path.exists():
            evaluation = load_image_evaluation(path)
            recorder.artifact(f"{split}/classes.csv", classes_csv(evaluation), trial=number)
            recorder.artifact(f"{split}/confusion.csv", confusion_csv(evaluation), trial=number)
