"""The numbers in the report of an ablation: they are those of the comparison, of scipy and of closed forms."""

import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from invented.ablations import (
    ABSENT,
    IMAGES,
    ODD,
    PLAIN,
    STRONG,
    made_ablation,
    made_evaluation,
    made_request,
    right_of,
)
from scipy import stats

from harness.ablation.results import Ablation
from harness.reporting.ablation.comparison import EXACT, compared, correlation, pairings, scores, shared_scatter
from harness.reporting.ablation.differences import by_class, classes, forest, image_noise, measured
from harness.reporting.ablation.record import AblationRecord, read_record
from harness.reporting.ablation.trainings import curves
from harness.reporting.document import Figure, Section, Table
from harness.statistics.bootstrap import image_bootstrap
from harness.statistics.power import seeds_needed

METRIC = "val/miou"


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> AblationRecord:
    folder = tmp_path_factory.mktemp("numbers") / "a"
    return read_record(made_ablation(folder), folder)


@pytest.fixture
def ablation(record: AblationRecord) -> Ablation:
    return record.ablation


def table_of(section: Section, name: str) -> Table:
    return next(block for block in section.blocks if isinstance(block, Table) and block.name == name)


def figure_of(section: Section, name: str) -> Figure:
    return next(block for block in section.blocks if isinstance(block, Figure) and block.name == name)


def exact_rows(table: Table) -> list[dict[str, Any]]:
    assert table.exact is not None
    return [dict(zip(table.exact.columns, row, strict=True)) for row in table.exact.rows]


@pytest.mark.parametrize("metric", ["val/miou", "dev/miou"])
def test_the_csv_of_the_comparison_is_that_of_the_results(record: AblationRecord, metric: str) -> None:
    expected = [{key: row[key] for key in EXACT} for row in record.ablation.rows(metric)]
    assert exact_rows(compared(record, metric)) == expected


def test_cells_of_the_comparison_are_the_same_numbers_rounded(record: AblationRecord) -> None:
    row = next(row for row in record.ablation.rows(METRIC) if row["variant"] == STRONG)
    cells = compared(record, METRIC).rows[1]
    assert cells[2] == f"{row['mean']:.4f} ± {row['std']:.4f}"
    assert cells[3] == f"{row['difference']:+.4f} [{row['ci_low']:+.4f}, {row['ci_high']:+.4f}]"


def test_the_best_mean_is_bold_where_it_is_better_by_verdict(record: AblationRecord) -> None:
    assert record.ablation.compare(METRIC)[STRONG].verdict == "better"
    assert compared(record, METRIC).bold == {(1, 2)}


def test_the_best_mean_is_not_bold_where_it_is_within_noise_and_the_caption_says_why(tmp_path: Path) -> None:
    ablation = made_ablation(tmp_path / "a", failed=[(STRONG, seed) for seed in (0, 1, 2)])
    table = compared(read_record(ablation, tmp_path / "a"), METRIC)
    assert (ablation.winner, table.bold) == (ODD, frozenset())
    assert f"No mean is bold: the highest, of {ODD}, is not beyond noise." in table.caption


def test_single_scores_stand_below_their_seed(ablation: Ablation) -> None:
    table = scores(ablation, METRIC)
    assert [column.title for column in table.columns] == ["variant", "seed 0", "seed 1", "seed 2"]
    assert table.rows[2] == [ODD, *(ablation.scores(ODD, METRIC)[seed] for seed in (0, 1, 2))]


def test_the_forest_shows_each_seed_and_the_interval_over_seeds(record: AblationRecord) -> None:
    figure = figure_of(forest(record), "forest")
    mine = [row[1:] for row in figure.data.rows if row[0] == STRONG]
    base, strong = (record.ablation.scores(name, METRIC) for name in (PLAIN, STRONG))
    versus = record.ablation.compare(METRIC)[STRONG]
    assert mine[:3] == [["seed", seed, strong[seed] - base[seed], None, None] for seed in (0, 1, 2)]
    assert mine[3] == ["seeds", None, versus.difference, versus.ci_low, versus.ci_high]


def test_the_interval_over_images_is_the_bootstrap_of_all_paired_seeds(record: AblationRecord) -> None:
    runs = {(run.variant, run.seed): run for run in record.ablation.request.runs}
    a, b = (
        np.stack([made_evaluation(runs[name, seed], "val", record.ablation.request).confusion for seed in (0, 1, 2)])
        for name in (STRONG, PLAIN)
    )
    assert image_noise(record, STRONG) == image_bootstrap(a, b)


def test_both_intervals_are_of_the_same_difference(record: AblationRecord) -> None:
    for one in measured(record):
        assert one.images is not None
        assert (one.images.images, one.images.seeds) == (IMAGES, 3)
        assert one.images.difference == pytest.approx(one.versus.difference, abs=1e-12)


def test_a_metric_other_than_miou_has_no_interval_over_images(tmp_path: Path) -> None:
    ablation = made_ablation(tmp_path / "a", metric="val/accuracy")
    section = forest(read_record(ablation, tmp_path / "a"))
    assert all(row["images"] is None for row in exact_rows(table_of(section, "noise")))


def test_class_differences_have_the_paired_t_interval(record: AblationRecord) -> None:
    between = by_class(record)[3].difference[STRONG]
    ours, base = (record.ablation.scores(name, "val/iou/2") for name in (STRONG, PLAIN))
    values = [ours[seed] - base[seed] for seed in (0, 1, 2)]
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (between.mean, between.low, between.high) == pytest.approx((statistics.fmean(values), low, high))


def test_classes_that_never_occur_have_no_row(record: AblationRecord) -> None:
    names = [row[0] for row in table_of(classes(record), "classes").rows]
    assert names == [name for name in record.ablation.request.classes if name != ABSENT]


def test_class_differences_are_bold_where_their_interval_lies_beside_zero(record: AblationRecord) -> None:
    table = table_of(classes(record), "class-differences")
    for index, name in enumerate(row[0] for row in table.rows):
        one = next(each for each in by_class(record) if each.name == name).difference[STRONG]
        assert one.low is not None
        assert ((index, 1) in table.bold) == (one.low > 0 or one.high < 0)


def test_learning_curves_are_means_with_the_lowest_and_the_highest_seed(record: AblationRecord) -> None:
    data = figure_of(curves(record), "learning-curves").data
    last = next(row for row in data.rows if row[:3] == [60, ODD, "dev/miou"])
    values = [right_of(run) for run in record.ablation.request.runs if run.variant == ODD]
    assert last[3:] == [3, pytest.approx(statistics.fmean(values)), min(values), max(values)]


def test_pairing_is_measured_by_the_spreads_and_the_correlation_of_scipy(ablation: Ablation) -> None:
    pair = next(one for one in pairings(ablation) if one.variant == ODD)
    ours, base = ([ablation.scores(name, METRIC)[seed] for seed in (0, 1, 2)] for name in (ODD, PLAIN))
    assert pair.std == pytest.approx(np.std(np.subtract(ours, base), ddof=1))
    assert pair.unpaired_std**2 == pytest.approx(np.var(ours, ddof=1) + np.var(base, ddof=1))
    assert pair.correlation == pytest.approx(stats.pearsonr(ours, base).statistic)


def test_seeds_needed_are_those_of_the_difference_that_was_found(ablation: Ablation) -> None:
    for pair in pairings(ablation):
        assert pair.needed == seeds_needed(pair.difference, pair.std)
        assert pair.needed_upper is not None
        assert pair.needed is not None
        assert pair.needed_upper >= pair.needed


@pytest.mark.parametrize(("values", "others"), [([1.0, 2.0], [1.0, 3.0]), ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0])])
def test_too_few_or_constant_scores_have_no_correlation(values: list[float], others: list[float]) -> None:
    assert correlation(values, others) is None


def test_variants_that_only_differ_by_a_constant_share_all_scatter() -> None:
    scores = {0: 0.1, 1: 0.4, 2: 0.2}
    assert shared_scatter([scores, {seed: value + 0.3 for seed, value in scores.items()}]) == pytest.approx(1)


def test_variants_that_scatter_against_each_other_share_none() -> None:
    assert shared_scatter([{0: 0.1, 1: 0.3}, {0: 0.9, 1: 0.7}]) == pytest.approx(0)


def test_unrelated_variants_share_one_part_in_their_number_on_average() -> None:
    draw = np.random.default_rng(0)
    shares = [shared_scatter([dict(enumerate(draw.normal(size=4).tolist())) for _ in range(5)]) for _ in range(2000)]
    # a share has a standard deviation of 0.1 here, its mean over 2000 of them one of 0.0025
    assert np.mean(np.array(shares, float)) == pytest.approx(1 / 5, abs=0.01)


def test_scatter_that_is_shared_is_that_of_the_two_way_table(ablation: Ablation) -> None:
    table = np.array([[ablation.scores(name, METRIC)[seed] for seed in (0, 1, 2)] for name in (PLAIN, STRONG, ODD)])
    centred = table - table.mean(axis=1, keepdims=True)
    between = len(table) * ((table.mean(axis=0) - table.mean()) ** 2).sum()
    known = [ablation.scores(name, METRIC) for name in (PLAIN, STRONG, ODD)]
    assert shared_scatter(known) == pytest.approx(between / (centred**2).sum())


def test_a_plan_of_six_variants_gets_a_panel_each(tmp_path: Path) -> None:
    levels = "name: l\nsource: nowhere\nlevels: {path: loss.lambda_u, values: [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]}"
    ablation = made_ablation(tmp_path / "a", request=made_request((0, 1), plan=levels))
    figure = figure_of(curves(read_record(ablation, tmp_path / "a")), "learning-curves")
    assert "The dashed line in every panel is lambda_u=0.5." in figure.caption
