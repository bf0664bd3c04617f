"""Crossing plans: groups with a base each, methods by name, lists by seed, and the data of every run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from invented.ablations import STRONG, made_ablation, made_request
from scipy import stats

from harness.ablation.request import Run, begun, read_request, with_digests, with_seeds, write_request
from harness.ablation.results import Ablation
from harness.ablation.run import lines, to_table
from harness.cli.main import run
from harness.experiment import CssExperiment
from harness.reporting.ablation.comparison import cautions
from harness.reporting.ablation.differences import by_class, measured
from harness.reporting.ablation.overview import lead
from harness.reporting.ablation.record import read_record
from harness.reporting.ablation.report import ablation_document
from harness.reporting.document import Table
from harness.reporting.reports import report_on
from harness.tables import table_csv, table_latex
from search_spaces.ablation import Variant, parse_plan
from trainers.errors import UsageError
from trainers.methods import METHODS
from trainers.overrides import parse_settings

PLAN = """
name: made_up
source: nowhere
base: supervised
cross:
  labels: {"16": {data.labelled: 16}, "32": {data.labelled: 32}}
  methods: [supervised, contrastive, css_mix]
"""
PUBLISHED = """
published_of: VOC, ResNet-101, mIoU in %
published: {16/supervised: [51.57, 3.58, about], 16/css_mix: 68.09}
"""
SEEDS = (0, 1, 2)
SETTINGS = parse_settings(["schedule.steps=60", "schedule.evaluate_every=20", "data.dev=8"])
EXPERIMENT = CssExperiment.of("digits_css", SETTINGS)


@pytest.fixture(scope="module")
def ablation(tmp_path_factory: pytest.TempPathFactory) -> Ablation:
    folder = tmp_path_factory.mktemp("crossing") / "a"
    return made_ablation(folder, request=made_request(SEEDS, plan=PLAN))


@pytest.fixture(scope="module")
def folder(ablation: Ablation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("again") / "a"
    made_ablation(folder, request=ablation.request)
    return folder


def test_a_variant_is_compared_with_the_base_of_its_group_and_all_comparisons_are_one_family(
    ablation: Ablation,
) -> None:
    compared = ablation.compare("val/miou")
    assert [*compared] == ["16/contrastive", "16/css_mix", "32/contrastive", "32/css_mix"]
    for name, versus in compared.items():
        ours, base = (ablation.scores(each, "val/miou") for each in (name, f"{name[:2]}/supervised"))
        raw = stats.ttest_rel([*ours.values()], [*base.values()])
        assert versus.difference == pytest.approx(sum(ours[seed] - base[seed] for seed in SEEDS) / 3)
        assert versus.family == 4
        assert versus.p_t is not None
        assert versus.p_t >= min(1.0, raw.pvalue)
    smallest = min(compared, key=lambda name: compared[name].p_t or 1.0)
    raw = stats.ttest_rel(
        [*ablation.scores(smallest, "val/miou").values()],
        [*ablation.scores(f"{smallest[:2]}/supervised", "val/miou").values()],
    )
    assert compared[smallest].p_t == pytest.approx(4 * raw.pvalue)


def test_each_group_has_a_variant_that_leads_and_the_whole_has_none(ablation: Ablation) -> None:
    assert ablation.winner is None
    assert ablation.winners == {"16": "16/css_mix", "32": "32/contrastive"}


def test_the_table_has_a_row_a_level_and_a_column_a_group(ablation: Ablation, folder: Path) -> None:
    tables = {table.name: table for table in ablation_document(ablation, folder).tables}
    crossing = tables["crossing"]
    assert [column.title for column in crossing.columns] == ["variant", "16", "32"]
    over = ablation.summary("32/css_mix", "val/miou")
    assert crossing.rows[2][0] == "css_mix"
    assert crossing.rows[2][2] == f"{over.mean:.4f} ± {over.std:.4f}"
    assert crossing.exact is not None
    assert [row[:2] for row in crossing.exact.rows][:2] == [["16", "supervised"], ["16", "contrastive"]]
    assert r"css\_mix & " in table_latex(crossing)
    sets = "loss.lambda_u = 0.0, loss.lambda_c = 0.0, evaluation.network = student, data.labelled = 16"
    assert tables["variants"].rows[0][1] == f"the base: {sets}"
    assert "data.labelled" not in str(tables["variants"].rows[1][1])


def test_the_highest_mean_of_a_column_is_bold_where_it_is_beyond_noise(ablation: Ablation, folder: Path) -> None:
    tables = {table.name: table for table in ablation_document(ablation, folder).tables}
    better = {name for name, versus in ablation.compare("val/miou").items() if versus.verdict == "better"}
    assert "16/css_mix" in better
    assert tables["crossing"].bold == {(2, 1)}
    assert tables["comparison"].bold == {(2, 2)}


def test_a_report_is_written_in_all_formats(folder: Path) -> None:
    written = report_on(folder)[0].parent
    assert (written / "tables" / "crossing.csv").read_text().startswith("group,level,n,mean,std,pairs,difference,")
    assert "| variant | 16 | 32 |" in (written / "report.md").read_text()
    assert (written / "tables" / "crossing.tex").exists()


def test_differences_by_seed_image_and_class_are_within_a_group(ablation: Ablation, folder: Path) -> None:
    record = read_record(ablation, folder)
    rows = {row.variant: row for row in measured(record)}
    assert [*rows] == ["16/contrastive", "16/css_mix", "32/contrastive", "32/css_mix"]
    for row in rows.values():
        assert row.images is not None
        assert row.images.difference == pytest.approx(row.versus.difference, abs=1e-12)
    one = by_class(record)[2].difference
    assert [*one] == [*rows]
    over = [ablation.summary(name, "val/iou/1").mean or 0.0 for name in ("32/css_mix", "32/supervised")]
    assert by_class(record)[1].difference["32/css_mix"].mean == pytest.approx(over[0] - over[1])


def test_the_terminal_leaves_a_line_between_groups(ablation: Ablation) -> None:
    table: Table = to_table(ablation)
    assert [row[0] for row in table.rows][2:4] == ["16/css_mix", "32/supervised"]
    assert table.gaps == {3}
    assert any("Holm-adjusted over 4 variants" in said for said in lines(ablation))
    assert lead(ablation).startswith("16/css_mix (+")


def test_a_method_by_name_stands_for_its_settings_and_what_is_set_beside_it_counts() -> None:
    plan = "name: n\nsource: s\nvariants: {a: {method: css_mix}, b: {method: css_mix, css.indicator_temperature: 0.2}}"
    request = made_request((0,), plan=plan)
    assert dict(request.variant("a").overrides) == dict(METHODS["css_mix"])
    assert request.difference("b") == {"css.indicator_temperature": 0.2}


def test_a_method_that_there_is_none_of_is_refused_by_the_variant() -> None:
    plan = "name: n\nsource: s\nmethods: [cutmix, css_mxi]"
    with pytest.raises(UsageError, match=r"variant 'css_mxi' of plan n must name a method: .* did you mean css_mix\?"):
        made_request((0,), plan=plan)


def test_a_request_with_groups_is_read_as_it_was_written(ablation: Ablation, tmp_path: Path) -> None:
    request = with_digests(ablation.request, EXPERIMENT)
    write_request(tmp_path, request)
    assert read_request(tmp_path) == request
    assert "groups" not in read_request(tmp_path).info.request


@pytest.mark.parametrize(
    ("word", "names"),
    [
        ("32/css_mix", ["32/supervised", "32/css_mix"]),
        ("32", ["32/supervised", "32/contrastive", "32/css_mix"]),
        ("css_mix", ["16/supervised", "16/css_mix", "32/supervised", "32/css_mix"]),
    ],
)
def test_variants_are_asked_for_by_name_group_or_level_and_their_bases_come_along(word: str, names: list[str]) -> None:
    request = made_request((0,), plan=PLAN, only=[word])
    assert [item.variant for item in request.runs] == names
    assert [variant.name for variant in request.tried] == names
    assert with_seeds(request, (0,), ["32"]).groups in {("16", "32"), ("32",)}


def test_published_values_stand_beside_ours_in_page_csv_and_latex_and_say_what_they_are_of(tmp_path: Path) -> None:
    plan = PLAN + PUBLISHED
    made = made_ablation(tmp_path / "a", request=made_request(SEEDS, plan=plan))
    assert read_request(tmp_path / "a").published == parse_plan(plan).published
    tables = {table.name: table for table in ablation_document(made, tmp_path / "a").tables}
    crossing, listed = tables["crossing"], tables["comparison"]
    assert [column.title for column in crossing.columns][1:] == ["16", "published", "32", "published"]
    assert [row[2] for row in crossing.rows] == ["~51.57 ± 3.58", None, "68.09"]
    assert crossing.bold == {(2, 1)}
    assert "published" not in [column.title for column in listed.columns]
    assert "Published: VOC, ResNet-101, mIoU in %, as printed there. A ~ marks" in crossing.caption
    assert "Ours: digits, tiny." in crossing.caption
    assert "published" not in [column.title for column in tables["crossing-dev-miou"].columns]
    csv = table_csv(crossing).splitlines()
    assert csv[0].endswith("verdict,published,published_spread,published_about")
    assert csv[1].endswith(",51.57,3.58,True")
    assert csv[2].endswith(",,,")
    assert r"\textasciitilde{}51.57 $\pm$ 3.58" in table_latex(crossing)


def test_published_values_of_a_plan_of_one_factor_stand_in_the_table_of_the_comparison(tmp_path: Path) -> None:
    published = "published_of: VOC\npublished: {css_mix: [68.09, 4.89]}"
    plan = f"name: made_up\nsource: s\nmethods: [cutmix, css_mix]\n{published}"
    made = made_ablation(tmp_path / "a", request=made_request(SEEDS, plan=plan))
    tables = {table.name: table for table in ablation_document(made, tmp_path / "a").tables}
    assert [row[3] for row in tables["comparison"].rows] == [None, "68.09 ± 4.89"]
    assert table_csv(tables["comparison"]).splitlines()[2].endswith(",68.09,4.89,False")
    assert "Published: VOC, as printed there. Ours: digits, tiny." in tables["comparison"].caption
    assert "~" not in tables["comparison"].caption


def test_published_values_that_a_plan_gets_later_are_shown_of_an_ablation_that_began_without(tmp_path: Path) -> None:
    write_request(tmp_path, made_request((0,), plan=PLAN))
    asked = made_request((0,), plan=PLAN + PUBLISHED)
    again = begun(tmp_path, asked)
    assert again is not None
    assert again.published == asked.published


def test_a_list_can_be_chosen_by_the_seed_which_then_draws_the_data() -> None:
    made = made_request((0, 1))
    lists = Variant(STRONG, {"data.labelled": "lists/{seed}.txt"})
    request = replace(made, variants=(made.variants[0], lists, *made.variants[2:]))
    assert request.overrides(Run(STRONG, 1)) == {"data.labelled": "lists/1.txt", "seed": 1}
    assert request.difference(STRONG)["data.labelled"] == "lists/{seed}.txt"
    assert request.draws_data
    assert not made_request((0, 1)).draws_data


def test_seeds_with_lists_of_their_own_are_not_said_to_share_their_images(ablation: Ablation) -> None:
    drawn = replace(ablation, request=replace(ablation.request, vary_data=True))
    assert any("same labelled images" in text for text in cautions(ablation))
    assert not any("same labelled images" in text for text in cautions(drawn))


def test_runs_with_data_of_their_own_must_keep_it(ablation: Ablation) -> None:
    request = with_digests(ablation.request, EXPERIMENT)
    assert len(request.digests) == len(request.runs)
    assert len(set(request.digests.values())) == 2
    assert with_digests(request, EXPERIMENT) == request
    moved = replace(request, digests={**request.digests, "32/css_mix, seed 1": "0ther"})
    with pytest.raises(UsageError, match=r"the splits of 32/css_mix, seed 1 had digest 0ther and now have"):
        with_digests(moved, EXPERIMENT)


def test_runs_with_the_data_of_the_base_have_no_hash_of_their_own() -> None:
    request = made_request((0, 1))
    assert with_digests(request, EXPERIMENT).digests == {}
    varied = with_digests(replace(request, vary_data=True), EXPERIMENT)
    assert len(set(varied.digests.values())) == 2


def test_a_crossing_plan_is_shown_once_it_is_finished(
    ablation: Ablation, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["report", "a", "--storage", str(folder.parent)]) == 0
    assert "32/contrastive" in capsys.readouterr().out
