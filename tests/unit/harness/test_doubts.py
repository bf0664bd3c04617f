"""Scores that decide nothing are said to: too few seeds, equal scores, or those of one class for every pixel."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from invented.ablations import PLAIN, STRONG, made_request
from rich.console import Console as RichConsole

from harness.ablation.doubts import doubts
from harness.ablation.request import Run
from harness.ablation.results import Ablation, Outcome
from harness.console import Console
from harness.showing import show_noise, show_table

CLASSES = 5


def ablation(score: Callable[[Run], dict[str, float]], seeds: tuple[int, ...] = (0, 1, 2)) -> Ablation:
    request = made_request(seeds)
    outcomes = [
        Outcome(number, run.variant, run.seed, "COMPLETE", score(run)) for number, run in enumerate(request.runs)
    ]
    return Ablation("a", request, outcomes, "val/miou", "x", 9.0, 9.0)


def learnt(run: Run) -> dict[str, float]:
    return {"val/miou": 0.5 + 0.01 * run.seed + 0.001 * len(run.variant), "val/iou/a": 0.9, "val/iou/b": 0.1}


def constant(run: Run, more: float = 0.0) -> dict[str, float]:
    """One class everywhere, which covers a little more of the images with every seed."""
    hit = 0.4 + 0.001 * run.seed
    others = {f"val/iou/{index}": more for index in range(1, CLASSES)}
    return {"val/miou": (hit + sum(others.values())) / CLASSES, "val/iou/0": hit, **others}


def test_trainings_that_learnt_something_with_three_seeds_leave_no_doubt() -> None:
    assert doubts(ablation(learnt)) == []


@pytest.mark.parametrize("seeds", [(0,), (4, 7)])
def test_fewer_than_three_seeds_decide_nothing(seeds: tuple[int, ...]) -> None:
    assert doubts(ablation(learnt, seeds)) == [f"decides nothing: {len(seeds)} of at least 3 seeds; give more --seeds"]


def test_equal_scores_decide_nothing() -> None:
    [said] = doubts(ablation(lambda run: {"val/miou": 0.25}))
    assert said.startswith("decides nothing: every training ends with the same val/miou, 0.2500")


def test_scores_of_one_class_for_every_pixel_decide_nothing() -> None:
    [said] = doubts(ablation(constant))
    assert said.startswith("decides nothing: every training ends within 0.001 of the val/miou of one class")


@pytest.mark.parametrize(("more", "doubted"), [(0.0012, True), (0.0013, False)])
def test_the_line_is_a_thousandth_above_a_constant_prediction(more: float, doubted: bool) -> None:
    assert 4 * 0.0012 / CLASSES < 1e-3 < 4 * 0.0013 / CLASSES
    assert bool(doubts(ablation(lambda run: constant(run, more)))) is doubted


def test_one_training_that_learnt_is_enough() -> None:
    assert doubts(ablation(lambda run: (learnt if (run.variant, run.seed) == (STRONG, 1) else constant)(run))) == []


def test_scores_without_classes_are_doubted_only_where_they_are_equal() -> None:
    assert doubts(ablation(lambda run: {"val/miou": 0.08 + 0.0001 * run.seed})) == []


@pytest.mark.parametrize("show", [show_table, show_noise])
def test_the_terminal_says_it(show: Callable[[Ablation, Path, Console], None], tmp_path: Path) -> None:
    out = io.StringIO()
    made = ablation(lambda run: {**constant(run), "dev/miou": 0.1 + 0.01 * run.seed}, (0, 1))
    assert made.request.base == PLAIN
    show(made, tmp_path, Console(RichConsole(file=out, width=200), None))
    assert "decides nothing: 2 of at least 3 seeds" in out.getvalue()
    assert "decides nothing: every training ends within 0.001" in out.getvalue()
