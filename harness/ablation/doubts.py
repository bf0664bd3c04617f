"""Why trainings with several seeds decide nothing: too few of them, or nothing was learnt."""

from __future__ import annotations

from collections.abc import Iterator

from harness.ablation.results import Ablation, Outcome

FEWEST_SEEDS = 3
TOLERANCE = 1e-3
"""Of a score: what lies within it of a constant prediction has learnt nothing."""


def doubts(ablation: Ablation) -> list[str]:
    """Return why the scores decide nothing, a line a reason."""
    return [f"decides nothing: {reason}" for reason in _reasons(ablation)]


def _reasons(ablation: Ablation) -> Iterator[str]:
    metric = ablation.metric
    runs = [run for run in ablation.outcomes if run.state == "COMPLETE" and metric in run.metrics]
    if not runs:
        return
    seeds = len({run.seed for run in runs})
    if seeds < FEWEST_SEEDS:
        yield f"{seeds} of at least {FEWEST_SEEDS} seeds; give more --seeds"
    scores = [run.metrics[metric] for run in runs]
    if len(scores) > 1 and min(scores) == max(scores):
        yield f"every training ends with the same {metric}, {scores[0]:.4f}; let it train longer, or look at its masks"
    elif all(_is_constant(run, metric) for run in runs):
        yield (
            f"every training ends within {TOLERANCE:g} of the {metric} of one class for every pixel, at most "
            f"{max(scores):.4f}; let it train longer"
        )


def _is_constant(run: Outcome, metric: str) -> bool:
    """Return whether a run scores as if it predicted one class for every pixel; where classes are not known it is not.

    Then one class has all of the mean over classes: the others have IoU 0.
    """
    split, _, name = metric.partition("/")
    classes = [value for key, value in run.metrics.items() if key.startswith(f"{split}/iou/")]
    return name == "miou" and bool(classes) and run.metrics[metric] - max(classes) / len(classes) < TOLERANCE
