"""An ablation in MLflow: a parent, a run for each variant and seed, and a summary of each variant beside them."""

from __future__ import annotations

from colorsys import hls_to_rgb
from pathlib import Path

from harness.ablation.request import Request
from harness.ablation.results import Ablation, Outcome
from harness.run_folder import (
    CONFIG,
    CONFUSION,
    LATE_SPLITS,
    LATEST,
    OVERLAYS,
    REPRESENTATIONS,
    TRIALS,
    checkpoint_folder,
    evaluation_file,
)  # fmt: skip
from harness.statistics.compare import Comparison, in_words
from harness.tracking.recorder import MlflowRecorder
from harness.tracking.run_logger import CHAMPION
from harness.tracking.stores import COLOUR, EXPERIMENT, NOTE
from harness.tracking.views import CURVES, Chart
from harness.trials import Trial, Value

BASE = "the base"
"""In place of a verdict on the variant that others are compared with."""
INK = "#1b1f24"
"""Colour of a base, as in reports."""


def params_of(request: Request, metric: str) -> dict[str, Value]:
    """Return what an ablation or a confirmation was asked for at its beginning, as params of its run."""
    about = {"plan": request.plan} if request.confirms is None else {"confirms": request.confirms.search}
    return {
        "preset": request.preset, **about, "base": request.base, "horizon": request.info.horizon, "metric": metric,
        "variants": ", ".join(variant.name for variant in request.tried),
        "seeds": ", ".join(map(str, request.seeds)),
    }  # fmt: skip


def colours(request: Request) -> dict[str, str]:
    """Return a colour for each variant, `#rrggbb`, no two the same: ink for the first base, hues for the others."""
    first, *others = [variant.name for variant in request.variants]
    hues = {}
    for index, name in enumerate(others):
        # Neighbours on the wheel differ in lightness, too.
        red, green, blue = hls_to_rgb(0.58 + index / len(others), (0.36, 0.52, 0.66)[index % 3], 0.7)
        hues[name] = "#" + "".join(f"{round(255 * part):02x}" for part in (red, green, blue))
    return {first: INK, **hues}


def run_tags(request: Request, trial: Trial) -> dict[str, str]:
    """Return the tags of a run besides those of the whole."""
    run = request.runs[trial.number]
    tags = _variant_tags(request, run.variant)
    digest = request.digests.get(run.label)
    return tags if digest is None else tags | {"s4.data_digest": digest}


def _variant_tags(request: Request, name: str) -> dict[str, str]:
    base = request.base_of(name)
    changes = "\n".join(f"- `{path}` = {value}" for path, value in request.difference(name).items())
    note = f"Differs from {base} in\n\n{changes}" if changes else f"{name} is the base: others are compared with it."
    return {
        "s4.variant": name, "s4.diff": request.difference_text(name), COLOUR: colours(request)[name], NOTE: note,
    }  # fmt: skip


def record_outcomes(recorder: MlflowRecorder, folder: Path, ablation: Ablation) -> None:
    """Record each run's validation scores and pictures, each variant's summary, and which one leads.

    Checkpoints of this project's trainer become models.
    """
    info = ablation.request.info
    for outcome in ablation.outcomes:
        if outcome.state != "COMPLETE":
            continue
        late = {name: value for name, value in outcome.metrics.items() if name.partition("/")[0] in LATE_SPLITS}
        if late:
            recorder.metrics(late, info.horizon, trial=outcome.number)
        _record_pictures(recorder, folder, outcome.number)
        if info.trainer == "css" and late:
            checkpoint = str(checkpoint_folder(folder / TRIALS, outcome.number) / LATEST)
            name = f"{ablation.name}/{outcome.variant}/seed{outcome.seed}"
            recorder.model(name, checkpoint, outcome.number, metrics=_headline(outcome), step=info.horizon)
    _record_summaries(recorder, ablation)
    recorder.tag(winner_tags(ablation))
    _prepare_views(recorder, ablation)


def winner_tags(ablation: Ablation) -> dict[str, str]:
    """Return which variant leads, in each group of a crossing plan, and what may be said of its lead.

    Of a confirmation it is the chosen one, and whether it beat the noise.
    """
    compared, leading = ablation.compare(ablation.metric), ablation.winners
    if ablation.request.confirms is not None:
        leading = {"": ablation.chosen} if ablation.chosen else {}
    verdicts = {name: str(compared[name].verdict) if name in compared else BASE for name in leading.values()}
    beat = ablation.beat_the_noise
    if beat is not None:
        verdicts = dict.fromkeys(verdicts, "beat the noise" if beat else "did not beat the noise")
    seeds = ", ".join(map(str, ablation.request.seeds))
    return {"s4.winner": ", ".join(verdicts), "s4.verdict": ", ".join(verdicts.values()), "s4.seeds": seeds}


def _record_summaries(recorder: MlflowRecorder, ablation: Ablation) -> None:
    compared = ablation.compare(ablation.metric)
    for variant in ablation.request.tried:
        versus, tags = compared.get(variant.name), _variant_tags(ablation.request, variant.name)
        scores = ablation.scores(variant.name, ablation.metric)
        if not scores:
            continue
        tags |= {"s4.seeds": ", ".join(map(str, scores)), "s4.verdict": str(versus.verdict) if versus else BASE}
        if versus is not None:
            tags |= {"s4.interval": _interval(versus), NOTE: f"{in_words(versus, 4)}\n\n{tags[NOTE]}"}
        params = {**variant.overrides, "variant": variant.name, "diff": tags["s4.diff"]}
        metrics = aggregate_metrics(ablation, variant.name)
        recorder.aggregate(variant.name, variant.name, metrics, tags, params, len(scores))


def _interval(versus: Comparison) -> str:
    """Return the interval of a difference for a column of the table, which has no room for a metric each end."""
    return "" if versus.ci_low is None else f"[{versus.ci_low:+.4f}, {versus.ci_high:+.4f}]"


def _prepare_views(recorder: MlflowRecorder, ablation: Ablation) -> None:
    """Prepare two pages in MLflow: variants side by side, and the curves of all runs, a line a variant."""
    metric, watched = ablation.metric, ablation.request.watched
    bars = [
        f"mean/{metric}",
        f"difference/{metric}",
        f"std/{metric}",
        *([] if metric == watched else [f"mean/{watched}"]),
    ]
    columns = ["tags.s4.verdict", f"metrics.{bars[1]}", "tags.s4.interval", "metrics.seeds", f"metrics.{bars[0]}"]
    charts = [Chart(name, "BAR") for name in bars]
    recorder.view("variants", "tags.`s4.kind` = 'aggregate'", bars[0], charts, [*columns, "tags.s4.diff"])
    lines = [name for name in dict.fromkeys([watched, *CURVES]) if name in ablation.metrics]
    columns = [f"metrics.{name}" for name in dict.fromkeys([metric, watched])]
    columns += ["tags.s4.seed", "tags.s4.state", "tags.s4.diff"]
    charts = [Chart(name, "LINE") for name in lines]
    recorder.view("runs", "tags.`s4.kind` = 'trial'", watched, charts, columns, group_by="s4.variant")


def record_winner(recorder: MlflowRecorder, folder: Path, ablation: Ablation) -> str:
    """Register the teacher of the best run of the variant that leads, and return what became of it, in a line.

    The tag `s4.verdict` says whether its lead may be noise.
    """
    best = ablation.best_run(ablation.winner) if ablation.winner is not None else None
    if best is None:
        return "nothing is registered: no variant leads" + (", each group has one" if ablation.winners else "")
    tags = {"s4.search": ablation.name, "s4.variant": best.variant, "s4.seed": str(best.seed),
            "s4.objective": ablation.metric, "s4.verdict": winner_tags(ablation)["s4.verdict"]}  # fmt: skip
    trial, name = checkpoint_folder(folder / TRIALS, best.number), f"{EXPERIMENT}-{ablation.name}"
    recorder.register(name, trial / LATEST, trial / CONFIG, best.number, tags=tags, metrics=_headline(best))
    return f"registered: {best.variant}, seed {best.seed}, as models:/{name}@{CHAMPION}"


def _headline(outcome: Outcome) -> dict[str, float]:
    return {
        name: outcome.metrics[name]
        for name in (*(f"{split}/miou" for split in LATE_SPLITS), "dev/miou")
        if name in outcome.metrics
    }


def aggregate_metrics(ablation: Ablation, variant: str) -> dict[str, float]:
    """Return `mean/`, `std/` and `difference/` of what a variant is judged by and of its IoUs, and `seeds`.

    Of the metric that variants are judged by also `ci_low/` and `ci_high/` of the difference to the base, and `p/` of
    the paired t-test. What too few seeds do not allow is left out.
    """
    metric, watched = ablation.metric, ablation.request.watched
    metrics: dict[str, float | None] = {}
    for name in ablation.metrics:
        if name in (metric, watched) or "/iou/" in name:
            over, versus = ablation.summary(variant, name), ablation.difference(variant, name)
            metrics |= {f"mean/{name}": over.mean, f"std/{name}": over.std}
            metrics |= {f"difference/{name}": versus.mean} if versus is not None else {}
    judged = ablation.compare(metric).get(variant)
    if judged is not None:
        numbers = {"difference": judged.difference, "ci_low": judged.ci_low, "ci_high": judged.ci_high, "p": judged.p_t}
        metrics |= {f"{part}/{metric}": value for part, value in numbers.items()}
    metrics["seeds"] = float(len(ablation.scores(variant, metric)))
    return {name: value for name, value in metrics.items() if value is not None}


def _record_pictures(recorder: MlflowRecorder, folder: Path, number: int) -> None:
    """Keep a run's pictures, its IoU by class and its confusion matrices."""
    from harness.models.evaluation import classes_csv, confusion_csv
    from trainers.image_evaluation import load_image_evaluation

    trial = checkpoint_folder(folder / TRIALS, number)
    for picture in (OVERLAYS, REPRESENTATIONS, CONFUSION):
        if (trial / picture).exists():
            recorder.file(trial / picture, trial=number)
    for split in ("dev", *LATE_SPLITS):
        path = evaluation_file(trial, split)
        if path.exists():
            evaluation = load_image_evaluation(path)
            recorder.artifact(f"{split}/classes.csv", classes_csv(evaluation), trial=number)
            recorder.artifact(f"{split}/confusion.csv", confusion_csv(evaluation), trial=number)
