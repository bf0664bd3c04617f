"""Prepared views, as MLflow's pages write them."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

from recorded import Store

from harness.tracking.views import Chart, view_key, view_value

CHARTS = [Chart("mean/val/miou", "BAR"), Chart("mean/dev/miou", "BAR"), Chart("dev/miou", "LINE")]


def unpacked(value: str) -> dict[str, Any]:
    packed = json.loads(value)["state"].removeprefix("deflate;")
    state: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(packed)))
    return state


def test_every_chart_stands_in_a_section_that_there_is() -> None:
    state = unpacked(view_value("v", "tags.a = 'b'", "mean/val/miou", CHARTS, 1))
    sections = {section["uuid"] for section in state["compareRunSections"]}
    assert {chart["metricSectionId"] for chart in state["compareRunCharts"]} == sections
    assert [chart["metricKey"] for chart in state["compareRunCharts"]] == [chart.metric for chart in CHARTS]


def test_a_view_fits_into_a_tag_of_an_experiment() -> None:
    many = [Chart(f"some/long/metric/name/of/number/{index}", "LINE") for index in range(30)]
    assert len(view_value("v", "c", "m", many, 1)) < 5000


def test_the_key_of_a_view_is_the_same_each_time_and_fits_an_address() -> None:
    assert view_key("my_search.2", "runs") == "s4-my-search-2-runs"


def test_a_view_shows_its_columns_in_their_order_each_wide_enough_for_its_title() -> None:
    columns = ["tags.s4.verdict", "metrics.mean/val/miou", "params.loss.lambda_u"]
    state = unpacked(view_value("v", "c", "m", CHARTS, 1, columns))
    assert state["selectedColumns"] == ["tags.`s4.verdict`", "metrics.`mean/val/miou`", "params.`loss.lambda_u`"]
    assert state["columnOrder"] == state["selectedColumns"] == [*state["columnWidths"]]
    assert min(state["columnWidths"].values()) >= 8 * len("loss.lambda_u")


def test_runs_of_a_view_are_grouped_by_a_tag_where_it_says_so() -> None:
    state = unpacked(view_value("v", "c", "m", CHARTS, 1, group_by="s4.variant"))
    keys = [{"mode": "tag", "groupByData": "s4.variant"}]
    assert state["groupBy"] == {"aggregateFunction": "average", "groupByKeys": keys}
    assert unpacked(view_value("v", "c", "m", CHARTS, 1))["groupBy"] is None


def test_a_chart_of_params_and_score_has_all_runs_and_the_whole_width() -> None:
    chart = Chart("best/dev_miou", "PARALLEL", ["loss.lambda_u", "css.label_strategy"])
    state = unpacked(view_value("v", "c", "m", [chart, Chart("best/dev_miou", "BAR")], 1))
    drawn, bars = state["compareRunCharts"]
    assert (drawn["selectedParams"], drawn["selectedMetrics"]) == ([*chart.params], ["best/dev_miou"])
    assert drawn["showAllRuns"]
    columns = {section["uuid"]: section["columns"] for section in state["compareRunSections"]}
    assert columns[drawn["metricSectionId"]] == 1 < columns[bars["metricSectionId"]]


def test_a_summary_has_the_tags_of_all_runs_of_the_search(store: Store) -> None:
    recorder = store.recorder("ablation", "labels")
    recorder.aggregate("mix", "mix", {"mean/val/miou": 0.5})
    recorder.close()
    assert store.run("mix").data.tags["s4.search"] == "labels"
    assert store.run("mix").data.tags["s4.preset"] == "digits_css"
