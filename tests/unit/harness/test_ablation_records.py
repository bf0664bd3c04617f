"""What an ablation leaves in MLflow beside its trainings: verdicts, differences, colours."""

from dataclasses import fields as dataclass_fields
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from invented.ablations import ODD, PLAIN, STRONG, made_ablation, made_request
from scipy import stats

from harness.ablation.request import Confirms
from harness.ablation.results import Ablation
from harness.ablation.tracking import aggregate_metrics, colours, run_tags, winner_tags
from harness.trials import Trial

JUDGED = "val/miou"


@pytest.fixture(scope="module")
def ablation(tmp_path_factory: pytest.TempPathFactory) -> Ablation:
    return made_ablation(tmp_path_factory.mktemp("made") / "made")


def test_a_summary_has_mean_spread_and_difference_of_what_is_judged_and_of_ious_alone(ablation: Ablation) -> None:
    metrics = aggregate_metrics(ablation, STRONG)
    about = {name.partition("/")[2] for name in metrics} - {""}
    assert about == {JUDGED, "dev/miou", *(name for name in ablation.metrics if "/iou/" in name)}
    assert {name for name in metrics if name.endswith(JUDGED)} == {
        f"{part}/{JUDGED}" for part in ("mean", "std", "difference", "ci_low", "ci_high", "p")
    }
    scores, base = (np.array([*ablation.scores(name, JUDGED).values()]) for name in (STRONG, PLAIN))
    assert metrics[f"mean/{JUDGED}"] == pytest.approx(scores.mean())
    assert metrics[f"std/{JUDGED}"] == pytest.approx(scores.std(ddof=1))
    assert metrics[f"difference/{JUDGED}"] == pytest.approx((scores - base).mean())
    low, high = stats.t.interval(0.95, 2, (scores - base).mean(), stats.sem(scores - base))
    assert (metrics[f"ci_low/{JUDGED}"], metrics[f"ci_high/{JUDGED}"]) == pytest.approx((low, high))
    assert metrics["seeds"] == 3


def test_the_base_has_no_difference(ablation: Ablation) -> None:
    assert not [name for name in aggregate_metrics(ablation, PLAIN) if name.startswith(("difference", "ci_", "p/"))]


def test_the_parent_says_which_variant_leads_and_whether_that_is_noise(ablation: Ablation) -> None:
    assert winner_tags(ablation) == {"s4.winner": STRONG, "s4.verdict": "better", "s4.seeds": "0, 1, 2"}


@pytest.mark.parametrize(("chosen", "beat", "verdict"), [("strong", True, "beat the noise"),
                                                         ("strong", False, "did not beat the noise"),
                                                         (None, None, "")])  # fmt: skip
def test_of_a_confirmation_the_parent_says_what_was_chosen_and_whether_it_beat_the_noise(
    chosen: str | None, beat: bool | None, verdict: str, ablation: Ablation
) -> None:
    class Confirmed(Ablation):
        pass

    Confirmed.chosen, Confirmed.beat_the_noise = property(lambda _: chosen), property(lambda _: beat)
    request = replace(ablation.request, confirms=Confirms("first", {}, {}, None))
    fields = {item.name: getattr(ablation, item.name) for item in dataclass_fields(ablation)}
    tags = winner_tags(Confirmed(**{**fields, "request": request}))
    assert (tags["s4.winner"], tags["s4.verdict"]) == (chosen or "", verdict)


def test_nothing_leads_where_nothing_is_complete(tmp_path: Path) -> None:
    request = made_request((0,))
    missing = [(run.variant, run.seed) for run in request.runs]
    ablation = made_ablation(tmp_path / "none", missing=missing, request=request)
    assert (winner_tags(ablation)["s4.winner"], winner_tags(ablation)["s4.verdict"]) == ("", "")


@pytest.mark.parametrize("number", [1, 2, 3, 7, 30, 90])
def test_no_two_variants_have_the_same_colour(number: int) -> None:
    variants = "".join(f"  v{index}: {{loss.lambda_u: {index / 100}}}\n" for index in range(1, number + 1))
    request = made_request((0,), plan=f"name: p\nsource: s\nvariants:\n  plain: {{}}\n{variants}")
    assert len({*colours(request).values()}) == number + 1


def test_seeds_of_a_variant_share_its_colour(ablation: Ablation) -> None:
    request, by_variant = ablation.request, dict[str, set[str]]()
    for number, run in enumerate(request.runs):
        tags = run_tags(request, Trial(number, {}, {}))
        by_variant.setdefault(run.variant, set()).add(tags["mlflow.runColor"])
    assert {name: len(found) for name, found in by_variant.items()} == {PLAIN: 1, STRONG: 1, ODD: 1}
    assert by_variant[STRONG] == {colours(request)[STRONG]}


def test_a_run_says_what_its_variant_changes(ablation: Ablation) -> None:
    note = run_tags(ablation.request, Trial(1, {}, {}))["mlflow.note.content"]
    assert note == "Differs from plain in\n\n- `loss.lambda_u` = 2.0"
