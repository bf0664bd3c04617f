"""`s4 ablate` and `s4 noise` before they train: what is listed, what is refused, and what a finished one shows."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from scipy import stats

from harness.ablation.request import Request, Run, make_request, read_request, with_seeds, write_request
from harness.ablation.results import Ablation, Outcome, read_results, write_results
from harness.ablation.run import lines, to_table
from harness.cli.main import run
from harness.experiment import CssExperiment
from harness.ledger import LEDGER, Ledger
from harness.planning.search_cost import counted_bytes
from harness.run_folder import LATEST, TRIALS, RunInfo, checkpoint_folder
from harness.trials import Trial, TrialState
from search_spaces.ablation import load_plan, parse_plan
from trainers.cost import step_cost
from trainers.errors import UsageError
from trainers.methods import method_settings
from trainers.overrides import parse_settings

SETTINGS = parse_settings(["data.labelled=16", "data.unlabelled=32", "data.dev=16", "model.width=8"])
EXPERIMENT = CssExperiment.of("digits_css", SETTINGS)


def request_of(
    plan: str = "css_labels", seeds: tuple[int, ...] = (0, 1), vary_data: bool = False, only: Sequence[str] = ()
) -> Request:
    return make_request(load_plan(plan), info_of(EXPERIMENT), EXPERIMENT, seeds, vary_data, only)


def info_of(experiment: CssExperiment) -> RunInfo:
    return RunInfo.of("ablation", experiment, "dev/miou", {})


def found_of(request: Request, score: Callable[[Run], float | None]) -> Ablation:
    """Return an ablation whose runs ended with these scores; none: it failed."""
    outcomes = []
    for number, item in enumerate(request.runs):
        value = score(item)
        metrics = {} if value is None else {"step": 900.0, "val/miou": value, "dev/miou": value + 0.1}
        state, error = ("FAIL", "the loss is not finite") if value is None else ("COMPLETE", None)
        outcomes.append(Outcome(number, item.variant, item.seed, state, metrics, error))
    return Ablation("labels", request, outcomes, "val/miou", "sqlite:////x", 60.0, 120.0)


BASE = {"logit": 0.5, "representation": 0.4, "mix": 0.6, "cross": 0.5}


def found(seeds: tuple[int, ...] = (0, 1, 2)) -> Ablation:
    wobble = {0: 0.00, 1: 0.01, 2: 0.03}
    return found_of(
        request_of(seeds=seeds), lambda item: BASE[item.variant] + wobble[item.seed] * (1 + len(item.variant) / 100)
    )


def line(tmp_path: Path, *words: str) -> list[str]:
    settings = [word for path, value in SETTINGS.items() for word in ("--set", f"{path}={value}")]
    return ["ablate", *words, *settings, "--storage", str(tmp_path), "--tracking-uri", f"sqlite:///{tmp_path}/m.db"]


def refusal(tmp_path: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert run(line(tmp_path, *words)) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_a_dry_run_lists_every_run_and_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(line(tmp_path, "css_labels", "--seeds", "4,7", "--dry-run", "--json")) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [(item["variant"], item["seed"]) for item in listed["runs"]] == [
        (variant, seed) for seed in (4, 7) for variant in ("logit", "representation", "mix", "cross")
    ]
    assert listed["missing"] == 8
    assert list(tmp_path.iterdir()) == []


def planned(tmp_path: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[dict[str, Any], str]:
    """Return the cost of a dry run as numbers, and all that is said to people."""
    assert run([*line(tmp_path, "css_labels", "--seeds", "0,1", "--dry-run"), *words, "--json"]) == 0
    out, said = capsys.readouterr()
    return json.loads(out)["cost"], said


def test_a_dry_run_counts_and_gives_no_hours_that_nobody_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cost, said = planned(tmp_path, capsys)
    assert (cost["trainings"], cost["done"], cost["steps"]) == (8, 0, 8 * 900)
    assert cost["checkpoint"] == counted_bytes(EXPERIMENT.base)
    assert cost["device_hours"] is None
    assert "8: 4 variants, 2 seeds" in said
    assert "7,200: 8 trainings of 900" in said
    assert "not known: nothing is complete here to go by; give --step-seconds" in " ".join(said.split())
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_multiplies_given_seconds_by_steps_and_devices(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cost, said = planned(tmp_path, capsys, "--step-seconds", "0.5", "--workers", "2")
    assert cost["device_hours"] == pytest.approx(8 * 900 * 0.5 * 2 / 3600)
    assert "steps of 500 ms, as given, on 2 devices each" in said


@pytest.mark.parametrize("workers", [1, 2])
def test_a_dry_run_counts_operations_for_a_card(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], workers: int
) -> None:
    words = ["--seeds", "0,1", "--dry-run", "--card", "a100", "--workers-per-gang", str(workers), "--json"]
    assert run(["ablate", "methods", *words, "--storage", str(tmp_path)]) == 0
    out, said = capsys.readouterr()
    cost = json.loads(out)["cost"]
    methods = ("supervised", "mean_teacher", "cutmix", "contrastive", "css_cross", "css_mix")
    experiment = CssExperiment.of("digits_css")
    steps = [step_cost(experiment.configure(method_settings(name)), workers).flops.total for name in methods]
    flops = 2 * 900 * workers * sum(steps)
    assert len(set(steps)) > 1  # a step of each kind is counted, not one for all
    assert cost["flops"] == flops
    assert cost["device_hours"] == pytest.approx(flops / (0.2 * 19.5e12) / 3600)
    assert "on an A100 at 19.5 TFLOP/s (float32), of which 20% are assumed to be reached" in " ".join(said.split())


def test_a_dry_run_of_a_new_ablation_needs_no_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["ablate", "table1", "--dry-run", "--card", "h100", "--storage", str(tmp_path), "--json"]
    assert (
        run([*words, "--only", "92/css_mix", "--only", "92/supervised", "--set", f"data.root={tmp_path / 'none'}"]) == 0
    )
    cost = json.loads(capsys.readouterr().out)["cost"]
    assert (cost["trainings"], cost["steps"], cost["precision"]) == (6, 6 * 40_000, "bfloat16")
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_goes_by_the_trainings_that_are_complete_in_the_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "css_labels"
    request = request_of(seeds=(0,))
    write_request(folder, request)
    with closing(Ledger(folder / LEDGER, "dev/miou")) as ledger:
        for number, state in enumerate((TrialState.COMPLETE, TrialState.COMPLETE, TrialState.FAIL)):
            trial = Trial(number, {}, request.overrides(request.runs[number]))
            ledger.on_start(trial)
            trial.state = state
            ledger.on_end(trial)
        ledger.spent(60.0, 120.0)
    checkpoint = checkpoint_folder(folder / TRIALS, 1) / LATEST
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"x" * 5000)
    cost, said = planned(tmp_path, capsys)
    assert (cost["trainings"], cost["done"], cost["left"], cost["steps"]) == (8, 3, 5, 5 * 900)
    assert (cost["checkpoint"], cost["measured"]) == (5000, True)
    assert cost["device_hours"] == pytest.approx(5 * 60 / 3600)
    assert "3 of them done" in said


def test_variants_of_a_seed_differ_in_nothing_but_what_they_name() -> None:
    request = request_of()
    for seed in request.seeds:
        configs = [
            EXPERIMENT.configure(request.overrides(Run(variant.name, seed))).model_dump()
            for variant in request.variants
        ]
        for config in configs:
            config["css"].pop("label_strategy")
            config["css"].pop("indicator_temperature")
        assert all(config == configs[0] for config in configs)


def test_seeds_draw_the_data_only_when_asked() -> None:
    item = Run("mix", 5)
    for request, seed in ((request_of(), 0), (request_of(vary_data=True), 5)):
        assert EXPERIMENT.configure(request.overrides(item)).data.seed == seed


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    request = request_of(vary_data=True)
    write_request(tmp_path, request)
    assert read_request(tmp_path) == request
    written = replace(found(), request=request_of(seeds=(0, 1, 2)))
    write_request(tmp_path, written.request)
    write_results(tmp_path, written)
    assert read_results(tmp_path) == written


def test_seeds_that_are_added_keep_the_numbers_of_the_runs_before() -> None:
    before = request_of(seeds=(3, 1))
    after = with_seeds(before, (1, 2, 3))
    assert after.runs[: len(before.runs)] == before.runs
    assert {item.seed for item in after.runs[len(before.runs) :]} == {2}


def test_further_seeds_can_be_for_one_variant_and_the_base_alone() -> None:
    before = request_of(seeds=(0, 1))
    after = with_seeds(before, (1, 2), only=["cross"])
    assert after.runs == (*before.runs, Run("logit", 2), Run("cross", 2))
    assert request_of(seeds=(5,), only=["mix"]).runs == (Run("logit", 5), Run("mix", 5))


def test_who_leads_is_judged_by_pairs_where_seeds_differ() -> None:
    """`mix` has two easy seeds more, and so the higher mean; on the seeds of all, `cross` is above it."""
    request = with_seeds(request_of(seeds=(0, 1)), (2, 3), only=["mix"])
    above = {"logit": 0.0, "representation": -0.1, "mix": 0.01, "cross": 0.02}
    outcome = found_of(request, lambda item: 0.5 + above[item.variant] + (0.3 if item.seed > 1 else 0.001 * item.seed))
    assert outcome.summary("mix", "val/miou").mean > outcome.summary("cross", "val/miou").mean
    assert outcome.winner == "cross"
    assert any("read the differences" in said for said in lines(outcome))
    assert not any("read the differences" in said for said in lines(found()))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["css_labels", "--only", "mix,mics"], "--only must name variants of the plan (logit, representation, mix"),
        (["css_labels", "--only", ""], "--only must name variants of the plan"),
        (["css_lables"], "got 'css_lables': did you mean css_labels?"),
        (["css_labels", "--seeds", "1,1"], "--seeds must be different ones, got 1 twice"),
        (["css_labels", "--seeds", "a"], "--seeds must be whole numbers"),
        (["css_labels", "--seeds", "0"], "or how many from 0 on, got '0': for example 0,1,2 or 3"),
        (["css_labels", "--seeds", "2024"], "--seeds must count at most 1000, got 2024: write 2024, for this one seed"),
        (["css_labels", "--metric", "loss"], "--metric must be one of an evaluation"),
        (["css_labels", "--preset", "digit_css"], "got 'digit_css': did you mean digits_css?"),
        (["css_labels", "--set", "css.indicator=confidence"], "css.indicator is set by its variant 'logit'"),
        (["css_labels", "--set", "seed=3"], "--set must leave alone what --seeds decide, got seed"),
        (["css_labels", "--step-seconds", "1"], "--step-seconds must come with --dry-run"),
        (["css_labels", "--card", "a100"], "--card must come with --dry-run"),
        (["css_labels", "--dry-run", "--card", "gtx"], "--card must be one of v100, a100, l40s, h100, h200, got 'gtx'"),
        (["css_labels", "--dry-run", "--card", "a100", "--step-seconds", "1"], "got both: leave one out"),
        (["css_labels", "--name", "a/b"], "a name must be letters"),
    ],
)
def test_wrong_use_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert message in refusal(tmp_path, capsys, *words)


def test_variants_that_are_the_same_config_are_refused() -> None:
    plan = parse_plan("{name: n, source: s, variants: {a: {loss.lambda_u: 1.0}, b: {loss.lambda_c: 0.1}}}")
    plain = CssExperiment.of("digits_css")
    with pytest.raises(UsageError, match="'b' and 'a' of plan n give the same config with digits_css"):
        make_request(plan, info_of(plain), plain, (0,), False)


def test_a_variant_that_does_not_fit_is_named() -> None:
    plan = parse_plan("{name: n, source: s, variants: {a: {loss.lambda_u: 1.0}, b: {loss.lambda_x: 0.1}}}")
    with pytest.raises(UsageError, match=r"variant 'b' of plan n must fit the config: .*lambda_x"):
        make_request(plan, info_of(EXPERIMENT), EXPERIMENT, (0,), False)


def test_another_ablation_under_the_same_name_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_request(tmp_path / "css_labels", request_of())
    assert "the vary data of css_labels differ now" in refusal(tmp_path, capsys, "css_labels", "--vary-data")
    assert "schedule.steps (900 then, 90 now)" in refusal(tmp_path, capsys, "css_labels", "--set", "schedule.steps=90")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "a-file").touch()
    assert "is no ablation" in refusal(tmp_path, capsys, "css_labels", "--name", "taken")


def test_a_finished_one_is_shown_without_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_request(tmp_path / "css_labels", found().request)
    write_results(tmp_path / "css_labels", found())
    assert run([*line(tmp_path, "css_labels", "--seeds", "0,1,2"), "--json"]) == 0
    out, said = capsys.readouterr()
    assert "nothing to train" in said
    assert [row["variant"] for row in json.loads(out)["variants"]] == list(BASE)


def test_the_table_has_what_papers_print() -> None:
    table = {row["variant"]: row for row in found().rows()}
    assert table["logit"]["difference"] is None
    assert table["mix"]["difference"] == pytest.approx(0.1, abs=1e-3)
    assert table["mix"]["ci_low"] < table["mix"]["difference"] < table["mix"]["ci_high"]
    assert table["mix"]["p"] is None
    assert table["mix"]["smallest_p"] == pytest.approx(0.25)
    assert (table["mix"]["verdict"], table["representation"]["verdict"]) == ("better", "worse")


def test_one_seed_says_nothing(tmp_path: Path) -> None:
    table = {row["variant"]: row for row in found(seeds=(0,)).rows()}
    assert table["mix"]["std"] is None
    assert table["mix"]["verdict"] == "too few seeds"


def test_a_single_comparison_that_was_asked_for_is_not_adjusted_for_variants_without_trainings() -> None:
    wobble = {0: 0.0, 1: 0.02, 2: 0.05}
    asked = request_of(seeds=(0, 1, 2), only=["mix"])
    alone = found_of(asked, lambda item: BASE[item.variant] + wobble[item.seed] * (item.variant == "mix"))
    versus = alone.compare("val/miou")
    raw = stats.ttest_1samp([0.1 + by for by in wobble.values()], 0).pvalue
    assert (list(versus), versus["mix"].family) == (["mix"], 1)
    assert versus["mix"].p_t == pytest.approx(raw)
    assert [row["variant"] for row in alone.to_dict()["variants"]] == ["logit", "mix"]
    assert [row[0] for row in to_table(alone).rows] == ["logit", "mix"]
    assert any("Holm-adjusted over 1 variant;" in said for said in lines(alone))
    assert not any("different seeds" in said for said in lines(alone))


def test_a_comparison_that_was_asked_for_counts_though_all_its_trainings_failed() -> None:
    asked = request_of(seeds=(0, 1, 2), only=["mix", "cross"])
    score = {"logit": 0.5, "mix": 0.6, "cross": None}
    broken = found_of(asked, lambda item: score[item.variant] and score[item.variant] + item.seed / 100)
    assert {name: versus.family for name, versus in broken.compare("val/miou").items()} == {"mix": 2, "cross": 2}


def test_trainings_of_an_earlier_session_are_shown_and_counted() -> None:
    later = found_of(with_seeds(request_of(seeds=(0,), only=["cross"]), (0, 1), ["mix"]), lambda item: 0.5)
    assert {name: versus.family for name, versus in later.compare("val/miou").items()} == {"mix": 2, "cross": 2}


def test_a_failed_run_is_left_out_of_its_pairs_and_said() -> None:
    broken = found_of(
        request_of(seeds=(0, 1, 2)),
        lambda item: None if (item.variant, item.seed) == ("mix", 1) else BASE[item.variant] + item.seed / 100,
    )
    table = {row["variant"]: row for row in broken.rows()}
    assert (table["mix"]["n"], table["mix"]["pairs"], table["cross"]["pairs"]) == (2, 2, 3)
    assert "mix with seed 1 failed: the loss is not finite" in lines(broken)


def test_the_smallest_p_that_seeds_allow_is_said() -> None:
    assert any("cannot fall below 0.25 with 3 seeds" in said for said in lines(found()))


def test_noise_of_a_finished_one_says_spread_and_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from search_spaces.ablation import AblationPlan, Variant

    plan = AblationPlan("noise of digits_css", "as it is", "digits_css", "digits_css", (Variant("digits_css", {}),), "")
    request = make_request(plan, info_of(EXPERIMENT), EXPERIMENT, (0, 1, 2, 3), False)
    scores = (0.60, 0.62, 0.58, 0.64)
    write_request(tmp_path / "noise-digits_css", request)
    write_results(tmp_path / "noise-digits_css", found_of(request, lambda item: scores[item.seed]))
    words = line(tmp_path)
    assert run(["noise", "digits_css", "--seeds", "4", *words[1:], "--json"]) == 0
    data: dict[str, Any] = json.loads(capsys.readouterr().out)
    val = data["metrics"]["val/miou"]
    assert val["std"] == pytest.approx(0.0258199)
    assert [needed["seeds"] for needed in val["needed"]] == sorted(
        (needed["seeds"] for needed in val["needed"]), reverse=True
    )


def test_without_validation_images_nothing_is_started(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for at in range(4):
        for kind, value in (("images", 100), ("masks", at % 2)):
            path = tmp_path / "data" / "train" / kind / f"n{at}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (16, 16), value).save(path)
    settings = {"root": tmp_path / "data", "classes": "[a, b]", "height": 16, "width": 16, "labelled": 2, "dev": 1}
    words = [word for name, value in settings.items() for word in ("--set", f"data.{name}={value}")]
    storage = tmp_path / "runs"
    assert run(["ablate", "css_labels", "--preset", "camvid_css", *words, "--storage", str(storage)]) == 2
    assert "val/images must be a folder of images, got no such folder" in capsys.readouterr().err
    assert not storage.exists()
