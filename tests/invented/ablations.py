"""Ablations that never were, written as real ones are: request, ledger, confusion matrices, results."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from harness.ablation.request import Request, Run, make_request, write_request
from harness.ablation.results import Ablation, collect, write_results
from harness.experiment import CssExperiment
from harness.ledger import LEDGER, Ledger, read_ledger
from harness.models.evaluation import metrics_of
from harness.run_folder import RunInfo, checkpoint_folder, evaluation_file
from harness.trials import Trial, TrialState
from search_spaces.ablation import parse_plan
from trainers.image_evaluation import ImageEvaluation, load_image_evaluation, save_image_evaluation

PLAN = """
name: made_up
source: nowhere
variants:
  plain: {}
  strong: {loss.lambda_u: 2.0}
  "odd_100% | <b>": {loss.lambda_u: 0.5}
"""
CONFIRMATION = """
name: made_up
source: a search that never was
variants:
  baseline: {}
  trial 7: {loss.lambda_u: 2.0}
  trial 3: {loss.lambda_u: 0.5}
  trial 12: {loss.lambda_u: 1.5}
"""
"""Of which one is chosen on dev, and only that one and the baseline are evaluated on the validation images."""
PLAIN, STRONG, ODD = "plain", "strong", "odd_100% | <b>"
BASELINE, CHOSEN, OTHERS = "baseline", "trial 3", ("trial 7", "trial 12")
RIGHT = {PLAIN: 0.50, STRONG: 0.60, ODD: 0.51, CHOSEN: 0.58, "trial 7": 0.56}
"""Share of pixels that a variant gets right, about."""
WOBBLE = {PLAIN: (0.0, 0.04, 0.02, 0.03), STRONG: (0.001, 0.039, 0.021, 0.03), ODD: (0.02, 0.01, 0.03, 0.0),
          CHOSEN: (0.002, 0.039, 0.022, 0.03)}  # fmt: skip
"""What the seeds 0, 1, 2 and 3 add to it."""
CROSSED = {"16/css_mix": STRONG, "16/contrastive": ODD, "32/contrastive": ODD, "32/css_mix": PLAIN}
"""Variants of a crossing plan that are as good as one of those above."""
STEPS, EVERY = 60, 20
IMAGES = 6
ABSENT = "9"
"""A class that is in no image and in no prediction."""
SETTINGS = {"schedule.steps": STEPS, "schedule.evaluate_every": EVERY, "data.dev": 8}


def made_request(
    seeds: Sequence[int] = (0, 1, 2), *, plan: str = PLAN, vary_data: bool = False, only: Sequence[str] = ()
) -> Request:
    experiment = CssExperiment.of("digits_css", SETTINGS)
    info = replace(RunInfo.of("ablation", experiment, "dev/miou", {}), data_digest="d1ge57")
    return make_request(parse_plan(plan), info, experiment, seeds, vary_data, only)


def made_ablation(
    folder: Path,
    seeds: Sequence[int] = (0, 1, 2),
    *,
    failed: Collection[tuple[str, int]] = (),
    missing: Collection[tuple[str, int]] = (),
    unseen: Collection[tuple[str, int]] = (),
    dev_only: Collection[str] = (),
    metric: str = "val/miou",
    request: Request | None = None,
) -> Ablation:
    """Write an ablation and return it.

    Args:
        failed: variant and seed of trainings that diverged after two reports.
        missing: of those that never began.
        unseen: of those whose confusion matrices were lost after the evaluation.
        dev_only: variants that nobody evaluated on the validation images.
    """
    request = request or made_request(seeds)
    folder.mkdir(parents=True)
    write_request(folder, request)
    ledger, late = Ledger(folder / LEDGER, "dev/miou"), {}
    for number, run in enumerate(request.runs):
        if (run.variant, run.seed) in missing:
            continue
        lost = (run.variant, run.seed) in failed
        write_training(ledger, number, run, request, lost)
        if not lost:
            trial = checkpoint_folder(folder / "trials", number)
            save_image_evaluation(evaluation_file(trial, "dev"), made_evaluation(run, "dev", request))
            if run.variant in dev_only:
                continue
            save_image_evaluation(evaluation_file(trial, "val"), made_evaluation(run, "val", request))
            late[number] = metrics_of(load_image_evaluation(evaluation_file(trial, "val")), "val")
            if (run.variant, run.seed) in unseen:
                evaluation_file(trial, "val").unlink()
    ledger.spent(90.0, 180.0)
    ledger.close()
    outcomes = collect(request, read_ledger(folder / LEDGER).trials, late)
    ablation = Ablation(folder.name, request, outcomes, metric, "sqlite:///x.db", 90.0, 180.0)
    write_results(folder, ablation)
    return ablation


def right_of(run: Run) -> float:
    """Share of pixels that a run gets right, about."""
    name = CROSSED.get(run.variant, run.variant)
    return RIGHT.get(name, 0.5) + WOBBLE.get(name, WOBBLE[PLAIN])[run.seed]


def made_evaluation(run: Run, split: str, request: Request) -> ImageEvaluation:
    """Confusion matrices of a run: what is wrong is taken for the class before; of the last class there is nothing."""
    classes = request.classes
    draw = np.random.default_rng(run.seed + (100 if split == "dev" else 0))
    confusion = np.zeros((IMAGES, len(classes), len(classes)), np.int64)
    for image in confusion:
        for index in range(1, len(classes) - 1):
            hits = round(100 * right_of(run) + draw.uniform(-8, 8))
            image[index, index], image[index, index - 1] = hits, 100 - hits
        image[0, 0] = 200
    return ImageEvaluation(tuple(f"{split}-{index}" for index in range(IMAGES)), tuple(classes), confusion)


def write_training(ledger: Ledger, number: int, run: Run, request: Request, lost: bool) -> None:
    trial = Trial(number, {"run": number}, request.overrides(run), f"hash{number}")
    ledger.on_start(trial)
    for step in range(EVERY, (2 * EVERY if lost else STEPS) + 1, EVERY):
        trial.metrics = reported(run, step)
        ledger.on_report(trial)
    trial.state = TrialState.FAIL if lost else TrialState.COMPLETE
    trial.error = "Traceback\n  File ...\nDivergedError: the loss is nan | at step 41 <b>" if lost else None
    ledger.on_end(trial)


def reported(run: Run, step: int) -> Mapping[str, float]:
    share = step / STEPS
    return {
        "step": float(step), "dev/miou": right_of(run) * share, "train/loss/total": 2.0 - share * right_of(run),
        "train/loss/contrast": 4.0 - share, "train/share/valid": 0.5 + 0.1 * share,
        "quality/logit/miou": 0.3 * share, "quality/logit/accuracy": 0.6 + 0.1 * share,
        "quality/mix/miou": right_of(run) * share, "quality/mix/accuracy": 0.7 + 0.1 * share,
        "quality/mix/share": 0.5 + 0.1 * share, "quality/agreement": 0.5 + 0.1 * share,
        "health/prototype_angle_min": 10 * share, "health/classes_without_prototype": 0.0,
    }  # fmt: skip
